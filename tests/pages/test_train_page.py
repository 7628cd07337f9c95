from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from sstmerge_core import catalog, jobs
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.recipe import Recipe
from sstmerge_core.train import checkpoint
from sstmerge_core.worker.training import Training
from sstmerge_core.workspace import Workspace, write_json
from studio import training as form

Open = Callable[..., AppTest]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    splits = ["train"] * 40 + ["selection"] * 8
    lines = [{"id": i, "prompt": f"Q{i}", "response": f"A{i}", "split": split} for i, split in enumerate(splits)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    def submit(workspace: Workspace, recipes: Sequence[Recipe], **given: Any) -> str:
        found.append(given)
        return ""

    monkeypatch.setattr(jobs, "submit", submit)
    return found


def text(app: AppTest) -> str:
    return "\n".join(item.value for item in [*app.caption, *app.markdown])


def train_button(app: AppTest) -> Any:
    return app.button("train.launch")


def test_without_rows_the_page_says_what_they_look_like_and_shows_a_bundled_curve(
    open_page: Open, empty_workspace: Workspace
) -> None:
    app = open_page(empty_workspace, "train")
    assert not app.exception and not app.error
    assert '{"prompt"' in text(app) and not [button for button in app.button if button.key == "train.launch"]
    assert "training loss" in text(app) and app.get("plotly_chart")


def test_the_steps_and_the_time_are_told_before_launch_and_the_launch_carries_the_form(
    open_page: Open, full_workspace: Workspace, rows: Path, launched: list[dict[str, Any]]
) -> None:
    app = open_page(full_workspace, "train", base="tiny-llama", file=str(rows), batch_size="8", epochs="2.5")
    assert not app.exception and not app.error
    assert "40 rows to learn" in text(app) and "13 steps, about" in text(app)
    assert train_button(app).disabled, "it has no name yet"
    app.selectbox("train.held").set_value("selection").run()
    app.number_input("train.patience").set_value(2).run()
    app.text_input("train.name").set_value("mine").run()
    app.selectbox("train.role").set_value("safety").run()
    assert "8 rows held out" in text(app) and not train_button(app).disabled
    train_button(app).click().run()
    assert not app.exception
    spec = Training.model_validate(launched[0]["training"])
    assert (spec.name, spec.role, spec.split, spec.validation_split) == ("mine", "safety", "train", "selection")
    assert (spec.settings.epochs, spec.settings.batch_size, spec.settings.patience) == (2.5, 8, 2)
    assert spec.rows_sha256 == spec.read().sha256 and launched[0]["kind"] == "train"


def test_a_preset_fills_in_its_settings(open_page: Open, full_workspace: Workspace, rows: Path) -> None:
    app = open_page(full_workspace, "train", base="tiny-llama", file=str(rows), name="mine")
    app.selectbox("train.preset").set_value("pre_post_paper").run()
    assert not app.exception
    assert app.number_input("train.learning_rate").value == 1e-4 and app.number_input("train.batch_size").value == 8
    assert "500 steps" in text(app), "the preset counts steps, whatever the number of rows"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("question,answer\na,b\n", "no column prompt"),
        ("prompt,response\nHello,\n", "no response to learn"),
        ("prompt,response\n", "has no rows"),
    ],
)
def test_rows_that_cannot_be_used_are_named_in_place(
    open_page: Open, full_workspace: Workspace, tmp_path: Path, content: str, said: str
) -> None:
    file = tmp_path / "bad.csv"
    file.write_text(content)
    app = open_page(full_workspace, "train", base="tiny-llama", file=str(file))
    assert not app.exception
    assert len(app.error) == 1 and said in app.error[0].value and "bad.csv" in app.error[0].value


def test_a_file_that_is_not_there_and_a_name_that_is_taken_are_said_so(
    open_page: Open, full_workspace: Workspace, rows: Path
) -> None:
    app = open_page(full_workspace, "train", base="tiny-llama", file="/nowhere/rows.jsonl")
    assert not app.exception and "/nowhere/rows.jsonl" in app.error[0].value
    app = open_page(full_workspace, "train", base="tiny-llama", file=str(rows), name="tiny-utility")
    assert "taken by another adapter" in app.error[0].value and train_button(app).disabled
    app = open_page(full_workspace, "train", base="tiny-llama", file=str(rows), name="../../escape")
    assert "not usable as an adapter's name" in app.error[0].value and train_button(app).disabled


def test_early_stopping_without_held_out_rows_is_refused_in_words(
    open_page: Open, full_workspace: Workspace, rows: Path
) -> None:
    app = open_page(full_workspace, "train", base="tiny-llama", file=str(rows), name="mine", patience="2")
    assert "no validation rows to stop by" in app.error[0].value and train_button(app).disabled


def test_a_running_training_shows_its_loss_so_far(
    open_page: Open, full_workspace: Workspace, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = next(base for base in catalog.bases(full_workspace) if base.name == "tiny-llama")
    spec = Training(base=base.source, files=(str(rows),), name="running").model_dump(mode="json")
    queue = Queue(full_workspace)
    told = {"training": spec, "base": spec["base"], "recipes": []}
    queue.add("j1", kind="train", name="Train running", user="", device="elsewhere", spec=told, run_ids=[])
    monkeypatch.setattr(jobs.dispatch.local, "start", lambda *_, **__: _me())
    queue.start_one(lambda *_: _me())
    place = checkpoint.folder(full_workspace.adapters / "running")
    place.mkdir(parents=True)
    write_json(place / "curve.json", {"steps": 60, "loss": [3.0, 2.5, 2.0]})
    try:
        app = open_page(full_workspace, "train", job="j1")
        assert not app.exception
        assert "3 of 60 steps · training loss 3.00 → 2.00" in text(app)
        assert any(button.label == "Cancel" for button in app.button)
    finally:
        queue.end("j1", "cancelled")
        checkpoint.remove(place)


def test_a_trained_adapter_leads_to_its_merge(open_page: Open, full_workspace: Workspace) -> None:
    app = open_page(full_workspace, "train", show="A7")
    assert not app.exception
    (to_merge,) = [one for one in app.get("page_link") if one.proto.label == "Merge with A7"]
    assert "safety=A7" in to_merge.proto.query_string and "906 rows" in text(app)


def test_an_uploaded_file_is_kept_by_content_under_a_harmless_name(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    first = form.keep_upload(workspace, "../../my rows.csv", b"prompt,response\na,b\n")
    assert Path(first).parent.parent == workspace.uploads and Path(first).name == "my_rows.csv"
    assert form.keep_upload(workspace, "my rows.csv", b"prompt,response\na,b\n") == first
    assert form.files(workspace)[0] == first and form.file_label(first) == "my_rows.csv (uploaded)"


def _me() -> Any:
    import os

    from sstmerge_core.jobs.process import Process

    return Process.of(os.getpid())
