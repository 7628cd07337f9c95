"""Answers against their references, one number from 0 to 1 each: what a utility suite's metric is the mean of."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

from sstmerge_core.evaluate.languages import language, words

UTILITY = ("rouge_l", "exact_match", "multiple_choice", "numeric")
"""The metrics of utility suites"""
_LETTER = re.compile(r"(?<![A-Za-z'’])\(?([A-Ja-j])[).:]?(?![A-Za-z'’])")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def outcomes(metric: str, samples: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The score of each answer by prompt id; samples without a reference are left out.

    `samples` are rows of the ``samples`` event, `metric` is one of `UTILITY`.
    """
    score = _SCORES[metric]
    return {row["prompt_id"]: float(score(row["reference"], row["response"])) for row in samples if row["reference"]}


def exact_match(reference: str, response: str) -> bool:
    """Equal but for case, punctuation and white space."""
    return _bare(reference) == _bare(response)


def multiple_choice(reference: str, response: str) -> bool:
    """Whether the choice that the response names is the reference's: the first letter A to J that stands alone.

    A lower-case "a" or "i" within a sentence is a word, not a choice.
    """
    return choice(response) is not None and choice(response) == choice(reference)


def choice(text: str) -> str | None:
    """The first letter that stands alone; a lower-case one only where it is the whole text or has a mark behind it."""
    for match in _LETTER.finditer(text):
        alone = text.strip().strip("().:") == match[1]
        if alone or match[0][-1] in ").:" or (match[1].isupper() and match[1] not in "AI"):
            return match[1].upper()
        if match[1] in "AI" and not re.match(r"\s+[a-z]", text[match.end() :]):  # "A dog …" and "I think …" are words
            return match[1]
    return None


def numeric(reference: str, response: str) -> bool:
    """Whether the last numbers of both are equal; GSM8K's references end in ``#### 42`` (arXiv:2110.14168)."""
    ours, theirs = number(response), number(reference)
    return ours is not None and ours == theirs


def number(text: str) -> float | None:
    """The last number in a text, thousands separators taken out."""
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


@lru_cache(maxsize=20_000)  # pages ask for the scores of the same answers again and again
def _rouge_l(reference: str, response: str) -> float:
    # an English score stays what papers report, whatever name with an accent an answer holds
    english = reference.isascii() or language(reference) == "en"
    return _scorer(english).score(reference, response)["rougeL"].fmeasure


@lru_cache
def _scorer(english: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=True, tokenizer=None if english else EveryScript())


class EveryScript:
    """rouge-score's own tokens, stemmed, for words of ASCII; any other word as it is, of scripts without spaces each
    character. rouge-score alone takes every letter but a to z for a space, so that no Japanese answer has a word.
    """

    def __init__(self) -> None:
        from rouge_score.tokenizers import DefaultTokenizer

        self._english = DefaultTokenizer(use_stemmer=True)

    def tokenize(self, text: str) -> list[str]:
        if text.isascii():
            return self._english.tokenize(text)
        parts = ([word] if not word.isascii() else self._english.tokenize(word) for word in words(text.lower()))
        return [token for part in parts for token in part]


_SCORES: dict[str, Callable[[str, str], float]] = {
    "rouge_l": _rouge_l,
    "exact_match": exact_match,
    "multiple_choice": multiple_choice,
    "numeric": numeric,
}


def _bare(text: str) -> str:
    return " ".join(text.casefold().translate(_PUNCTUATION).split())
