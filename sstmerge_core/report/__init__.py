"""The report: tables of a pair's runs, statements computed from them, claims checked, as Markdown or HTML."""
