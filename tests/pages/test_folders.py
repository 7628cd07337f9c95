"""Every field into which a path can be written asks the one door, and a visitor's role is kept on the pages."""

from __future__ import annotations

import ast
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from sstmerge_core import access, catalog, jobs
from studio import entrance

TOP = Path(access.__file__).parents[1]
WRITTEN = {"text_input", "text_area", "chat_input"}
FIELDS = {"folder_field": 1, "hub_fields": 2}
"""Functions of `pages/parts/adapters_line.py` that draw fields, and how many keys they are given first"""
PATHS = {
    "adapters.path": ("adapters", "Add"),
    "adapters.source": ("adapters", "Convert"),
    "base.path": ("adapters", "Add"),
    "prompts.path": ("prompts", ""),
    "prompts.encoder": ("prompts", ""),
    "train.file": ("train", ""),
    "run.judge model": ("run", "Judge them"),
    "experiments.settings.*": ("experiments", "Run"),
}
"""Fields that take a path: their page, and the button that does something with it"""
TEXTS = {
    "query.sql",
    "query.name",
    "state.key(name)",
    "key",
    "run.search",
    "run.reader",
    "New name",
    "prompts.name.*",
    "base.name",
    "base.repository",
    "base.revision",
    "push.name.*",
    "state.key('system')",
    "sweep.address",
    "adapters.name",
    "adapters.called",
    "adapters.hub",
    "adapters.revision",
    "change.name.*",
    "playground.box",
    "train.name",
    "compare.q",
    "compare.find",
    "run.name.*",
    "run.note.text",
    "run.tags",
    "*.name",
}
"""Fields whose text is a name, a list of numbers, SQL or words: no file is ever opened by it"""


def written_fields() -> set[str]:
    """The keys of every widget in which something can be written, ``*`` for what a program fills in."""
    found = set()
    for folder in ("pages", "studio"):
        for path in (TOP / folder).rglob("*.py"):
            if path.name == "adapters_line.py":
                continue
            for call in ast.walk(ast.parse(path.read_text())):
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
                    found |= {_key(key) for key in call.args[: FIELDS.get(call.func.attr, 0)]}
                    given = {word.arg: word.value for word in call.keywords}
                    if call.func.attr in WRITTEN or "accept_new_options" in given:
                        found.add(_key(given.get("key", call.args[0])))
    return found


def _key(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in node.values)
    return ast.unparse(node)


def said(app: AppTest) -> str:
    return " ".join(str(element.value) for element in (*app.error, *app.warning))


def test_every_field_in_which_something_can_be_written_is_known_here():
    assert written_fields() == set(PATHS) | TEXTS


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that exists and is outside of the roots."""
    monkeypatch.setenv(access.ROOTS, str(tmp_path / "models"))
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "rows.jsonl").write_text('{"prompt": "hidden words", "response": "r"}\n')
    return tmp_path / "secret"


@pytest.mark.parametrize("field", PATHS)
def test_a_path_from_outside_of_the_roots_is_refused_wherever_it_is_written(
    field, open_page, full_workspace, elsewhere, monkeypatch
):
    queued: list[Any] = []
    monkeypatch.setattr(jobs, "enqueue", lambda *given, **more: queued.append(given))
    page, button = PATHS[field]
    query = {"run": next(iter(sorted(path.name for path in full_workspace.runs.iterdir())))} if page == "run" else {}
    if page == "train":
        query = {"file": str(elsewhere / "rows.jsonl")}
    if page == "run":
        query |= {"run": _measured(full_workspace)}
    app = open_page(full_workspace, page, **query)
    if field == "adapters.source":
        app.segmented_control(key="adapters.way").set_value("convert").run()
    if page == "adapters":  # in a form
        app.text_input(key=field).set_value(str(elsewhere))
    elif field == "prompts.encoder":
        mine = full_workspace.cache / "prompts.csv"
        mine.parent.mkdir(parents=True, exist_ok=True)
        mine.write_text("prompt,response\n" + "".join(f"What is {i}?,{i}\n" for i in range(20)))
        app.text_input(key="prompts.path").set_value(str(mine)).run()
        app.selectbox(key="prompts.metric").set_value("bertscore").run()
        app.text_input(key=field).set_value(f"{elsewhere}#1").run()
    elif page == "prompts":
        app.text_input(key=field).set_value(str(elsewhere / "rows.jsonl")).run()
    elif page == "run":
        app.selectbox(key="run.new judge").set_value("wildguard").run()
        app.text_input(key=field).set_value(str(elsewhere)).run()
    elif page == "experiments":
        (box,) = [one for one in app.text_area if one.key.startswith("experiments.settings")]
        box.set_value(f"base: {elsewhere}").run()
    if button:
        wanted = [one for one in app.button if one.label == button]
        wanted[1 if field == "base.path" else 0].click().run()
    assert "outside of the folders" in said(app) and "hidden words" not in str(app.main)
    assert not queued and not app.exception


def _measured(workspace: Any) -> str:
    from sstmerge_core.store.events import read_events

    for folder in sorted(workspace.runs.iterdir()):
        if any(event["event"] == "samples" for event in read_events(folder)):
            return folder.name
    raise AssertionError("no run has answers")


# --- roles on the pages ----------------------------------------------------------------------------------------------


@pytest.fixture
def as_role(monkeypatch: pytest.MonkeyPatch):
    """``as_role("viewer")``: from here on the visitor of every page has that role."""

    def become(role: str) -> None:
        seen = access.Actor("vera@example.org", role, "dashboard", list)
        monkeypatch.setattr(access, "_ask", lambda: seen)

    return become


PAGES = ("overview", "adapters", "prompts", "train", "merge", "sweep", "playground", "run", "experiments", "query")


@pytest.mark.parametrize("page", PAGES)
def test_a_viewer_finds_every_button_off_that_would_change_something(page, open_page, full_workspace, as_role):
    as_role("viewer")
    app = open_page(full_workspace, page, **({"run": _measured(full_workspace)} if page == "run" else {}))
    assert not app.exception
    acting = [one for one in app.button if "takes the role" in (one.help or "")]
    assert all(one.disabled for one in acting)
    named = {"Merge", "Add", "Fetch", "Delete", "Run", "Judge them", "Measure similarity", "Save"}
    left = [one.label for one in app.button if one.label in named and not one.disabled]
    assert not left, left
    if page not in ("query", "prompts", "train", "sweep"):
        assert acting, "the page has something that a viewer may not do"


@pytest.mark.parametrize("page", PAGES)
def test_who_may_not_look_is_stopped_at_every_page(page, open_page, full_workspace, as_role, monkeypatch):
    as_role(access.NOBODY)
    monkeypatch.setattr(entrance, "sign_in_asked", lambda: True)
    app = open_page(full_workspace, page)
    assert [one.label for one in app.button] == ["Sign in"]
    assert not app.dataframe and not app.text_input and not app.exception


def test_secrets_that_cannot_be_read_let_nobody_in(open_page, full_workspace, tmp_path, monkeypatch):
    broken = tmp_path / "secrets.toml"
    broken.write_text("[auth\n")
    real = entrance.st.get_option
    monkeypatch.setattr(
        entrance.st, "get_option", lambda name: [str(broken)] if name == "secrets.files" else real(name)
    )
    app = open_page(full_workspace, "overview")
    assert "secrets.toml" in said(app) and not app.button


def test_tidying_up_is_listed_before_it_is_done(open_page, empty_workspace):
    workspace = empty_workspace.create()
    (workspace.logs / "old.log").write_text("said")
    os.utime(workspace.logs / "old.log", (1, 1))
    app = open_page(workspace, "run")
    app.session_state["run.tidy"] = True
    app.run()
    (table,) = app.dataframe
    assert table.value["Which"].tolist() == ["logs/old.log"]
    assert (workspace.logs / "old.log").is_file()
    app.button(key="run.tidy.go").click().run()
    assert not (workspace.logs / "old.log").exists() and not app.exception


@pytest.mark.parametrize("inside", [True, False])
def test_a_base_that_an_adapter_names_is_looked_for_within_the_roots_alone(
    inside, open_page, empty_workspace, tiny_base, tiny_pair, tmp_path, monkeypatch
):
    monkeypatch.setenv(access.ROOTS, str(tiny_base.parent if inside else tmp_path / "models"))
    adapter = tmp_path / "adapter"
    shutil.copytree(tiny_pair[0], adapter)
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(tiny_base)
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    catalog.add(empty_workspace.create(), adapter, "brought", "utility")
    app = open_page(empty_workspace, "adapters", show="brought")
    assert not app.exception
    assert any("is on this machine but not registered" in one.value for one in app.markdown) == inside
