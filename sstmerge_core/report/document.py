"""A report as blocks of text, tables and figures, and as Markdown.

Text and table cells are Markdown of a small kind (links, bold, code), with everything that users named made harmless
by `words.plain`. Links lead into the app: ``run?run=…``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

import pandas as pd
import plotly.graph_objects as go

from sstmerge_core import words
from sstmerge_core.plots.measures import MEASURES, number
from sstmerge_core.words import plain

LINKED = 40
"""Runs that one link names at most; servers and browsers limit an address."""
_INTO_APP = re.compile(r"\]\((run|pareto)\?")


@dataclass(frozen=True)
class Table:
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: int = 1
    """The first columns that are text; the rest are figures, to the right."""
    caption: str = ""
    number: int = 0
    """Within the report; 0: it is in none"""
    title: str = ""
    """What it is of, Markdown; empty: what its section is called"""

    @property
    def legend(self) -> str:
        """``**Table 3.** Ten greatest sums. …``: number, title and caption."""
        head = f"**Table {self.number}.** {self.title.rstrip('.?')}." if self.number else ""
        return " ".join(filter(None, [head, self.caption]))


@dataclass(frozen=True)
class Bullets:
    items: tuple[str, ...]


@dataclass(frozen=True)
class Chart:
    figure: go.Figure
    alt: str


Block = str | Table | Bullets | Chart


@dataclass(frozen=True)
class Section:
    title: str
    blocks: tuple[Block, ...]
    level: int = 2


@dataclass(frozen=True)
class Report:
    title: str
    about: str
    sections: tuple[Section, ...]

    @property
    def charts(self) -> int:
        return sum(isinstance(block, Chart) for section in self.sections for block in section.blocks)


def numbered(sections: Iterable[Section]) -> Iterator[Section]:
    """The sections with their tables numbered through, each by a caption that begins with what it is of."""
    count = 0
    for section in sections:
        blocks: list[Block] = []
        for block in section.blocks:
            if isinstance(block, Table):
                count += 1
                block = replace(block, number=count, title=block.title or section.title)
            blocks.append(block)
        yield replace(section, blocks=tuple(blocks))


def markdown(report: Report, *, app: str = "") -> str:
    """The whole report; `app` is the address of the app that links lead to. Charts are left out."""
    parts = [f"# {report.title}", report.about]
    for section in report.sections:
        parts.append(f"{'#' * section.level} {section.title}")
        parts += [text for block in section.blocks if (text := block_markdown(block))]
    text = "\n\n".join(filter(None, parts)) + "\n"
    # `plain` also escapes what only Streamlit, or no Markdown within a word, takes for markup
    return with_app(re.sub(r"(?<=\w)\\_(?=\w)", "_", text.replace("\\:", ":")), app)


def block_markdown(block: Block) -> str:
    if isinstance(block, Table):
        return table_markdown(block)
    if isinstance(block, Bullets):
        return "\n".join(f"- {item}" for item in block.items)
    return block if isinstance(block, str) else ""


def table_markdown(table: Table) -> str:
    align = [":--" if index < table.texts else "--:" for index in range(len(table.head))]
    lines = "\n".join(f"| {' | '.join(line)} |" for line in (table.head, align, *table.rows))
    return f"{lines}\n\n{table.legend}" if table.legend else lines


def with_app(text: str, app: str) -> str:
    """Links into the app with its address before them; relative ones where `app` is empty."""
    return _INTO_APP.sub(rf"]({app.rstrip('/')}/\1?", text) if app else text


def run_link(run_id: str, text: str) -> str:
    """``[text](run?run=id)``, `text` as it stands."""
    return words.run_link(text, run_id)


def runs_link(pair: str, run_ids: Sequence[str], text: str) -> str:
    """A link to one run, or to several on the Pareto page; `text` is Markdown already."""
    if len(run_ids) == 1:
        return f"[{text}]({words.run_address(run_ids[0])})"
    return f"[{text}](pareto?{urlencode([('pair', pair), *(('run', run) for run in run_ids[:LINKED])])})"


def point_link(point: Mapping[str, Any]) -> str:
    """A point's label as a link to its run; where seeds are averaged, each seed is a link of its own."""
    ids, seeds = list(point["run_ids"]), list(point["seeds"])
    label = words.run_name(point)
    if len(ids) == 1:
        return run_link(ids[0], label)
    names = [f"{seed:g}" for seed in seeds] if len(seeds) == len(ids) else [str(n) for n in range(1, len(ids) + 1)]
    links = ", ".join(run_link(run, name) for run, name in zip(ids, names, strict=True))
    return f"{plain(label)} (mean of seeds {links})"


def figure(value: Any, low: Any = None, high: Any = None, *, digits: int = 3, sign: bool = False) -> str:
    """``0.609 [0.487, 0.719]``; without an interval the value alone, an en dash where there is none."""
    if pd.isna(value):
        return "–"
    if low is None or pd.isna(low):
        return _number(value, digits, sign)
    upper = "∞" if high is None or pd.isna(high) else _number(high, digits, sign)
    return f"{_number(value, digits, sign)} [{_number(low, digits, sign)}, {upper}]"


def measure_cell(row: Mapping[str, Any], measure: str, digits: int = 3) -> str:
    """A measure of a leaderboard row with its interval."""
    return figure(row[measure], row.get(f"{measure}_low"), row.get(f"{measure}_high"), digits=digits)


def kept_cell(kept: Sequence[float] | None) -> str:
    """``0.83 [0.71, 0.95]``: a share of U's utility and its interval; an en dash where there is none."""
    return "–" if kept is None else figure(*kept, digits=2)


def figures_sentence(row: Mapping[str, Any], digits: int = 3) -> str:
    """``resistance 0.609 [0.487, 0.719], utility …``: what was measured of a row."""
    parts = [
        f"{MEASURES[name].title.lower()} {measure_cell(row, name, digits)}"
        for name in ("resistance", "utility", "over_refusal")
        if pd.notna(row[name])
    ]
    return ", ".join(parts)


def drop_empty(table: Table) -> Table:
    """`table` without the columns in which nothing is known."""
    kept = [i for i in range(len(table.head)) if i < table.texts or any(row[i] not in ("", "–") for row in table.rows)]
    return Table(_pick(table.head, kept), tuple(_pick(row, kept) for row in table.rows), table.texts, table.caption)


def listed(items: Iterable[str], most: int = 5) -> str:
    """``a, b and c``; beyond `most` how many more."""
    found = list(items)
    if len(found) > most:
        return f"{', '.join(found[:most])} and {len(found) - most} more"
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} and {found[-1]}" if found else "none"


def _pick(row: Sequence[str], kept: Sequence[int]) -> tuple[str, ...]:
    return tuple(row[index] for index in kept)


def _number(value: Any, digits: int, sign: bool) -> str:
    return f"{float(value):+.{digits}f}" if sign else number(value, digits)
