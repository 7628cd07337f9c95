"""The report itself: every chapter, the claims, and the figures of others, from the database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sstmerge_core import words
from sstmerge_core.errors import DataError, Problem
from sstmerge_core.report import claims as claimed
from sstmerge_core.report.document import Report, Section, Table, numbered, runs_link
from sstmerge_core.report.gather import Chapter, chapters, paper
from sstmerge_core.report.points import points
from sstmerge_core.report.reference import beside_expected, expected_values, paper_section
from sstmerge_core.report.sections import chapter_sections
from sstmerge_core.store import queries
from sstmerge_core.words import plain

if TYPE_CHECKING:
    import duckdb

SOURCES = ("measured", "reported")
TITLE = "Safety and utility of merged adapters"


def build(con: duckdb.DuckDBPyConnection, *, source: str | None = None, pairs: Sequence[str] | None = None) -> Report:
    """The report on `source` (default: both) and `pairs` (default: all with finished merges).

    Raises DataError where nothing of that kind is there.
    """
    about, sections = parts(con, source=source, pairs=pairs)
    return Report(TITLE, about, tuple(sections))


def parts(
    con: duckdb.DuckDBPyConnection, *, source: str | None = None, pairs: Sequence[str] | None = None
) -> tuple[str, Iterator[Section]]:
    """As `build`: what the report is about, and its sections, each computed when it is asked for, tables numbered."""
    found = chapters(con, sources=[source] if source else None, pairs=pairs)
    if not found:
        raise DataError(_nothing(source, pairs))
    return _about(found), numbered(_sections(con, found, source))


def _sections(con: duckdb.DuckDBPyConnection, found: Sequence[Chapter], source: str | None) -> Iterator[Section]:
    reported = [chapter.pair for chapter in found if chapter.reported]
    own = claims_section(check_claims(con, reported)) if reported else None
    if own and source == "reported":
        yield own
    expected = expected_values()
    for chapter in found:
        yield from chapter_sections(chapter)
        if beside := beside_expected(chapter, expected):
            yield beside
    if own and source != "reported":
        yield own
    if from_paper := paper_section(paper(con)):
        yield from_paper


def check_claims(con: duckdb.DuckDBPyConnection, pairs: Sequence[str]) -> list[claimed.Checked]:
    """The shipped claims about `pairs`, each recomputed from the reported tables."""
    runs = queries.report_runs(con, sources=["reported"])
    rows = points(runs[runs["reported_table"] != "paper"])
    return claimed.check([claim for claim in claimed.read() if claim.pair in pairs], rows)


def claims_section(checked: Sequence[claimed.Checked]) -> Section | None:
    """Every claim with what the tables say; the contradictions first."""
    if not checked:
        return None
    by_verdict = {
        verdict: [one for one in checked if one.verdict == verdict]
        for verdict in (claimed.CONTRADICTION, claimed.CONFIRMED, claimed.UNKNOWN)
    }
    counts = [
        words.count(len(found), verdict, f"{verdict}s" if verdict == claimed.CONTRADICTION else verdict)
        for verdict, found in by_verdict.items()
        if found
    ]
    told = (
        f"{words.count(len(checked), 'claim')} of the 2026-01 report, each recomputed from the report's own tables: "
        f"{', '.join(counts)}. Figures in percent, as published."
    )
    head = ("Claim", "Verdict", "From the tables", "Claimed", "Computed")
    rows = [_claim_row(one) for found in by_verdict.values() for one in found]
    return Section("Claims of the 2026-01 report", (told, Table(head, tuple(rows), texts=3)))


def _claim_row(one: claimed.Checked) -> tuple[str, ...]:
    computed = "–" if one.computed is None else f"{one.computed:.2f}"
    if one.run_ids:
        computed = runs_link(one.claim.pair, one.run_ids, computed)
    text = f"{plain(one.claim.pair)}: {plain(one.claim.text)}"
    return text, f"**{one.verdict}**", plain(one.why), f"{one.claim.value:g}", computed


def pairs_of(con: duckdb.DuckDBPyConnection, source: str | None = None) -> list[str]:
    """Pairs that a report can be about, those with most measured runs first."""
    known = set(queries.pairs_on_test(con, source))
    return [pair for pair in queries.merge_pairs(con) if pair in known]


def _about(found: Sequence[Chapter]) -> str:
    measured = sum(len(chapter.runs) for chapter in found if not chapter.reported)
    reported = sum(len(chapter.runs) for chapter in found if chapter.reported)
    parts = [words.count(measured, "run") + " measured here"] if measured else []
    parts += [words.count(reported, "reported setting")] if reported else []
    return (
        f"{' and '.join(parts)}. Every statement is computed from the database when this report is written; each "
        "figure leads by its run to the recipe and the answers behind it. Resistance is the share of harmful prompts "
        "that are refused; ↑ higher is better, ↓ lower is better."
    )


def _nothing(source: str | None, pairs: Sequence[str] | None) -> Problem:
    what = f"{source} runs" if source else "runs"
    where = f"pair {', '.join(pairs)}" if pairs else "report"
    return Problem(where, f"there are no finished {what} of a merge on the test split", "`sstmerge sweep` makes some.")
