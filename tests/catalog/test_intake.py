"""Adapters from elsewhere: archives, files, the hub."""

from __future__ import annotations

import io
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import errors

from sstmerge_core import catalog
from sstmerge_core.catalog import intake
from sstmerge_core.catalog.intake import AdapterInfo
from sstmerge_core.errors import AdapterError
from sstmerge_core.workspace import Workspace

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "w").create()


def zipped(folder: Path, prefix: str = "", **more: bytes) -> io.BytesIO:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.iterdir():
            archive.write(path, f"{prefix}{path.name}")
        for name, data in more.items():
            archive.writestr(name.replace("__", "/").replace("DOT", "."), data)
    return buffer


def kept(workspace: Workspace) -> list[str]:
    return sorted(path.name for path in workspace.adapters.iterdir()) if workspace.adapters.is_dir() else []


def test_an_archive_of_a_folder_is_kept_checked_and_registered(workspace: Workspace, tiny_pair) -> None:
    archive = zipped(tiny_pair[0], "my-lora/", **{"my-loraDOT__evilDOTpy": b"x", "__MACOSX__my-lora": b"x"})
    entry = intake.upload(workspace, [("My lora.zip", archive)], AdapterInfo(role="utility", tags=(" lab ", "lab")))
    assert (entry.name, entry.role, entry.tags, entry.origin) == ("My-lora", "utility", ("lab",), "upload:My lora.zip")
    assert entry.sha256 == catalog.entry(tiny_pair[0]).sha256
    assert {path.name for path in entry.path.iterdir()} <= {CONFIG, WEIGHTS, "sstmerge.json"}
    assert catalog.find(workspace, "My-lora").tags == ("lab",)


def test_files_sent_one_by_one_are_kept_under_the_given_name(workspace: Workspace, tiny_pair) -> None:
    sent = [(name, io.BytesIO((tiny_pair[0] / name).read_bytes())) for name in (WEIGHTS, CONFIG)]
    assert intake.upload(workspace, sent, AdapterInfo(name="mine")).path == workspace.adapters / "mine"


def test_an_archive_writes_nothing_outside_its_own_new_folder(workspace: Workspace, tiny_pair, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in (CONFIG, WEIGHTS):
            archive.write(tiny_pair[0] / name, f"../../../outside/{name}")
    entry = intake.upload(workspace, [("up.zip", buffer)])
    assert entry.path == workspace.adapters / "up" and not (tmp_path / "outside").exists()
    assert not any(path.name == "outside" for path in tmp_path.rglob("*"))


def _bad(tiny_pair, tmp_path: Path) -> dict[str, tuple[list, str]]:
    pickled = tmp_path / "pickled"
    shutil.copytree(tiny_pair[0], pickled)
    (pickled / WEIGHTS).rename(pickled / "adapter_model.bin")
    cut = tmp_path / "cut"
    shutil.copytree(tiny_pair[0], cut)
    (cut / WEIGHTS).write_bytes((cut / WEIGHTS).read_bytes()[:200])
    both = zipped(tiny_pair[0], "one/")
    with zipfile.ZipFile(both, "a") as archive:
        archive.write(tiny_pair[1] / CONFIG, f"two/{CONFIG}")
    return {
        "no archive": ([("a.zip", io.BytesIO(b"PK not really"))], r"^a.zip: is not a ZIP archive"),
        "pickle": ([("a.zip", zipped(pickled))], r"^a.zip: adapter_model.safetensors: is missing; .* is a pickle"),
        "truncated": ([("a.zip", zipped(cut))], r"^a.zip: adapter_model.safetensors: is truncated"),
        "two": ([("a.zip", both)], r"^a.zip: holds 2 adapters: one, two"),
        "empty": ([("a.zip", zipped(tmp_path / "none"))], r"^a.zip: holds no adapter_config.json"),
        "config alone": ([(CONFIG, io.BytesIO(b"{}"))], r"^adapter_model.safetensors: is missing"),
        "strange": ([("notes.json", io.BytesIO(b"{}"))], r"^notes.json: is no file of a PEFT adapter"),
        "nothing": ([], r"^upload: holds no file"),
    }


CASES = ("no archive", "pickle", "truncated", "two", "empty", "config alone", "strange", "nothing")


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_used_is_refused_by_the_name_of_its_file_and_leaves_nothing(
    workspace: Workspace, tiny_pair, tmp_path: Path, case: str
) -> None:
    (tmp_path / "none").mkdir()
    sent, message = _bad(tiny_pair, tmp_path)[case]
    before = catalog.entries(workspace)
    with pytest.raises(AdapterError, match=message):
        intake.upload(workspace, sent)
    assert kept(workspace) == [] and catalog.entries(workspace) == before


def test_an_archive_that_unpacks_to_more_than_is_allowed_is_refused_before_and_while_it_unpacks(
    workspace: Workspace, tiny_pair
) -> None:
    with pytest.raises(AdapterError, match=r"big.zip: holds more than 1 kB"):
        intake.upload(workspace, [("big.zip", zipped(tiny_pair[0]))], largest=1000)
    sent = [(name, io.BytesIO((tiny_pair[0] / name).read_bytes())) for name in (CONFIG, WEIGHTS)]
    with pytest.raises(AdapterError, match=r"adapter_model.safetensors: holds more than 2 kB"):
        intake.upload(workspace, sent, largest=2000)
    assert kept(workspace) == []


def test_an_adapter_that_is_here_already_is_named_and_not_kept_twice(workspace: Workspace, tiny_pair) -> None:
    catalog.add(workspace, tiny_pair[0], name="mine")
    with pytest.raises(AdapterError, match="a.zip: is here already, as mine"):
        intake.upload(workspace, [("a.zip", zipped(tiny_pair[0]))])
    assert kept(workspace) == []


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tiny_pair) -> dict:
    """A hub with one repository: the tiny utility adapter, a pickle and a script."""
    asked: dict = {"files": []}

    def model_info(self, repository, *, revision, files_metadata, timeout):
        asked["revision"] = revision
        names = [*asked.get("names", (CONFIG, WEIGHTS)), "adapter_model.bin", "run.py"]
        sizes = [SimpleNamespace(rfilename=name, size=asked.get("size", 100)) for name in names]
        return SimpleNamespace(sha=COMMIT, siblings=sizes)

    def hf_hub_download(repository, file, *, revision, local_dir):
        asked["files"].append((file, revision))
        shutil.copyfile(tiny_pair[0] / file, Path(local_dir) / file)
        (Path(local_dir) / ".cache").mkdir(exist_ok=True)
        return str(Path(local_dir) / file)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    return asked


def test_of_a_hub_repository_only_settings_and_safetensors_come_at_a_commit_that_is_recorded(
    workspace: Workspace, hub: dict
) -> None:
    entry = intake.download(workspace, "https://huggingface.co/lab/my-lora/", AdapterInfo(tags=("hub",)), revision="v1")
    assert hub["revision"] == "v1" and hub["files"] == [(CONFIG, COMMIT), (WEIGHTS, COMMIT)]
    assert (entry.name, entry.origin) == ("my-lora", f"hub:lab/my-lora@{COMMIT}")
    assert {path.name for path in entry.path.iterdir()} == {CONFIG, WEIGHTS}
    assert catalog.find(workspace, "my-lora").origin == entry.origin


def test_a_repository_without_safetensors_or_larger_than_allowed_is_not_downloaded(
    workspace: Workspace, hub: dict
) -> None:
    hub["size"] = 10**9
    with pytest.raises(AdapterError, match="its files take 2 GB"):
        intake.download(workspace, "lab/my-lora", largest=10**9)
    hub["names"] = (CONFIG,)
    with pytest.raises(AdapterError, match="has only adapter_model.bin, a pickle"):
        intake.download(workspace, "lab/my-lora")
    assert hub["files"] == [] and kept(workspace) == []


def _answered(kind: type[Exception]) -> Exception:
    """An error of the hub's client as it raises it, without the answer of a server in it."""
    return kind.__new__(kind, "refused")


HUB_ERRORS = {
    "gated": (_answered(errors.GatedRepoError), "asks for its terms .*hf auth login"),
    "unknown": (_answered(errors.RepositoryNotFoundError), "there is none, or it is private"),
    "revision": (_answered(errors.RevisionNotFoundError), "has no revision v9"),
    "id": (errors.HFValidationError("bad"), "is no repository's id"),
    "offline": (ConnectionError("no route"), r"the hub cannot be reached from here \(ConnectionError: no route"),
}


@pytest.mark.parametrize("case", HUB_ERRORS)
def test_what_the_hub_says_is_told_with_what_to_do(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    error, message = HUB_ERRORS[case]

    def refuse(*args, **kwargs):
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    with pytest.raises(AdapterError, match=f"^hub repository lab/my-lora: {message}"):
        intake.download(workspace, "lab/my-lora", revision="v9")
    assert kept(workspace) == []
