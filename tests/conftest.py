"""Fixtures that every test may use."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.tiny_models import build_tokenizer, make_adapter

if TYPE_CHECKING:
    from sstmerge_core.workspace import Workspace

if "PYTEST_XDIST_WORKER" in os.environ:
    # a worker a core: torch's threads of one, waiting for each other, would take a fifth of the other's time
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# what tests write in the fields for paths lies in the temporary folder; tests/pages/test_folders.py sets its own
os.environ.setdefault("SSTMERGE_ROOTS", tempfile.gettempdir())


LONG = (
    "e2e/test_main_job",
    "test_wheel",
    "runs/test_execute",
    "worker/test_ray_and_slurm",
    "e2e",
    "reliability",
    "corpus",
)
"""Files and folders that take longest: begun first, no worker is left alone with them while the others have nothing"""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    places = {path: path.relative_to(here).with_suffix("").as_posix() for path in {item.path for item in items}}
    order = {
        path: next((rank for rank, long in enumerate(LONG) if f"{place}/".startswith(f"{long}/")), len(LONG))
        for path, place in places.items()
    }
    items.sort(key=lambda item: order[item.path])


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are called by how many they are: what they hold may differ from process to process, and nobody reads it."""
    return f"{argname} of {len(val)} bytes" if isinstance(val, bytes) else None


MADE_ANEW = ("tests/store/test_damage.py", "tests/store/test_owner.py", "tests/upkeep/", "tests/reliability/")
"""Tests of how a database comes to be, and of what a fault makes of that"""


@pytest.fixture(scope="session", autouse=True)
def an_empty_database_is_a_copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An empty database with its sixty tables and views is made once and then copied: 0.01 instead of 0.17 s each."""
    from sstmerge_core.store import Owner
    from sstmerge_core.workspace import Workspace

    made = Owner.open.__func__  # type: ignore[attr-defined]

    @functools.cache
    def empty() -> Path:
        workspace = Workspace(tmp_path_factory.mktemp("empty-database"))
        made(Owner, workspace).close()
        return workspace.database

    def opened(cls: type[Owner], workspace: Workspace, *, wait: float = 1.0) -> Owner:
        if not os.environ.get("PYTEST_CURRENT_TEST", "").startswith(MADE_ANEW) and _is_free(workspace.database):
            with contextlib.suppress(Exception):  # what stands in the way is for the real one to say
                workspace.create()
                shutil.copyfile(empty(), workspace.database)
        return made(cls, workspace, wait=wait)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Owner, "open", classmethod(opened))
        yield


def _is_free(database: Path) -> bool:
    return not os.path.lexists(database) and not os.path.lexists(f"{database}.wal")


@pytest.fixture(scope="session")
def shipped_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of the runs that ship with the demo, to read and not to write."""
    from sstmerge_core.upkeep import shipped
    from sstmerge_core.workspace import Workspace

    workspace = Workspace(tmp_path_factory.mktemp("shipped")).create()
    shipped.install(workspace)
    return workspace.runs


@pytest.fixture
def without_rouge(tmp_path: Path, shipped_runs: Path) -> tuple[Workspace, str]:
    """A workspace with one shipped run as it was before ROUGE-L existed, and the run's id."""
    from sstmerge_core.store.events import EventWriter, read_events
    from sstmerge_core.workspace import Workspace

    workspace = Workspace(tmp_path / "without").create()
    folder = next(path for path in sorted(shipped_runs.iterdir()) if "rouge_l" in (path / "events.jsonl").read_text())
    with EventWriter(workspace.run(folder.name)) as events:
        for event in read_events(folder):
            told = {name: value for name, value in event.items() if name not in ("event", "t")}
            if event["event"] == "metrics":
                told["rows"] = [row for row in told["rows"] if row["metric"] != "rouge_l"]
            events.write(event["event"], **told)
    return workspace, folder.name


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer Llama with a tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=95,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        eos_token_id=1,
        pad_token_id=1,
        bos_token_id=2,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    build_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_pair(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A utility and a safety adapter of the tiny base, of different rank and partly different targets."""
    root = tmp_path_factory.mktemp("adapters")
    utility = make_adapter(tiny_base, root / "U", 1)
    safety = make_adapter(
        tiny_base, root / "S", 2, r=3, use_rslora=True, target_modules=["q_proj", "v_proj", "down_proj"]
    )
    return utility, safety
