"""A model larger than its device: half of it stays on the disk here, where a GPU would leave it to the host."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sstmerge_core import adapters
from sstmerge_core.errors import AdapterError, DataError
from sstmerge_core.fisher import core_gradients, expansion
from sstmerge_core.jobs.devices import spread
from sstmerge_core.models.placement import SHARES, loading, shares
from sstmerge_core.models.resident import ResidentModel
from sstmerge_core.space import core_space

IDS = torch.tensor([[2, 5, 6, 7, 8, 9]])
ROWS = [("w1 w2 w3", "w4 w5"), ("w6", "w7 w8 w9 w10")]


@pytest.fixture(scope="module")
def pair(tiny_pair: tuple[Path, Path]) -> list[dict[str, adapters.Factors]]:
    return [adapters.read(folder).load() for folder in tiny_pair]


@pytest.fixture(scope="module")
def whole(tiny_base: Path) -> ResidentModel:
    return ResidentModel.load(tiny_base)


@pytest.fixture(scope="module")
def parted(tiny_base: Path, whole: ResidentModel) -> ResidentModel:
    """Its last layer is left where it is in the files."""
    size = 4 * sum(parameter.numel() for parameter in whole.model.parameters())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SHARES, f"cpu={int(0.7 * size)}B")
        return ResidentModel.load(tiny_base)


def logits(resident: ResidentModel) -> torch.Tensor:
    with torch.inference_mode():
        return resident.model(IDS).logits


def test_a_model_in_parts_gives_the_answers_and_gradients_of_the_whole_one(
    parted: ResidentModel, whole: ResidentModel, pair: list[dict[str, adapters.Factors]]
) -> None:
    away = [name for name, module in parted.modules.items() if module.weight.is_meta]
    assert away and len(away) < len(parted.modules), "some are here and some are not"
    assert {name for own in pair for name in own} & set(away), "the adapters have modules among them"
    assert torch.equal(logits(parted), logits(whole))
    hooks = [vars(layer)["forward"] for layer in parted.model.model.layers]
    beside = expansion.low_rank(pair, [0.7, 0.3])
    found = []
    for resident in (parted, whole):
        resident.set_delta(None, beside)
        answers = resident.generate(["w1 w2", "w1 w3 w4 w5"], 5)
        gradients = core_gradients(
            resident.model, resident.tokenizer, core_space(pair), ROWS, room=1
        )  # layers come twice
        found.append((logits(resident), answers, gradients.rows))
        resident.set_delta(None)
    assert torch.equal(found[0][0], found[1][0]) and found[0][1] == found[1][1]
    assert torch.equal(found[0][2], found[1][2]) and bool(found[0][2].abs().sum() > 0)
    assert torch.equal(logits(parted), logits(whole)), "both are the base again"
    assert [vars(layer)["forward"] for layer in parted.model.model.layers] == hooks, "which bring weights to the device"


def test_a_weight_that_is_away_is_not_written_to_and_that_is_said(
    parted: ResidentModel, whole: ResidentModel, pair: list[dict[str, adapters.Factors]]
) -> None:
    with pytest.raises(AdapterError, match=r"lies outside of the GPU.*beside the weights"):
        parted.set_delta(expansion.deltas(pair, [1.0, 0.0]))
    assert torch.equal(logits(parted), logits(whole)), "what had been moved is the base again"


def test_shares_are_read_or_refused_and_mean_one_worker(monkeypatch: pytest.MonkeyPatch, tiny_base: Path) -> None:
    monkeypatch.setenv(SHARES, "cuda:0=20GB, cuda:1=1.5 GB,cpu=60GB")
    assert shares() == {0: 20 * 10**9, 1: 15 * 10**8, "cpu": 60 * 10**9}
    assert list(loading("cuda:1", torch.bfloat16)["max_memory"]) == [0, 1, "cpu"]
    assert loading("cpu", torch.float32) == {} == loading("cuda:2", torch.float32), "other devices are meant"
    assert spread("cuda", 4) == (["cuda:0"], 1) and spread("cpu", 4) == (["cpu"], 4)
    monkeypatch.setenv(SHARES, "cuda:0=much")
    with pytest.raises(DataError, match="cuda:0=much is no share"):
        loading("cuda:0", torch.float32)
    monkeypatch.setenv(SHARES, "cpu=1B")
    with pytest.raises(DataError, match="token embedding"):
        ResidentModel.load(tiny_base)
