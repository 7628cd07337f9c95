"""A report as one HTML page with its figures inside; it opens without a network."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

import plotly.graph_objects as go

from sstmerge_core.plots import standalone
from sstmerge_core.report.document import Block, Bullets, Chart, Report, Section, Table, with_app

_INLINE = re.compile(
    r"\\(?P<escaped>.)|\[(?P<text>(?:\\.|[^\]\\])*)\]\((?P<target>[^)\s]+)\)|\*\*(?P<strong>(?:\\.|[^*\\])+)\*\*"
    r"|`(?P<code>[^`]+)`|(?P<plain>[^\\\[*`]+|.)",
    re.DOTALL,
)
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root{{color-scheme:light dark;--text:#1b2430;--soft:#5c6672;--line:#dce1e7;--head:#f2f4f6;--back:#fdfdfc;
--link:#1f5fa8}}
@media (prefers-color-scheme:dark){{:root{{--text:#e5e9ef;--soft:#a3adba;--line:#313a47;--head:#1b212b;--back:#12161d;
--link:#8db8f5}}}}
body{{font:15px/1.55 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:var(--text);
background:var(--back)}}
a{{color:var(--link)}} h1{{font-size:1.6rem}} h2{{font-size:1.25rem;margin-top:2.2rem}} h3{{font-size:1.05rem}}
.wide{{overflow-x:auto;margin:1rem 0}} table{{border-collapse:collapse;font-variant-numeric:tabular-nums}}
th,td{{border-bottom:1px solid var(--line);padding:.3rem .7rem;text-align:left;vertical-align:top}}
th{{background:var(--head)}} .figure{{text-align:right;white-space:nowrap}} .caption{{color:var(--soft);font-size:.9em}}
.chart{{background:#fff;border-radius:.4rem;overflow:hidden}} nav ul{{columns:18rem;list-style:none;padding:0}}
</style></head>
<body>
<h1>{title}</h1>
<p class="caption">{about}</p>
{contents}
{script}
{body}
</body></html>
"""


def page(report: Report, *, app: str = "") -> str:
    """The page (1.2 MB more where it has figures: plotly.js is in it once); `app` is where links lead."""
    charts: list[go.Figure] = []
    body = "\n".join(_section(number, section, charts, app) for number, section in enumerate(report.sections))
    tops = [(number, section) for number, section in enumerate(report.sections) if section.level == 2]
    links = "".join(f'<li><a href="#s{number}">{_inline(section.title, app)}</a></li>' for number, section in tops)
    contents = f"<nav><ul>{links}</ul></nav>" if len(tops) > 1 else ""
    return _PAGE.format(
        title=html.escape(report.title),
        about=_inline(report.about, app),
        contents=contents,
        script=standalone.script(charts),
        body=body,
    )


def _section(number: int, section: Section, charts: list[go.Figure], app: str) -> str:
    heading = f'<h{section.level} id="s{number}">{_inline(section.title, app)}</h{section.level}>'
    return "\n".join([heading, *(_block(block, charts, app) for block in section.blocks)])


def _block(block: Block, charts: list[go.Figure], app: str) -> str:
    if isinstance(block, Table):
        return _table(block, app)
    if isinstance(block, Bullets):
        return "<ul>" + "".join(f"<li>{_inline(item, app)}</li>" for item in block.items) + "</ul>"
    if isinstance(block, Chart):
        charts.append(block.figure)
        drawn = standalone.drawn(block.figure)
        return f'<div class="chart" role="img" aria-label="{html.escape(block.alt)}">{drawn}</div>'
    return f"<p>{_inline(block, app)}</p>"


def _table(table: Table, app: str) -> str:
    def line(cells: tuple[str, ...], tag: str) -> str:
        shown = (
            f"<{tag}{'' if index < table.texts else ' class=figure'}>{_inline(cell, app)}</{tag}>"
            for index, cell in enumerate(cells)
        )
        return f"<tr>{''.join(shown)}</tr>"

    body = "".join(line(row, "td") for row in table.rows)
    caption = f'<p class="caption">{_inline(table.legend, app)}</p>' if table.legend else ""
    return (
        f'<div class="wide"><table><thead>{line(table.head, "th")}</thead><tbody>{body}</tbody></table></div>{caption}'
    )


def _inline(text: str, app: str) -> str:
    """The report's small Markdown as HTML, everything else escaped."""
    return "".join(_span(found) for found in _INLINE.finditer(with_app(text, app)))


def spans(text: str) -> Iterator[tuple[str, str]]:
    """The small Markdown in pieces: kind (text, link, strong, code) and what it shows, of text without its escapes."""
    for found in _INLINE.finditer(text):
        if found["target"] is not None:
            yield "link", found["text"]
        elif found["strong"] is not None:
            yield "strong", found["strong"]
        elif found["code"] is not None:
            yield "code", found["code"]
        else:
            yield "text", found["escaped"] if found["escaped"] is not None else found["plain"]


def _span(found: re.Match[str]) -> str:
    if found["target"] is not None:
        return f'<a href="{html.escape(found["target"])}">{_inline(found["text"], "")}</a>'
    if found["strong"] is not None:
        return f"<strong>{_inline(found['strong'], '')}</strong>"
    if found["code"] is not None:
        return f"<code>{html.escape(found['code'])}</code>"
    return html.escape(found["escaped"] if found["escaped"] is not None else found["plain"])
