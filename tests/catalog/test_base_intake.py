"""Base models that come in: by folder, from the Hugging Face cache of the machine, from the hub."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sstmerge_core import catalog, jobs
from sstmerge_core.catalog import base_intake, hub
from sstmerge_core.cli import inputs, main
from sstmerge_core.errors import AdapterError, Cancelled, DataError, JobError
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.worker import base_download, run_job
from sstmerge_core.workspace import Workspace

COMMITS = ("1" * 40, "2" * 40)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "w").create()


@pytest.fixture
def cache(tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hugging Face cache with two revisions of lab/tiny, and a repository without weights."""
    root = tmp_path / "hub"
    home = root / "models--lab--tiny"
    for commit in COMMITS:
        shutil.copytree(tiny_base, home / "snapshots" / commit)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(COMMITS[0])
    (home / "refs" / "v2").write_text(COMMITS[1])
    (home / "blobs").mkdir()
    bare = root / "models--lab--bare"
    (bare / "snapshots" / COMMITS[0]).mkdir(parents=True)
    (bare / "snapshots" / COMMITS[0] / "config.json").write_text("{}")
    (bare / "refs").mkdir()
    (bare / "blobs").mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(root))
    monkeypatch.setattr("huggingface_hub.utils._cache_manager.HF_HUB_CACHE", str(root), raising=False)
    return root


def test_the_cache_of_this_machine_is_listed_at_its_main_branch_without_what_has_no_weights(cache: Path) -> None:
    (one,) = base_intake.cached()
    assert (one.name, one.commit) == ("lab/tiny", COMMITS[0])
    assert one.bytes > 0 and (one.path / "config.json").is_file()
    assert base_intake.cached("lab/tiny", "v2")[0].commit == COMMITS[1]
    assert base_intake.cached("lab/tiny", "2222")[0].commit == COMMITS[1]
    assert base_intake.cached("lab/tiny", "v3") == []


def test_a_machine_without_a_cache_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.utils._cache_manager.HF_HUB_CACHE", str(tmp_path / "no"), raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "no"))
    assert base_intake.cached() == []


def test_a_base_of_the_cache_is_named_on_the_command_line_by_its_id(workspace: Workspace, cache: Path) -> None:
    assert inputs.base("lab/tiny@v2", workspace).path.name == COMMITS[1]
    assert inputs.base("lab/tiny", workspace).name == "lab/tiny"
    with pytest.raises(DataError, match="add-base hf:lab/other@v9"):
        inputs.base("lab/other@v9", workspace)


def test_what_an_adapter_names_is_found_as_a_folder_or_in_the_cache(cache: Path, tiny_base: Path) -> None:
    models = base_intake.cached()
    assert base_intake.named(str(tiny_base), models) == tiny_base
    assert base_intake.named("lab/tiny", models) == models[0].path
    for nowhere in ("", "lab/other", "/no/such/folder", "a" * 5000):
        assert base_intake.named(nowhere, models) is None


class _Hub:
    """A hub with one model, whose files are those of a folder; `sent` counts what was fetched."""

    def __init__(self, folder: Path, target: Path) -> None:
        self.folder, self.target, self.sent = folder, target, [""][:0]

    def model_info(self, repository: str, **_: Any) -> SimpleNamespace:
        files = [SimpleNamespace(rfilename=file.name, size=file.stat().st_size) for file in self.folder.iterdir()]
        files.append(SimpleNamespace(rfilename="modeling_evil.py", size=10))
        return SimpleNamespace(sha=COMMITS[0], siblings=files)

    def download(self, repository: str, file: str, *, revision: str, local_dir: Any, tqdm_class: Any) -> str:
        self.sent.append(file)
        self.target.mkdir(exist_ok=True)
        shutil.copy(self.folder / file, self.target / file)
        size = (self.folder / file).stat().st_size
        with tqdm_class(total=size, name="huggingface_hub.http_get") as bar:
            bar.update(size)
        return str(self.target / file)


@pytest.fixture
def a_hub(tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> _Hub:
    found = _Hub(tiny_base, tmp_path / COMMITS[0])
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: found)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", found.download)
    return found


def test_a_model_of_the_hub_is_fetched_with_its_bytes_told_and_nothing_that_could_run(
    workspace: Workspace, a_hub: _Hub
) -> None:
    told: list[tuple[int, int]] = []
    base = base_intake.download(workspace, "https://huggingface.co/lab/tiny", "", lambda *at: told.append(at))
    assert base.name == "lab/tiny" and catalog.bases(workspace)[-1].name == "lab/tiny"
    assert "modeling_evil.py" not in a_hub.sent and "config.json" in a_hub.sent
    total = told[-1][1]
    assert told[-1] == (total, total) and [done for done, _ in told] == sorted(done for done, _ in told)


def test_a_download_stops_where_it_is_cancelled_and_registers_nothing(workspace: Workspace, a_hub: _Hub) -> None:
    with pytest.raises(Cancelled):
        base_intake.download(workspace, "lab/tiny", should_cancel=lambda: len(a_hub.sent) > 1)
    assert len(catalog.bases(workspace)) == 1


def test_a_download_that_does_not_fit_on_the_disk_is_refused_before_it_begins(
    workspace: Workspace, a_hub: _Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sstmerge_core.adapters.archive.free_space", lambda folder: 10)
    with pytest.raises(AdapterError, match="HF_HOME"):
        base_intake.download(workspace, "lab/tiny")
    assert a_hub.sent == []


def test_the_job_of_the_queue_does_the_same_and_says_how_far_it_is(
    workspace: Workspace, a_hub: _Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "settle", lambda workspace: None)  # no worker of its own: it runs here
    job_id = base_download.submit(workspace, "lab/tiny", "main")
    job = jobs.job(workspace, job_id)
    assert job is not None and job.name == "Base model lab/tiny@main"
    assert run_job(workspace, job, "") == ("done", None)
    assert catalog.bases(workspace)[-1].name == "lab/tiny"
    assert Queue(workspace).spec(job_id) == {"download": {"repository": "lab/tiny", "revision": "main"}}


@pytest.mark.parametrize("given", ["", "tiny", "a/b/c", "/tiny", "lab/"])
def test_what_is_no_repository_is_refused_before_a_job_is_made(workspace: Workspace, given: str) -> None:
    with pytest.raises(JobError, match="owner/name"):
        base_download.submit(workspace, given)


def test_a_base_is_taken_off_the_list_and_put_back_under_its_name(
    workspace: Workspace, tiny_base: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(workspace.root))
    assert main(["adapters", "add-base", str(tiny_base), "--name", "mine"]) == 0
    assert catalog.bases(workspace)[-1].name == "mine"
    assert main(["adapters", "remove-base", "mine"]) == 0
    assert len(catalog.bases(workspace)) == 1 and (tiny_base / "config.json").is_file()
    assert main(["adapters", "remove-base", "mine"]) != 0
    assert "is not registered here" in capsys.readouterr().err
    catalog.add_base(workspace, tiny_base, "mine")
    assert catalog.bases(workspace)[-1].name == "mine"


def test_the_bundled_base_cannot_be_taken_off_the_list(workspace: Workspace) -> None:
    with pytest.raises(DataError, match="the bundled model stays"):
        catalog.remove_base(workspace, catalog.bases(workspace)[0].sha256 or "0" * 64)


def test_a_repository_without_safetensors_is_named(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "ask", lambda *given: ("c", {"config.json": 1, "pytorch_model.bin": 9}))
    with pytest.raises(AdapterError, match="no weights in safetensors"):
        base_intake.download(workspace, "lab/tiny")
