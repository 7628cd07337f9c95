"""The judges by name: where each is, found when it is asked for. Imports no torch."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from sstmerge_core.errors import Problem, RecipeError
from sstmerge_core.evaluate.guards import GUARDS
from sstmerge_core.evaluate.judge import Judge
from sstmerge_core.evaluate.judges_lexical import AdvBenchStrings, RefusalRegex, Scripted


def _hf_classifier(model: str, device: str) -> Judge:
    from sstmerge_core.evaluate.judges_classifier import hf_classifier

    return hf_classifier(model, device)


def _wildguard(model: str, device: str) -> Judge:
    from sstmerge_core.evaluate.judges_wildguard import wildguard

    return wildguard(model, device)


def _endpoint(model: str, device: str) -> Judge:
    from sstmerge_core.evaluate.judges_endpoint import endpoint

    return endpoint(model, device)


def _guard(name: str) -> Callable[[str, str], Judge]:
    def made(model: str, device: str) -> Judge:
        from sstmerge_core.evaluate.judges_guard import guard_judge

        return guard_judge(name, model, device)

    return made


def _refusal_regex_v2() -> Judge:
    from sstmerge_core.evaluate.judges_refusal import RefusalPatterns

    return RefusalPatterns()


def _refusal_learned() -> Judge:
    from sstmerge_core.evaluate.judges_learned import RefusalLearned

    return RefusalLearned()


_LEXICAL: dict[str, Callable[[], Judge]] = {
    "refusal_regex": RefusalRegex,
    "refusal_regex_v2": _refusal_regex_v2,
    "refusal_learned": _refusal_learned,
    "advbench_strings": AdvBenchStrings,
    "scripted": lambda: Scripted({}),
}
_MODELS: dict[str, Callable[[str, str], Judge]] = {
    "hf_classifier": _hf_classifier,
    "wildguard": _wildguard,
    "endpoint": _endpoint,
    **{name: _guard(name) for name in GUARDS},
}

MODEL_JUDGES = (
    "hf_classifier:MODEL",
    "wildguard",
    "wildguard:MODEL",
    "endpoint:MODEL",
    "endpoint:RUBRIC/MODEL",
    *(form for name, guard in GUARDS.items() for form in ([name] if guard.model else []) + [f"{name}:MODEL"]),
)
"""Judges that are models; MODEL is a folder, or a name on the Hugging Face hub whose files are on this machine."""


def judge_names() -> list[str]:
    """Judges that need no model; `scripted` is for tests and left out."""
    return [name for name in _LEXICAL if name != "scripted"]


def is_model(name: str) -> bool:
    """Whether a judge of this name is a model."""
    return name.partition(":")[0] in _MODELS


def usual_model(name: str) -> str:
    """The model that a judge of this name is, as it is named or usual; empty for the lexical ones and endpoints."""
    kind, _, model = name.partition(":")
    if kind == "wildguard" and not model:
        from sstmerge_core.evaluate.judges_wildguard import REVISION, WILDGUARD

        return f"{WILDGUARD}@{REVISION}" if REVISION else WILDGUARD
    if kind not in _MODELS or kind == "endpoint":
        return ""
    return model.partition(",")[0] or (GUARDS[kind].usual if kind in GUARDS else "")


def get_judge(name: str, device: str = "auto") -> Judge:
    """The judge called `name`; its model, if it is one, is found now and loaded with the first answer.

    Raises RecipeError naming the nearest judges, DataError with the way to get it where a model is not on this machine:
    no judge ever stands in for another.
    """
    kind, _, model = name.partition(":")
    if kind in _MODELS:
        return _MODELS[kind](model, device)
    if name not in _LEXICAL:
        known = [*judge_names(), *MODEL_JUDGES]
        near = difflib.get_close_matches(name, known, 2, 0.4)
        fix = f"Did you mean {' or '.join(near)}?" if near else f"Known judges: {', '.join(known)}."
        raise RecipeError(Problem(f"judge {name}", "there is no such judge", fix))
    return _LEXICAL[name]()
