"""A report as LaTeX, to be \\input after \\appendix: sections, booktabs tables with captions and labels, no figures.

Needs the packages booktabs, longtable and graphicx. Links into the app become plain text.
"""

from __future__ import annotations

from collections.abc import Sequence

from sstmerge_core.plots.export import tex
from sstmerge_core.report.document import Block, Bullets, Chart, Report, Section, Table
from sstmerge_core.report.html import spans

LONG = 30
"""Rows beyond which a table breaks over pages"""
_HEAD = """% Written by SST-Merge Studio; \\input this file after \\appendix.
% \\usepackage{booktabs,longtable,graphicx}, and \\usepackage[utf8]{inputenc} where the engine is old.
"""
_SECTIONS = {2: "section", 3: "subsection"}
_SIGNS = {"↑": r"$\uparrow$", "↓": r"$\downarrow$", "→": r"$\rightarrow$", "←": r"$\leftarrow$", "Δ": r"$\Delta$"}
_SIGNS |= {
    "∞": r"$\infty$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "×": r"$\times$",
    "÷": r"$\div$",
    "·": r"$\cdot$",
    "…": r"\dots{}",
}
_SIGNS |= {"<": r"\textless{}", ">": r"\textgreater{}", "\u00a0": "~", "\u2060": "", "“": "``", "”": "''", "’": "'"}


def document(report: Report) -> str:
    """The whole report; labels are ``sec:sst-N`` and ``tab:sst-N``."""
    parts = [_HEAD, inline(report.about)]
    parts += [_section(number, section) for number, section in enumerate(report.sections, start=1)]
    return "\n\n".join(parts) + "\n"


def _section(number: int, section: Section) -> str:
    name = _SECTIONS.get(section.level, "subsubsection")
    head = f"\\{name}{{{inline(section.title)}}}\\label{{sec:sst-{number}}}"
    return "\n\n".join([head, *filter(None, map(_block, section.blocks))])


def _block(block: Block) -> str:
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Bullets):
        items = "\n".join(f"  \\item {inline(item)}" for item in block.items)
        return f"\\begin{{itemize}}\n{items}\n\\end{{itemize}}"
    return "" if isinstance(block, Chart) else inline(block)


def _table(table: Table) -> str:
    """As wide as the text at most; one of many rows goes over pages, in small letters."""
    columns = "l" * table.texts + "r" * (len(table.head) - table.texts)
    title = f"{inline(table.title.rstrip('.?'))}." if table.title else ""
    caption = f"\\caption{{{' '.join(filter(None, [title, inline(table.caption)]))}}}\\label{{tab:sst-{table.number}}}"
    head = _row(table.head)
    rows = "\n".join(map(_row, table.rows))
    if len(table.rows) > LONG:
        return (
            f"{{\\scriptsize\\setlength{{\\tabcolsep}}{{3pt}}\n\\begin{{longtable}}{{{columns}}}\n{caption}\\\\\n\\toprule\n{head}\n"
            f"\\midrule\n\\endfirsthead\n\\toprule\n{head}\n\\midrule\n\\endhead\n{rows}\n\\bottomrule\n"
            "\\end{longtable}}"
        )
    body = f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{head}\n\\midrule\n{rows}\n\\bottomrule\n\\end{{tabular}}"
    fits = f"\\resizebox{{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}}{{!}}{{%\n{body}}}"
    return f"\\begin{{table}}[htbp]\n\\centering\n{caption}\n{fits}\n\\end{{table}}"


def _row(cells: Sequence[str]) -> str:
    return " & ".join(map(inline, cells)) + " \\\\"


def inline(text: str) -> str:
    """The report's small Markdown as LaTeX: bold and code stay, a link is the text that it shows."""
    parts = []
    for kind, shown in spans(text):
        if kind == "text":
            parts.append(_plain(shown))
        elif kind == "link":
            parts.append(inline(shown))
        else:
            inner = inline(shown) if kind == "strong" else _plain(shown)
            parts.append(f"\\text{'bf' if kind == 'strong' else 'tt'}{{{inner}}}")
    return "".join(parts)


def _plain(text: str) -> str:
    """`export.tex` keeps no blank at the ends, which matters between two spans."""
    before, after = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
    escaped = tex(text)
    for sign, command in _SIGNS.items():
        escaped = escaped.replace(sign, command)
    return f"{' ' if before else ''}{escaped}{' ' if after and text.strip() else ''}"
