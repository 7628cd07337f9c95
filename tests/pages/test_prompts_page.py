"""A file of prompts becomes a set on its page; broken declarations and what is not here are told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from sstmerge_core.suites import declared, prepare
from sstmerge_core.workspace import Workspace

Open = Callable[..., AppTest]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "w").create()


def sums(count: int = 50) -> bytes:
    return ("Question,Answer\n" + "".join(f"What is {i} and {i}?,{2 * i}\n" for i in range(count))).encode()


def press(app: AppTest, label: str) -> AppTest:
    return next(button for button in app.button if button.label == label).click().run()


def upload(app: AppTest, name: str, data: bytes) -> AppTest:
    return app.file_uploader("prompts.upload").set_value([(name, data, "text/csv")]).run()


def test_an_uploaded_file_is_looked_at_and_made_a_task_and_the_merge_page_offers_it(
    open_page: Open, workspace: Workspace
) -> None:
    app = upload(open_page(workspace, "prompts"), "My sums.csv", sums())
    assert not app.exception and not app.error
    assert any("50 rows" in caption.value for caption in app.caption)
    app.selectbox("prompts.metric").set_value("numeric").run()
    app = press(app, "Make the set")
    assert not app.exception and not app.error
    suite = declared.get("my_sums", workspace)
    assert suite.metric == "numeric" and prepare.prepare(suite, workspace).n == 50
    assert app.selectbox("prompts.show").value == "my_sums"
    app = press(app, "Remove")
    assert "my_sums" not in declared.names(workspace)
    app = press(app, "Undo")
    assert not app.exception and "my_sums" in declared.names(workspace)


def test_a_path_of_this_machine_works_as_well(open_page: Open, workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "never.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"never do {i}"}) + "\n" for i in range(20)))
    app = open_page(workspace, "prompts")
    app.text_input("prompts.path").set_value(str(path)).run()
    app = press(app, "Make the set")
    assert not app.exception and declared.get("never", workspace).role == "harmful"


@pytest.mark.parametrize(
    ("data", "said"), [(b"", "has no rows"), (b"a,b\n1,2,3\n", "My.csv"), (b"\x00\x01\x02\xff", "My.csv")]
)
def test_a_file_that_cannot_be_used_is_named_in_place(
    open_page: Open, workspace: Workspace, data: bytes, said: str
) -> None:
    app = upload(open_page(workspace, "prompts"), "My.csv", data)
    assert not app.exception
    told = [*app.error, *app.info]
    assert told and any(said in one.value or "column" in one.value for one in told)


def test_a_name_that_is_taken_is_said_and_nothing_is_made(open_page: Open, workspace: Workspace) -> None:
    app = upload(open_page(workspace, "prompts"), "facts.csv", sums())
    app = press(app, "Make the set")
    assert not app.exception and "another suite has it" in app.error[0].value
    assert not list(declared.folder(workspace).glob("*")) if declared.folder(workspace).exists() else True


def test_a_broken_declaration_is_listed_with_its_fault(open_page: Open, workspace: Workspace) -> None:
    declared.folder(workspace).mkdir(parents=True, exist_ok=True)
    (declared.folder(workspace) / "mine.yaml").write_text("name: mine\nrole: [\n")
    app = open_page(workspace, "prompts")
    assert not app.exception and any("mine.yaml" in warning.value for warning in app.warning)


def test_what_is_not_here_says_how_to_get_it(open_page: Open, workspace: Workspace) -> None:
    app = open_page(workspace, "prompts")
    assert any("advbench" in text.value and "pip install" in text.value for text in app.markdown)
