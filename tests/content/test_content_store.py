"""Adapters and base models by content, over a folder and over S3: moto's server, in this process."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sstmerge_core import adapters, content
from sstmerge_core.cli import main
from sstmerge_core.content import ADAPTER, BASE, ContentStore
from sstmerge_core.errors import DataError
from sstmerge_core.workspace import Workspace
from tests.there import there

BUCKET = "shared"


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The endpoint of an S3 server that keeps everything in memory."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s", "DEFAULT_REGION": "us-east-1"}.items():
            patch.setenv(f"AWS_{name}", value)
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        import s3fs

        s3fs.S3FileSystem().mkdir(BUCKET)
        yield endpoint
    server.stop()


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ContentStore:
    if request.param == "file":
        return ContentStore((tmp_path / "shared").as_uri())
    request.getfixturevalue("s3")
    return ContentStore(f"s3://{BUCKET}/{tmp_path.name}")


def test_credentials_that_came_after_a_store_was_opened_without_them_are_used(
    s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def asked() -> object:
        return ContentStore(f"s3://{BUCKET}/{tmp_path.name}").manifest(ADAPTER, "0" * 64)

    with monkeypatch.context() as patch:
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("HOME", str(tmp_path))
        for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
            patch.delenv(f"AWS_{name}")
        with pytest.raises(DataError, match="credentials"):
            asked()
    assert asked() is None


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "node").create()


def remembered(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def noted(patch: pytest.MonkeyPatch) -> list[str]:
    """The SHA-256 of each file that is read from a store from now on."""
    read: list[str] = []
    reading = ContentStore.read

    def told(self: ContentStore, digest: str) -> Iterator[bytes]:
        read.append(digest)
        return reading(self, digest)

    patch.setattr(ContentStore, "read", told)
    return read


def test_an_adapter_comes_back_bit_for_bit_and_is_sent_once(
    store: ContentStore, workspace: Workspace, tiny_pair: tuple[Path, Path]
) -> None:
    told: list[tuple[int, int]] = []
    pushed = store.push(ADAPTER, tiny_pair[0], "U", progress=lambda done, total: told.append((done, total)))
    assert pushed.sent == pushed.manifest.bytes == told[-1][0] == told[-1][1]
    assert store.push(ADAPTER, tiny_pair[0], "U").sent == 0
    sha256 = adapters.read(tiny_pair[0]).sha256
    found = there(content.fetch(ADAPTER, sha256, workspace, store=store))
    assert adapters.read(found).sha256 == sha256
    assert all(remembered(tiny_pair[0])[name] == data for name, data in remembered(found).items())
    assert [(one.kind, one.name, one.sha256) for one in store.manifests()] == [(ADAPTER, "U", sha256)]


def test_a_base_model_comes_back_with_its_fingerprint_and_without_what_could_run(
    store: ContentStore, workspace: Workspace, tiny_base: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(tiny_base, tmp_path / "with code"))
    (copy / "modeling_odd.py").write_text("raise SystemExit")
    (copy / "pytorch_model.bin").write_bytes(b"a pickle")
    store.push(BASE, copy, "tiny")
    sha256 = adapters.base_fingerprint(tiny_base)
    found = there(content.fetch(BASE, sha256, workspace, store=store))
    assert adapters.base_fingerprint(found) == sha256
    assert not {"modeling_odd.py", "pytorch_model.bin"} & {path.name for path in found.iterdir()}


def test_what_is_damaged_in_the_store_is_refused_and_told_and_nothing_of_it_stays(
    store: ContentStore, workspace: Workspace, tiny_pair: tuple[Path, Path]
) -> None:
    manifest = store.push(ADAPTER, tiny_pair[0], "U").manifest
    size, digest = manifest.files["adapter_model.safetensors"]
    filesystem, _ = store._open()
    filesystem.pipe_file(store._object(digest), b"\0" * size)
    assert store.damaged(manifest) == ["adapter_model.safetensors"]
    with pytest.raises(DataError, match=r"adapter_model.safetensors is not what its SHA-256"):
        content.fetch(ADAPTER, manifest.sha256, workspace, store=store)
    assert content.cached(ADAPTER, manifest.sha256, workspace) is None
    assert not [path for path in content.folder(workspace).rglob("*") if "partial" in path.name]
    filesystem.pipe_file(store._object(digest), b"short")  # a push sees by its length that it is not whole
    assert store.push(ADAPTER, tiny_pair[0], "U").sent == size
    assert content.fetch(ADAPTER, manifest.sha256, workspace, store=store) is not None


def test_a_manifest_that_names_other_places_or_other_things_is_none(
    store: ContentStore, workspace: Workspace, tiny_pair: tuple[Path, Path]
) -> None:
    manifest = store.push(ADAPTER, tiny_pair[0], "U").manifest
    filesystem, _ = store._open()
    path = store._path(ADAPTER, f"{manifest.sha256}.json")
    text = filesystem.cat_file(path)
    for odd in (
        text.replace(b'"adapter_config.json"', b'"../adapter_config.json"'),
        text.replace(b'"adapter_config.json"', b'".."'),
        text.replace(manifest.sha256.encode(), b"0" * 64),
        text[:-20],
        b"[]",
    ):
        filesystem.pipe_file(path, odd)
        with pytest.raises(DataError, match="manifest"):
            content.fetch(ADAPTER, manifest.sha256, workspace, store=store)
    assert list(store.manifests()) == []


def test_a_node_s_copy_that_was_changed_is_fetched_again(workspace: Workspace, tiny_pair: tuple[Path, Path]) -> None:
    store = ContentStore(str(workspace.root / "shared"))
    sha256 = store.push(ADAPTER, tiny_pair[0], "U").manifest.sha256
    found = there(content.fetch(ADAPTER, sha256, workspace, store=store))
    whole = remembered(found)
    weights = found / "adapter_model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    assert content.cached(ADAPTER, sha256, workspace) is None and not found.exists()
    assert remembered(there(content.fetch(ADAPTER, sha256, workspace, store=store))) == whole


KILLED = """
import os, sys
from pathlib import Path
from sstmerge_core import content
from sstmerge_core.workspace import Workspace
store, limit = content.ContentStore(sys.argv[1]), int(sys.argv[4])
def tell(done, total):
    if done >= limit: os.kill(os.getpid(), 9)
if sys.argv[3] == "push":
    store.push("adapter", Path(sys.argv[2]), "U", progress=tell)
else:
    content.fetch("adapter", sys.argv[3], Workspace(Path(sys.argv[2])), store=store, progress=tell)
"""


def killed(*arguments: object) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, *map(str, arguments)], timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL


def test_a_kill_in_a_push_leaves_no_manifest_and_one_in_a_fetch_only_what_is_whole(
    workspace: Workspace, tiny_pair: tuple[Path, Path], tmp_path: Path
) -> None:
    store = ContentStore(str(tmp_path / "shared"))
    size = sum(path.stat().st_size for path in tiny_pair[0].iterdir() if path.suffix != ".safetensors")
    killed(store.address, tiny_pair[0], "push", size + 1)  # in the middle of the weights
    assert list(store.manifests()) == [] and (tmp_path / "shared" / "objects").is_dir()
    pushed = store.push(ADAPTER, tiny_pair[0], "U")
    assert 0 < pushed.sent < pushed.manifest.bytes, "what was whole is not sent again"
    sha256 = pushed.manifest.sha256
    killed(store.address, workspace.root, sha256, size + 1)
    assert content.cached(ADAPTER, sha256, workspace) is None
    with pytest.MonkeyPatch.context() as patch:
        read = noted(patch)
        found = there(content.fetch(ADAPTER, sha256, workspace, store=store))
    assert adapters.read(found).sha256 == sha256
    assert read == [pushed.manifest.files["adapter_model.safetensors"][1]], "the file that was whole is not read again"
    assert not (content.folder(workspace) / "coming" / sha256).exists()


def test_what_the_store_does_not_have_is_none_and_an_unusable_store_is_named(
    store: ContentStore, workspace: Workspace, tiny_pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="is no adapter"):
        store.push(ADAPTER, workspace.root, "U")
    assert content.fetch(ADAPTER, "0" * 64, workspace, store=store) is None
    assert content.fetch(ADAPTER, "0" * 64, workspace) is None, "no store is configured"
    for address, said in (("odd://x", "odd"), (f"s3://{BUCKET}-of-nobody", "of-nobody")):
        if address.startswith("s3") and not store.address.startswith("s3"):
            continue
        with pytest.raises(DataError, match=said):
            ContentStore(address).push(ADAPTER, tiny_pair[0], "U")
        monkeypatch.setenv("SSTMERGE_STORE", address)
        assert there(content.configured()).address == address


def test_the_command_pushes_lists_checks_and_pulls_into_another_workspace(
    store: ContentStore,
    workspace: Workspace,
    tiny_pair: tuple[Path, Path],
    tiny_base: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("SSTMERGE_STORE", store.address)
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(workspace.root))
    assert main(["store", "push", str(tiny_pair[0]), str(tiny_base)]) == 0
    assert main(["store", "list"]) == 0
    listed = capsys.readouterr().out
    assert "adapter" in listed and tiny_base.name in listed and "each kept once" in listed
    assert main(["store", "check"]) == 0 and capsys.readouterr().out.count("whole") == 2
    sha256 = adapters.read(tiny_pair[0]).sha256
    assert main(["store", "pull", sha256[:10], tiny_base.name]) == 0
    assert main(["adapters", "list"]) == 0
    assert "U" in capsys.readouterr().out
    assert main(["store", "pull", sha256]) == 0 and "is here as U" in capsys.readouterr().out
    assert main(["store", "pull", sha256, "--out", str(tmp_path / "out")]) == 0
    assert adapters.read(tmp_path / "out").sha256 == sha256
    assert main(["store", "pull", "nothing"]) == 4 and "sstmerge store list" in capsys.readouterr().err
    monkeypatch.delenv("SSTMERGE_STORE")
    assert main(["store", "list"]) == 4 and "none is named" in capsys.readouterr().err


def test_two_processes_that_want_the_same_fetch_it_once(
    workspace: Workspace, tiny_pair: tuple[Path, Path], tmp_path: Path
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    store = ContentStore(str(tmp_path / "shared"))
    sha256 = store.push(ADAPTER, tiny_pair[0], "U").manifest.sha256
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(4) as pool:
        read = noted(patch)
        found = set(pool.map(lambda _: content.fetch(ADAPTER, sha256, workspace, store=store), range(4)))
    assert len(found) == 1 and len(read) == len(set(read)) > 1
