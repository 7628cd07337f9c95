"""Edits of whole weights from passes over prompts; a method that asks for answers takes several, the best is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from sstmerge_core.fitting.fit import Fit
from sstmerge_core.fitting.kept import Checkpoint
from sstmerge_core.methods.edits import Edit, Seen

if TYPE_CHECKING:
    import torch

    from sstmerge_core.methods import Method

Edits = dict[str, Edit]
"""By module"""
SIDES = {"left": "/L", "right": "/R"}
"""How the two matrices of a module are named where they are kept"""


class Prompts(Protocol):
    """The calibration prompts, looked at with the model as it is edited so far."""

    def look(self, edits: Edits, answers_alone: bool) -> Seen:
        """One pass; `answers_alone`: only `Seen.answered` is asked for."""
        ...


def edit(
    method: Method,
    parameters: Mapping[str, Any],
    prompts: Prompts,
    *,
    checkpoint: Checkpoint | None = None,
    progress: Callable[[float, float], None] = lambda done, total: None,
) -> Fit:
    """The edits of `method`, resumable by the pass; `progress` is told (passes done, passes) and may raise to stop.

    Where the model's answers are judged, each pass edits what the last one left, and the edits after which it answers
    the harmless prompts and no others best (F1) are taken, none among them. Statistics: ``fitted`` numbers in the
    edits, ``passes``, and of answers ``f1_before`` and ``f1_after``.
    """
    checkpoint = checkpoint or Checkpoint()
    passes = int(parameters.get("passes", 1))
    edits, best, scores = _restored(checkpoint)
    done = len(scores)
    progress(min(done, passes), passes)
    while done <= passes:
        # the last look only asks how good the last edits are
        last = done == passes
        if last and not method.needs_answers:
            break
        seen = prompts.look(edits, last)
        score = f1(seen) if method.needs_answers else 0.0
        if not scores or score > max(scores):
            best = edits
        scores.append(score)
        new = {} if last else method.function(seen, **method.own(parameters))
        if not method.needs_answers:
            best = new
        if not new:
            break
        edits = edits | {name: own.after(edits[name]) if name in edits else own for name, own in new.items()}
        done = len(scores)
        checkpoint.save({**_named("now", edits), **_named("best", best)}, {"scores": scores})
        progress(done, passes)
    progress(passes, passes)
    told = {"fitted": float(sum(2 * own.left.numel() for own in best.values())), "passes": float(len(scores))}
    if method.needs_answers:
        told |= {"f1_before": scores[0], "f1_after": max(scores)}
    return as_fit(best, told)


def f1(seen: Seen) -> float:
    """F1 of answering exactly the harmless prompts: 2TP/(2TP + FP + FN), TP the harmless that are answered."""
    assert seen.answered is not None
    answered = {kind: int(own.sum()) for kind, own in seen.answered.items()}
    harmless = [kind for kind in answered if kind != "harm"]
    right = sum(answered[kind] for kind in harmless)
    refused = sum(len(seen.answered[kind]) for kind in harmless) - right
    whole = 2 * right + answered["harm"] + refused
    return 2 * right / whole if whole else 0.0


def as_fit(edits: Edits, statistics: Mapping[str, float] | None = None) -> Fit:
    """A fit that is made of these edits."""
    told = [{"module": "", "stat": stat, "value": value} for stat, value in (statistics or {}).items()]
    return Fit(_named("", edits), told)


def edits_of(fit: Fit) -> Edits:
    """The edits that a fit was made of."""
    names = {key.removesuffix(SIDES["left"]) for key in fit.cores if key.endswith(SIDES["left"])}
    return {name: Edit(*(fit.cores[name + end] for end in SIDES.values())) for name in sorted(names)}


def _named(prefix: str, edits: Edits) -> dict[str, torch.Tensor]:
    start = f"{prefix}:" if prefix else ""
    # copies: the best edits may be those of now, and a file holds every tensor once
    return {
        f"{start}{name}{end}": getattr(own, side).clone() for name, own in edits.items() for side, end in SIDES.items()
    }


def _restored(checkpoint: Checkpoint) -> tuple[Edits, Edits, list[float]]:
    kept = checkpoint.load()
    if kept is None:
        return {}, {}, []
    tensors, about = kept
    sides = [
        edits_of(Fit({key.partition(":")[2]: own for key, own in tensors.items() if key.startswith(f"{which}:")}))
        for which in ("now", "best")
    ]
    return sides[0], sides[1], list(about["scores"])
