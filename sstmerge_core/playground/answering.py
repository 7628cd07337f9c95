"""One prompt being answered, in a thread of the server that the pages belong to.

The thread outlives the page's runs: a reload, another browser on the same link and a moved slider find it. It ends
with the answer, when it is stopped, and when nobody has looked at it for a while. No torch.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping

from sstmerge_core import access
from sstmerge_core.errors import JobError, Problem, SSTMergeError
from sstmerge_core.playground import client, conversation
from sstmerge_core.playground.columns import Column
from sstmerge_core.playground.conversation import Answer, Conversation, Turn
from sstmerge_core.playground.protocol import Asked, Event, Question
from sstmerge_core.workspace import Workspace

UNWATCHED_SECONDS = 30.0
"""Without a look from any page: they look several times a second, and a reload takes seconds on a busy machine"""


class Answering:
    """The last turn of a conversation, as its answers grow."""

    def __init__(self, workspace: Workspace, talk: Conversation, question: Question, keys: list[str]):
        self.workspace = workspace
        self.talk = talk
        self.turn: Turn = talk.turns[-1]
        self.keys = keys
        """The columns asked, in the order of the question; the others of the turn are done"""
        self.note = "Starting the model process"
        self._question = question
        self._begun = self._looked = time.monotonic()
        self._stopped = threading.Event()
        self._first: float | None = None
        """When the first token came"""
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"answering {talk.id}")

    def start(self) -> None:
        conversation.save(self.workspace, self.talk)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def seconds(self) -> float:
        """Since it was asked."""
        return time.monotonic() - self._begun

    def watched(self) -> None:
        """Somebody looks at it."""
        self._looked = time.monotonic()

    def stop(self, wait: float = 3.0) -> None:
        """Keep what has been answered so far, and end."""
        self._stopped.set()
        self._thread.join(wait)

    def _run(self) -> None:
        try:
            with contextlib.closing(client.answer(self.workspace, self._question)) as events:
                for event in events:
                    if event is not None:
                        self._take(event)
                    if self._stopped.is_set() or time.monotonic() - self._looked > UNWATCHED_SECONDS:
                        break
        except SSTMergeError as error:
            self._fail([vars(problem) for problem in error.problems])
        except Exception as error:  # the thread has no one else to tell
            self._fail([{"where": "playground", "fault": f"{type(error).__name__}: {error}", "fix": "Start again."}])
        for answer in self._open():
            answer.ended = "stopped"
        conversation.save(self.workspace, self.talk)

    def _take(self, event: Event) -> None:
        kind = event["event"]
        if kind == "waiting":
            self.note = f"Waiting: {event['ahead']} before this one" if event["ahead"] else "Starting"
        elif kind == "loading":
            self.note = f"Loading {event['what']}"
        elif kind == "started":
            self.note = "Reading the prompt"
            self._first = time.monotonic()
        elif kind == "failed" and "column" not in event:
            self._fail(event["problems"])
        elif kind in ("text", "done", "failed"):
            answer = self.turn.answers[self.keys[event["column"]]]
            self.note = ""
            if kind == "failed":
                answer.ended, answer.problems = "failed", event["problems"]
                return
            answer.text, answer.tokens = event["text"], event["tokens"]
            answer.seconds = event.get("seconds", time.monotonic() - (self._first or self._begun))
            answer.ended = event.get("ended", "")

    def _open(self) -> list[Answer]:
        return [self.turn.answers[key] for key in self.keys if not self.turn.answers[key].ended]

    def _fail(self, problems: list[dict[str, str]]) -> None:
        for answer in self._open():
            answer.ended, answer.problems = "failed", problems


_RUNNING: dict[tuple[str, str], Answering] = {}
_LOCK = threading.Lock()


def running(workspace: Workspace, conversation_id: str) -> Answering | None:
    """What is being answered in this conversation now."""
    found = _RUNNING.get((str(workspace.root), conversation_id))
    return found if found and found.alive else None


def current(workspace: Workspace, conversation_id: str) -> Conversation | None:
    """The conversation as it is being answered, else as it is stored. Raises DataError for a damaged file."""
    # in this order: an answer is stored before its thread ends
    now = running(workspace, conversation_id)
    return now.talk if now else conversation.load(workspace, conversation_id)


def ask(
    workspace: Workspace,
    talk: Conversation,
    prompt: str,
    columns: Mapping[str, tuple[Column, float | None]],
    base: str,
    *,
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    seed: int = 0,
    dtype: str = "float32",
) -> Answering:
    """Put a new prompt to `columns` (by key, each with its α). `base` is the base model's folder.

    Raises JobError while an earlier prompt of this conversation is being answered.
    """
    return _start(workspace, talk, columns, base, dtype, Turn(prompt, max_new_tokens, temperature, seed))


def ask_again(
    workspace: Workspace,
    talk: Conversation,
    columns: Mapping[str, tuple[Column, float | None]],
    base: str,
    *,
    dtype: str = "float32",
) -> Answering:
    """Put the last prompt to these columns once more, as it was put before; the other columns' answers stay."""
    return _start(workspace, talk, columns, base, dtype)


def _start(
    workspace: Workspace,
    talk: Conversation,
    columns: Mapping[str, tuple[Column, float | None]],
    base: str,
    dtype: str,
    new: Turn | None = None,
) -> Answering:
    access.require("talk")  # here: the thread that answers is nobody's visit
    with _LOCK:
        if running(workspace, talk.id):
            fault = "an earlier prompt is being answered"
            raise JobError(Problem("conversation", fault, "Wait for it, or stop it."))
        talk.turns += [new] if new else []
        turn, before = talk.turns[-1], len(talk.turns) - 1
        asked = []
        for key, (column, alpha) in columns.items():
            turn.answers[key] = Answer(column.title, alpha if column.slider else None)
            adapters = [(name, str(path), weight) for name, path, weight in column.weights(alpha)]
            asked.append(Asked(adapters, [*talk.history(key, before), {"role": "user", "content": turn.prompt}]))
        question = Question(base, asked, turn.max_new_tokens, turn.temperature, turn.seed, dtype)
        found = Answering(workspace, talk, question, list(columns))
        for place in [place for place, old in _RUNNING.items() if not old.alive]:
            del _RUNNING[place]
        _RUNNING[str(workspace.root), talk.id] = found
        found.start()
    return found
