"""Methods that edit whole weights: their formulas on dense matrices, the passes, and that what was stopped goes on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from sstmerge_core import methods
from sstmerge_core.errors import Cancelled
from sstmerge_core.fitting import Fit, edit, edits_of
from sstmerge_core.fitting.edited import as_fit, f1
from sstmerge_core.fitting.kept import Checkpoint
from sstmerge_core.merge import merge
from sstmerge_core.methods import llm_va, prosafe_prune
from sstmerge_core.methods.edits import KINDS, Edit, Seen, layer_of
from sstmerge_core.space import core_space
from tests.merge.test_merge import base_weight, close, dense, random_factors
from tests.there import there

NAMES = ["layer.0.q", "layer.0.v", "layer.1.q"]
WIDTH = {name: 12 + 3 * index for index, name in enumerate(NAMES)}
PAIR = (random_factors(1, NAMES, 4), random_factors(2, NAMES, 3))


def drawn(seed: int, n: int, width: int, apart: float = 0.0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        kind: torch.randn(n, width, generator=generator).double() + apart * place for place, kind in enumerate(KINDS)
    }


class Prompts:
    """Fixed outputs; the model answers more of the harmless prompts with every pass, up to a point."""

    def __init__(self, answers: list[tuple[int, int]], n: int = 10, width: int = 12) -> None:
        self.answers, self.n, self.width = answers, n, width
        self.looked: list[int] = []
        self.edits: list[dict[str, Edit]] = []

    def look(self, so_far: dict[str, Edit], answers_alone: bool) -> Seen:
        rank = max((own.left.shape[1] for own in so_far.values()), default=0)
        self.looked.append(rank)
        self.edits.append(so_far)
        harm, harmless = self.answers[rank]
        answered = {kind: torch.arange(self.n) < (harm if kind == "harm" else harmless) for kind in KINDS}
        if answers_alone:
            return Seen({}, answered)
        names = [f"layer.{place}.o" for place in range(4)]
        outputs = {name: drawn(place, self.n, self.width, 0.5) for place, name in enumerate(names)}
        return Seen(outputs, answered, drawn(9, self.n, self.width, 0.5))


def whole(method: str, **given: Any) -> dict[str, Any]:
    return methods.get(method).complete(given)


@pytest.mark.parametrize("lam", [0.7, 1.0])
@pytest.mark.parametrize("weights", ["", "0.5,-2"])
def test_prosafe_prune_is_its_formula_on_dense_matrices(lam, weights):
    outputs = {name: drawn(place, 7, WIDTH[name]) for place, name in enumerate(NAMES)}
    own = whole("prosafe_prune", lam=lam, rank=3, window=9, alpha=1.3, weights=weights)
    entry = methods.get("prosafe_prune")
    fit = as_fit(entry.function(Seen(outputs), **entry.own(own)))
    merged = merge(PAIR, "prosafe_prune", own, base=base_weight, fit=fit)
    first, second = (float(one) for one in (weights or "1,1").split(","))
    for name in NAMES:
        tuned = first * dense(PAIR[0], name) + 1.3 * second * dense(PAIR[1], name)
        whole_weight = base_weight(name).double().numpy() + tuned.numpy()
        projectors = []
        for kind in ("benign", "harm", "near"):
            left = np.linalg.svd(outputs[name][kind].numpy().T)[0][:, :3]
            projectors.append(left @ left.T)
        safe, unsafe, pseudo = projectors
        omega = (np.eye(len(safe)) - safe) @ unsafe @ pseudo
        expected = torch.from_numpy(tuned.numpy() - lam * omega @ whole_weight)
        assert close(merged.modules[name].delta(), expected, 1e-5)
        a, b = there(merged.modules[name].factors)()
        assert a.shape[0] == b.shape[1] <= merged.rank == 4 + 3 + 3


def test_llm_va_makes_the_answer_projection_the_benign_one_and_moves_nothing_else():
    prompts = Prompts([(4, 6)])
    seen = prompts.look({}, False)
    answered = there(seen.answered)
    found = llm_va.llm_va(seen, passes=1, layers=1.0)
    assert len(found) == 4
    labels = {
        "benign": torch.cat([torch.full((10,), kind != "harm") for kind in KINDS]),
        "answer": torch.cat([answered[kind] for kind in KINDS]),
    }
    for name, own in found.items():
        outputs = torch.cat([seen.outputs[name][kind] for kind in KINDS])
        (v_b, s_b, _), (v_a, s_a, _) = (llm_va.vector(outputs, labels[which]) for which in ("benign", "answer"))
        edited = outputs + (outputs @ own.right) @ own.left.T
        assert torch.allclose(edited @ v_a, s_a / s_b * (outputs @ v_b))
        across = torch.eye(12).double() - torch.outer(v_a, v_a)
        assert torch.allclose(edited @ across, outputs @ across)  # the least change that does so
    half = llm_va.llm_va(seen, passes=1, layers=0.5)
    assert len(half) == 2 and all(torch.equal(half[name].right, found[name].right) for name in half)


def test_the_svm_is_the_minimum_of_its_loss():
    generator = torch.Generator().manual_seed(3)
    points = torch.randn(30, 8, generator=generator).double()
    sign = torch.where(points[:, 0] + 0.8 * torch.randn(30, generator=generator) > 0, 1.0, -1.0).double()
    x, y = points.numpy(), sign.numpy()

    def loss(w: Any) -> tuple[float, Any]:
        off = np.maximum(0, 1 - y * (x @ w))
        return float(w @ w / 2 + (off**2).sum()), w - 2 * (off * y) @ x

    expected = minimize(loss, np.zeros(8), jac=True, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-10}).x
    assert np.allclose(llm_va.svm(points, sign).numpy(), expected, atol=1e-6)
    many = torch.randn(6, 40, generator=generator).double()  # more dimensions than points
    assert (llm_va.svm(many, sign[:6]) @ many.T * sign[:6] > 0).all()


def test_a_silhouette_is_rousseeuws_and_the_layers_are_those_around_the_one_in_the_middle_that_tells_best():
    groups = [torch.tensor([[0.0], [1.0]]), torch.tensor([[4.0], [6.0]])]
    # 0: a 1, b 5; 1: a 1, b 4; 4: a 2, b 3.5; 6: a 2, b 5.5
    assert prosafe_prune.silhouette(groups) == pytest.approx((4 / 5 + 3 / 4 + 1.5 / 3.5 + 3.5 / 5.5) / 4)
    assert prosafe_prune.silhouette([torch.zeros(1, 2), torch.ones(1, 2)]) == 0.0
    # of ten layers 3 to 7 are the middle; 5 tells best there, 9 better but too far out
    outputs = {f"m.layers.{n}.o": drawn(n, 6, 5, {5: 3.0, 9: 9.0}.get(n, 0.1)) for n in range(10)}
    assert prosafe_prune.layers(outputs, 3) == [4, 5, 6] and prosafe_prune.layers(outputs, 1) == [5]
    assert prosafe_prune.layers({"lm_head": drawn(1, 6, 5)}, 3) == []
    assert layer_of("model.layers.12.mlp.down_proj") == 12 and layer_of("lm_head") is None


def test_edits_one_after_the_other_are_one_edit():
    generator = torch.Generator().manual_seed(5)
    first, second = (Edit(*torch.randn(2, 6, rank, generator=generator).double()) for rank in (1, 2))
    both = second.after(first)
    eye = torch.eye(6).double()
    expected = (eye + second.left @ second.right.T) @ (eye + first.left @ first.right.T)
    assert torch.allclose(eye + both.left @ both.right.T, expected) and both.left.shape == (6, 3)


def test_the_pass_after_which_the_harmless_alone_are_answered_best_is_kept():
    # better after one pass, worse after two
    prompts = Prompts([(6, 6), (2, 9), (9, 9)])
    fit = edit(methods.get("llm_va"), whole("llm_va", passes=2, layers=1.0), prompts)
    assert prompts.looked == [0, 1, 2]
    assert {own.left.shape[1] for own in edits_of(fit).values()} == {1}
    told = {row["stat"]: row["value"] for row in fit.statistics}
    assert told["f1_before"] == pytest.approx(24 / (24 + 6 + 8)) and told["f1_after"] == pytest.approx(
        36 / (36 + 2 + 2)
    )
    assert told["fitted"] == 4 * 2 * 12
    worse = edit(methods.get("llm_va"), whole("llm_va", passes=1), Prompts([(2, 9), (9, 9)]))
    assert edits_of(worse) == {}


@pytest.mark.parametrize("answers", [(10, 10), (0, 0)])
def test_where_all_is_answered_or_nothing_there_is_no_answer_vector_and_nothing_changes(answers):
    fit = edit(methods.get("llm_va"), whole("llm_va", passes=3), Prompts([answers]))
    assert edits_of(fit) == {}
    merged = merge(PAIR, "llm_va", {"alpha": 0.5}, base=base_weight, fit=fit)
    for name in NAMES:
        assert close(merged.modules[name].delta(), dense(PAIR[0], name) + 0.5 * dense(PAIR[1], name))


def test_a_model_that_is_right_about_all_has_f1_one_and_one_that_answers_nothing_none():
    def seen(harm: int, harmless: int) -> Seen:
        return Prompts([(harm, harmless)]).look({}, True)

    assert f1(seen(0, 10)) == 1.0 and f1(seen(0, 0)) == 0.0 and f1(seen(10, 10)) == pytest.approx(40 / 50)


def test_passes_that_were_stopped_go_on_to_the_same_bits(tmp_path):
    answers = [(6, 6), (5, 7), (4, 8), (3, 9)]
    entry, own = methods.get("llm_va"), whole("llm_va", passes=3)
    straight = edit(entry, own, Prompts(answers))

    def stop(done: float, total: float) -> None:
        if done == 2:
            raise Cancelled()

    checkpoint = Checkpoint(tmp_path / "kept.safetensors")
    with pytest.raises(Cancelled):
        edit(entry, own, Prompts(answers), checkpoint=checkpoint, progress=stop)
    again = Prompts(answers)
    told: list[float] = []
    resumed = edit(entry, own, again, checkpoint=checkpoint, progress=lambda done, total: told.append(done))
    assert again.looked == [2, 3] and told == [2, 3, 3]
    assert straight.cores.keys() == resumed.cores.keys() and straight.statistics == resumed.statistics
    assert all(torch.equal(straight.cores[name], resumed.cores[name]) for name in straight.cores)


def test_a_module_that_no_adapter_changes_is_edited_by_itself():
    alone = tuple({name: own[name] for name in NAMES[:2]} for own in PAIR)
    left, right = torch.ones(18, 1).double(), torch.full((18, 1), 0.1).double()
    fit = as_fit({NAMES[2]: Edit(left, right)})
    merged = merge(alone, "llm_va", {"alpha": 1.0}, base=base_weight, fit=fit)
    assert close(merged.modules[NAMES[2]].delta(), left @ right.T @ base_weight(NAMES[2]).double())
    assert sorted(merged.factors()[0]) == NAMES and isinstance(fit, Fit)
    assert set(core_space(alone)) == set(NAMES[:2])
