"""Links that name what is not here, or say what cannot be: every page says which part, what is wrong and what to do."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence

import pytest
from streamlit.testing.v1 import AppTest

from sstmerge_core.store import Owner, queries
from sstmerge_core.words import shortened
from sstmerge_core.workspace import Workspace

pytestmark = pytest.mark.usefixtures("one_store")

Open = Callable[..., AppTest]
ODD = "<b>**no**</b> [x](y) `z` " + "long " * 500
"""HTML and Markdown, and far too long"""
MERGED = ["base", "utility", "safety", "expert", "method", "split", "n", "harmful", "benign", "suite", "job"]
NAMES = [
    ("run", {}, ["run"]),
    ("run", {"run": 1, "tabs": "Answers"}, ["suite", "judge", "label", "hand", "way"]),
    ("run", {"run": 1}, ["tabs"]),
    ("adapters", {}, ["base", "utility", "safety", "show", "stat", "job"]),
    ("playground", {}, ["base", "column", "tokens", "temperature", "dtype", "chat"]),
    ("playground", {}, ["alpha"]),
    ("experiments", {}, ["experiment"]),
    ("train", {}, ["base", "role", "share", "epochs", "r", "preset", "job"]),
    ("train", {"file": "facts"}, ["split", "held", "suite"]),
    ("query", {}, ["limit", "table", "view", "kind"]),
    ("query", {"sql": "SELECT 1 AS a", "view": "chart"}, ["x", "y", "colour"]),
    ("compare", {}, ["run", "show", "moved", "page"]),
    ("compare", {"run": 3}, ["judge", "suite", "with"]),
    ("merge", {}, MERGED),
    ("merge", {"method": "sst_gevp"}, ["alpha", "k"]),
    ("sweep", {}, MERGED),
]
"""Page, what its link says rightly (``run``: how many known runs), and what it says wrongly"""
NUMBERS = [
    ("playground", ["tokens", "temperature", "alpha"]),
    ("train", ["share", "epochs", "r", "seed"]),
    ("compare", ["moved", "page"]),
    ("merge", ["n", "alpha", "k"]),
]


@pytest.fixture(scope="module")
def run_ids(full_workspace: Workspace) -> list[str]:
    with Owner.open(full_workspace) as owner:
        return list(queries.comparable_runs(owner.cursor())["run_id"])


def messages(app: AppTest) -> list[str]:
    """Every problem in a box of the page, as Markdown."""
    return [line for box in (*app.error, *app.warning) for line in box.value.splitlines()]


def check(app: AppTest, names: Sequence[str], value: str) -> None:
    """Each parameter is named with what is wrong and what to do, briefly, and what it says is shown as text."""
    assert not app.exception
    lines = messages(app)
    assert all(re.fullmatch(r"(- )?\*\*[^*]+(\\\*[^*]*)*\*\*: .+\. .+\.`?", line, re.DOTALL) for line in lines)
    assert all(len(line) < 600 and "<b>" not in line.replace(r"\<", "") for line in lines)
    plain = [re.sub(r"\\(.)", r"\1", line) for line in lines]
    unsaid = [name for name in names if not any(f"{name}={shortened(value)} in the link" in line for line in plain)]
    assert unsaid == [], plain


@pytest.mark.parametrize("value", ["nope", ODD], ids=["unknown", "odd"])
@pytest.mark.parametrize(("page", "right", "wrong"), NAMES, ids=lambda part: part if isinstance(part, str) else None)
def test_every_part_of_a_link_that_cannot_be_used_is_named(
    open_page: Open, full_workspace: Workspace, run_ids: list[str], page: str, right: dict, wrong: list, value: str
) -> None:
    known = {"run": run_ids[: right["run"]]} if "run" in right else {}
    check(open_page(full_workspace, page, **(dict.fromkeys(wrong, value) | right | known)), wrong, value)


@pytest.mark.parametrize("value", ["nan", "-" + "9" * 5000], ids=["nan", "digits"])
@pytest.mark.parametrize(("page", "names"), NUMBERS, ids=lambda part: part if isinstance(part, str) else None)
def test_what_is_no_number_or_out_of_bounds_is_named(
    open_page: Open, full_workspace: Workspace, run_ids: list[str], page: str, names: list, value: str
) -> None:
    known = {"run": run_ids[:1]} if page == "compare" else {}  # else the pick, whose answers are made up
    check(open_page(full_workspace, page, **known, **dict.fromkeys(names, value)), names, value)


@pytest.mark.parametrize(
    ("page", "query", "said"),
    [
        ("train", {"file": "/none/rows.jsonl"}, "/none/rows.jsonl"),
        ("train", {"file": "~nobody-of-that-name/rows.jsonl"}, "cannot be opened"),
        ("train", {"file": f"{tempfile.gettempdir()}/{'x' * 5000}"}, "cannot be opened"),
        ("query", {"sql": "SELEC 1"}, "SELEC"),
        ("query", {"sql": "SELECT " + "x" * 5000}, "xxx"),
        ("compare", {"run": [f"none-{n}" for n in range(9)]}, "none-8"),
        ("playground", {"column": ["run:none", "adapter:none", "live:linear:none:none"]}, "run none"),
        ("run", {"run": ""}, "no such run"),
        ("playground", {"alpha": ["", "1"]}, "alpha= in the link"),
        ("sweep", {"alpha": "a,b", "k": "1.5", "method": "sst_gevp"}, "**k**: 1.5 is not a whole number"),
    ],
)
def test_a_file_a_query_and_a_list_that_cannot_be_read_are_named_in_place(
    open_page: Open, full_workspace: Workspace, page: str, query: dict, said: str
) -> None:
    app = open_page(full_workspace, page, **query)
    assert not app.exception and any(said in re.sub(r"\\(.)", r"\1", line) for line in messages(app))
