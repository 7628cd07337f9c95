"""What the oracles are fed: seeded random adapters, gradients and base weights, and the dense matrices they stand for.

Adapters differ in rank by module and among each other, in their scaling and in their dtype (the safety adapter's
numbers are bfloat16's); some modules only one adapter has, and some are too small for the ranks to add up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.linalg
import torch

from sstmerge_core import methods
from sstmerge_core.adapters import Factors
from sstmerge_core.fisher import Gradients, importance
from sstmerge_core.merge import Calibrated, merge
from sstmerge_core.methods.registry import Numbers, Real, Whole
from sstmerge_core.space import core_space

Adapters = Sequence[Mapping[str, Factors]]
Dense = dict[str, np.ndarray]
"""ΔW (out, in) float64 by module"""

SHAPES = {
    "model.layers.0.mlp.down_proj": (9, 14),
    "model.layers.0.self_attn.q_proj": (16, 13),
    "model.layers.1.mlp.up_proj": (14, 15),
    "model.layers.1.self_attn.v_proj": (7, 12),
    "model.layers.2.mixer": (12, 13),
}
"""(out, in) by module"""
SMALL = {
    "model.layers.0.mlp.down_proj": (9, 10),
    "model.layers.0.self_attn.q_proj": (11, 8),
    "model.layers.1.mlp.up_proj": (8, 9),
    "model.layers.1.self_attn.v_proj": (7, 6),
    "model.layers.2.mixer": (10, 9),
}
"""The same for methods whose oracle is dense in d = Σ out·in"""
ALONE = {"model.layers.1.mlp.up_proj": 0, "model.layers.1.self_attn.v_proj": -1}
"""Modules that only one adapter has: the first utility expert, the safety adapter"""


@dataclass(frozen=True)
class Samples:
    """Per-sample gradients of one side with respect to the dense ΔW."""

    gradients: dict[str, np.ndarray]
    """(n, out, in) float64 by module"""
    tokens: np.ndarray
    """(n,) response tokens"""
    weights: np.ndarray
    """(n,) weights in F = Σ w g gᵀ"""


@dataclass(frozen=True)
class Case:
    """One merge and what must come out of it."""

    method: str
    adapters: Adapters
    parameters: dict[str, Any]
    expected: Dense
    calibrated: Calibrated | None = None
    base: Callable[[str], torch.Tensor] | None = None
    scores: Sequence[Sequence[Mapping[str, torch.Tensor]]] | None = None
    """Importance of the weights of each adapter at the base and at the tuned model"""
    direction: Callable[[str], torch.Tensor] | None = None
    """Aligned minus unaligned weights of a module"""
    seen: Mapping[str, np.ndarray] | None = None
    """E[xxᵀ] of what harmful samples put into a module, (in, in) float64"""

    def error(self) -> float:
        """The worst relative Frobenius error over the modules; infinite where they are not the expected ones."""
        merged = merge(
            self.adapters,
            self.method,
            self.parameters,
            identities=identities(self.adapters),
            calibrated=self.calibrated,
            base=self.base,
            elected=elected(self.scores, self.parameters) if self.scores else None,
            direction=self.direction,
            inputs=in_core(self.adapters, self.seen) if self.seen else None,
        )
        if merged.modules.keys() != self.expected.keys():
            return float("inf")
        return max(relative_error(module.delta(), self.expected[name]) for name, module in merged.modules.items())

    def nudged(self, parameter: str) -> Case:
        """The same expectation of a slightly different merge: 1 % more of a real `parameter`, 1 more of a whole one.

        No more than is allowed; ``ΔU`` nudges the first adapter.
        """
        if parameter != "ΔU":
            value, schema = self.parameters[parameter], methods.get(self.method).parameter(parameter).schema
            if isinstance(schema, Numbers):
                factors = ",".join(str(1.01 * float(one)) for one in value.split(","))
                return replace(self, parameters=self.parameters | {parameter: factors})
            assert isinstance(schema, Real | Whole)
            more = min(value + 1 if isinstance(value, int) else 1.01 * value, schema.high)
            return replace(self, parameters=self.parameters | {parameter: more})
        first = {name: replace(own, scaling=1.01 * own.scaling) for name, own in self.adapters[0].items()}
        adapters = (first, *self.adapters[1:])
        moved = self.calibrated and replace(self.calibrated, space=core_space(adapters))  # gradients stay as they are
        return replace(self, adapters=adapters, calibrated=moved)


@dataclass(frozen=True)
class Oracle:
    """How a method is checked; its declaration says against what."""

    tolerance: float
    """Largest relative Frobenius error of a module's ΔW"""
    build: Callable[[], list[Case]]

    @cached_property
    def cases(self) -> list[Case]:
        """Those of `build`; and where ΔW may be multiplied first, the first of each number of adapters so."""
        found = self.build()
        if not found or "weights" not in methods.get(found[0].method).driver:
            return found
        first = {len(case.adapters): case for case in reversed(found)}
        return [*found, *(unweighed(case) for case in first.values())]

    def error(self, nudge: str = "") -> float:
        """The worst error over the cases; of a parameter to `nudge`, over those that give it, ours nudged alone."""
        if not nudge:
            return max(case.error() for case in self.cases)
        return max(
            case.nudged(nudge).error() for case in self.cases if nudge == "ΔU" or case.parameters.get(nudge, "") != ""
        )


def unweighed(case: Case) -> Case:
    """The same expectation of adapters that give those of `case` when each is multiplied by its weight."""
    weights = (-0.5, 2.0, 0.25)[: len(case.adapters)]
    adapters = [
        {
            name: replace(own, scaling=own.scaling / abs(w), b=own.b if w > 0 else -own.b)
            for name, own in adapter.items()
        }
        for adapter, w in zip(case.adapters, weights, strict=True)
    ]
    moved = case.calibrated and replace(case.calibrated, space=core_space(adapters))
    given = case.parameters | {"weights": ",".join(map(str, weights))}
    return replace(case, adapters=adapters, parameters=given, calibrated=moved)


def in_core(adapters: Adapters, seen: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Ours: the same second moments in the adapters' core coordinates."""
    found = {name: module.q_in.double() for name, module in core_space(adapters).items()}
    return {name: q_in.T @ torch.from_numpy(seen[name]) @ q_in for name, q_in in found.items()}


def elected(
    scores: Sequence[Sequence[Mapping[str, torch.Tensor]]], parameters: Mapping[str, Any]
) -> list[dict[str, torch.Tensor]]:
    """Ours: the election of each side's weights from their scores."""
    shares = [parameters["r_utility"]] * (len(scores) - 1) + [parameters["r_safety"]]
    return [importance.elect(own, share) for own, share in zip(scores, shares, strict=True)]


def relative_error(found: torch.Tensor, expected: np.ndarray) -> float:
    """‖found − expected‖_F / ‖expected‖_F; the absolute error where nothing is expected but float64 noise."""
    norm = float(np.linalg.norm(expected))
    return float(np.linalg.norm(found.double().cpu().numpy() - expected)) / (norm if norm > 1e-12 else 1.0)


def identities(adapters: Adapters) -> list[str]:
    """Names of the adapters for the random masks."""
    return [f"adapter {index}" for index in range(len(adapters))]


def stream(seed: int, module: str, adapter: int) -> torch.Generator:
    """The random stream of one module of one adapter. Recorded runs depend on it: it may not change."""
    digest = hashlib.sha256(f"{seed}/{module}/adapter {adapter}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def random_adapters(
    seed: int,
    count: int = 2,
    *,
    shapes: Mapping[str, tuple[int, int]] = SHAPES,
    ranks: Sequence[int] | None = None,
    alike: float = 0.3,
    rounded: bool = True,
) -> tuple[dict[str, Factors], ...]:
    """`count` adapters over `shapes`, utility first. `ranks` makes each of one rank with PEFT's plain scaling.

    `alike` is the share of their factors that they have in common: unrelated ΔW have a cosine of about 0.
    `rounded=False` leaves the safety adapter's numbers float32, no two of one magnitude.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    common = {name: (normal(6, shape[1]), normal(shape[0], 6)) for name, shape in shapes.items()}
    found: list[dict[str, Factors]] = []
    for index in range(count):
        own: dict[str, Factors] = {}
        for position, (name, shape) in enumerate(shapes.items()):
            if name in ALONE and index != ALONE[name] % count:
                continue
            rank = ranks[index] if ranks else max(1, 4 - index) + position % 2
            a = alike * common[name][0][:rank] + normal(rank, shape[1])
            b = alike * common[name][1][:, :rank] + normal(shape[0], rank)
            if rounded and index == count - 1:
                a, b = a.bfloat16().float(), b.bfloat16().float()
            own[name] = Factors(a, b, (8 + 4 * index) / (rank if ranks or index % 2 else rank**0.5))
        found.append(own)
    return tuple(found)


def dense(adapters: Adapters) -> list[Dense]:
    """ΔW of each adapter in float64, zero in the modules it leaves alone."""
    shapes = {name: (own.b.shape[0], own.a.shape[1]) for adapter in adapters for name, own in adapter.items()}
    return [
        {
            name: (
                adapter[name].scaling * (adapter[name].b.double() @ adapter[name].a.double()).numpy()
                if name in adapter
                else np.zeros(shape)
            )
            for name, shape in sorted(shapes.items())
        }
        for adapter in adapters
    ]


def shares(count: int, alpha: float) -> list[float]:
    """(1−α) shared by the experts, α on the safety adapter."""
    return [(1 - alpha) / (count - 1)] * (count - 1) + [alpha]


FACTORS = (-0.7, 1.6, 0.4)


def factors(count: int) -> tuple[str, list[float]]:
    """What each of `count` adapters is multiplied by, as the parameter has it and as numbers; one is negative."""
    found = list(FACTORS[:count])
    return ",".join(map(str, found)), found


def sides(adapters: Adapters, experts: str = "mean") -> tuple[Dense, Dense]:
    """ΔU (the experts' mean or sum) and ΔS."""
    *utility, safety = dense(adapters)
    divisor = len(utility) if experts == "mean" else 1
    return {name: np.sum([own[name] for own in utility], axis=0) / divisor for name in safety}, safety


def canonical(adapters: Adapters, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Left singular basis of [ΔW_1 … ΔW_N] and right singular basis of them stacked (ALGORITHMS §2)."""
    matrices = [own[name] for own in dense(adapters)]
    left = np.linalg.svd(np.concatenate(matrices, axis=1))[0]
    right = np.linalg.svd(np.concatenate(matrices, axis=0))[2].T
    p, q = (min(size, sum(own[name].a.shape[0] for own in adapters if name in own)) for size in (len(left), len(right)))
    return left[:, :p], right[:, :q]


def random_base(name: str) -> torch.Tensor:
    """Base weights (out, in) of a module, larger than its ΔW as they are in practice."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    return 20 * torch.randn(*SHAPES[name], generator=torch.Generator().manual_seed(seed))


def random_samples(seed: int, count: int, shapes: Mapping[str, tuple[int, int]] = SMALL) -> Samples:
    """`count` gradients over `shapes` that share a mean, answers of 3 to 40 tokens, and unequal weights."""
    generator = np.random.default_rng(seed)
    gradients = {
        name: 0.01 * generator.standard_normal(shape) + 0.03 * generator.standard_normal((count, *shape))
        for name, shape in shapes.items()
    }
    weights = generator.uniform(0.5, 1.5, count) / count
    return Samples(gradients, generator.integers(3, 41, count).astype(float), weights)


def calibrated(
    adapters: Adapters,
    harm: Samples,
    benign: Samples,
    experts: Sequence[Samples] = (),
    twins: tuple[Samples, Samples] | None = None,
) -> Calibrated:
    """What ours is given: the same gradients in core coordinates, float32; `experts` where each has its own.

    `twins` are gradients of refusing near misses, and of helping with them.
    """
    space = core_space(adapters)

    def project(samples: Samples) -> Gradients:
        modules = {}
        for name, module in space.items():
            full = torch.from_numpy(samples.gradients[name])
            modules[name] = (module.q_out.double().T @ full @ module.q_in.double()).float()
        found = Gradients.of(modules, torch.from_numpy(samples.tokens).float())
        return replace(found, weights=torch.from_numpy(samples.weights))

    contrast = None
    if twins is not None:
        refused, helped = (project(own).mean() for own in twins)
        contrast = {name: refused[name] - helped[name] for name in refused}
    return Calibrated(space, project(harm), project(benign), tuple(project(own) for own in experts), contrast)


def within(adapters: Adapters, samples: Samples) -> dict[str, np.ndarray]:
    """Gradients (n, out, in) restricted to what the adapters can move: P_out g P_in with dense projectors."""
    found = {}
    for name in sorted(set().union(*adapters)):
        present = [own[name] for own in adapters if name in own]
        rows = scipy.linalg.orth(np.concatenate([own.b.double().numpy() for own in present], axis=1))
        columns = scipy.linalg.orth(np.concatenate([own.a.double().numpy().T for own in present], axis=1))
        found[name] = rows @ rows.T @ samples.gradients[name] @ columns @ columns.T
    return found
