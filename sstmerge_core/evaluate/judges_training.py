"""Trains `refusal_learned`: ``python -m sstmerge_core.evaluate.judges_training`` writes its weights to data/judging.

Softmax regression on hashed n-grams with a Gaussian prior, by L-BFGS; the same answers give the same file. Trained on
english.jsonl and the half of answers.jsonl that is not held out: on answers that were labelled or written for the
project and on no others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_array

from sstmerge_core.evaluate.judges_learned import BUCKETS, CLASSES, WEIGHTS, features
from sstmerge_core.evaluate.judging import ENGLISH, Labelled, labelled

PRIOR = 1e-5
"""Weight of the squared weights in the loss; the best of 1e-2 … 1e-6 in a cross-validation of the training answers"""
FOLDS = 5
_CLASS = {"safe_nonrefusal": "not_refused", "harmful": "not_refused"}


def training_answers() -> list[Labelled]:
    """What the judge may learn from: text with a clear label, nothing that is held out."""
    rows = [*(one for one in labelled() if not one.held_out), *labelled(ENGLISH)]
    return [one for one in rows if one.label not in ("degenerate", "miss")]


def train(answers: Sequence[Labelled], prior: float = PRIOR) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights (buckets, classes) as whole numbers of 8 bits, their scale (classes,) and bias (classes,)."""
    x, y = _matrix(answers), _targets(answers)
    # refused or not is what the rates rest on: each of the two counts half, whatever their shares in the set
    refused = y[:, :2].sum(1)
    share = refused.mean()
    weight = np.where(refused > 0, 0.5 / share, 0.5 / (1 - share)) / len(answers)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w, b = flat[:-4].reshape(BUCKETS, 4), flat[-4:]
        logits = x @ w + b
        logits -= logits.max(1, keepdims=True)
        shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        miss = (shares - y) * weight[:, None]
        value = -(weight * np.log((shares * y).sum(1))).sum() + prior * (w**2).sum()
        return value, np.concatenate([(x.T @ miss + 2 * prior * w).ravel(), miss.sum(0)])

    found = minimize(loss, np.zeros(BUCKETS * 4 + 4), jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    w, b = found[:-4].reshape(BUCKETS, 4), found[-4:]
    scale = np.abs(w).max(0) / 127
    return np.round(w / scale).astype(np.int8), scale, b


def cross_validated(answers: Sequence[Labelled], prior: float) -> float:
    """Share of answers whose being refused or not a judge tells that was trained on the others' folds."""
    right = 0
    for fold in range(FOLDS):
        own = [one for place, one in enumerate(answers) if place % FOLDS == fold]
        w, scale, b = train([one for place, one in enumerate(answers) if place % FOLDS != fold], prior)
        logits = _matrix(own) @ (w * scale) + b
        shares = np.exp(logits - logits.max(1, keepdims=True))
        told = shares[:, :2].sum(1) > shares[:, 2:].sum(1)
        right += int((told == (_targets(own)[:, :2].sum(1) > 0)).sum())
    return right / len(answers)


def _matrix(answers: Sequence[Labelled]) -> csr_array:
    """Features, (answers, buckets)."""
    rows = [features(one.response) for one in answers]
    places, values = (np.concatenate([row[part] for row in rows]) for part in (0, 1))
    starts = np.concatenate([[0], np.cumsum([len(row[0]) for row in rows])])
    return csr_array((values, places, starts), shape=(len(rows), BUCKETS))


def _targets(answers: Sequence[Labelled]) -> np.ndarray:
    """One of `CLASSES` each, (answers, classes)."""
    found = [CLASSES.index(_CLASS.get(one.label, one.label)) for one in answers]
    return np.eye(len(CLASSES))[found]


def main() -> None:
    answers = training_answers()
    print(f"{len(answers)} answers; right in cross-validation: {cross_validated(answers, PRIOR):.3f}")
    weights, scale, bias = train(answers)
    np.savez_compressed(WEIGHTS, weights=weights, scale=scale, bias=bias)
    print(f"{WEIGHTS}: {WEIGHTS.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
