"""Adding, changing, removing and comparing adapters on their page."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from sstmerge_core import catalog, jobs
from sstmerge_core.catalog import intake
from sstmerge_core.errors import AdapterError, Problem
from sstmerge_core.store import EventWriter
from sstmerge_core.workspace import Workspace

Open = Callable[..., AppTest]


@pytest.fixture
def workspace(tmp_path: Path, tiny_base: Path, tiny_pair: tuple[Path, Path]) -> Workspace:
    workspace = Workspace(tmp_path / "w").create()
    catalog.add_base(workspace, tiny_base)
    catalog.add(workspace, tiny_pair[1], name="tiny-safety", role="safety")
    return workspace


def press(app: AppTest, label: str) -> AppTest:
    return next(button for button in app.button if button.label == label).click().run()


def zipped(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
    return buffer.getvalue()


def way(app: AppTest, name: str) -> AppTest:
    return app.button_group("adapters.way").set_value(name).run()


def test_an_uploaded_archive_is_shown_with_where_it_came_from(open_page: Open, workspace: Workspace, tiny_pair) -> None:
    app = way(open_page(workspace, "adapters"), "upload")
    app.file_uploader("adapters.upload").set_value([("lora.zip", zipped(tiny_pair[0]), "application/zip")])
    app = press(app, "Add")
    assert not app.exception and not any("lora" in error.value for error in app.error)
    assert app.selectbox("adapters.show").value == "lora"
    assert any("**lora** ← Uploaded as lora.zip" in item.value for item in app.markdown)


def test_an_archive_that_cannot_be_used_is_named_in_place(open_page: Open, workspace: Workspace) -> None:
    app = way(open_page(workspace, "adapters"), "upload")
    app.file_uploader("adapters.upload").set_value([("notes.zip", b"no archive", "application/zip")])
    app = press(app, "Add")
    assert not app.exception and "notes.zip" in app.error[0].value and "not a ZIP archive" in app.error[0].value


def test_a_hub_that_cannot_be_reached_is_said_with_what_to_do(
    open_page: Open, workspace: Workspace, monkeypatch
) -> None:
    def refuse(workspace, repository, told, *, revision):
        raise AdapterError(Problem(f"hub repository {repository}", f"cannot be reached at {revision}", "Upload it."))

    monkeypatch.setattr(intake, "download", refuse)
    app = way(open_page(workspace, "adapters"), "hub")
    app.text_input("adapters.hub").set_value("lab/lora")
    app.text_input("adapters.revision").set_value("v1")
    app = press(app, "Add")
    assert not app.exception and "lab/lora" in app.error[0].value and "Upload it" in app.error[0].value


def test_a_rename_with_tags_is_saved_and_a_name_that_is_taken_said(
    open_page: Open, workspace: Workspace, tiny_pair
) -> None:
    added = catalog.add(workspace, tiny_pair[0], name="old")
    app = open_page(workspace, "adapters", show="old")
    app.text_input(f"change.name.{added.sha256[:8]}").set_value("new")
    app = press(app, "Save")
    assert not app.exception and catalog.find(workspace, "new").sha256 == added.sha256
    assert app.selectbox("adapters.show").value == "new"
    app.text_input(f"change.name.{added.sha256[:8]}").set_value("A5")
    app = press(app, "Save")
    assert "taken by another adapter" in app.error[0].value and catalog.find(workspace, "new")


def test_a_removed_adapter_comes_back_by_undo(open_page: Open, workspace: Workspace, tiny_pair) -> None:
    added = intake.upload(workspace, [("own.zip", io.BytesIO(zipped(tiny_pair[0])))])
    app = press(open_page(workspace, "adapters", show="own"), "Remove")
    assert not app.exception and not added.path.exists()
    assert any("**own** was removed" in item.value for item in app.markdown)
    app = press(app, "Undo")
    assert not app.exception and added.path.exists() and app.selectbox("adapters.show").value == "own"


def test_an_adapter_of_the_demo_has_neither_name_field_nor_remove(open_page: Open, workspace: Workspace) -> None:
    app = open_page(workspace, "adapters", show="A5")
    assert not app.exception and "Remove" not in [button.label for button in app.button]
    assert any("Ships with the program" in caption.value for caption in app.caption)
    assert any("**A5** ← Trained" in item.value for item in app.markdown)


def test_each_statistic_of_a_measured_pair_is_a_map_of_its_own(
    open_page: Open, workspace: Workspace, tiny_pair
) -> None:
    utility = catalog.add(workspace, tiny_pair[0], name="tiny-utility", role="utility")
    safety = catalog.find(workspace, "tiny-safety")
    base = next(one for one in catalog.bases(workspace) if one.name == "tiny-llama")
    names = ("norm_utility", "norm_safety", "cosine", "overlap_out", "overlap_in")
    rows = [{"module": "model.layers.0.self_attn.q_proj", "stat": name, "value": 0.5} for name in names]
    with EventWriter(workspace.pairs / "pair") as events:
        contents = {"base": base.sha256, "utility": utility.sha256, "safety": safety.sha256}
        events.write("pair_inspected", pair_id="pair", utility_name="u", safety_name="s", **contents)
        events.write("module_stats", rows=rows)
    chosen = {"base": "tiny-llama", "utility": "tiny-utility", "safety": "tiny-safety"}
    app = open_page(workspace, "adapters", **chosen)
    assert not app.exception and len(app.button_group("adapters.stat").options) == 5
    app.button_group("adapters.stat").set_value("norm_safety").run()
    assert "norm_safety" in app.query_params["stat"]
    assert any("Frobenius norm of the safety adapter" in caption.value for caption in app.caption)


def test_a_users_folder_is_only_taken_off_the_list(open_page: Open, workspace: Workspace, tiny_pair, tmp_path) -> None:
    shutil.copytree(tiny_pair[0], tmp_path / "mine")
    catalog.add(workspace, tmp_path / "mine")
    press(open_page(workspace, "adapters", show="mine"), "Remove")
    assert (tmp_path / "mine" / "adapter_config.json").is_file()
    assert "mine" not in [one.name for one in catalog.entries(workspace)]


def test_a_base_model_is_added_from_its_folder_taken_off_the_list_and_put_back(
    open_page: Open, tmp_path: Path, tiny_base: Path
) -> None:
    workspace = Workspace(tmp_path / "new").create()
    app = open_page(workspace, "adapters")
    app.text_input("base.path").set_value(str(tiny_base))
    app.text_input("base.name").set_value("my base")
    app = next(b for b in app.button if b.label == "Add" and "base.folder" in str(b.form_id)).click().run()
    assert not app.exception and catalog.bases(workspace)[-1].name == "my base"
    app = press(app, "Take off the list")
    assert not app.exception and len(catalog.bases(workspace)) == 1
    app = press(app, "Undo")
    assert not app.exception and catalog.bases(workspace)[-1].name == "my base"


def test_a_folder_that_is_no_base_model_is_named_in_place(open_page: Open, workspace: Workspace, tmp_path) -> None:
    app = open_page(workspace, "adapters")
    app.text_input("base.path").set_value(str(tmp_path))
    app = next(b for b in app.button if b.label == "Add" and "base.folder" in str(b.form_id)).click().run()
    assert not app.exception and "config.json" in app.error[0].value and "missing" in app.error[0].value


def test_beside_an_adapter_whose_base_is_not_registered_the_base_is_registered_at_a_click(
    open_page: Open, tmp_path: Path, tiny_base: Path, tiny_pair
) -> None:
    workspace = Workspace(tmp_path / "new").create()
    own = tmp_path / "own"
    shutil.copytree(tiny_pair[0], own)
    config = json.loads((own / "adapter_config.json").read_text())
    (own / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(tiny_base)}))
    catalog.add(workspace, own, name="own")
    app = open_page(workspace, "adapters", show="own")
    app = press(app, "Register it")
    assert not app.exception and catalog.bases(workspace)[-1].path == tiny_base.resolve()
    assert "Register it" not in [button.label for button in app.button]


def test_beside_an_adapter_of_a_base_of_the_hub_its_download_is_offered(
    open_page: Open, tmp_path: Path, tiny_pair, monkeypatch
) -> None:
    workspace = Workspace(tmp_path / "new").create()
    own = tmp_path / "own"
    shutil.copytree(tiny_pair[0], own)
    config = json.loads((own / "adapter_config.json").read_text())
    (own / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "lab/unheard-of"}))
    catalog.add(workspace, own, name="own")
    monkeypatch.setattr("sstmerge_core.jobs.settle", lambda workspace: None)
    app = press(open_page(workspace, "adapters", show="own"), "Fetch it from the hub")
    assert not app.exception
    assert [job.name for job in jobs.jobs(workspace)] == ["Base model lab/unheard-of"]
