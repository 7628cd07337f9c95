"""The frozen description of a run. Its hash is the run's identity: same recipe, same run."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from typing import Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from sstmerge_core import errors, methods
from sstmerge_core.errors import Problem, RecipeError
from sstmerge_core.metrics.labels import DEFAULT_JUDGE

STAGE_VERSIONS = {"fisher": 1, "merge": 1, "generate": 1}
"""Raised by hand when a stage's result changes for the same input, so that old results are not taken for new ones."""
Backend = Literal["transformers", "vllm"]
"""What generates answers"""
Applied = Literal["in_weights", "beside"]
"""How ΔW gets into the model, see `models.device.APPLIED`"""
Kept = Literal["always", "front", "never"]
"""Whose weights stay of the adapters that runs write, see `runs.keeping`"""
KEPT: tuple[Kept, ...] = get_args(Kept)
KEPT_OF_MANY = "SSTMERGE_ARTIFACTS"
"""Environment: what is kept of sweeps and experiments unless they are told otherwise; ``front`` where it says nothing.
A single merge always stays"""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Frozen):
    """A folder or file identified by content; `name` and `path` say where it was and do not count for identity."""

    name: str
    path: str
    sha256: str


class Suite(_Frozen):
    """Prompts of one kind, and what is measured on them."""

    name: str
    """``harmful``, ``near_miss``, ``facts`` …"""
    role: str
    """``harmful`` (gives resistance), ``benign`` (gives over-refusal) or ``utility`` (gives ROUGE-L)."""
    split: str
    n: int
    """How many prompts."""
    source: Source
    """The rows' file; its hash is that of the rows taken, in order."""
    max_new_tokens: int = 48
    metric: str = ""
    """Of a utility suite, one of `metrics.utility()`; empty: ROUGE-L"""
    attack: str = ""
    """Of a harmful suite, one of `suites.attacks`; empty: the prompts are asked as they are"""
    attacked: str = ""
    """SHA-256 of what the attack makes of the prompts, see `suites.attacks.digest`"""
    encoder: str = ""
    """Where the metric is computed by an encoder, which one: ``FOLDER#9``, ``ORG/NAME@REVISION#9``"""
    encoded: str = ""
    """By which name and digest, see `evaluate.encoders.Scorer.name`"""

    @model_serializer(mode="wrap")
    def _without_what_came_later(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As suites were recorded before there were attacks and encoders, where there is none."""
        return {name: value for name, value in dump(self).items() if value or not name.startswith(("attack", "encode"))}

    def identity(self) -> dict[str, Any]:
        """What can change the results, rows and encoder by content. The metric came later: without one a run keeps its
        id.
        """
        data = self.model_dump(mode="json", exclude={"encoder"} if self.metric else {"encoder", "metric"})
        return data | {"source": self.source.sha256}


_LATER = ("near", "n_near", "refused", "held")
"""Fields of a `Calibration` that are written only where they say something"""


class Held(_Frozen):
    """Samples that nothing is fitted to: a fit stops where their loss no longer falls."""

    harm: Source
    near: Source
    benign: Source
    n_harm: int
    n_near: int
    n_benign: int
    split: str = "selection"

    @property
    def parts(self) -> dict[str, tuple[Source, int]]:
        """Rows and their number by the names that `Calibration.parts` has for such samples."""
        names = ("harm", "near", "benign")
        return {name: (getattr(self, name), getattr(self, f"n_{name}")) for name in names}

    def identity(self) -> dict[str, Any]:
        """What can change when a fit stops, rows by content."""
        counts = self.model_dump(mode="json", exclude={"harm", "near", "benign"})
        return counts | {name: source.sha256 for name, (source, _) in self.parts.items()}


class Calibration(_Frozen):
    """The samples whose gradients make the Fisher matrices, and where and of which responses they are taken.

    F_harm is that of the harmful samples, F_benign = F_utility + `general_weight`·F_general, each a mean over its
    samples.
    """

    harm: Source
    benign: Source
    """The utility samples"""
    split: str = "fisher"
    n_harm: int
    n_benign: int
    max_length: int = 256
    """Tokens per sample; longer samples are cut at the end."""
    expansion: Literal["utility", "own", "midpoint", "base", "base_and_own"] = "utility"
    """Where the gradients are taken: base + ΔU; harmful samples at base + ΔS
    and the others at base + ΔU; base + ½(ΔU + ΔS); the base; each side's samples at the base and again as with `own`,
    for methods that need importance. Of these, records of earlier days say `own` and mean the same."""
    experts: Literal["mean", "sum"] = "mean"
    """What ΔU of several utility adapters is at that point: the mean of their ΔW or, as the merge starts from, the sum.
    """
    dtype: str = "float32"
    """Of the model; the gradients are float32 whatever it is"""
    fisher: Literal["empirical", "true"] = "empirical"
    """Responses: those of the data, or sampled from the model at the expansion point."""
    seed: int = 0
    """Of the sampled responses; without effect on the empirical Fisher."""
    general: Source | None = None
    """General benign prompts; their response is the base model's own greedy answer."""
    further: tuple[Source, ...] = ()
    """The utility samples of the second and each further utility adapter, where each adapter's own samples are looked
    at with that adapter alone; `benign` are then the first one's. Empty: all adapters share `benign`."""
    n_further: tuple[int, ...] = ()
    near: Source | None = None
    """Near misses, harmless prompts that look dangerous, with helpful answers; for methods that tell the two apart"""
    n_near: int = Field(default=0, ge=0)
    refused: str = ""
    """SHA-256 of the near misses with the refusals to their harmful twins, see `suites.twins`; empty where no gradient
    of refusing them is taken"""
    held: Held | None = None
    n_general: int = Field(default=0, ge=0)
    general_weight: float = Field(default=0.0, ge=0.0, allow_inf_nan=False)
    """0: without general prompts."""

    @model_serializer(mode="wrap")
    def _without_what_came_later(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As recipes were recorded before near misses were looked at, where they are not: the setting is the same."""
        return {name: value for name, value in dump(self).items() if name not in _LATER or value}

    @model_validator(mode="after")
    def _weight_has_prompts(self) -> Self:
        if self.general_weight and (self.general is None or not self.n_general):
            raise ValueError("general_weight needs general prompts: give `general` and `n_general`")
        return self

    @property
    def parts(self) -> dict[str, tuple[Source, int]]:
        """Rows and their number of each part of the samples that counts: ``harm``, ``benign``, ``general``, ``near``,
        ``refused``.

        Where each utility adapter has its own, further ones are ``benign 2``, ``benign 3`` …
        """
        parts = {"harm": (self.harm, self.n_harm), "benign": (self.benign, self.n_benign)}
        for index, (source, n) in enumerate(zip(self.further, self.n_further, strict=True), start=2):
            parts[f"benign {index}"] = (source, n)
        if self.general is not None and self.general_weight:
            parts["general"] = (self.general, self.n_general)
        if self.near is not None:
            parts["near"] = (self.near, self.n_near)
            if self.refused:
                parts["refused"] = (self.near.model_copy(update={"sha256": self.refused}), self.n_near)
        return parts

    @property
    def samples(self) -> int:
        """How many samples all parts have together."""
        return sum(n for _, n in self.parts.values())

    def identity(self) -> dict[str, Any]:
        """What can change the gradients or their weights, sources by content.

        What came later is left out where it changes nothing, so that a run keeps its id.
        """
        came_later = {
            name for name, default in (("experts", "mean"), ("n_further", ())) if getattr(self, name) == default
        }
        data = self.model_dump(
            mode="json", exclude={"harm", "benign", "general", "further", "near", "held"} | came_later
        )
        data |= {part: source.sha256 for part, (source, _) in self.parts.items()}
        if self.held is not None:
            data["held"] = self.held.identity()
        if self.expansion == "base_and_own":
            data["expansion"] = "own"  # the word of earlier days for the same thing
        without_effect = set() if self.fisher == "true" else {"fisher", "seed"}
        if "general" not in self.parts:
            without_effect |= {"n_general", "general_weight"}
        return {name: value for name, value in data.items() if name not in without_effect}


class Evaluation(_Frozen):
    suites: tuple[Suite, ...]
    judge: str = DEFAULT_JUDGE
    dtype: str = "float32"
    batch_size: int = 64
    """Answers generated at once at most; fewer where memory has no room for them"""
    backend: Backend = "transformers"
    """What generates: the base model with ΔW in it, or vLLM with the written adapter as LoRA"""
    applied: Applied = "in_weights"
    """How transformers' model gets a ΔW that is low-rank; a dense one is always added to the weights"""
    bits: Literal[8, 4] | None = None
    """In which the base's linear weights are while it answers, with ΔW beside them; None: as they are"""

    @model_serializer(mode="wrap")
    def _without_what_came_later(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As recipes were recorded before there was a choice, where it is the first one."""
        first = {"applied": "in_weights", "bits": None}
        return {name: value for name, value in dump(self).items() if value != first.get(name, ...)}

    def identity(self) -> dict[str, Any]:
        """What can change the answers. The backend came later: with the first one a run keeps its id."""
        same_as_before = {"backend"} if self.backend == "transformers" else set()
        data = self.model_dump(mode="json", exclude={"judge"} | same_as_before)
        return data | {"suites": [suite.identity() for suite in self.suites]}


TooLong = Literal["refuse", "cut"]


class Chat(_Frozen):
    """How prompts become text beyond the base's template, in every stage: answers, gradients, and what is fitted."""

    system: str = ""
    """The system prompt; empty: the template's own, or none"""
    thinking: bool | None = None
    """Whether the template lets the model reason first (``enable_thinking``); None: as the template has it"""
    too_long: TooLong = "refuse"
    """What is done with a prompt that has, with its answer, more tokens than the model has positions: nothing is
    measured, or it loses its beginning"""

    @property
    def told(self) -> dict[str, Any]:
        """For a key of what was computed: what changes the text of a sample. Nothing where it is the template's own."""
        changed = {"system": self.system, "thinking": self.thinking}
        return {"chat": changed} if changed != {"system": "", "thinking": None} else {}


AS_THE_TEMPLATE = Chat()


class Recipe(_Frozen):
    """What is merged, how, and how it is measured."""

    base: Source
    adapters: tuple[Source, ...] = Field(description="Utility experts first, safety last.")
    method: str
    parameters: dict[str, Any]
    calibration: Calibration | None = None
    evaluation: Evaluation | None = None
    selection: Suite | None = None
    """Prompts on which the method itself chooses a parameter; none for most methods."""
    selection_benign: Suite | None = None
    """Harmless look-alikes on which it chooses too, where over-refusal has a limit"""
    unaligned: Source | None = None
    """A model like the base before it was aligned; base − unaligned is the safe direction of methods that use one"""
    chat: Chat = AS_THE_TEMPLATE
    """It came later: without one a run keeps its id"""
    modules_to_save: Literal["refuse", "utility", "dense"] = "refuse"
    """What is done with modules that an adapter has trained whole: there are none; those of the utility side stand in
    the place of the base's in every stage; or they are merged as W′ − W, like every ΔW. It came later: where there are
    none a run keeps its id"""
    device: str = ""
    """Where to compute: ``cpu``, ``cuda:1``; empty: wherever it is carried out. It does not count for identity, as it
    never did, though another device rounds differently: what changes by design is `dtype` and `applied`"""
    artifacts: Kept = "always"
    """Whether the merged adapter's weights stay once the run is measured: ``always``, ``front`` (while no run made
    under this policy beats it), ``never``; see `runs.keeping`. It belongs to the launch and not to the identity"""

    @field_validator("parameters")
    @classmethod
    def _what_came_later_is_as_it_was(cls, given: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        """Recipes record every parameter that there was: one that is missing came later."""
        try:
            return methods.get(info.data.get("method", "")).recorded(given)
        except RecipeError:  # of a method that this version does not have
            return given

    @model_validator(mode="after")
    def _gradients_are_taken_at_one_point(self) -> Self:
        at_two = self.calibration is not None and self.calibration.expansion == "base_and_own"
        if at_two and not methods.get(self.method).needs_importance:
            raise ValueError(f"expansion base_and_own is not for {self.method}: it takes gradients at one point")
        return self

    @property
    def run_id(self) -> str:
        """16 hexadecimal digits of the SHA-256 over everything that can change the result.

        The judge is left out: a verdict by another judge belongs to the same run.
        """
        return _digest(self._identity())[:16]

    @property
    def utility(self) -> str:
        """The utility experts' names with +; beyond three the first, how many more, and a digest of which."""
        experts = self.experts
        names = [expert.name for expert in experts]
        if len(names) > 3:
            return f"{names[0]}+{len(names) - 1}-{_digest([expert.sha256 for expert in experts])[:4]}"
        return "+".join(names)

    @property
    def safety(self) -> str:
        return self.adapters[-1].name if len(self.adapters) > 1 else ""

    @property
    def pair(self) -> str:
        """``A5_A7``, or ``A5+A6_A7`` with several utility experts; the base's name where there is no adapter."""
        return "_".join(filter(None, (self.utility, self.safety))) or self.base.name

    @property
    def reference(self) -> Recipe | None:
        """The utility side alone under the same evaluation: what a merge's Safety Tax is measured against."""
        if self.evaluation is None or len(self.adapters) < 2:
            return None
        if len(self.adapters) == 2:
            alone: dict[str, Any] = {"adapters": self.adapters[:1], "method": "adapter", "parameters": {}}
        else:
            alone = {"method": "linear", "parameters": methods.get("linear").complete({"alpha": 0.0})}
        found = self.model_copy(update=alone | {"calibration": None, "selection": None, "selection_benign": None})
        return None if found == self else found

    @property
    def experts(self) -> tuple[Source, ...]:
        """The utility side."""
        return self.adapters[:-1] if len(self.adapters) > 1 else self.adapters

    @property
    def computed_base(self) -> str:
        """SHA-256 of what ΔW is added to: the base, or the base with the utility side's fully trained modules."""
        if self.modules_to_save != "utility":
            return self.base.sha256
        return _digest([self.base.sha256, *(one.sha256 for one in self.experts)])

    @property
    def label(self) -> str:
        """The method and its parameters that differ from the default, for people."""
        return methods.get(self.method).label(self.parameters)

    @property
    def dtype(self) -> str:
        """Of the model that answers, else of the one whose gradients are taken: one model in memory serves both."""
        return self.evaluation.dtype if self.evaluation else self.calibration.dtype if self.calibration else "float32"

    @model_serializer(mode="wrap")
    def _without_what_is_as_usual(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        kept = {
            "device": bool(self.device),
            "artifacts": self.artifacts != "always",
            "chat": self.chat != AS_THE_TEMPLATE,
            "modules_to_save": self.modules_to_save != "refuse",
        }
        return {name: value for name, value in dump(self).items() if kept.get(name, True)}

    def _identity(self) -> dict[str, Any]:
        data = self.model_dump(mode="json", exclude={"device", "artifacts"})
        data["base"] = self.base.sha256
        data["adapters"] = [adapter.sha256 for adapter in self.adapters]
        data["parameters"] = methods.get(self.method).identity(self.parameters)
        if self.calibration:
            data["calibration"] = self.calibration.identity()
        if self.evaluation:
            data["evaluation"] = self.evaluation.identity()
        if self.selection:
            data["selection"] = self.selection.identity()
        else:
            del data["selection"]  # came later: runs without it keep their id
        if self.selection_benign:
            data["selection_benign"] = self.selection_benign.identity()
        else:
            del data["selection_benign"]  # as above
        if self.unaligned:
            data["unaligned"] = self.unaligned.sha256
        else:
            del data["unaligned"]  # as above
        return data | {"versions": STAGE_VERSIONS}


def kept_of_many(given: str = "") -> Kept:
    """What is kept of the adapters of a sweep or an experiment. Raises RecipeError for what is none of `KEPT`."""
    wanted = given or os.environ.get(KEPT_OF_MANY, "").strip() or "front"
    found = next((one for one in KEPT if one == wanted), None)
    if found is None:
        where = f"--artifacts {wanted}" if given else f"{KEPT_OF_MANY}={wanted}"
        raise RecipeError(Problem(where, "is unknown", f"Use one of {', '.join(KEPT)}."))
    return found


def with_kept(recipes: Iterable[Recipe], kept: Kept) -> list[Recipe]:
    """The same recipes, of whose adapters is kept what `kept` says; their ids stay."""
    return [recipe.model_copy(update={"artifacts": kept}) for recipe in recipes]


def validated(
    fields: Any, where: str, fix: str = "A newer version of the program may have written it: update this one."
) -> Recipe:
    """The recipe of these fields, as a file, a run's events or a job hold it. Raises RecipeError that names `where`."""
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        raise RecipeError(errors.of_validation(error, where, fix, fields=list(Recipe.model_fields))) from None


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
