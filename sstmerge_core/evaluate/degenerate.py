"""Tells text from what only looks like an answer: nothing, noise, or the same words over and over."""

from __future__ import annotations

import math
import re
from collections import Counter

LONGEST_PERIOD = 16
"""Words in the longest phrase whose repetition is looked for: a sentence."""


def degeneracy(text: str) -> str:
    """Why `text` is degenerate, in a few words; empty where it is not.

    Short answers (``42``, ``Yes.``) are none. The limits are meant for answers of some 10 to 1,000 words.
    """
    visible = re.sub(r"\s", "", text)
    if not visible:
        return "empty"
    if len(visible) >= 8 and sum(character.isalnum() for character in visible) < 0.5 * len(visible):
        return "mostly not letters or digits"
    if len(visible) >= 20 and Counter(visible.lower()).most_common(1)[0][1] > 0.6 * len(visible):
        return "one character repeated"
    words = _words(text)
    covered, period = _repeated(words)
    if covered >= max(8, 0.5 * len(words)):
        return f"{period} words repeated" if period > 1 else "one word repeated"
    if len(words) >= 20:
        counts = Counter(words)
        entropy = -sum(count / len(words) * math.log2(count / len(words)) for count in counts.values())
        if len(counts) < 0.25 * min(len(words), 100) or entropy < 2.5:
            return "few different words"
    return ""


def _words(text: str) -> list[str]:
    """Lower-case words; pieces of four characters for a script that puts no spaces between words."""
    words = re.findall(r"\w+(?:'\w+)?", text.lower())
    if words and sum(map(len, words)) > 20 * len(words):
        joined = "".join(words)
        return [joined[start : start + 4] for start in range(0, len(joined), 4)]
    return words


def _repeated(words: list[str]) -> tuple[int, int]:
    """Words in the longest stretch of one phrase said three times or more (a single word: five), and its length."""
    best = (0, 0)
    for period in range(1, min(LONGEST_PERIOD, len(words) // 3) + 1):
        needed = (5 if period == 1 else 3) * period
        run = 0
        for first, second in zip(words, words[period:], strict=False):
            run = run + 1 if first == second else 0
            if run + period >= needed and run + period > best[0]:
                best = (run + period, period)
    return best
