from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from sstmerge_core.errors import RecipeError
from sstmerge_core.evaluate import academic
from sstmerge_core.evaluate.code_sandbox import pass_at_k, passes, share_passing
from sstmerge_core.suites.declared import Harness
from sstmerge_core.workspace import Workspace
from tests.tiny_models import build_base

with_harness = pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="needs the lm-eval extra")


def test_a_program_passes_only_when_it_runs_to_its_end() -> None:
    assert passes("import math, typing, hashlib\nassert math.sqrt(4) == 2\nprint('x')")
    for program in ("assert 1 == 2", "def", "import sys; sys.exit(0)", "import os; os._exit(0)", "bytearray(3 << 30)"):
        assert not passes(program), program


def test_an_endless_program_is_stopped() -> None:
    assert not passes("while True: pass", seconds=0.5)


def test_a_program_reaches_neither_files_nor_processes_nor_the_network(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("x")
    attempts = {
        "write": f"open({str(tmp_path / 'new')!r}, 'w')",
        "write low": f"import os; os.open({str(tmp_path / 'new')!r}, os.O_CREAT | os.O_WRONLY)",
        "read": f"assert open({str(kept)!r}).read()",
        "remove": f"import os; os.remove({str(kept)!r})",
        "rename": f"import os; os.rename({str(kept)!r}, {str(tmp_path / 'new')!r})",
        "shell": f"import os; assert os.system('touch {tmp_path / 'new'}') == 0",
        "process": f"import subprocess; subprocess.run(['touch', {str(tmp_path / 'new')!r}], check=True)",
        "network": "import socket; socket.socket()",
        "native code": "import ctypes; ctypes.CDLL(None)",
    }
    for name, program in attempts.items():
        assert not passes(program), name
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert passes("import os; assert not os.environ and os.getcwd() != '/'")


def test_pass_at_k_is_the_share_of_draws_with_a_passing_answer() -> None:
    assert pass_at_k(1, 1, 1) == 1.0 and pass_at_k(1, 0, 1) == 0.0
    assert pass_at_k(5, 2, 1) == pytest.approx(2 / 5)
    assert pass_at_k(5, 2, 2) == pytest.approx(1 - 3 / 10)  # 3 of the 10 pairs hold no passing answer
    assert pass_at_k(5, 4, 2) == 1.0
    with pytest.raises(RecipeError):
        pass_at_k(2, 1, 3)
    assert share_passing(["pass", "assert False"]) == 0.5


def test_code_runs_only_when_switched_on_and_a_missing_harness_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name == "lm_eval" else real(name))
    code = Harness(task="humaneval", runs_code=True)
    academic.check([code], execute_code=True)
    with pytest.raises(RecipeError, match="Switch it on with --execute-code"):
        academic.check([Harness(task="mmlu"), code], execute_code=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "lm_eval" else real(name))
    with pytest.raises(RecipeError, match=r'pip install "sstmerge\[lm-eval\]"'):
        academic.check([Harness(task="mmlu")], execute_code=False)


def test_names_are_those_of_academic_suites_or_of_the_harness(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    bbh, other = academic.harnesses(["bbh", "arc_easy"], workspace)
    assert (bbh.task, bbh.few_shot) == ("bbh_fewshot", 3)
    assert other == Harness(task="arc_easy")
    with pytest.raises(RecipeError, match="is a utility suite, not an academic one"):
        academic.harnesses(["facts"], workspace)


def test_the_harness_results_become_metric_rows_with_its_standard_error_as_interval() -> None:
    found = {
        "results": {
            "mmlu": {"alias": "mmlu", "acc,none": 0.5, "acc_stderr,none": 0.01},
            "mmlu_law": {"alias": "law", "acc,none": 0.99, "acc_stderr,none": 0.1},
            "gsm8k": {
                "exact_match,strict-match": 0.25,
                "exact_match_stderr,strict-match": "N/A",
                "exact_match,flexible-extract": 0.5,
                "exact_match_stderr,flexible-extract": 0.1,
            },
            "wikitext": {"word_perplexity,none": 20.0, "word_perplexity_stderr,none": 1.0},
        },
        "group_subtasks": {"mmlu": ["mmlu_law"]},
        "n-samples": {"mmlu_law": {"original": 90, "effective": 10}, "gsm8k": {"original": 4, "effective": 4}},
    }
    rows = {(row["suite"], row["metric"]): row for row in academic.rows(found, "0.4.13")}
    group = rows["mmlu", "acc"]
    assert (group["ci_low"], group["ci_high"]) == pytest.approx((0.4804, 0.5196), abs=1e-4)
    assert (group["n"], group["judge"]) == (10, "lm-eval 0.4.13")
    assert rows["mmlu_law", "acc"]["ci_high"] == 1.0
    assert rows["gsm8k", "exact_match:strict-match"]["ci_low"] is None
    assert rows["gsm8k", "exact_match:flexible-extract"]["value"] == 0.5
    assert rows["wikitext", "word_perplexity"]["ci_high"] == pytest.approx(21.96, abs=0.01)
    assert len(rows) == 5


def local_task(folder: Path) -> Path:
    """A multiple-choice task on rows of its own, in the harness's format."""
    rows = [{"q": f"w{n} w{n + 1}", "choices": ["w1", "w2", "w3"], "gold": n % 3} for n in range(6)]
    (folder / "rows.json").write_text(json.dumps(rows))
    task = {
        "task": "tiny_choice",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.json")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{q}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{gold}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (folder / "tiny_choice.yaml").write_text(yaml.safe_dump(task))
    return folder


@with_harness
def test_the_harness_measures_the_weights_in_memory_and_leaves_them_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from sstmerge_core.models.resident import ResidentModel

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    resident = ResidentModel.load(build_base("llama", tmp_path / "base", tie_word_embeddings=True), device="cpu")
    shape = resident.model.lm_head.weight.shape
    torch.manual_seed(1)
    resident.set_delta({"lm_head": lambda: torch.randn(shape)})
    moved = resident.model.lm_head.weight.clone()
    padding = resident.tokenizer.padding_side, resident.tokenizer.pad_token

    (row,) = academic.run(resident, Harness(task="tiny_choice"), include=local_task(tmp_path))
    assert (row["metric"], row["suite"], row["n"]) == ("acc", "tiny_choice", 6)
    assert row["ci_low"] < row["value"] < row["ci_high"] or row["value"] in (0.0, 1.0)
    assert torch.equal(resident.model.lm_head.weight, moved)
    assert not torch.equal(resident.model.lm_head.weight, resident.model.model.embed_tokens.weight)
    assert (resident.tokenizer.padding_side, resident.tokenizer.pad_token) == padding
    assert "tie_weights" not in vars(resident.model)
    with pytest.raises(RecipeError, match="has no such task"):
        academic.run(resident, Harness(task="no_such_task"))


@with_harness
def test_humaneval_runs_its_answers_in_the_sandbox_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sstmerge_core.models.resident import ResidentModel

    def problems() -> dict[str, Any]:
        import datasets

        rows = [{"prompt": "def w1():\n", "test": "def check(f): pass", "entry_point": "w1"} for _ in range(2)]
        return {"custom_dataset": lambda **_: datasets.DatasetDict(test=datasets.Dataset.from_list(rows))}

    seen: list[str] = []

    def passing(program: str) -> bool:
        seen.append(program)
        return len(seen) == 1

    monkeypatch.setattr(academic, "_problems", problems)
    monkeypatch.setattr("sstmerge_core.evaluate.code_sandbox.passes", passing)
    resident = ResidentModel.load(build_base("llama", tmp_path / "base", max_position_embeddings=1024), device="cpu")
    (row,) = academic.run(resident, Harness(task="humaneval", few_shot=0, runs_code=True))
    assert (row["suite"], row["metric"], row["value"], row["n"]) == ("humaneval", "pass@1", 0.5, 2)
    assert len(seen) == 2 and all(text.startswith("def w1():\n") and text.endswith("check(w1)") for text in seen)
