"""How many inputs of each corpus were tried, and what came of them.

    python -m tests.corpus.summary [--json | --record]

Exit status 1 where one was not dealt with. `--record` puts the table into `docs/reliability.md`.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence

from benchmarks.reliability import document
from tests.corpus.bounds import BYTES, SECONDS
from tests.corpus.case import FAULTS, REFUSED, RIGHT, Outcome
from tests.corpus.sweep import KINDS, sweep

TITLES = {
    "adapters": "adapters",
    "data_files": "prompt files",
    "documents_of_people": "recipes, suites, settings, event lines",
    "statements": "SQL statements",
    "injections": "injections, as text and as name",
}
ABOUT = f"""## Inputs

Right ones and faulty ones of every kind that was thought of, made by `tests/corpus`, each tried in a process with
limits of {SECONDS:g} seconds and {BYTES / 1e6:,.0f} MB. All of them are tried by `make test` too, and every parser is
fuzzed there besides (`tests/corpus/test_fuzzed.py` and `test_fuzzed_since.py`).
"""
LEAST = {"adapters": 150, "data_files": 80, "documents_of_people": 60, "statements": 200, "injections": 100}
"""Inputs that there must be of each kind at least"""


def counts(outcomes: Sequence[Outcome]) -> dict[str, int | float]:
    """``tried``, ``right``, ``refused in words``, each fault, and the most that one input took."""
    found = Counter(outcome.how for outcome in outcomes)
    return {
        "tried": len(outcomes),
        **{how: found[how] for how in (RIGHT, REFUSED, *FAULTS)},
        "most seconds": max((outcome.seconds for outcome in outcomes), default=0.0),
        "most MB": round(max((outcome.bytes for outcome in outcomes), default=0) / 1e6),
    }


def measured() -> dict[str, dict[str, int | float]]:
    """`counts` by what was tried."""
    return {TITLES[kind]: counts(sweep(kind)) for kind in KINDS}


def table(figures: dict[str, dict[str, int | float]]) -> str:
    """The same as a Markdown table."""
    names = list(next(iter(figures.values())))
    lines = [["inputs", *names], ["---", *["--:"] * len(names)]]
    lines += [[title, *(f"{row[name]:,}" for name in names)] for title, row in figures.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def record(figures: dict[str, dict[str, int | float]]) -> None:
    """Put the table into the document that tells what the program bears."""
    document.section("inputs", f"{ABOUT}\n{document.machine()}.\n\n{table(figures)}")


def main(arguments: Sequence[str]) -> int:
    found = measured()
    print(json.dumps(found, indent=2) if "--json" in arguments else table(found))
    if "--record" in arguments:
        record(found)
    return int(any(row[fault] for row in found.values() for fault in FAULTS))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
