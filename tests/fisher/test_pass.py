"""The Fisher pass within memory: activations computed again, batches halved, logits by piece, resumed by batch."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sstmerge_core import adapters
from sstmerge_core.fisher import cache, core_gradients, gradients, room
from sstmerge_core.fisher.partial import under_way
from sstmerge_core.models import supervised
from sstmerge_core.models.resident import ResidentModel
from sstmerge_core.models.supervised import head_is_plain
from sstmerge_core.space import CoreSpace, core_space
from sstmerge_core.workspace import Workspace
from tests.there import there
from tests.tiny_models import build_base, make_adapter

ROWS = [(" ".join(f"w{(3 * n + k) % 90}" for k in range(2 + n)), f"w{n} w{n + 1} w{n + 2}") for n in range(7)]
NO_ROOM = 1
"""Bytes: too few for anything"""


@pytest.fixture(scope="module", params=["llama", "gemma2", "gpt2"])
def loaded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ResidentModel, CoreSpace, Path]:
    folder = tmp_path_factory.mktemp("pass")
    layers = {"n_layer" if request.param == "gpt2" else "num_hidden_layers": 6}
    base = build_base(request.param, folder / request.param, **layers)
    extra = {"fan_in_fan_out": True} if request.param == "gpt2" else {}
    space = core_space(
        [adapters.read(make_adapter(base, folder / f"A{seed}", seed, **extra)).load() for seed in (1, 2)]
    )
    return ResidentModel.load(base, "float32", "cpu"), space, base


def found(loaded: tuple[ResidentModel, CoreSpace, Path], **how: Any) -> torch.Tensor:
    model, space, _ = loaded
    return core_gradients(model.model, model.tokenizer, space, ROWS, **how).rows


def test_hooks_survive_activations_that_are_computed_again_and_give_the_same_bits(loaded) -> None:
    model, _, _ = loaded
    layer = room._layers(model.model)[0]
    inner = next(module for module in layer.modules() if not list(module.children()))
    seen: list[int] = []
    handle = inner.register_forward_hook(lambda *_: seen.append(1))
    usual = found(loaded, room=10**12)
    assert len(seen) == 1, "one batch, and each layer is passed once"
    longest = max(len(ids) for ids, _ in gradients.encode_rows(model.tokenizer, ROWS, 256))
    short = 8 * longest * room.Footprint.of(model.model).everything - 1
    again = found(loaded, room=short)
    assert len(seen) == 3, "and once more in the backward pass"
    assert torch.equal(again, usual) and float(usual.abs().max()) > 1e-3
    assert all("forward" not in vars(one) for one in room._layers(model.model))
    one_by_one = found(loaded, room=NO_ROOM)
    handle.remove()
    assert len(seen) == 3 + 2 * len(ROWS)
    torch.testing.assert_close(one_by_one, usual, rtol=1e-4, atol=1e-6)


def test_the_batches_of_short_samples_are_as_they_always_were_and_long_ones_are_fewer() -> None:
    lengths = [256, 3, 250, 7, 256, 256, 200, 256, 10, 11]
    order = sorted(range(10), key=lambda index: (lengths[index], index))
    assert room.Pass().batches(lengths) == [order[:8], order[8:]]
    assert [len(batch) for batch in room.Pass().batches([512] * 9)] == [4, 4, 1]
    assert [len(batch) for batch in room.Pass().batches([5000, 5000])] == [1, 1]
    assert room.Pass().batches([]) == []


def test_the_pass_is_chosen_from_the_room_and_recomputes_before_it_takes_fewer_samples() -> None:
    footprint = room.Footprint.of_sizes(widths=700_000, layers=16, hidden=2048, size=2)
    assert footprint.recomputed < footprint.everything / 4
    usual = room.plan(footprint, 512, 2048 * footprint.everything)
    assert usual == room.Pass() and not usual.recompute
    again = room.plan(footprint, 512, 2048 * footprint.everything - 1)
    assert again.recompute and again.tokens == room.TOKENS
    narrow = room.plan(footprint, 512, 1024 * footprint.recomputed)
    assert narrow.recompute and narrow.tokens == 1024
    assert room.plan(footprint, 512, 0).tokens == 512, "one sample is the least"


class SmallDevice:
    """A device that has memory for so many samples, fewer where activations are kept."""

    def __init__(self, keeping: int, recomputing: int):
        self.room = {False: keeping, True: recomputing}
        self.asked: list[tuple[int, bool]] = []
        self._one: Callable[..., Any] = gradients._one_batch

    def __call__(self, model: Any, batch: Any, recorded: Any, shapes: Any, recompute: bool) -> Any:
        self.asked.append((len(batch.input_ids), recompute))
        done = self._one(model, batch, recorded, shapes, recompute)  # memory runs out when all hooks have fired
        if len(batch.input_ids) > self.room[recompute]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return done


def test_out_of_memory_recomputes_first_then_halves_and_every_sample_is_there(loaded, monkeypatch, caplog) -> None:
    usual = found(loaded)
    small = SmallDevice(keeping=3, recomputing=3)
    monkeypatch.setattr(gradients, "_one_batch", small)
    with caplog.at_level(logging.WARNING):
        again = found(loaded)
    assert small.asked == [(7, False), (7, True), (3, True), (3, True), (1, True)]
    assert "activations are computed again now" in caplog.text and "going on with 3" in caplog.text
    torch.testing.assert_close(again, usual, rtol=1e-4, atol=1e-6)
    monkeypatch.setattr(gradients, "_one_batch", SmallDevice(0, 0))
    with pytest.raises(torch.OutOfMemoryError):
        found(loaded)


def test_another_fault_is_not_taken_for_a_lack_of_memory(loaded, monkeypatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(gradients, "_one_batch", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        found(loaded)


def test_logits_by_piece_give_the_same_gradients_where_the_head_is_plain(loaded, monkeypatch) -> None:
    model, _, base = loaded
    assert head_is_plain(model.model) == (base.name != "gemma2"), "Gemma 2 caps its logits"
    usual = found(loaded)
    pieces: list[tuple[int, ...]] = []
    whole = supervised._sums
    monkeypatch.setattr(supervised, "LARGEST_LOGITS", 0)
    monkeypatch.setattr(supervised, "PIECE", 4 * len(ROWS) * 95 * 2)  # two tokens of each sample

    def noted(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        pieces.append(tuple(logits.shape))
        return whole(logits, labels)

    monkeypatch.setattr(supervised, "_sums", noted)
    by_piece = found(loaded)
    assert max(shape[1] for shape in pieces) == (2 if base.name != "gemma2" else 4)
    torch.testing.assert_close(by_piece, usual, rtol=1e-4, atol=1e-6)


def test_who_looks_at_the_output_embedding_sees_every_token_once(loaded) -> None:
    model, _, _ = loaded
    handle = model.model.get_output_embeddings().register_forward_hook(lambda *_: None)
    assert not head_is_plain(model.model)
    handle.remove()


class Killed(BaseException):
    pass


def test_a_pass_that_is_killed_goes_on_at_its_next_batch_with_equal_bits(loaded, tmp_path: Path, monkeypatch) -> None:
    workspace = Workspace(tmp_path / "w").create()
    place = cache.folder(workspace, "entry")
    usual = found(loaded, batch_size=2)
    batches: list[int] = []
    one = gradients._one_batch

    def counted(model: Any, batch: Any, *rest: Any) -> Any:
        if len(batches) == 2:
            raise Killed  # nothing of this batch is on disk
        batches.append(len(batch.input_ids))
        return one(model, batch, *rest)

    monkeypatch.setattr(gradients, "_one_batch", counted)
    with pytest.raises(Killed), under_way(place) as kept:
        found(loaded, batch_size=2, kept=kept)
    assert cache.load(workspace, "entry") is None and batches == [2, 2]
    with (place.with_name("entry.partial") / "done.jsonl").open("a") as journal:
        journal.write("[5, 6")  # the machine stopped while it wrote
    batches.clear()

    def again_counted(*given: Any) -> Any:
        batches.append(1)
        return one(*given)

    monkeypatch.setattr(gradients, "_one_batch", again_counted)
    told: list[int] = []
    with under_way(place) as kept:
        again = found(loaded, batch_size=2, kept=kept, progress=lambda done, total: told.append(done))
        there(kept).finish(place, {"base": "x"})
    assert len(batches) == 2 and told == [6, 7], "the four samples that were there are not computed again"
    entry = there(cache.load(workspace, "entry"))
    assert torch.equal(again, usual) and torch.equal(entry.rows, usual)
    assert not place.with_name("entry.partial").exists()


def test_what_was_begun_otherwise_is_begun_anew(loaded, tmp_path: Path) -> None:
    place = cache.folder(Workspace(tmp_path / "w").create(), "entry")
    with under_way(place) as kept:
        found(loaded, batch_size=2, kept=kept)
        assert len(there(kept).done) == len(ROWS)
    with under_way(place) as kept:
        kept = there(kept)
        kept.begin(len(ROWS), {"m": (2, 3)}, {})
        assert kept.done == set()


def test_two_processes_at_one_entry_do_not_write_into_each_others_rows(tmp_path: Path) -> None:
    with under_way(tmp_path / "entry") as first, under_way(tmp_path / "entry") as second:
        assert first is not None and second is None
    with under_way(tmp_path / "entry") as third:
        assert third is not None


def test_the_pass_follows_the_models_format_and_its_gradients_are_float32(loaded) -> None:
    _, space, base = loaded
    exact = found(loaded)
    half = ResidentModel.load(base, "bfloat16", "cpu")
    rows = core_gradients(half.model, half.tokenizer, space, ROWS).rows
    assert rows.dtype == torch.float32
    cosines = torch.nn.functional.cosine_similarity(rows, exact, dim=1)
    assert float(cosines.min()) > 0.98 and not torch.equal(rows, exact)


def test_entries_of_earlier_versions_which_have_no_checksum_are_computed_anew(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    workspace = Workspace(tmp_path / "w").create()
    place = cache.folder(workspace, "old")
    place.mkdir(parents=True)
    tensors = {"b": torch.arange(12.0).view(3, 2, 2), "a": torch.ones(3, 1, 2), "tokens": torch.tensor([1.0, 2, 3])}
    save_file(tensors, place / "gradients.safetensors")
    assert cache.load(workspace, "old") is None
