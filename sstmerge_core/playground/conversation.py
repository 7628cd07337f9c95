"""What was said, one JSON file per conversation: it survives a reload, and a link with its id opens it."""

from __future__ import annotations

import re
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sstmerge_core import access, documents
from sstmerge_core.errors import DataError, Problem
from sstmerge_core.workspace import Workspace, write_json

Message = dict[str, str]
"""``role`` (user or assistant) and ``content``, as chat templates take them"""
ANSWERED = ("model", "limit", "stopped")
"""Ways to end after which an answer is part of the conversation"""


@dataclass
class Answer:
    """One column's answer to one prompt."""

    title: str
    alpha: float | None
    text: str = ""
    tokens: int = 0
    seconds: float = 0.0
    """From the first forward pass to the last token"""
    ended: str = ""
    """``model`` (its own end), ``limit`` (of tokens), ``stopped``, ``failed``; empty while it is made, and where the
    program ended meanwhile"""
    problems: list[dict[str, str]] = field(default_factory=list)


@dataclass
class Turn:
    """A prompt, how it was to be answered, and the answers by the columns' keys."""

    prompt: str
    max_new_tokens: int
    temperature: float = 0.0
    """0: greedy"""
    seed: int = 0
    answers: dict[str, Answer] = field(default_factory=dict)


@dataclass
class Conversation:
    id: str
    turns: list[Turn] = field(default_factory=list)

    def history(self, key: str, before: int) -> list[Message]:
        """The turns before number `before` that this column answered, as messages."""
        messages = []
        for turn in self.turns[:before]:
            answer = turn.answers.get(key)
            if answer and answer.text and answer.ended in ANSWERED:
                messages += [
                    {"role": "user", "content": turn.prompt},
                    {"role": "assistant", "content": answer.text},
                ]
        return messages


def new() -> Conversation:
    return Conversation(secrets.token_hex(6))


def load(workspace: Workspace, conversation_id: str) -> Conversation | None:
    """The stored conversation, None where there is none of this id. Raises DataError for a damaged file."""
    path = _path(workspace, conversation_id)
    if path is None or not path.is_file():
        return None
    try:
        turns = [_turn(given) for given in documents.read_json(path)["turns"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(Problem(str(path), "is no conversation", "Delete the file and start again.")) from error
    return Conversation(conversation_id, turns)


def save(workspace: Workspace, conversation: Conversation) -> None:
    path = _path(workspace, conversation.id)
    assert path is not None, "ids are made by `new`"
    write_json(path, {"turns": [asdict(turn) for turn in conversation.turns]})


def delete(workspace: Workspace, conversation_id: str) -> None:
    access.require("talk")
    if path := _path(workspace, conversation_id):
        path.unlink(missing_ok=True)


def _turn(given: dict[str, Any]) -> Turn:
    answers = {key: Answer(**answer) for key, answer in given["answers"].items()}
    return Turn(**{**given, "answers": answers})


def _path(workspace: Workspace, conversation_id: str) -> Path | None:
    """None for what is no id: it comes out of a link."""
    if not re.fullmatch(r"[0-9a-f]{12}", conversation_id):
        return None
    return workspace.playground / "conversations" / f"{conversation_id}.json"
