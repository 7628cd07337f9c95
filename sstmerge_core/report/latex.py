"""A report as LaTeX: sections, booktabs tables with captions and labels, no figures.

The file compiles by itself, and is \\input after \\appendix of a document with the packages array, booktabs and
longtable. Links into the app become plain text.
"""

from __future__ import annotations

from sstmerge_core.plots import tex
from sstmerge_core.report.document import Block, Bullets, Chart, Report, Section, Table
from sstmerge_core.report.html import spans

_HEAD = rf"""% Written by SST-Merge Studio. Compile it as it is, or \input it after \appendix in a document that has
% \usepackage{{array,booktabs,longtable}}. Letters that pdfLaTeX has no font for need XeLaTeX or LuaLaTeX and one.
\makeatletter
\ifx\@nodocument\relax\def\sstend{{}}\else
\documentclass[a4paper]{{article}}
\usepackage[margin=25mm]{{geometry}}
\usepackage{{array,booktabs,longtable}}
\def\sstend{{\end{{document}}}}
\begin{{document}}
\fi
\makeatother
{tex.CHARACTER}
"""
_SECTIONS = {2: "section", 3: "subsection"}


def document(report: Report) -> str:
    """The whole report; labels are ``sec:sst-N`` and ``tab:sst-N``."""
    parts = [_HEAD, inline(report.about)]
    parts += [_section(number, section) for number, section in enumerate(report.sections, start=1)]
    return "\n\n".join([*parts, "\\sstend"]) + "\n"


def _section(number: int, section: Section) -> str:
    name = _SECTIONS.get(section.level, "subsubsection")
    head = f"\\{name}{{{inline(section.title)}}}\\label{{sec:sst-{number}}}"
    return "\n\n".join([head, *filter(None, map(_block, section.blocks))])


def _block(block: Block) -> str:
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Bullets):
        items = "\n".join(f"  \\item {tex.first(inline(item))}" for item in block.items)
        return f"\\begin{{itemize}}\n{items}\n\\end{{itemize}}"
    return "" if isinstance(block, Chart) else inline(block)


def _table(table: Table) -> str:
    title = f"{inline(table.title.rstrip('.?'))}." if table.title else ""
    caption = " ".join(filter(None, [title, inline(table.caption)]))
    head, *rows = ([inline(cell) for cell in cells] for cells in (table.head, *table.rows))
    return tex.table(head, rows, caption=caption, label=f"tab:sst-{table.number}", texts=table.texts)


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
    """`tex.text` keeps no blank at the ends, which matters between two spans."""
    before, after = text[: len(text) - len(text.lstrip(" "))], text[len(text.rstrip(" ")) :]
    return f"{' ' if before else ''}{tex.text(text)}{' ' if after and text.strip() else ''}"
