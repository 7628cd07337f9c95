"""What the command line says of adapters as people have them, the Adapters page says too."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from streamlit.testing.v1 import AppTest

from sstmerge_core import catalog
from sstmerge_core.workspace import Workspace

Open = Callable[..., AppTest]
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def renamed(folder: Path, change: Callable[[str], str]) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file({change(key): tensor for key, tensor in tensors.items()}, folder / WEIGHTS)


def settled(folder: Path, **changes: object) -> None:
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def press(app: AppTest, label: str) -> AppTest:
    return next(button for button in app.button if button.label == label).click().run()


def added(app: AppTest, folder: Path) -> AppTest:
    app = app.button_group("adapters.way").set_value("folder").run()
    app.text_input("adapters.path").set_value(str(folder))
    return press(app, "Add")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "w").create()


@pytest.fixture
def copy(tiny_pair, tmp_path) -> Path:
    return shutil.copytree(tiny_pair[0], tmp_path / "mine")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda copy: settled(copy, lora_alpha=10**400), "more than 308 digits"),
        (lambda copy: settled(copy, alpha_pattern={r"((a|.)+)+\1!": 4}), "not read here"),
        (lambda copy: (copy / CONFIG).write_text("[" * 100_000), "within each other"),
        (lambda copy: (copy / WEIGHTS).write_bytes((copy / WEIGHTS).read_bytes() + b"x"), "after its last tensor"),
        (lambda copy: settled(copy, peft_type="LOKR"), "sstmerge adapters convert"),
        (lambda copy: renamed(copy, lambda key: f"lora_te_{key}.alpha"), "kohya"),
        (lambda copy: (copy / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    ],
)
def test_a_folder_that_cannot_be_used_is_said_in_place(spoil, said, open_page: Open, workspace, copy) -> None:
    spoil(copy)
    app = added(open_page(workspace, "adapters"), copy)
    assert not app.exception and said in app.error[0].value and "\n" not in app.error[0].value
    assert not any(one.name == "mine" for one in catalog.entries(workspace))


def test_an_adapter_of_a_compiled_model_is_added(open_page: Open, workspace, copy) -> None:
    renamed(copy, lambda key: key.replace("base_model.model.", "base_model.model._orig_mod."))
    app = added(open_page(workspace, "adapters"), copy)
    assert not app.exception and catalog.find(workspace, "mine").modules > 0


def test_a_command_told_of_an_upload_names_no_temporary_folder(workspace, copy) -> None:
    from sstmerge_core.catalog import intake
    from sstmerge_core.errors import AdapterError

    settled(copy, peft_type="LOKR")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in copy.iterdir():
            archive.write(path, path.name)
    with pytest.raises(AdapterError, match=r"convert FOLDER --base") as caught:
        intake.upload(workspace, [("lokr.zip", io.BytesIO(buffer.getvalue()))])
    assert str(workspace.adapters) not in str(caught.value)
