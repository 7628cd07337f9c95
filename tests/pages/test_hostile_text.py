"""Text from people, adapters, models and links is shown as text on every page: no image, link, HTML or icon of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from streamlit.testing.v1 import AppTest

from sstmerge_core.words import plain, run_link
from sstmerge_core.workspace import Workspace
from tests.corpus.hostile_workspace import DANGEROUS, PAYLOAD, RUN_ID, add_adapters, hostile

pytestmark = pytest.mark.usefixtures("one_store")

Open = Callable[..., AppTest]
AS_TEXT = {
    ("selectbox", "options"),
    ("selectbox", "raw_value"),
    ("multiselect", "options"),
    ("multiselect", "raw_values"),
    ("text_input", "value"),
    ("text_input", "default"),
    ("text_area", "value"),
    ("text_area", "default"),
    ("code", "code_text"),
    ("text", "body"),
    ("page_link", "query_string"),
    ("download_button", "url"),
    ("bidi_component", "json"),
}
"""Element and field that the browser shows as they are, and addresses within this server"""


def texts(message: Message, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every text of an element's message, with the fields that lead to it."""
    for field, value in message.ListFields():
        for one in value if field.is_repeated else (value,):
            if isinstance(one, Message):
                yield from texts(one, (*path, field.name))
            elif isinstance(one, str):
                yield (*path, field.name), one


def elements(node: Any) -> Iterator[tuple[str, Message]]:
    """Type and message of every element and container of a page."""
    for child in getattr(node, "children", {}).values():
        if getattr(child, "proto", None) is not None:
            yield child.type, child.proto
        yield from elements(child)


def rendered(app: AppTest) -> list[str]:
    """Where a page hands hostile text to something that would make more of it than text."""
    assert not app.exception, app.exception[0].message
    found = []
    for kind, message in elements(app._tree):
        for path, text in texts(message):
            if path[-1] in ("id", "form_id", "alt") or (kind, path[-1]) in AS_TEXT:
                continue
            if (kind, path[-1]) == ("dataframe", "columns"):  # of a column's settings only the tooltip is Markdown
                text = " ".join(str(column.get("help", "")) for column in json.loads(text).values())
            text = re.sub(r"(?<!`)`[^`]+`(?!`)", "``", text) if path[-1] != "spec" else text  # code is shown as it is
            text = re.sub(r"\]\((run|pareto)\?[^()\s]*\)", "]()", text)  # where a link within this server leads
            marks = ("<img", "<a href") if path[-1] == "spec" else DANGEROUS
            hits = [hit.start() for mark in marks if (hit := re.search(mark, text))]
            found += [f"{kind}.{'.'.join(path)}: {text[max(0, hit - 60) : hit + 50]}" for hit in hits]
    return found


@pytest.fixture(scope="module")
def spoilt(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tiny_pair: tuple[Path, Path]
) -> tuple[Workspace, list[str], str, str]:
    workspace = Workspace(tmp_path_factory.mktemp("hostile"))
    found = hostile(workspace)
    add_adapters(workspace, dict(zip(("utility", "safety"), tiny_pair, strict=True)), PAYLOAD)
    return found


STATES: dict[str, tuple[str, dict[str, Any]]] = {
    "overview": ("overview", {}),
    "adapters": ("adapters", {}),
    "an adapter": (
        "adapters",
        {"show": f"utility{PAYLOAD}", "utility": f"utility{PAYLOAD}", "safety": f"safety{PAYLOAD}"},
    ),
    "train": ("train", {}),
    "train a file": ("train", {"file": "UPLOAD"}),
    "merge": ("merge", {"utility": f"utility{PAYLOAD}", "safety": f"safety{PAYLOAD}", "job": "JOB"}),
    "merge by parameters": ("merge", {"method": "sst_gevp", "utility": f"utility{PAYLOAD}"}),
    "merge, failed": ("merge", {"job": "job0"}),
    "sweep": ("sweep", {"utility": f"utility{PAYLOAD}", "safety": f"safety{PAYLOAD}", "job": "JOB"}),
    "pareto": ("pareto", {}),
    "pareto of one pair": ("pareto", {"pair": f"A5_A7{PAYLOAD}"}),
    "compare": ("compare", {"run": "RUNS"}),
    "compare answers": ("compare", {"run": "RUNS", "show": "Answers"}),
    "alpha curves": ("alpha_curves", {}),
    "run": ("run", {"run": RUN_ID}),
    **{
        f"run, {tab}": ("run", {"run": RUN_ID, "tabs": tab})
        for tab in ("Answers", "Modules", "Recipe", "Log", "Scores", "Notes", "Spectrum", "Stages")
    },
    "playground": ("playground", {"chat": "TALK"}),
    "playground of a run": ("playground", {"column": [f"run:{RUN_ID}", f"adapter:utility{PAYLOAD}"], "chat": "TALK"}),
    "experiments": ("experiments", {}),
    "report": ("report", {}),
    "query": ("query", {}),
    "query of texts": ("query", {"sql": f'SELECT label, "user" AS "{PAYLOAD}" FROM leaderboard LIMIT 5'}),
    "query of a wrong name": ("query", {"sql": f'SELECT "{PAYLOAD}"'}),
    "query as a chart": (
        "query",
        {"sql": f'SELECT label, alpha, label AS "{PAYLOAD}" FROM leaderboard LIMIT 50', "view": "chart"},
    ),
}
PAGES = [
    "overview",
    "adapters",
    "train",
    "merge",
    "sweep",
    "pareto",
    "compare",
    "alpha_curves",
    "run",
    "playground",
    "experiments",
    "report",
    "query",
]
NAMES = [
    "run",
    "tabs",
    "suite",
    "judge",
    "label",
    "hand",
    "way",
    "base",
    "utility",
    "safety",
    "expert",
    "show",
    "stat",
    "job",
    "column",
    "tokens",
    "temperature",
    "dtype",
    "chat",
    "alpha",
    "k",
    "experiment",
    "role",
    "share",
    "epochs",
    "r",
    "preset",
    "file",
    "split",
    "held",
    "limit",
    "table",
    "view",
    "kind",
    "sql",
    "x",
    "y",
    "colour",
    "moved",
    "page",
    "with",
    "method",
    "n",
    "harmful",
    "benign",
    "pair",
    "source",
    "goal",
]


@pytest.mark.parametrize("state", STATES)
def test_no_text_from_elsewhere_is_rendered(spoilt: Any, open_page: Open, state: str) -> None:
    workspace, runs, talk, job = spoilt
    page, query = STATES[state]
    (upload,) = workspace.uploads.glob("*/*")
    known = {"RUNS": runs[:3], "TALK": talk, "JOB": job, "UPLOAD": str(upload.relative_to(workspace.uploads))}
    app = open_page(
        workspace,
        page,
        **{name: known.get(value, value) if isinstance(value, str) else value for name, value in query.items()},
    )
    assert rendered(app) == []


@pytest.mark.parametrize("page", PAGES)
def test_no_text_of_a_link_is_rendered(spoilt: Any, open_page: Open, page: str) -> None:
    app = open_page(spoilt[0], page, **dict.fromkeys(NAMES, PAYLOAD))
    assert rendered(app) == []


def test_the_payload_is_seen_where_it_is_rendered() -> None:
    def page() -> None:
        import streamlit as st

        from tests.corpus.hostile_workspace import PAYLOAD

        st.markdown(PAYLOAD)
        st.button("a", help=PAYLOAD)
        st.radio("b", [PAYLOAD])
        st.text(PAYLOAD)

    assert len(rendered(AppTest.from_function(page).run())) == 3 * len(DANGEROUS)


@pytest.mark.parametrize("code", [False, True])
def test_plain_leaves_nothing_of_the_payload_and_all_of_its_letters(code: bool) -> None:
    told = plain(PAYLOAD, code=code)
    assert not [mark for mark in DANGEROUS if re.search(mark, told)]
    assert told.replace("\\", "").replace("\u2060", "") == PAYLOAD
    assert "![" not in plain("`` ![EVIL](https://evil.example) ` x", code=True)
    assert plain("`a`", code=True) == "`a`" and plain("run `sstmerge db rebuild`.", code=True).count("`") == 2
    assert "\n" not in plain("a\n\n# b\r\n- c\u2028d")
    for text in ("1. a", "- a", "+ a", "    a", "--- ", "=== ", "# a", "> a", "1) a"):
        assert plain(text)[0] == "\\" or plain(text)[1] in "\\a"
    assert len(re.findall(r"(?<!\\)\]\(", run_link(PAYLOAD, RUN_ID))) == 1
