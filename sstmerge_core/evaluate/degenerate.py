"""Tells text from what only looks like an answer: nothing, noise, or the same words over and over."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

from sstmerge_core import documents
from sstmerge_core.metrics.languages import words

LONGEST_PERIOD = 16
"""Words in the longest phrase whose repetition is looked for: a sentence."""
ALIKE = 0.75
"""Share of their words that two sentences have in common from which on the second says the first again"""
SHORT = 60
"""Characters up to which a text may be a formula or a list of boxes with more marks than letters"""
FORMAL = 6
"""Marks of code, tables or formulas from which on a text is one"""


def degeneracy(text: str) -> str:
    """Why `text` is degenerate, in a few words; empty where it is not.

    Short answers (``42``, ``Yes.``) are none. The limits are meant for answers of some 10 to 1,000 words. The stored
    verdicts of `refusal_regex` rest on this; `nonsense` is fairer.
    """
    visible = re.sub(r"\s", "", text)
    if reason := _noise(visible):
        return reason
    return _loop(_words(text))


def nonsense(text: str) -> str:
    """As `degeneracy`, but code, JSON, tables, lists and formulas are text, and loops of sentences are loops.

    Sentences and paragraphs that nearly repeat an earlier one count as repeating it.
    """
    visible = re.sub(r"\s", "", text)
    if not visible or not any(map(str.isalnum, visible)):
        return "empty" if not visible else _noise(visible)
    if _formal(text):
        return _repeated_lines(text)
    if reason := _noise(visible, 0.5 if len(visible) >= SHORT else 0.3) or _loop(
        words(re.sub("['’]", "", text.lower()))
    ):
        return reason
    if sum(len(found[0]) for found in _SYLLABLES.finditer(text)) > 0.5 * len(visible):
        return "one syllable repeated"
    return _repeated_sentences(text)


def _noise(visible: str, least: float = 0.5) -> str:
    """`least`: the share of letters and digits from which on it is text."""
    if not visible:
        return "empty"
    if len(visible) >= 8 and sum(character.isalnum() for character in visible) < least * len(visible):
        return "mostly not letters or digits"
    if len(visible) >= 20 and Counter(visible.lower()).most_common(1)[0][1] > 0.6 * len(visible):
        return "one character repeated"
    return ""


def _loop(words: Sequence[str]) -> str:
    covered, period = _repeated(words)
    if covered >= max(8, 0.5 * len(words)):
        return f"{period} words repeated" if period > 1 else "one word repeated"
    if len(words) >= 20:
        counts = Counter(words)
        entropy = -sum(count / len(words) * math.log2(count / len(words)) for count in counts.values())
        if len(counts) < 0.25 * min(len(words), 100) or entropy < 2.5:
            return "few different words"
    return ""


_SYLLABLES = re.compile(r"(\w{1,12}?)\1{5,}")
_CODE = re.compile(  # what prose does not have
    r"[{}\[\]|\\$=<>;^~]|\(\)|\b(?:def|return|import|const|function|void|int|SELECT|FROM|print)\b|^\s*(?:#include|//|>>>)",
    re.MULTILINE,
)


def _formal(text: str) -> bool:
    """Whether `text` is code, JSON, a table or a formula, as far as its marks tell."""
    if "```" in text or re.search(r"\\[a-z]{2,}\{|^\s*\|(?:[^|\n]+\|){2,}\s*$", text, re.MULTILINE):
        return True
    if text.lstrip()[:1] in ("{", "["):
        try:
            documents.from_json(text)
            return True
        except ValueError:
            pass
    letters = sum(map(str.isalnum, text))
    marks = len(_CODE.findall(text))
    closed = all(abs(text.count(a) - text.count(b)) <= 2 for a, b in ("{}", "[]", "()"))
    # noise has more marks than letters, and what it opens it does not close
    return closed and marks >= FORMAL and marks >= 0.04 * letters and letters >= 0.3 * len(re.sub(r"\s", "", text))


def _repeated_lines(text: str) -> str:
    """Of formal text, in which a bracket or a zero may stand ten times: only where one phrase or line is most of it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) >= 6 and Counter(lines).most_common(1)[0][1] > 0.8 * len(lines):
        return "one line repeated"
    said = words(text.lower())
    covered, period = _repeated(said)
    return f"{period} words repeated" if covered >= max(24, 0.6 * len(said)) else ""


def _repeated_sentences(text: str) -> str:
    """Where nearly half of the words stand in sentences that say an earlier one again, or in paragraphs that do.

    The last sentence may be cut off. Steps of a list are alike by nature: of these only equal ones count, as of short
    sentences.
    """
    said: list[list[str]] = []
    again = whole = times = 0
    for sentence in re.split(r"(?<=[.!?])\s+|[。！？।؟]|\n+", text):
        found = words(_ITEM.sub("", sentence).lower())
        if len(found) < 3:  # "Yes!"
            continue
        whole += len(found)
        exact = len(found) < 6 or bool(_ITEM.match(sentence))
        if any(_begins(other, found) or (not exact and _alike(found, other)) for other in said):
            again, times = again + len(found), times + 1
        else:
            said.append(found)
    if times >= 2 and again >= 0.45 * whole:
        return "sentences repeated"
    half = [" ".join(words(part.lower())) for part in re.split(r"\n\s*\n", text) if len(words(part)) >= 12]
    if len(half) > 1 and len({*half}) <= 0.5 * len(half):
        return "paragraphs repeated"
    return ""


_ITEM = re.compile(r"\s*(?:\d+[.)]|[-*•])\s+")


def _begins(whole: Sequence[str], part: Sequence[str]) -> bool:
    """Whether `part` is `whole`, or its beginning up to the middle of a word."""
    last = len(part) - 1
    return last < len(whole) and whole[:last] == part[:last] and whole[last].startswith(part[last])


def _alike(one: Sequence[str], other: Sequence[str]) -> bool:
    return (Counter(one) & Counter(other)).total() >= ALIKE * max(len(one), len(other))


def _words(text: str) -> list[str]:
    """Lower-case words; pieces of four characters for a script that puts no spaces between words."""
    words = re.findall(r"\w+(?:'\w+)?", text.lower())
    if words and sum(map(len, words)) > 20 * len(words):
        joined = "".join(words)
        return [joined[start : start + 4] for start in range(0, len(joined), 4)]
    return words


def _repeated(words: Sequence[str]) -> tuple[int, int]:
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
