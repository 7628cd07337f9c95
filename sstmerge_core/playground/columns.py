"""What can answer in the Playground. Every column is the base plus a weighted sum of adapters: Σ wᵢ ΔWᵢ.

That covers more than the methods that are defined so. A merge ΔU + α·δ lies on the line through ΔU and itself, so a
finished run at α₀ gives its method at any α without a new patch: (1 − α/α₀) ΔU + (α/α₀) ΔW_run. No torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sstmerge_core import documents, methods
from sstmerge_core.adapters import RECORD, adapter_fingerprint
from sstmerge_core.adapters.places import WEIGHTS
from sstmerge_core.catalog import Entry
from sstmerge_core.errors import AdapterError, Problem
from sstmerge_core.methods import AXES, Method
from sstmerge_core.methods.registry import Real
from sstmerge_core.methods.weighting import side
from sstmerge_core.recipe import Recipe
from sstmerge_core.workspace import Workspace

BASE = "base"
MOST = 4
"""Columns beside each other at most"""
LIVE = tuple(
    own.name
    for axis in ("strength", "share")
    for own in methods.methods()
    if own.kind == "combination" and own.axis == axis
)
"""Merges of two adapters that need nothing but the adapters"""
WIDEST = 3.0
"""Where the slider of a strength ends, unless its run goes further"""


@dataclass(frozen=True)
class Slider:
    """The values that α may take in a column."""

    low: float
    high: float
    step: float
    default: float
    meaning: str


@dataclass(frozen=True)
class Column:
    """One model: the base plus Σ wᵢ ΔWᵢ."""

    key: str
    """Names it in a link and in a conversation: ``base``, ``adapter:A5``, ``run:<id>``, ``live:linear:A5:A7``"""
    title: str
    base: str = ""
    """SHA-256 of the base model of a run; empty where any base may be tried"""
    adapters: tuple[tuple[str, Path], ...] = ()
    """(name, PEFT folder) of each ΔW"""
    weights_at: Callable[[float], Sequence[float]] = lambda alpha: ()
    """α → one weight per adapter; α is ignored where there is no slider"""
    slider: Slider | None = None
    note: str = ""
    """What a reader has to know about it, without the final stop"""

    def weights(self, alpha: float | None) -> list[tuple[str, Path, float]]:
        """(name, folder, weight) of every adapter that counts at `alpha`; None: the slider's default."""
        at = alpha if alpha is not None else self.slider.default if self.slider else 0.0
        found = zip(self.adapters, self.weights_at(at), strict=True)
        return [(name, path, float(weight)) for (name, path), weight in found if weight]


def base(name: str) -> Column:
    """The base model alone."""
    return Column(BASE, f"Base · {name}", note="The model as it was published")


def single(name: str, adapter: Entry) -> Column:
    """One adapter alone, known in this workspace by `name`."""
    note = " · ".join(filter(None, (adapter.role, adapter.description)))
    return Column(f"adapter:{name}", name, "", ((name, adapter.path),), lambda alpha: (1.0,), note=note)


def live(method: str, utility: tuple[str, Entry], safety: tuple[str, Entry]) -> Column:
    """A merge of two adapters, given with their names, by one of `LIVE`. Raises RecipeError for other methods."""
    entry = methods.get(method)
    key = ":".join(("live", method, utility[0], safety[0]))
    title = f"{utility[0]} + {safety[0]} · {entry.title}"
    sides = tuple((name, adapter.path) for name, adapter in (utility, safety))
    return Column(key, title, "", sides, lambda alpha: entry.function(2, alpha=alpha), _slider(entry))


def of_run(
    workspace: Workspace, run_id: str, recipe: Recipe, title: str, known: Mapping[str, tuple[str, Path]]
) -> Column:
    """The merge of a finished run, with a slider where it is linear in α.

    `known`: name and folder of the adapters here, by SHA-256. Raises AdapterError where neither the run's adapter nor
    those it was merged from are on disk.
    """
    entry = methods.get(recipe.method)
    inputs = _inputs(recipe, known, workspace)
    if entry.kind == "combination" and inputs is not None:
        return _weighted_sum(run_id, recipe, title, entry, inputs)
    folder = workspace.merged_adapter(run_id)
    if not (folder / WEIGHTS).is_file():
        fault = "only its figures are here, not its adapter"
        fix = f"Write it again (`sstmerge recipe {run_id}`, `sstmerge merge`) and add that folder on the Adapters page."
        raise AdapterError(Problem(f"run {run_id}", fault, fix))
    merged = (f"run {run_id[:6]}", folder)
    note = _about_written(folder)
    found = Column(f"run:{run_id}", title, recipe.base.sha256, (merged,), lambda alpha: (1.0,), note=note)
    measured_at = recipe.parameters.get("alpha")
    if not (_is_line_from_utility(entry) and measured_at and inputs):
        return found
    shares = side(len(inputs) - 1, recipe.parameters.get("experts", "mean"))

    def weights_at(alpha: float) -> tuple[float, ...]:
        along = alpha / measured_at
        return (*((1 - along) * share for share in shares), along)

    note = f"Measured at α = {measured_at:g}; other values rescale the same patch, ΔU + α·δ"
    slider = _slider(entry, measured_at)
    return Column(
        found.key, _without_alpha(title, measured_at), found.base, (*inputs[:-1], merged), weights_at, slider, note
    )


def _weighted_sum(run_id: str, recipe: Recipe, title: str, entry: Method, inputs: Sequence[tuple[str, Path]]) -> Column:
    parameters = entry.complete(recipe.parameters)
    measured_at = parameters.pop("alpha", None)

    def weights_at(alpha: float) -> Sequence[float]:
        return entry.function(len(inputs), **parameters, **({} if measured_at is None else {"alpha": alpha}))

    note = "" if measured_at is None else f"Measured at α = {measured_at:g}"
    slider = None if measured_at is None else _slider(entry, measured_at)
    title = title if measured_at is None else _without_alpha(title, measured_at)
    return Column(f"run:{run_id}", title, recipe.base.sha256, tuple(inputs), weights_at, slider, note)


def _without_alpha(title: str, alpha: float) -> str:
    """The slider says α: the run's own in the title would contradict it."""
    return title.replace(f" α={alpha:g}", "")


def _about_written(folder: Path) -> str:
    """What the adapter that a run wrote is to the merge that it measured."""
    try:
        error = documents.read_json(folder / RECORD)["errors"].get("rank_error")
    except (OSError, ValueError, KeyError, AttributeError):
        error = None
    if not error:
        return "The run’s adapter as it was written"
    return (
        f"The run’s adapter as it was written, an approximation: it is off by {error:.0%} of the ΔW that was measured"
    )


def _is_line_from_utility(entry: Method) -> bool:
    """Whether the merge is ΔU + α·δ with ΔU as it is."""
    return entry.kind in ("patch", "mask") and entry.axis == "strength" and entry.keeps_utility


def _inputs(
    recipe: Recipe, known: Mapping[str, tuple[str, Path]], workspace: Workspace
) -> tuple[tuple[str, Path], ...] | None:
    """Name and folder of the adapters that a run was merged from; None where one is not on disk as it was."""
    found = []
    for source in recipe.adapters:
        here = known.get(source.sha256)
        if here is None:
            folder = Path(source.path)
            if (
                not (folder / "adapter_config.json").is_file()
                or adapter_fingerprint(folder, workspace) != source.sha256
            ):
                return None
            here = (source.name, folder)
        found.append(here)
    return tuple(found)


def _slider(entry: Method, default: float | None = None) -> Slider:
    parameter = entry.parameter("alpha")
    schema, at = parameter.schema, parameter.default if default is None else default
    assert entry.axis is not None and isinstance(schema, Real)
    high = max(WIDEST, at) if entry.axis == "strength" else schema.high
    return Slider(schema.low, high, 0.05, at, AXES[entry.axis])
