"""What the model process computes: every column the merged model's own logits and tokens, the base untouched."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import torch

from sstmerge_core import adapters
from sstmerge_core.adapters import Factors
from sstmerge_core.errors import SSTMergeError
from sstmerge_core.merge import deltas, merge
from sstmerge_core.models.resident import ResidentModel
from sstmerge_core.playground.model import ChatModel, Patch
from sstmerge_core.playground.protocol import Asked, Question
from tests.there import there
from tests.tiny_models import build_base, make_adapter, make_whole_adapter

IDS = torch.tensor([[5, 6, 7, 8]])


def _factors(pair: tuple[Path, Path]) -> list[dict[str, Factors]]:
    return [adapters.read(path).load() for path in pair]


def summed(parts: Sequence[tuple[Factors, float]]) -> torch.Tensor:
    """Σ weight·ΔW."""
    return torch.stack([weight * one.scaling * one.b @ one.a for one, weight in parts]).sum(0)


@pytest.mark.parametrize("method", ["linear", "task_arithmetic"])
def test_every_row_has_the_logits_of_the_merged_adapter_at_its_own_alpha(tiny_base, tiny_pair, method: str) -> None:
    factors = _factors(tiny_pair)
    alphas = (0.0, 0.35, 1.0)
    weights = [[1 - alpha if method == "linear" else 1.0, alpha] for alpha in alphas]
    patched, merged = ResidentModel.load(tiny_base), ResidentModel.load(tiny_base)
    patch = Patch.of(factors, torch.tensor(weights), torch.float32)
    with torch.no_grad(), patch.applied(patched.modules):
        found = patched.model(IDS.expand(len(alphas), -1)).logits
    for row, alpha in zip(found, alphas, strict=True):
        merged.set_delta(deltas(merge(factors, method, {"alpha": alpha})))
        with torch.no_grad():
            expected = merged.model(IDS).logits[0]
        torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-4)
    assert (found[0] - found[1]).abs().max() > 1e-2, "α changes nothing: the oracle could not fail"


def test_after_a_patch_the_base_is_itself_bit_for_bit(tiny_base, tiny_pair) -> None:
    resident = ResidentModel.load(tiny_base)
    before = resident.model(IDS).logits
    with Patch.of(_factors(tiny_pair), torch.tensor([[1.0, 2.0]]), torch.float32).applied(resident.modules):
        assert not torch.equal(resident.model(IDS).logits, before)
    assert torch.equal(resident.model(IDS).logits, before)


@pytest.mark.parametrize(
    ("architecture", "targets"), [("gpt2", ["c_attn", "wte"]), ("llama", ["embed_tokens", "q_proj"])]
)
def test_transposed_weights_and_embeddings_are_patched_too(tmp_path: Path, architecture, targets) -> None:
    base = build_base(architecture, tmp_path / architecture)
    adapter = make_adapter(base, tmp_path / "adapter", 3, target_modules=targets)
    factors = adapters.read(adapter).load()
    patched, merged = ResidentModel.load(base), ResidentModel.load(base)
    merged.set_delta({name: partial(summed, [(one, 1.0)]) for name, one in factors.items()})
    with torch.no_grad(), Patch.of([factors], torch.ones(2, 1), torch.float32).applied(patched.modules):
        found = patched.model(IDS.expand(2, -1)).logits
    torch.testing.assert_close(found[1], merged.model(IDS).logits[0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found[1], patched.model(IDS).logits[0], atol=1e-3)


def test_an_adapter_that_has_trained_its_head_whole_answers_as_it_does_with_peft(workspace, tiny_base, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    headed = make_whole_adapter(tiny_base, tmp_path / "headed", 6, ["lm_head"], target_modules=["q_proj"])
    model = ChatModel(workspace, "cpu")
    resident = ResidentModel.load(tiny_base, device="cpu", movable=False)
    model._resident, model._base_path = resident, str(tiny_base)
    patch = Patch.of([model._adapter("headed", str(headed))], torch.ones(1, 1), torch.float32)
    with torch.no_grad(), patch.applied(resident.modules):
        found = resident.model(IDS).logits
    expected = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_base), str(headed)).eval()
    with torch.no_grad():
        torch.testing.assert_close(found, expected(IDS).logits, rtol=1e-4, atol=1e-4)


def test_columns_are_answered_together_as_each_would_be_alone(workspace, ask, tiny_base, tiny_pair) -> None:
    utility, safety = tiny_pair
    question = ask({}, {"U": (utility, 1.0)}, {"U": (utility, 0.3), "S": (safety, 0.7)}, tokens=8)
    together = _answers(ChatModel(workspace, "cpu"), question)
    resident = ResidentModel.load(tiny_base, device="cpu")
    factors = _factors(tiny_pair)
    for column, weights in enumerate([(0.0, 0.0), (1.0, 0.0), (0.3, 0.7)]):
        shares = {
            name: [(one[name], weight) for one, weight in zip(factors, weights, strict=True) if name in one]
            for name in set().union(*factors)
        }
        resident.set_delta({name: partial(summed, parts) for name, parts in shares.items()})
        (expected,) = resident.generate(["w1 w2 w3"], 8)
        assert together[column]["text"] == expected.text
        assert together[column]["tokens"] == expected.n_tokens
        assert together[column]["ended"] == ("model" if expected.stopped else "limit")
    assert len({answer["text"] for answer in together.values()}) > 1


def test_a_second_question_loads_nothing_again(workspace, ask, tiny_pair) -> None:
    utility, safety = tiny_pair
    model = ChatModel(workspace, "cpu")
    _answers(model, ask({"U": (utility, 0.5), "S": (safety, 0.5)}))
    resident, held = model._resident, {key: id(value) for key, value in model._factors.items()}
    events = [event for step in model.answers(ask({"U": (utility, 0.1), "S": (safety, 2.0)})) for event in step]
    assert "loading" not in {event["event"] for event in events}
    assert model._resident is resident and {key: id(value) for key, value in model._factors.items()} == held


def test_a_narrower_number_format_keeps_no_second_base(workspace, ask, tiny_pair) -> None:
    model = ChatModel(workspace, "cpu")
    (answer,) = _answers(model, ask({"U": (tiny_pair[0], 1.0)}, dtype="bfloat16")).values()
    resident = there(model._resident)
    assert answer["tokens"] and resident.dtype == "bfloat16" and resident._base == {}


def test_adapters_beyond_the_bound_leave_the_memory(workspace, ask, tiny_base, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("sstmerge_core.playground.model.ADAPTERS_KEPT", 2)
    model = ChatModel(workspace, "cpu")
    for seed in range(3):
        folder = make_adapter(tiny_base, tmp_path / f"a{seed}", seed, target_modules=["q_proj"])
        _answers(model, ask({f"a{seed}": (folder, 1.0)}, tokens=1))
    assert model.adapters == ["a1", "a2"]


def test_an_adapter_of_another_base_fails_alone_and_says_why(workspace, ask, tiny_pair, tmp_path) -> None:
    other = build_base("llama", tmp_path / "other", hidden_size=64, head_dim=16)
    stranger = make_adapter(other, tmp_path / "stranger", 1)
    events = [event for step in ChatModel(workspace, "cpu").answers(ask({}, {"X": (stranger, 1.0)})) for event in step]
    (failed,) = [event for event in events if event["event"] == "failed"]
    assert failed["column"] == 1 and "trained on, other" in failed["problems"][0]["fix"]
    assert [event["column"] for event in events if event["event"] == "done"] == [0]


def test_a_folder_that_is_no_model_is_an_error_that_names_it(workspace, tmp_path) -> None:
    question = Question(str(tmp_path / "nothing"), [Asked([], [{"role": "user", "content": "w1"}])])
    with pytest.raises(SSTMergeError, match="nothing"):
        list(ChatModel(workspace, "cpu").answers(question))


def test_a_conversation_longer_than_the_model_is_refused(workspace, ask) -> None:
    events = [event for step in ChatModel(workspace, "cpu").answers(ask({}, tokens=127)) for event in step]
    (failed,) = [event for event in events if event["event"] == "failed"]
    assert failed["problems"][0]["where"] == "conversation" and "128" in failed["problems"][0]["fault"]


def test_drawn_answers_repeat_with_their_seed_and_differ_with_another(workspace, ask) -> None:
    model = ChatModel(workspace, "cpu")
    texts = [_answers(model, ask({}, tokens=12, temperature=1.5, seed=seed))[0]["text"] for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def _answers(model: ChatModel, question: Question) -> dict[int, dict]:
    return {event["column"]: event for step in model.answers(question) for event in step if event["event"] == "done"}
