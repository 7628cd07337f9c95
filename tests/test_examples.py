"""The notebook of the examples runs from its first cell to its last, with and without a base model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).resolve().parents[1] / "examples" / "merge_in_python.ipynb"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty workspace, in an empty folder to run in."""
    from sstmerge_core.workspace import Workspace

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(tmp_path / "workspace"))
    return Workspace.default()


def run() -> dict[str, Any]:
    """Execute the code cells in order in one namespace, as a notebook's kernel does, and return it."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(json.loads(NOTEBOOK.read_text())["cells"]):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{NOTEBOOK.name}, cell {number}", "exec"), namespace)
    return namespace


def test_the_notebook_merges_writes_and_reads_back_without_a_base_model(workspace: Any) -> None:
    told = run()
    assert len(told["table"]) == 210
    assert told["table"]["error"].max() < 1e-6
    assert told["difference"] < 1e-5 * told["table"]["ΔW"].min()
    assert (told["settings"].r, len(told["weights"])) == (told["merged"].rank, 420)
    assert told["largest"] is None
    assert len(told["figure"].data) == told["table"]["projection"].nunique() == 7


def test_peft_adds_to_a_base_model_what_the_notebook_merged(workspace: Any) -> None:
    """On random weights of the demo model's shape, but for its vocabulary, which no demo adapter changes."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from sstmerge_core.demo import model

    config = LlamaConfig(
        vocab_size=95,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).bfloat16().save_pretrained(model.folder(workspace))
    assert run()["largest"] < 1e-5


def test_the_notebook_is_kept_without_outputs() -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert cells and not any(cell["outputs"] or cell["execution_count"] for cell in cells)
