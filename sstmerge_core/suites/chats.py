"""Conversations as lists of turns: OpenAI's ``role``/``content``, ShareGPT's ``from``/``value``. Imports no torch.

A row is one prompt and one response, so a conversation is read where it is no more than that; which exchange of a
longer one is meant is for its owner to say.
"""

from __future__ import annotations

import json
from typing import Any, Literal

USER, ASSISTANT, SYSTEM = "user", "assistant", "system"
ROLES = {
    **dict.fromkeys(("user", "human", "prompter", "question"), USER),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "chatgpt", "ai", "answer"), ASSISTANT),
    **dict.fromkeys(("system", "developer"), SYSTEM),
}
"""What the sets call them"""


class RowFault(ValueError):
    """What is wrong with a row, and what to do."""

    def __init__(self, fault: str, fix: str = "Correct the row.") -> None:
        super().__init__(fault)
        self.fix = fix


def turns(value: Any) -> list[tuple[str, str]] | None:
    """(role, text) of every turn; None where a value is no conversation. JSON in a text, as CSV has it, is read.

    Raises RowFault for a role that is not known, a turn that is not text, and what a text would lose of it: calls of
    tools, reasoning that is kept apart, and that an answer is not to be learnt (``weight`` 0).
    """
    if isinstance(value, str) and value.lstrip().startswith("[{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if not isinstance(value, list) or not value or not all(map(_is_turn, value)):
        return None
    found = []
    for turn in value:
        said = str(turn.get("role") or turn.get("from") or "").strip().casefold()
        if said not in ROLES:
            raise RowFault(f"has a turn of the role {said[:40]!r}", "Rows are made of user and assistant turns alone.")
        _check_beside(turn, ROLES[said])
        found.append((ROLES[said], _said(turn.get("content") if "content" in turn else turn.get("value"))))
    return found


def part(
    found: list[tuple[str, str]],
    field: Literal["prompt", "response"],
    which: Literal["only", "first", "last"],
    column: str,
) -> str:
    """The user's or the assistant's text of one exchange, empty where there is none. Raises RowFault for several."""
    if which == "only":
        roles = [role for role, text in found if role != SYSTEM or text.strip()]
        fix = (
            f"Say which exchange is meant: `--columns prompt={column},turns=first` (or last); the others are left out."
        )
        if SYSTEM in roles:
            raise RowFault("has a system turn, for which a row has no place", fix)
        if max(roles.count(USER), roles.count(ASSISTANT)) > 1 or roles == [ASSISTANT, USER]:
            raise RowFault(f"has a conversation of {len(roles)} turns, not one prompt and one response", fix)
    users = [index for index, (role, _) in enumerate(found) if role == USER]
    if not users:
        return next((text for role, text in found if role == ASSISTANT), "") if field == "response" else ""
    chosen = users[-1] if which == "last" else users[0]
    if field == "prompt":
        return found[chosen][1]
    after = found[chosen + 1 : chosen + 2]
    return after[0][1] if after and after[0][0] == ASSISTANT else ""


_CALLS = ("tool_calls", "function_call")
_REASONING = ("reasoning_content", "reasoning", "thinking")


def _check_beside(turn: dict[str, Any], role: str) -> None:
    """Raises RowFault for what a turn has beside its text."""
    if any(turn.get(name) for name in _CALLS):
        raise RowFault("has a turn that calls tools", "Rows are made of texts alone.")
    if name := next((name for name in _REASONING if turn.get(name)), ""):
        fix = "Write it into the answer as <think>…</think>, or take it out."
        raise RowFault(f"has reasoning apart from its answer ({name})", fix)
    weight = turn.get("weight")
    if isinstance(weight, (int, float)) and weight == 0 and role == ASSISTANT:
        raise RowFault("has an answer of weight 0, which is not to be learnt", "Remove the row, or the weight.")


def _is_turn(turn: Any) -> bool:
    if not isinstance(turn, dict) or not ("role" in turn or "from" in turn):
        return False
    return any(name in turn for name in ("content", "value", *_CALLS))


def _said(content: Any) -> str:
    """A turn's text; of parts, as models with pictures have them, the texts where there is nothing else."""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(one, dict) and isinstance(one.get("text"), str) for one in content):
        return "\n".join(one["text"] for one in content)
    raise RowFault("has a turn that is not text", "Rows are made of texts alone.")
