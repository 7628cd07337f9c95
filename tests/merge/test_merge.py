from __future__ import annotations

import json
import re
import shutil
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from sstmerge_core import adapters, methods
from sstmerge_core.adapters import Factors
from sstmerge_core.adapters.base_weights import base_weights
from sstmerge_core.errors import AdapterError, RecipeError, SSTMergeError
from sstmerge_core.fisher import Gradients
from sstmerge_core.fitting import KINDS, Fit, edit, iterate, learn
from sstmerge_core.merge import Calibrated, Merged, effective_weights, merge, truncate
from sstmerge_core.merge.cautions import cautions
from sstmerge_core.methods.consensus import FLAVOURS
from sstmerge_core.methods.edits import KINDS as SEEN
from sstmerge_core.methods.edits import Edit, Seen
from sstmerge_core.methods.sparsify import largest_over
from sstmerge_core.space import CoreModule, CoreSpace, core_space
from tests.there import there
from tests.tiny_models import make_adapter

Adapter = dict[str, Factors]


def dense(factors: Adapter, name: str) -> torch.Tensor:
    return factors[name].scaling * factors[name].b.double() @ factors[name].a.double()


def random_factors(seed: int, names: list[str], rank: int) -> Adapter:
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: (12 + 3 * index, 9 + 2 * index) for index, name in enumerate(sorted(names))}
    return {
        name: Factors(
            torch.randn(rank, shapes[name][1], generator=generator),
            torch.randn(shapes[name][0], rank, generator=generator),
            2.0 / rank,
        )
        for name in names
    }


NAMES = ["layer.0.q", "layer.0.v", "layer.1.q"]


@pytest.fixture
def pair() -> tuple[Adapter, Adapter]:
    return random_factors(1, NAMES, 4), random_factors(2, NAMES, 3)


def calibrate(pair: Sequence[Adapter], seed: int = 0) -> Calibrated:
    """Gradients that are the same functions of ΔW whatever the basis: projections of fixed dense gradients."""
    space = core_space(pair)
    generator = torch.Generator().manual_seed(seed)
    sides = []
    for count in (7, 9, 4):
        modules = {}
        for name in sorted(space):
            module = space[name]
            full = torch.randn(count, module.q_out.shape[0], module.q_in.shape[0], generator=generator)
            modules[name] = module.q_out.T @ full @ module.q_in
        sides.append(Gradients.of(modules, torch.full((count,), 5.0)))
    return Calibrated(space, sides[0], sides[1], contrast=sides[2].mean())


def run(
    pair: Sequence[Adapter],
    method: str,
    base: Callable[[str], torch.Tensor] | None = None,
    identities: tuple[str, ...] = ("u", "s"),
    **parameters: Any,
) -> Merged:
    needs = methods.get(method).needs_fisher
    calibrated = calibrate(pair) if needs else None
    return merge(
        pair,
        method,
        parameters,
        identities=identities,
        calibrated=calibrated,
        base=base or base_weight,
        elected=elect(pair, identities),
        fit=fit(pair, method, parameters),
        inputs=inputs_of(pair),
    )


def inputs_of(pair: Sequence[Adapter]) -> dict[str, torch.Tensor]:
    """Second moments of inputs that are the same whatever the basis."""
    generator = torch.Generator().manual_seed(79)
    space = core_space(pair)
    drawn = {name: torch.randn(5, own.q_in.shape[0], generator=generator) for name, own in sorted(space.items())}
    seen = {name: (drawn[name] @ own.q_in.cpu()).double() for name, own in space.items()}
    return {name: own.T @ own / len(own) for name, own in seen.items()}


class Bowl:
    """A loss that is the same function of ΔW whatever the basis: ½‖⟨G_i, ΔW⟩ − t_i‖² with fixed dense G_i."""

    def __init__(self, space: CoreSpace) -> None:
        generator = torch.Generator().manual_seed(77)
        shapes = {name: (module.q_out.shape[0], module.q_in.shape[0]) for name, module in sorted(space.items())}
        dense = {name: torch.randn(6, *shape, generator=generator).double() for name, shape in shapes.items()}
        self.target = torch.linspace(-3, 3, 6).double()
        self.rows = {
            name: module.q_out.T.double().cpu() @ dense[name] @ module.q_in.double().cpu()
            for name, module in space.items()
        }

    def gradient(self, cores: Mapping[str, torch.Tensor], step: int) -> tuple[float, dict[str, torch.Tensor]]:
        moved = sum((row * cores[name].double().cpu()).sum((1, 2)) for name, row in self.rows.items())
        off = moved - self.target
        found = {name: (off[:, None, None] * row).sum(0).to(cores[name]) for name, row in self.rows.items()}
        return float(off.square().sum() / 2), found


def fit(pair: Sequence[Adapter], method: str, parameters: Mapping[str, Any]) -> Fit | None:
    """What a method that fits finds for `Bowl`, in few steps."""
    entry = methods.get(method)
    if not entry.fits:
        return None
    space = core_space(pair)
    if entry.kind == "edited":
        return edit(entry, entry.complete(parameters), Asked(space, entry.needs_answers))
    if entry.kind == "iterated":
        return iterate(entry, entry.complete({"passes": 2, **parameters}), space, Bowls(space))
    return learn(entry, entry.complete({"steps": 4, **parameters}), space, Bowl(space))


class Asked:
    """Outputs and answers to prompts that are the same whatever the adapters are."""

    def __init__(self, space: CoreSpace, one_width: bool) -> None:
        widths = {name: len(own.q_out) for name, own in sorted(space.items())}
        # what writes to a residual stream is as wide as it
        self.width = min(widths.values())
        self.widths = {name: own for name, own in widths.items() if not one_width or own == self.width}

    def look(self, so_far: dict[str, Edit], answers_alone: bool) -> Seen:
        generator = torch.Generator().manual_seed(80)

        def draw(width: int) -> dict[str, torch.Tensor]:
            return {
                kind: torch.randn(7, width, generator=generator).double() + place for place, kind in enumerate(SEEN)
            }

        answered = {
            kind: torch.tensor([place != 0, True, False, True, True, False, True]) for place, kind in enumerate(SEEN)
        }
        outputs = {name: draw(width) for name, width in self.widths.items()}
        return Seen(outputs, answered, draw(self.width))


class Bowls:
    """Samples whose losses are ½(⟨G_i, ΔW⟩ − t_i)², by kind: again the same functions of ΔW whatever the basis."""

    def __init__(self, space: CoreSpace) -> None:
        generator = torch.Generator().manual_seed(78)
        self.rows: dict[str, dict[str, torch.Tensor]] = {}
        for kind in KINDS:
            own = {}
            for name, module in sorted(space.items()):
                dense = 0.05 * torch.randn(4, module.q_out.shape[0], module.q_in.shape[0], generator=generator).double()
                own[name] = module.q_out.T.double().cpu() @ dense @ module.q_in.double().cpu()
            self.rows[kind] = own

    def off(self, kind: str, cores: Mapping[str, torch.Tensor]) -> torch.Tensor:
        own = self.rows[kind]
        moved = torch.stack([(row * cores[name].double().cpu()).sum((1, 2)) for name, row in own.items()])
        return moved.sum(0) - 1.0

    def losses(self, cores: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {kind: self.off(kind, cores).square() / 2 for kind in KINDS}

    def gradients(
        self, cores: Mapping[str, torch.Tensor], progress: Callable[[float], None]
    ) -> tuple[dict[str, Gradients], dict[str, torch.Tensor]]:
        progress(1.0)
        found = {}
        for kind, own in self.rows.items():
            modules = {name: (self.off(kind, cores)[:, None, None] * row).float() for name, row in own.items()}
            found[kind] = Gradients.of(modules, torch.full((4,), 5.0))
        return found, self.losses(cores)

    def held(self, cores: Mapping[str, torch.Tensor]) -> float:
        losses = self.losses(cores)
        return float(losses["harm"].mean() + losses["near"].mean() + losses["benign"].mean())


def elect(pair: Sequence[Adapter], identities: tuple[str, ...]) -> list[dict[str, torch.Tensor]]:
    """Fixed weights that matter to each adapter's side, about half of them."""
    shapes = {name: (own.b.shape[0], own.a.shape[1]) for adapter in pair for name, own in adapter.items()}

    def draw(identity: str, name: str) -> torch.Tensor:
        generator = torch.Generator().manual_seed(zlib.crc32(f"{identity}/{name}".encode()))
        return torch.rand(*shapes[name], generator=generator) < 0.5

    return [{name: draw(identity, name) for name in shapes} for identity in identities]


def base_weight(name: str) -> torch.Tensor:
    """A fixed base weight of each module, of the shape that `random_factors` gives it."""
    index = NAMES.index(name)
    return torch.randn(12 + 3 * index, 9 + 2 * index, generator=torch.Generator().manual_seed(100 + index))


def close(first: torch.Tensor, second: torch.Tensor, tolerance: float = 1e-6) -> bool:
    return float((first.double() - second.double()).norm()) <= tolerance * float(second.double().norm() + 1e-12)


def test_linear_is_the_weighted_sum_of_the_dense_updates(pair):
    merged = run(pair, "linear", alpha=0.3)
    for name in NAMES:
        assert close(merged.modules[name].delta(), 0.7 * dense(pair[0], name) + 0.3 * dense(pair[1], name))


def test_task_arithmetic_adds_a_multiple_of_the_safety_update(pair):
    merged = run(pair, "task_arithmetic", alpha=1.7)
    for name in NAMES:
        assert close(merged.modules[name].delta(), dense(pair[0], name) + 1.7 * dense(pair[1], name))


@pytest.mark.parametrize(
    "method", [own.name for own in methods.methods() if own.axis in ("share", "strength") and own.keeps_utility]
)
def test_alpha_zero_leaves_the_utility_adapter(pair, method):
    entry = methods.get(method)
    settings = [entry.idempotent or {}] + ([] if entry.kind == "elementwise" else [{}])
    for own in settings:
        merged = run(pair, method, **{**own, "alpha": 0})
        for name in NAMES:
            assert close(merged.modules[name].delta(), dense(pair[0], name), 3e-6)


def test_linear_at_alpha_one_is_the_safety_adapter(pair):
    merged = run(pair, "linear", alpha=1)
    for name in NAMES:
        assert close(merged.modules[name].delta(), dense(pair[1], name))


@pytest.mark.parametrize("method", methods.names())
def test_the_gauge_of_the_factors_does_not_matter(pair, method):
    """(BR)(R⁻¹A) is the same ΔW, so the merge must be the same."""
    generator = torch.Generator().manual_seed(9)
    turned = []
    for adapter in pair:
        other = {}
        for name, factor in adapter.items():
            rank = factor.a.shape[0]
            gauge = torch.eye(rank) * 3 + torch.randn(rank, rank, generator=generator) * 0.3
            other[name] = Factors(torch.linalg.solve(gauge, factor.a), factor.b @ gauge, factor.scaling)
        turned.append(other)
    first, second = run(pair, method), run(tuple(turned), method)
    for name in NAMES:
        assert close(first.modules[name].delta(), second.modules[name].delta(), 2e-5)


@pytest.mark.parametrize("method", methods.names())
def test_ranks_that_are_only_padding_do_not_matter(pair, method):
    """An adapter that this program wrote has one rank everywhere, filled up with zeros."""
    padded = {
        name: Factors(
            torch.cat([own.a, own.a.new_zeros(2, own.a.shape[1])]),
            torch.cat([own.b, own.b.new_zeros(len(own.b), 2)], dim=1),
            own.scaling,
        )
        for name, own in pair[1].items()
    }
    first, second = run(pair, method), run((pair[0], padded), method)
    for name in NAMES:
        assert close(second.modules[name].delta(), first.modules[name].delta(), 1e-6)


@pytest.mark.parametrize("method", [own.name for own in methods.methods() if own.kind != "edited"])
def test_a_module_in_which_no_adapter_changes_anything_stays_as_it_is(pair, method):
    untrained = tuple(
        adapter | {NAMES[0]: Factors(adapter[NAMES[0]].a, adapter[NAMES[0]].b * 0, 1.0)} for adapter in pair
    )
    layerwise = any(own.name == "layerwise" for own in methods.get(method).parameters)
    settings: list[dict[str, Any]] = [{}, {"layerwise": True}] if layerwise else [{}]
    for own in settings:
        merged = run(untrained, method, **own)
        assert not merged.modules[NAMES[0]].delta().any()
        assert any(merged.modules[name].delta().any() for name in NAMES[1:])
        assert sorted(merged.factors()[0]) == NAMES


def scaled(adapter: Adapter, factor: float) -> Adapter:
    return {name: replace(own, b=own.b * factor) for name, own in adapter.items()}


def doubled(adapter: Adapter) -> Adapter:
    """Every row of A twice, so that half of the rank says nothing."""
    return {
        name: Factors(torch.cat([own.a, own.a]), torch.cat([own.b, own.b], dim=1) / 2, own.scaling)
        for name, own in adapter.items()
    }


DEGENERATE: dict[str, Callable[[Adapter, Adapter], tuple[Adapter, Adapter]]] = {
    "a safety adapter that changes nothing": lambda u, s: (u, scaled(s, 0.0)),
    "a utility adapter that changes nothing": lambda u, s: (scaled(u, 0.0), s),
    "two that change nothing": lambda u, s: (scaled(u, 0.0), scaled(s, 0.0)),
    "opposite ones": lambda u, s: (u, scaled(u, -1.0)),
    "the same twice": lambda u, s: (u, dict(u)),
    "one a multiple of the other": lambda u, s: (u, scaled(u, 3.0)),
    "one far smaller": lambda u, s: (u, scaled(s, 1e-12)),
    "one far larger": lambda u, s: (u, scaled(s, 1e6)),
    "ranks that repeat themselves": lambda u, s: (doubled(u), doubled(s)),
    "one of one module": lambda u, s: (u, {NAMES[1]: s[NAMES[1]]}),
    "none of the same modules": lambda u, s: ({NAMES[0]: u[NAMES[0]]}, {NAMES[1]: s[NAMES[1]]}),
}


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("kind", DEGENERATE)
@pytest.mark.parametrize("method", methods.names())
def test_degenerate_pairs_give_finite_numbers_or_are_refused_in_words(pair, method, kind):
    given = DEGENERATE[kind](*pair)
    try:
        merged = run(given, method)
    except SSTMergeError as error:
        assert len(str(error).splitlines()) == 1
        return
    largest = max(float(dense(one, name).norm()) for one in given for name in one)
    for name, (a, b) in merged.factors()[0].items():
        delta = merged.modules[name].delta()
        assert delta.isfinite().all() and a.isfinite().all() and b.isfinite().all()
        if methods.get(method).kind != "edited":  # those change the base's own weights
            assert float(delta.norm()) <= 100 * largest + 1e-6, "what was not in the adapters is not in their merge"
    assert all(row["value"] == row["value"] for row in merged.statistics), "no figure is NaN"


@pytest.mark.parametrize("method", methods.names())
def test_the_order_of_the_keys_does_not_matter(pair, method):
    shuffled = tuple(dict(reversed(adapter.items())) for adapter in pair)
    first, second = run(pair, method), run(shuffled, method)
    for name in NAMES:
        assert torch.equal(first.modules[name].delta(), second.modules[name].delta())


@pytest.mark.parametrize("method", methods.names())
def test_the_order_of_the_utility_experts_does_not_matter(pair, method):
    first, second = pair
    safety = random_factors(3, NAMES, 2)
    del safety[NAMES[0]]
    straight = run((first, second, safety), method, identities=("1", "2", "s"))
    swapped = run((second, first, safety), method, identities=("2", "1", "s"))
    for name in NAMES:
        assert close(swapped.modules[name].delta(), straight.modules[name].delta(), 1e-5)


def equal_shares(method: str) -> dict[str, Any]:
    """α = ½ where the method has an α."""
    return {"alpha": 0.5} if methods.get(method).axis else {}


@pytest.mark.parametrize("method", [own.name for own in methods.methods() if own.symmetric])
def test_methods_that_treat_adapters_alike_do_not_care_which_is_the_safety_adapter(pair, method):
    straight = run(pair, method, **equal_shares(method))
    swapped = run(pair[::-1], method, identities=("s", "u"), **equal_shares(method))
    for name in NAMES:
        assert close(swapped.modules[name].delta(), straight.modules[name].delta(), 1e-5)


@pytest.mark.parametrize("method", [own.name for own in methods.methods() if own.oracle and not own.symmetric])
def test_every_other_method_does(pair, method):
    own: dict[str, Any] = {"alpha": 0.3} if methods.get(method).axis else {}
    straight, swapped = run(pair, method, **own), run(pair[::-1], method, identities=("s", "u"), **own)
    assert not all(close(swapped.modules[name].delta(), straight.modules[name].delta(), 1e-3) for name in NAMES)


@pytest.mark.parametrize("method", [own.name for own in methods.methods() if own.idempotent is not None])
def test_two_identical_adapters_give_that_adapter_where_the_method_says_so(pair, method):
    """With one name for both, so that one mask is drawn for both, and one Fisher."""
    twins = (pair[0], dict(pair[0]))
    merged = run(twins, method, identities=("u", "u"), **there(methods.get(method).idempotent))
    for name in NAMES:
        assert close(merged.modules[name].delta(), dense(pair[0], name), 1e-5)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_ties_of_two_identical_adapters_shrinks_them_only_in_pefts_flavour(pair, flavour):
    twins = (pair[0], dict(pair[0]))
    for space in ("delta", "core"):
        merged = run(twins, "ties", density=1.0, flavour=flavour, space=space)
        for name in NAMES:
            expected = dense(pair[0], name) * (0.5 if flavour == "peft" else 1.0)
            assert close(merged.modules[name].delta(), expected, 1e-5)


@pytest.mark.parametrize("scaling", [0.5, 2.0])
def test_ties_on_factors_gives_identical_adapters_themselves_whatever_their_scaling(pair, scaling):
    own = {name: replace(factor, scaling=scaling) for name, factor in pair[0].items()}
    merged = run((own, dict(own)), "ties", density=1.0, space="factors")
    for name in NAMES:
        assert close(merged.modules[name].delta(), dense(own, name), 1e-5)


def test_trimming_over_all_modules_keeps_more_of_those_that_changed_more(pair):
    louder = {
        name: replace(own, scaling=own.scaling * (9.0 if name == NAMES[0] else 1.0)) for name, own in pair[0].items()
    }
    merged = run((louder, louder), "magnitude_prune", density=0.3, trim="global", identities=("u", "u"))
    everything = torch.cat([dense(louder, name).abs().reshape(-1) for name in NAMES])
    threshold = everything.sort(descending=True).values[int(0.3 * len(everything)) - 1]
    for name in NAMES:
        whole = dense(louder, name)
        assert close(merged.modules[name].delta(), torch.where(whole.abs() >= threshold * (1 - 1e-6), whole, 0.0))
    shares = [float((merged.modules[name].delta() != 0).float().mean()) for name in NAMES]
    assert shares[0] > 0.6 and max(shares[1:]) < 0.3


def test_trimming_over_all_modules_is_refused_on_factors(pair):
    own = (pair[0], dict(pair[0]))
    with pytest.raises(RecipeError, match="not of one size"):
        run(own, "ties", trim="global", space="factors")


@pytest.mark.parametrize("density", [0.01, 0.37, 0.5, 1.0])
def test_the_magnitude_that_divides_all_tensors_is_the_exact_one(density):
    generator = torch.Generator().manual_seed(5)
    tensors = [torch.randn(n, 7, generator=generator) * 10.0 ** (n - 30) for n in (13, 30, 41)] + [torch.zeros(5, 5)]
    everything = torch.cat([tensor.abs().reshape(-1) for tensor in tensors]).sort(descending=True).values
    assert largest_over(lambda: iter(tensors), density) == float(everything[int(density * len(everything)) - 1])


def test_breadcrumbs_drops_both_tails(pair):
    merged = run(pair, "breadcrumbs", alpha=0.0, density=0.5, beta=0.2)
    for name in NAMES:
        whole = dense(pair[0], name)
        order = whole.abs().reshape(-1).argsort()
        size = len(order)
        first = size - int(0.5 * size) - int(0.2 * size)
        kept = torch.zeros(size, dtype=torch.bool)
        kept[order[first : first + int(0.5 * size)]] = True
        assert close(merged.modules[name].delta(), whole * kept.view_as(whole))


@pytest.fixture(scope="module")
def sixteen_bit(tiny_pair, tmp_path_factory):
    """The same numbers in two files: bfloat16, and float32 that holds bfloat16's values."""
    from safetensors.torch import load_file, save_file

    found = {}
    for dtype in (torch.bfloat16, torch.float32):
        loaded = []
        for path in tiny_pair:
            folder = tmp_path_factory.mktemp("dtype") / path.name
            shutil.copytree(path, folder)
            weights = load_file(path / "adapter_model.safetensors")
            rounded = {name: weight.bfloat16().to(dtype) for name, weight in weights.items()}
            save_file(rounded, folder / "adapter_model.safetensors")
            loaded.append(adapters.read(folder).load())
        found[dtype] = tuple(loaded)
    return found


@pytest.mark.parametrize("method", methods.names())
def test_the_dtype_of_the_files_does_not_matter_where_the_numbers_are_the_same(sixteen_bit, tiny_base, method):
    half, full = (run(pair, method, base=base_weights(tiny_base)) for pair in sixteen_bit.values())
    for name, module in half.modules.items():
        assert torch.equal(module.delta(), full.modules[name].delta())
        assert module.delta().dtype == torch.float32


@pytest.mark.parametrize("method", methods.names())
def test_the_same_recipe_gives_the_same_bits(pair, method):
    first, second = run(pair, method), run(pair, method)
    for name in NAMES:
        assert torch.equal(first.modules[name].delta(), second.modules[name].delta())


def test_a_module_of_only_one_adapter_counts_as_zero_in_the_other(pair):
    utility, safety = dict(pair[0]), dict(pair[1])
    del safety["layer.0.q"], utility["layer.1.q"]
    for method in ("linear", "ties", "dare_linear", "sst_gevp"):
        merged = run((utility, safety), method)
        assert sorted(merged.modules) == NAMES
    merged = run((utility, safety), "linear", alpha=0.4)
    assert close(merged.modules["layer.0.q"].delta(), 0.6 * dense(utility, "layer.0.q"))
    assert close(merged.modules["layer.1.q"].delta(), 0.4 * dense(safety, "layer.1.q"))


@pytest.mark.parametrize("density", [0.2, 0.5, 1.0])
def test_ties_is_pefts_ties(pair, density):
    from peft.utils.merge_utils import ties

    merged = run(pair, "ties", alpha=0.3, density=density, flavour="peft")
    for name in NAMES:
        tensors = [dense(adapter, name).float() for adapter in pair]
        expected = ties(tensors, torch.tensor([0.7, 0.3]), density, "total")
        assert close(merged.modules[name].delta(), expected)


def test_ties_in_mergekits_flavour_elects_by_weight_and_divides_by_weight():
    utility = {"m": Factors(torch.eye(2), torch.tensor([[1.0, -3.0], [2.0, 1.0]]), 1.0)}
    safety = {"m": Factors(torch.eye(2), torch.tensor([[3.0, 2.0], [-1.0, 5.0]]), 1.0)}
    merged = merge((utility, safety), "ties", {"alpha": 0.25, "density": 1.0, "flavour": "mergekit"})
    # weighted sums: .75+.75, −2.25+.5, 1.5−.25, .75+1.25 → signs + − + +; agreeing values averaged by weight
    expected = torch.tensor([[(0.75 * 1 + 0.25 * 3) / 1.0, -3.0], [2.0, (0.75 * 1 + 0.25 * 5) / 1.0]])
    assert torch.allclose(merged.modules["m"].delta(), expected)


def test_ties_refuses_a_density_that_keeps_nothing(pair):
    with pytest.raises(RecipeError, match="keeps none"):
        run(pair, "ties", density=0.001).modules[NAMES[0]].delta()


def test_dare_without_dropping_is_linear(pair):
    merged, plain = run(pair, "dare_linear", p=0.0, alpha=0.4), run(pair, "linear", alpha=0.4)
    for name in NAMES:
        assert close(merged.modules[name].delta(), plain.modules[name].delta())


def test_dare_is_unbiased_within_five_sigma(pair):
    name, draws, p = NAMES[0], 400, 0.5
    total = sum(run(pair, "dare_linear", p=p, alpha=0.5, seed=seed).modules[name].delta() for seed in range(draws))
    utility, safety = dense(pair[0], name), dense(pair[1], name)
    expected = 0.5 * utility + 0.5 * safety
    sigma = (p / (1 - p) / draws * (0.25 * utility**2 + 0.25 * safety**2)).sqrt()
    assert float(((total / draws - expected).abs() / sigma).max()) < 5


def test_dare_draws_the_masks_per_adapter_not_per_position(pair):
    swapped = merge((pair[1], pair[0]), "dare_linear", {"alpha": 0.6}, identities=("s", "u"))
    straight = merge(pair, "dare_linear", {"alpha": 0.4}, identities=("u", "s"))
    for name in NAMES:
        assert close(swapped.modules[name].delta(), straight.modules[name].delta())


def test_an_sst_patch_lies_in_the_core_of_the_pair_and_grows_linearly_with_alpha(pair):
    one, two = run(pair, "sst_gevp", alpha=1.0, k=3), run(pair, "sst_gevp", alpha=2.0, k=3)
    for name in NAMES:
        utility = dense(pair[0], name)
        first, second = one.modules[name].delta() - utility, two.modules[name].delta() - utility
        assert close(second, 2 * first, 1e-4)


def test_sst_gevp_with_a_k_beyond_the_rank_keeps_all_harm_energy_and_says_how_many(pair):
    merged = run(pair, "sst_gevp", k=1000)
    stats = {(row["module"], row["stat"]): row["value"] for row in merged.statistics}
    assert stats["", "directions_kept"] == 7
    assert stats["", "kept_harm_energy"] == pytest.approx(1.0, abs=1e-6)
    fewer = run(pair, "sst_gevp", k=2)
    assert {(r["module"], r["stat"]): r["value"] for r in fewer.statistics}["", "kept_harm_energy"] < 1.0


def test_sst_shield_with_tau_zero_is_task_arithmetic(pair):
    shield, plain = run(pair, "sst_shield", tau=0, alpha=1.3), run(pair, "task_arithmetic", alpha=1.3)
    for name in NAMES:
        assert close(shield.modules[name].delta(), plain.modules[name].delta(), 1e-5)


def test_a_stronger_shield_costs_less_benign_curvature(pair):
    calibrated = calibrate(pair)
    costs = []
    for tau in (0, 10, 1000):
        merged = merge(pair, "sst_shield", {"tau": tau}, calibrated=calibrated)
        energy = torch.zeros(())
        for name in NAMES:
            module = calibrated.space[name]
            patch = module.q_out.T @ (merged.modules[name].delta() - dense(pair[0], name).float()) @ module.q_in
            energy = energy + calibrated.benign.modules[name].flatten(1) @ patch.reshape(-1)
        costs.append(float(energy.square().sum()))
    assert costs[0] > costs[1] > costs[2]


def test_layerwise_solves_one_problem_per_module(pair):
    merged = run(pair, "sst_gevp", k=2, layerwise=True)
    assert sorted(merged.spectra) == NAMES


def test_interpolation_at_full_strength_reaches_the_safety_adapter_where_nothing_is_forbidden(pair):
    merged = run(pair, "sst_shield", tau=0, mode="interpolate", alpha=1)
    for name in NAMES:
        assert close(merged.modules[name].delta(), dense(pair[1], name), 1e-5)


@pytest.mark.parametrize("method", methods.names())
def test_the_written_adapter_reloads_in_peft_to_the_same_update(method, tiny_base, tiny_pair, tmp_path):
    from peft import PeftModel
    from peft.tuners.lora import Linear
    from transformers import AutoModelForCausalLM

    pair = tuple(adapters.read(path).load() for path in tiny_pair)
    merged = run(pair, method, base=base_weights(tiny_base))
    factors, errors = merged.factors()
    adapters.write_adapter(factors, tmp_path / "out", base_name=str(tiny_base))
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_base), str(tmp_path / "out"))
    for name, module in merged.modules.items():
        layer = model.get_base_model().get_submodule(name)
        assert isinstance(layer, Linear)
        loaded = layer.get_delta_weight("default")
        expected = module.delta()
        if module.factors is None:
            expected = torch.matmul(*reversed(truncate(expected, merged.rank)))
        assert close(loaded, expected, 1e-6)
    inexact = any(module.factors is None for module in merged.modules.values())
    assert any(row["module"] == "" for row in errors) == inexact


def test_truncation_is_the_best_approximation_of_its_rank():
    matrix = torch.randn(20, 13, generator=torch.Generator().manual_seed(4))
    for tensor in (matrix, matrix.T):
        a, b = truncate(tensor, 5)
        best = torch.linalg.svdvals(tensor)[5:].square().sum().sqrt()
        assert float((tensor - b @ a).norm()) == pytest.approx(float(best), rel=1e-5)


def test_effective_weights_are_numbers_for_sums_and_words_otherwise():
    assert effective_weights("linear", {"alpha": 0.25}) == {"ΔU": 0.75, "ΔS": 0.25}
    assert "all of ΔU plus 2 times" in effective_weights("sst_gevp", {"alpha": 2})


def test_effective_weights_of_several_experts_are_those_of_the_merge():
    assert effective_weights("linear", {"alpha": 0.4}, 3) == pytest.approx(
        {"ΔU1": 0.2, "ΔU2": 0.2, "ΔU3": 0.2, "ΔS": 0.4}
    )
    summed = effective_weights("task_arithmetic", {"alpha": 2.0, "experts": "sum"}, 2)
    assert summed == {"ΔU1": 1.0, "ΔU2": 1.0, "ΔS": 2.0}
    for name in methods.names():
        found = effective_weights(name, {}, 2)
        told = len(found) == 3 if isinstance(found, dict) else re.search("ΔU2|experts|3 adapters", found)
        assert told, name


def test_a_merge_replaces_its_own_folder_but_never_a_foreign_one(pair, tmp_path):
    merged = run(pair, "linear").factors()[0]
    first = adapters.write_adapter(merged, tmp_path / "out", base_name="b")
    second = adapters.write_adapter(merged, tmp_path / "out", base_name="b")
    assert first.sha256 == second.sha256
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(AdapterError, match="not written by this tool"):
        adapters.write_adapter(merged, tmp_path / "mine", base_name="b")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out"]


def test_scaling_follows_rslora_and_the_patterns(tiny_base, tmp_path):
    folder = make_adapter(
        tiny_base, tmp_path / "P", 3, rank_pattern={"q_proj": 2}, alpha_pattern={"v_proj": 32}, use_rslora=True
    )
    from peft import PeftModel
    from peft.tuners.lora import Linear
    from transformers import AutoModelForCausalLM

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_base), str(folder))
    for name, module in adapters.read(folder).modules.items():
        layer = model.get_base_model().get_submodule(name)
        assert isinstance(layer, Linear) and module.scaling == pytest.approx(layer.scaling["default"])


def test_unknown_parameters_are_named_with_the_nearest_known_one():
    with pytest.raises(RecipeError, match="Did you mean alpha"):
        methods.get("linear").complete({"alhpa": 0.5})
    with pytest.raises(RecipeError, match="'abc' must be a number"):
        methods.get("linear").complete({"alpha": "abc"})


def test_written_files_do_not_depend_on_when_they_were_written(pair, tmp_path):
    for folder in ("a", "b"):
        adapters.write_adapter(run(pair, "sst_gevp").factors()[0], tmp_path / folder, base_name="b", record={"x": 1})
    for name in ("adapter_model.safetensors", "adapter_config.json", "sstmerge.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert json.loads((tmp_path / "a" / "adapter_config.json").read_text())["r"] == 7


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("method", methods.names())
def test_cuda_and_cpu_agree(pair, method):
    """Also where one adapter has no such module, and with base weights that stay on the CPU."""
    pair = (pair[0], {name: own for name, own in pair[1].items() if name != NAMES[0]})
    on_gpu = tuple(
        {name: Factors(f.a.cuda(), f.b.cuda(), f.scaling) for name, f in adapter.items()} for adapter in pair
    )
    calibrated = calibrate(pair) if methods.get(method).needs_fisher else None
    if calibrated:
        space = {
            name: CoreModule(own.q_out.cuda(), own.q_in.cuda(), tuple(core.cuda() for core in own.cores))
            for name, own in calibrated.space.items()
        }
        calibrated = Calibrated(
            space, calibrated.harm.to("cuda"), calibrated.benign.to("cuda"), contrast=calibrated.contrast
        )
    elementwise = methods.get(method).kind == "elementwise"
    settings: list[dict[str, Any]] = [{"space": "delta"}, {"space": "core"}] if elementwise else [{}]
    for own in settings:
        first = run(pair, method, **own)
        second = merge(
            on_gpu,
            method,
            own,
            identities=("u", "s"),
            calibrated=calibrated,
            base=base_weight,
            elected=elect(pair, ("u", "s")),
            fit=fit(on_gpu, method, own),
            inputs=inputs_of(pair),
        )
        factors, _ = second.factors()
        for name in NAMES:
            assert second.modules[name].delta().is_cuda and factors[name][0].is_cuda
            assert close(second.modules[name].delta().cpu(), first.modules[name].delta(), 1e-5)


def test_a_projection_that_leaves_little_or_changes_nothing_is_told_and_names_its_stand_in(pair):
    away = {name: replace(own, b=own.b.flip(0)) for name, own in pair[1].items()}
    little = run((pair[0], away), "safe_lora", threshold=1.0)
    ratio = little.statistic("norm_ratio")
    whole = sum(float(dense(pair[0], name).norm()) ** 2 for name in NAMES)
    left = sum(float(little.modules[name].delta().double().norm()) ** 2 for name in NAMES)
    assert ratio == pytest.approx((left / whole) ** 0.5, rel=1e-5) and little.statistic("proxy_direction") == 1.0
    assert cautions(little.statistics) == []

    rows = [{"module": "", "stat": stat, "value": value} for stat, value in (("norm_ratio", 0.1), ("changed", 1.0))]
    (told,) = cautions([*rows, {"module": "", "stat": "proxy_direction", "value": 1.0}])
    assert "nearly the base model: ΔW has 10%" in told.fault and "ΔS, a stand-in" in told.fix

    (nothing,) = cautions(run(pair, "safe_lora", threshold=-1.0).statistics)
    assert "is the utility adapter" in nothing.fault
    assert cautions(run(pair, "ties").statistics) == []
