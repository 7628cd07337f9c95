"""What stays in memory from one point of a job to the next: the model, the adapters, the gradients of one pair."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sstmerge_core import adapters
from sstmerge_core.adapters.whole import whole_modules, with_whole
from sstmerge_core.errors import AdapterError, Cancelled, DataError, Problem, RecipeError
from sstmerge_core.jobs.model import Onlooker
from sstmerge_core.jobs.plan import importance_units
from sstmerge_core.merge import Calibrated, Merged, deltas, dense_and_low_rank
from sstmerge_core.models.chat import speak
from sstmerge_core.models.device import best_device, devices, is_here
from sstmerge_core.recipe import AS_THE_TEMPLATE, STAGE_VERSIONS, Calibration, Chat, Recipe, Source, Suite
from sstmerge_core.suites import attacks, twins
from sstmerge_core.suites.rows import Row, load_rows, rows_digest, take
from sstmerge_core.workspace import Workspace

if TYPE_CHECKING:
    import torch

    from sstmerge_core.adapters import Adapter, Factors
    from sstmerge_core.evaluate.encoders import Scorer
    from sstmerge_core.evaluate.served import ServedModel
    from sstmerge_core.fisher import Gradients
    from sstmerge_core.models.resident import Answering, ResidentModel
    from sstmerge_core.models.supervised import Example
    from sstmerge_core.space import CoreSpace

Report = Callable[[int, str, float, float], None]
"""(point, stage, done, total)"""


@dataclass
class Session:
    """What stays in memory from one point of a job to the next: one model, the adapters, the gradients of one pair."""

    workspace: Workspace
    device: str
    user: str = ""
    job_id: str = ""
    report: Report = lambda point, stage, done, total: None
    should_cancel: Callable[[], bool] = lambda: False
    onlooker: Onlooker = field(default_factory=Onlooker)
    point: int = 0
    _model: tuple[Any, ResidentModel] | None = None
    _served: tuple[Any, ServedModel] | None = None
    _chats: dict[str, Chat] = field(default_factory=dict)
    """How each of the two is spoken to at present"""
    _scorers: dict[tuple[str, ...], Scorer | None] = field(default_factory=dict)
    _adapters: dict[str, Adapter] = field(default_factory=dict)
    _factors: dict[tuple[str, str], dict[str, Factors]] = field(default_factory=dict)
    _calibrated: tuple[Any, Calibrated] | None = None
    patches: dict[Any, Any] = field(default_factory=dict)
    """What a sweep over α solves once, of the last point's gradients"""

    @property
    def arithmetic(self) -> str:
        """Where merges are computed: on `device`, but for Apple's MPS, which has no float64."""
        return "cpu" if self.device.startswith("mps") else self.device

    def progress(self, stage: str, done: float, total: float) -> None:
        """Tell how far a stage is, and stop here where the user wants that."""
        self.report(self.point, stage, done, total)
        self.stop_if_asked()

    def stop_if_asked(self) -> None:
        """Raises Cancelled where the user wants that."""
        if self.should_cancel():
            raise Cancelled(f"job {self.job_id}" if self.job_id else "run")

    def model(
        self,
        base: Source,
        dtype: str,
        chat: Chat = AS_THE_TEMPLATE,
        bits: int | None = None,
        kept: Adapter | None = None,
    ) -> ResidentModel:
        """The base model in `dtype`, or quantised to `bits`, spoken to as `chat` says; another one is let go first.

        `kept` is the adapter whose fully trained modules stand in the place of the base's: a model of its own, so that
        no other run ever sees them.

        Raises DataError where its files are not the recipe's, or not any more: what is in memory may be mapped from
        them.
        """
        from sstmerge_core.models.resident import ResidentModel

        key = (base.path, base.sha256, f"{bits} bits" if bits else dtype, kept.sha256 if kept else "")
        if self._model is None or self._model[0] != key:
            self.progress("prepare", 0, 1)
            self.close()
            with unchanged(base, self.workspace):
                how = chat.told.get("chat", {}) | ({"bits": bits} if bits else {})
                how |= {"saved": {name: one.load for name, one in kept.saved.items()}} if kept else {}
                loaded = ResidentModel.load(base.path, dtype, self.device, **how)
            self._model = (key, loaded)
            self.progress("prepare", 1, 1)
        else:
            check_base(base, self.workspace)
            if chat != self._chats.get("model"):
                speak(self._model[1].tokenizer, chat.system, chat.thinking)
        self._chats["model"] = chat
        return self._model[1]

    def served(self, base: Source, dtype: str, rank: int, chat: Chat = AS_THE_TEMPLATE) -> ServedModel:
        """The base model in vLLM's engine, made for adapters up to `rank`; another one in memory is let go first."""
        from sstmerge_core.evaluate.served import ServedModel

        key = (base.path, base.sha256, dtype)
        known = self._served[1] if self._served is not None and self._served[0] == key else None
        if known is None or known.failed or known.rank < rank:
            self.progress("prepare", 0, 1)
            self.close()
            with unchanged(base, self.workspace):
                known = ServedModel.load(base.path, dtype, self.device, rank, **chat.told.get("chat", {}))
            self._served = (key, known)
            self.progress("prepare", 1, 1)
        elif chat != self._chats.get("served"):
            speak(known.tokenizer, chat.system, chat.thinking)
        self._chats["served"] = chat
        return known

    def scorer(self, suite: Suite) -> Scorer | None:
        """The encoder that scores the suite's answers, kept for the next point; None where its metric needs none."""
        key = (suite.metric, suite.encoder, suite.encoded)
        if key not in self._scorers:
            from sstmerge_core.evaluate import encoders

            self._scorers[key] = encoders.of_suite(suite, self.device)
        return self._scorers[key]

    def answering(self, recipe: Recipe, merged: Merged, written: Path | None = None) -> Answering:
        """The base model with the merge on, as the recipe's evaluation says; `written` is the merge's adapter on disk.

        vLLM's engine is made for the rank of all the recipe's adapters together, so that a run and the one it is
        compared with share it.
        """
        evaluation = recipe.evaluation
        if evaluation is None or evaluation.backend == "transformers":
            bits = evaluation.bits if evaluation else None
            resident = self.model(recipe.base, recipe.dtype, recipe.chat, bits, self.kept(recipe))
            put_on(recipe, resident, merged)
            return resident
        inputs = self.inputs(recipe)
        if self.kept(recipe) is not None or whole_modules(inputs):
            raise RecipeError(vllm_keeps_none(recipe.base.name))
        rank = max(merged.rank, sum(adapter.rank for adapter in inputs))
        served = self.served(recipe.base, recipe.dtype, rank, recipe.chat)
        if written is not None:
            served.set_adapter(written)
        else:
            served.set_merged(merged, inputs)
        return served

    def close(self) -> None:
        """Let the model go, and what it holds beyond this process."""
        self._model = None
        if self._served is not None:
            self._served[1].close()
            self._served = None

    def adapter(self, source: Source) -> Adapter:
        """An adapter's folder, hashed now. Raises AdapterError where its files changed since the recipe was made."""
        if source.sha256 not in self._adapters:
            adapter = adapters.read(source.path, saved=True)
            if adapter.sha256 != source.sha256:  # not as remembered: the merge is named after what it is made of
                adapter.forget(self.workspace)
                fault = "the adapter's files have changed since this run was planned"
                raise AdapterError(Problem(source.path, fault, "Launch the merge again with the adapter as it is now."))
            self._adapters[source.sha256] = adapter
        return self._adapters[source.sha256]

    def kept(self, recipe: Recipe) -> Adapter | None:
        """The adapter whose fully trained modules the recipe keeps; None where there are none, or they are merged.

        Raises AdapterError where an adapter has such modules and the recipe says nothing of them.
        """
        if recipe.modules_to_save == "refuse":
            for source in recipe.adapters:
                if self.adapter(source).saved:
                    adapters.read(source.path)  # refuses it in its own words
        if recipe.modules_to_save != "utility":
            return None
        return next((one for one in map(self.adapter, recipe.experts) if one.saved), None)

    def inputs(self, recipe: Recipe) -> list[Adapter]:
        """The recipe's adapters, checked and hashed two at a time; see `adapter`.

        Modules trained whole are among the others where the recipe merges them.
        """
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(self.adapter, recipe.adapters))
        return [with_whole(one, Path(recipe.base.path)) for one in found] if merges_whole(recipe) else found

    def factors(self, source: Source, recipe: Recipe) -> dict[str, Factors]:
        """Factors of one of a recipe's adapters in memory; see `inputs`."""
        key = (source.sha256, recipe.base.sha256 if merges_whole(recipe) else "")
        if key not in self._factors:
            adapter = self.adapter(source)
            adapter = with_whole(adapter, Path(recipe.base.path)) if merges_whole(recipe) else adapter
            self._factors[key] = adapter.load(self.arithmetic)
        return self._factors[key]

    def calibrated(self, recipe: Recipe) -> Calibrated:
        """Core space and gradients of the recipe's adapters, from memory, from the cache, or computed now."""
        from sstmerge_core.fisher import stack
        from sstmerge_core.space import core_space

        assert recipe.calibration is not None
        key = (recipe.computed_base, recipe.adapters, recipe.calibration)
        if self._calibrated is None or self._calibrated[0] != key:
            self._calibrated = None
            self.patches.clear()
            space = core_space([self.factors(source, recipe) for source in recipe.adapters])
            found = {part: self._gradients(recipe, space, part) for part in recipe.calibration.parts}
            own = [gradients for part, gradients in found.items() if part.startswith("benign")]
            if "general" in found:
                own = [stack(gradients, found["general"], recipe.calibration.general_weight) for gradients in own]
            contrast = None
            if "refused" in found:
                refused, helped = found["refused"].mean(), found["near"].mean()
                contrast = {name: refused[name] - helped[name] for name in refused}
            each = tuple(own) if len(own) > 1 else ()
            self._calibrated = (key, Calibrated(space, found["harm"], own[0], each, contrast))
        return self._calibrated[1]

    def elected(self, recipe: Recipe) -> list[dict[str, torch.Tensor]]:
        """Of each adapter the weights that matter to its side's samples, bool (out, in); cached, or found now."""
        from sstmerge_core.fisher import cache, importance

        found = []
        for index in range(len(recipe.adapters)):
            depends = self._electing(recipe, index)
            folder = self.workspace.cache / "elected" / cache.key(**depends)
            elected = importance.load(folder)
            if elected is None:
                elected = importance.elect(self._scores(recipe, index), depends["share"])
                importance.save(folder, elected, depends)
            found.append(elected)
        return found

    def inputs_seen(self, recipe: Recipe) -> dict[str, torch.Tensor]:
        """What harmful samples put into each module at the base, E[xxᵀ] in core coordinates; cached, or found now."""
        from sstmerge_core.fisher import cache, inputs
        from sstmerge_core.space import core_space

        calibration = recipe.calibration
        assert calibration is not None
        depends = {
            "base": recipe.computed_base,
            "adapters": [adapter.sha256 for adapter in recipe.adapters],
            "rows": calibration.harm.sha256,
            "max_length": calibration.max_length,
            "dtype": calibration.dtype,
            "device": self.device.partition(":")[0],  # core coordinates are those of a device
            "version": STAGE_VERSIONS["fisher"],
        }
        folder = self.workspace.cache / "inputs" / cache.key(**depends)
        found = inputs.load(folder)
        if found is None:
            space = core_space([self.factors(source, recipe) for source in recipe.adapters])
            examples = self.examples(recipe, "harm", 0)
            resident = self.model(recipe.base, calibration.dtype, kept=self.kept(recipe))
            resident.set_delta(None)
            found = inputs.core_inputs(
                resident.model,
                resident.tokenizer,
                space,
                examples,
                max_length=calibration.max_length,
                progress=lambda done, total: self.progress("inputs", done, total),
            )
            inputs.save(folder, found, depends)
        return found

    def _electing(self, recipe: Recipe, index: int) -> dict[str, Any]:
        """What the election of one adapter's weights depends on; the safety adapter comes last."""
        calibration = recipe.calibration
        assert calibration is not None
        part, side = ("harm", "safety") if index == len(recipe.adapters) - 1 else ("benign", "utility")
        return {
            "base": recipe.computed_base,
            "adapter": recipe.adapters[index].sha256,
            "part": part,
            "rows": calibration.parts[part][0].sha256,
            "share": recipe.parameters[f"r_{side}"],  # of every method of this kind, see `merge.located`
            "max_length": calibration.max_length,
            "dtype": calibration.dtype,
            "version": STAGE_VERSIONS["fisher"],
        } | recipe.chat.told

    def _scores(self, recipe: Recipe, index: int) -> Iterator[dict[str, torch.Tensor]]:
        """Importance of one adapter's weights to its side's samples at the base, then with the adapter.

        Utility experts share the recipe's utility samples.
        """
        from sstmerge_core.fisher import expansion, importance

        calibration = recipe.calibration
        assert calibration is not None
        total = importance_units(recipe)
        factors = self.factors(recipe.adapters[index], recipe)
        examples = self.examples(recipe, self._electing(recipe, index)["part"], 0)
        resident = self.model(recipe.base, calibration.dtype, recipe.chat, kept=self.kept(recipe))
        done = 2 * index * calibration.n_benign

        def tell(own: int, _: int) -> None:
            self.progress("importance", done + own, total)

        for tuned in (0.0, 1.0):
            resident.set_delta(expansion.deltas([factors], [tuned]))
            self.progress("importance", done, total)
            yield importance.importance(
                resident.model,
                resident.tokenizer,
                sorted(factors),
                examples,
                max_length=calibration.max_length,
                progress=tell,
            )
            done += len(examples)

    def _gradients(self, recipe: Recipe, space: CoreSpace, part: str) -> Gradients:
        """Gradients of one part of the samples, cached apart from the others: a weight between them costs nothing."""
        from sstmerge_core.fisher import answers, cache, core_gradients, expansion
        from sstmerge_core.fisher.partial import under_way

        calibration = recipe.calibration
        assert calibration is not None
        point = (
            expansion.point_of_each(list(calibration.parts), part)
            if calibration.further
            else expansion.point(calibration.expansion, part)
        )
        depends = {
            "base": recipe.computed_base,
            "adapters": [adapter.sha256 for adapter in recipe.adapters],
            "rows": calibration.parts[part][0].sha256,
            "expansion": point,
            "max_length": calibration.max_length,
            "dtype": calibration.dtype,
            "kind": calibration.fisher,
            "version": STAGE_VERSIONS["fisher"],
        } | recipe.chat.told
        if point in ("utility", "midpoint") and calibration.experts != "mean":
            depends["experts"] = calibration.experts
        if calibration.fisher == "true":
            depends["seed"] = calibration.seed
        if part == "general":
            depends["answers"] = answers.identity(STAGE_VERSIONS["generate"])
        entry = cache.key(**depends)
        found = cache.load(self.workspace, entry)
        if found is None:
            names = list(calibration.parts)
            before = sum(calibration.parts[name][1] for name in names[: names.index(part)])
            examples = self.examples(recipe, part, before)
            factors = [self.factors(source, recipe) for source in recipe.adapters]
            resident = self.model(recipe.base, calibration.dtype, recipe.chat, kept=self.kept(recipe))
            weights = expansion.weights(point, len(factors), calibration.experts)
            _put(resident, factors, weights, calibration.dtype)
            self.progress("fisher", before, calibration.samples)
            with under_way(cache.folder(self.workspace, entry)) as kept:
                found = core_gradients(
                    resident.model,
                    resident.tokenizer,
                    space,
                    examples,
                    seed=calibration.seed if calibration.fisher == "true" else None,
                    max_length=calibration.max_length,
                    kept=kept,
                    progress=lambda done, _: self.progress("fisher", before + done, calibration.samples),
                )
                if kept is None:
                    cache.save(self.workspace, entry, found, depends)
                else:
                    kept.finish(cache.folder(self.workspace, entry), depends)
        return found.to(self.arithmetic)

    def examples(self, recipe: Recipe, part: str, before: int = 0) -> list[Example]:
        """Prompts and responses of one part of the calibration; for general prompts the base's own answers."""
        from sstmerge_core.models.supervised import Example

        calibration = recipe.calibration
        assert calibration is not None
        if part == "general":
            tell = partial(self.progress, "fisher", before, calibration.samples)
            return self.own_answers(recipe, part, "base", tell)
        source, n = calibration.parts[part]
        if part == "refused":
            return [Example(row.prompt, row.response) for row in refused_rows(calibration)]
        return [Example(row.prompt, row.response) for row in planned_rows(source, calibration.split, n)]

    def held_examples(self, recipe: Recipe, part: str) -> list[Example]:
        """Prompts and responses of one part of the samples on which a fit stops."""
        from sstmerge_core.models.supervised import Example

        held = recipe.calibration.held if recipe.calibration else None
        assert held is not None
        source, n = held.parts[part]
        return [Example(row.prompt, row.response) for row in planned_rows(source, held.split, n)]

    def own_answers(self, recipe: Recipe, part: str, point: str, tell: Callable[[], None]) -> list[Example]:
        """Prompts of one part with the model's own answers at a point, ``base`` or ``utility``; generated once, kept.

        `tell` is called before every batch and may raise to stop.
        """
        from sstmerge_core.fisher import answers, cache, expansion

        calibration = recipe.calibration
        assert calibration is not None
        source, n = calibration.parts[part]
        depends: dict[str, Any] = {"base": recipe.computed_base, "rows": source.sha256, "dtype": calibration.dtype}
        depends |= answers.identity(STAGE_VERSIONS["generate"]) | recipe.chat.told
        if point != "base":
            adapters = [adapter.sha256 for adapter in recipe.adapters[:-1]]
            depends |= {"adapters": adapters, "experts": calibration.experts}
        entry = cache.key(**depends)
        found = answers.load(self.workspace, entry)
        if found is None:
            prompts = [row.prompt for row in planned_rows(source, calibration.split, n)]
            resident = self.model(recipe.base, calibration.dtype, recipe.chat, kept=self.kept(recipe))
            factors = [self.factors(adapter, recipe) for adapter in recipe.adapters]
            weights = expansion.weights(point, len(factors), calibration.experts)
            put = partial(_put, resident, factors, weights, calibration.dtype)
            found = answers.own_answers(resident, prompts, tell, put)
            answers.save(self.workspace, entry, found, depends)
        return found


def merges_whole(recipe: Recipe) -> bool:
    """Whether modules that an adapter has trained whole are merged like the others."""
    return recipe.modules_to_save == "dense"


def vllm_keeps_none(base: str) -> Problem:
    """vLLM loads an adapter's factors alone."""
    return Problem(
        f"base model {base}", "vLLM has no fully trained modules beside a LoRA", "Use --backend transformers."
    )


def put_on(recipe: Recipe, resident: ResidentModel, merged: Merged) -> None:
    """Have the model compute with the merge, as the recipe's evaluation says."""
    if resident.quantised:
        dense, low_rank = dense_and_low_rank(merged)
        found = merged.factors()[0] if dense else {}
        resident.set_delta(None, {name: partial(_made, own) for name, own in found.items()} if dense else low_rank)
    elif recipe.evaluation is not None and recipe.evaluation.applied == "beside":
        resident.set_delta(*dense_and_low_rank(merged))
    else:
        resident.set_delta(deltas(merged))


def _made(factors: Any) -> Any:
    """Factors A and B, made where they are not yet."""
    return factors if isinstance(factors, tuple) else factors.make()


def planned_rows(source: Source, split: str, n: int) -> list[Row]:
    """The first `n` rows of a split. Raises DataError where they are not those that the recipe was made with."""
    rows = take(load_rows(source.path, split), n)
    if rows_digest(rows) != source.sha256:
        fault = "the rows have changed since this run was planned"
        raise DataError(Problem(source.path, fault, "Launch the run again with the rows as they are now."))
    return rows


def planned_attack(suite: Suite, rows: Sequence[Row]) -> attacks.Attack | None:
    """The suite's attack; None where it has none. Raises DataError where it asks other words than were planned."""
    if not suite.attack:
        return None
    if attacks.digest(suite.attack, rows) != suite.attacked:
        fault = "the attack has changed since this run was planned"
        raise DataError(Problem(f"attack {suite.attack}", fault, "Launch the run again with the attack as it is now."))
    return attacks.get(suite.attack)


def refused_rows(calibration: Calibration) -> list[Row]:
    """Near misses with the refusals to their twins. Raises DataError where they are not those of the recipe."""
    assert calibration.near is not None
    rows = twins.refused(calibration.near.path, calibration.n_near, calibration.harm.path, calibration.split)
    if rows_digest(rows) != calibration.refused:
        fault = f"near misses of {calibration.near.path} have other refusals of their twins since this run was planned"
        raise DataError(Problem(calibration.harm.path, fault, "Launch the run again with the rows as they are now."))
    return rows


def check_base(base: Source, workspace: Workspace) -> None:
    """Raises DataError where the base model's files are not those that the recipe was made with.

    What this costs: of each file a look at what the file system says of it and one at what is remembered; a file of
    which anything differs (device, inode, size, times of modification and of change) is hashed again. Of the bundled
    model (542 MB, on two shared cores): 7 ms, and 1 s where the weights are hashed.
    """
    adapters.read_base(base.path)
    if adapters.base_fingerprint(Path(base.path), workspace) != base.sha256:
        fault = "the base model's files have changed since this run was planned"
        raise DataError(Problem(base.path, fault, "Launch the run again."))


@contextlib.contextmanager
def unchanged(base: Source, workspace: Workspace) -> Iterator[None]:
    """`check_base` before the block, which reads the base model's files, and after it: nobody wrote them meanwhile."""
    check_base(base, workspace)
    yield
    check_base(base, workspace)


def _put(resident: ResidentModel, factors: Sequence[dict[str, Factors]], weights: Sequence[float], dtype: str) -> None:
    """Have the model compute at base + Σ w_i ΔW_i; beside weights of 16 bits, which would lose most of it."""
    from sstmerge_core.fisher import expansion

    if dtype == "float32":
        resident.set_delta(expansion.deltas(factors, weights))
    else:
        resident.set_delta(None, expansion.low_rank(factors, weights))


def chosen_device(name: str, recipes: Sequence[Recipe] = ()) -> str:
    """``auto`` is what SSTMERGE_DEVICE says, else the device that the first of `recipes` names, else the best here.

    Raises DataError where that is none of this machine's.
    """
    if name == "auto":
        name = os.environ.get("SSTMERGE_DEVICE") or (recipes[0].device if recipes else "") or best_device()
    if not is_here(name):
        raise DataError(Problem(f"device {name}", "is not on this machine", f"Use {', '.join(devices())}, or auto."))
    return name
