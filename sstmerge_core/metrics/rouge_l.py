"""ROUGE-L (Lin 2004), by the package rouge-score, in every script."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from sstmerge_core.metrics.declare import Metric
from sstmerge_core.metrics.languages import language, words
from sstmerge_core.metrics.rouge_package import rouge_score


@lru_cache(maxsize=20_000)  # pages ask for the scores of the same answers again and again
def rouge_l(reference: str, response: str) -> float:
    """F1 of the longest common subsequence of both texts' words, 0 to 1."""
    # an English score stays what papers report, whatever name with an accent an answer holds
    english = reference.isascii() or language(reference) == "en"
    return _scorer(english).score(reference, response)["rougeL"].fmeasure


@lru_cache
def _scorer(english: bool) -> Any:
    scorer, _ = rouge_score()
    return scorer(["rougeL"], use_stemmer=True, tokenizer=None if english else EveryScript())


class EveryScript:
    """rouge-score's own tokens, stemmed, for words of ASCII; any other word as it is, of scripts without spaces each
    character. rouge-score alone takes every letter but a to z for a space, so that no Japanese answer has a word.
    """

    def __init__(self) -> None:
        _, tokenizer = rouge_score()
        self._english = tokenizer(use_stemmer=True)

    def tokenize(self, text: str) -> list[str]:
        if text.isascii():
            return self._english.tokenize(text)
        parts = ([word] if not word.isascii() else self._english.tokenize(word) for word in words(text.lower()))
        return [token for part in parts for token in part]


METRIC = Metric(
    "rouge_l",
    "ROUGE-L",
    "utility",
    higher_is_better=True,
    help="ROUGE-L F1 of the answers against the reference answers.",
    formula=r"\frac1n\sum_i\frac{2P_iR_i}{P_i+R_i},\quad P=\frac{\mathrm{LCS}}{|\text{answer}|},\ "
    r"R=\frac{\mathrm{LCS}}{|\text{reference}|}",
    suites=("utility",),
    score=rouge_l,
    computed_by="rouge_score",
    interval="bootstrap",
    interval_words="By the package rouge-score, with stemming.",
)
PLACE = 0
