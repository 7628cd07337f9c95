"""What a model writes down before it answers, apart from the answer: ``<think>…</think>``, and tags like it."""

from __future__ import annotations

import re

_WHOLE = re.compile(r"<(think|thinking|thought|reasoning)>(?P<inner>.*?)</\1>", re.DOTALL)
_BEGINS = re.compile(r"<(?:think|thinking|thought|reasoning)>")
_ENDS = re.compile(r"(?P<inner>.*)</(?:think|thinking|thought|reasoning)>", re.DOTALL)


def parted(response: str) -> tuple[str, str | None]:
    """The reasoning and the answer, without the tags; the answer is None where the reasoning never ended.

    Some templates open the reasoning in the prompt, so that the response holds its end alone.
    """
    thoughts = [found["inner"] for found in _WHOLE.finditer(response)]
    rest = _WHOLE.sub("", response)
    if found := _ENDS.match(rest):
        thoughts.insert(0, found["inner"])
        rest = rest[found.end() :]
    rest = rest.strip()
    if begun := _BEGINS.match(rest):
        thoughts.append(rest[begun.end() :])
        return " ".join(thoughts).strip(), None
    return " ".join(thoughts).strip(), rest


def answer(response: str) -> str:
    """The answer alone; empty where the reasoning never ended."""
    return parted(response)[1] or ""
