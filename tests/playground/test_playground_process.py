"""The model process from outside: started on demand, shared, stopped, killed, and gone when nobody asks."""

from __future__ import annotations

import os
import signal
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from sstmerge_core.errors import JobError, Problem
from sstmerge_core.jobs.process import Process
from sstmerge_core.playground import answering, client, columns, conversation
from sstmerge_core.playground.protocol import Asked, Event, Question, Status, socket_file
from sstmerge_core.playground.server import serve
from sstmerge_core.workspace import Workspace
from tests.there import there


class Scripted:
    """Answers every column with its prompt's words, one a step; ``slowly`` in a prompt takes its time."""

    base = "scripted"

    def __init__(self) -> None:
        self.adapters: list[str] = []
        self.steps: list[str] = []

    def answers(self, question: Question) -> Iterator[list[Event]]:
        prompt = question.columns[0].messages[-1]["content"]
        if prompt == "refuse":
            raise JobError(Problem("scripted", "was told to fail", "Ask something else."))
        yield [{"event": "started"}]
        said = prompt.split() * question.max_new_tokens
        for count in range(1, question.max_new_tokens + 1):
            time.sleep(0.05 if "slowly" in prompt else 0.0)
            self.steps.append(prompt)
            text = " ".join(said[:count])
            yield [{"event": "text", "column": n, "text": text, "tokens": count} for n in range(len(question.columns))]
        done = {"event": "done", "text": text, "tokens": count, "seconds": 1.0, "ended": "limit"}
        yield [done | {"column": n} for n in range(len(question.columns))]


@pytest.fixture
def served(workspace: Workspace) -> Iterator[Scripted]:
    """The protocol's server with a scripted model, in a thread."""
    model = Scripted()
    thread = threading.Thread(target=serve, args=(workspace, model, 60.0), daemon=True)
    thread.start()
    _until(lambda: client.status(workspace) is not None)
    yield model
    client.stop(workspace)
    thread.join(5)
    assert not thread.is_alive() and not socket_file(workspace).exists()


def test_events_arrive_in_order_for_every_column(workspace: Workspace, served: Scripted) -> None:
    events = _heard(workspace, _question("a b", columns=2, tokens=2))
    kinds = [event["event"] for event in events]
    assert kinds == ["waiting", "started", "text", "text", "text", "text", "done", "done", "finished"]
    assert [event["text"] for event in events if event.get("column") == 1] == ["a", "a b", "a b"]


def test_only_the_owner_may_connect(workspace: Workspace, served: Scripted) -> None:
    assert stat.S_IMODE(socket_file(workspace).stat().st_mode) == 0o600


def test_two_clients_are_answered_in_turn_and_each_hears_its_own(workspace: Workspace, served: Scripted) -> None:
    heard: dict[str, list[Event]] = {}

    def listen(prompt: str) -> None:
        heard[prompt] = _heard(workspace, _question(prompt, tokens=10))

    threads = [threading.Thread(target=listen, args=(prompt,)) for prompt in ("slowly one", "slowly two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for prompt, events in heard.items():
        assert events[-1]["event"] == "finished"
        assert {word for event in events for word in event.get("text", "").split()} == set(prompt.split())
    first = served.steps.index("slowly two"), served.steps.index("slowly one")
    assert max(first) < 10, "the second waited until the first was done"


def test_closing_the_connection_stops_the_answer(workspace: Workspace, served: Scripted) -> None:
    with closing(client.answer(workspace, _question("slowly", tokens=400))) as events:
        _until(lambda: (next(events) or {}).get("event") == "text")
    _until(lambda: there(client.status(workspace)).busy == 0)
    assert len(served.steps) < 40


def test_an_error_of_one_question_is_told_and_the_process_goes_on(workspace: Workspace, served: Scripted) -> None:
    failed = _heard(workspace, _question("refuse"))[-1]
    assert failed["problems"] == [{"where": "scripted", "fault": "was told to fail", "fix": "Ask something else."}]
    assert _heard(workspace, _question("a"))[-1]["event"] == "finished"


def test_a_stopped_answer_keeps_what_was_said(workspace: Workspace, served: Scripted) -> None:
    talk = conversation.new()
    now = answering.ask(workspace, talk, "slowly on", {"base": (columns.base("b"), None)}, "/base", max_new_tokens=400)
    _until(lambda: now.turn.answers["base"].tokens > 2)
    with pytest.raises(JobError, match="being answered"):
        answering.ask(workspace, talk, "again", {}, "/base")
    assert len(talk.turns) == 1
    assert answering.current(workspace, talk.id) is talk
    now.stop()
    answer = there(answering.current(workspace, talk.id)).turns[0].answers["base"]
    assert answer.ended == "stopped" and answer.text.startswith("slowly on slowly") and answer.tokens < 40
    assert answering.running(workspace, talk.id) is None


def test_nobody_looking_stops_the_answer(workspace: Workspace, served: Scripted, monkeypatch) -> None:
    monkeypatch.setattr(answering, "UNWATCHED_SECONDS", 0.3)
    now = answering.ask(
        workspace, conversation.new(), "slowly", {"base": (columns.base("b"), None)}, "/base", max_new_tokens=400
    )
    _until(lambda: not now.alive)
    assert now.turn.answers["base"].ended == "stopped" and len(served.steps) < 60


def test_a_column_is_asked_with_its_own_answers_so_far(workspace: Workspace, served: Scripted, monkeypatch) -> None:
    asked: list[Question] = []
    answers = served.answers

    def noted(question: Question) -> Iterator[list[Event]]:
        asked.append(question)
        return answers(question)

    monkeypatch.setattr(served, "answers", noted)
    talk, one, two = conversation.new(), columns.base("b"), columns.Column("adapter:A", "A")
    for prompt, chosen in (("first", {"base": (one, None)}), ("then", {"base": (one, None), "adapter:A": (two, None)})):
        now = answering.ask(workspace, talk, prompt, chosen, "/base", max_new_tokens=2)
        _until(lambda now=now: not now.alive)
    histories = [[message["content"] for message in column.messages] for column in asked[1].columns]
    assert histories == [["first", "first first", "then"], ["then"]]
    now = answering.ask_again(workspace, talk, {"base": (one, None)}, "/base")
    _until(lambda: not now.alive)
    assert [message["content"] for message in asked[2].columns[0].messages] == ["first", "first first", "then"]
    assert len(asked[2].columns) == 1 and set(talk.turns[-1].answers) == {"base", "adapter:A"}


def test_a_long_path_to_the_workspace_is_no_obstacle(tmp_path) -> None:
    workspace = Workspace(tmp_path / ("long-" * 20) / "w")
    thread = threading.Thread(target=serve, args=(workspace, Scripted(), 60.0), daemon=True)
    thread.start()
    _until(lambda: client.status(workspace) is not None)
    assert _heard(workspace, _question("a"))[-1]["event"] == "finished"
    client.stop(workspace)
    thread.join(5)


def test_an_idle_process_goes_and_leaves_nothing(workspace: Workspace) -> None:
    assert serve(workspace, Scripted(), 0.2)
    assert list(workspace.playground.iterdir()) == []


def test_the_real_process_is_started_shared_after_a_kill_started_again_and_goes_when_idle(
    workspace: Workspace, ask, tiny_pair, monkeypatch
) -> None:
    monkeypatch.setenv("SSTMERGE_DEVICE", "cpu")
    monkeypatch.setenv("SSTMERGE_PLAYGROUND_IDLE", "30")
    utility, _ = tiny_pair
    question = ask({"U": (utility, 1.0)}, tokens=4)
    assert _heard(workspace, question)[-1]["event"] == "finished"
    state = _status(workspace)
    process = Process.of(state.pid)
    try:
        assert (state.base, state.adapters, state.idle_seconds) == ("tiny-llama", ["U"], 30.0)
        assert not serve(workspace, Scripted(), 60.0), "a second process took the workspace"
        os.kill(state.pid, signal.SIGSTOP)  # so that it cannot be quicker than the kill
        nowhere = Question("/nowhere", question.columns)  # an error that needs no torch, to be quick
        with closing(client.answer(workspace, nowhere)) as events:
            assert next(events) is None
            monkeypatch.setenv("SSTMERGE_PLAYGROUND_IDLE", "3")  # of the next one
            os.kill(state.pid, signal.SIGKILL)
            assert process.wait(5)
            # nothing was heard: the question goes to a process started for it, past the socket of the dead one
            last = [event for event in events if event][-1]
            assert last["event"] == "failed" and "nowhere" in last["problems"][0]["where"]
        again = _status(workspace)
        assert again.pid != state.pid and again.idle_seconds == 3.0
        process = Process.of(again.pid)
        assert process.wait(60), "nothing was asked, and it did not go"
    finally:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
    assert not socket_file(workspace).exists()


def test_a_process_that_dies_in_mid_answer_is_an_error_that_says_so(workspace: Workspace) -> None:
    class Dying(Scripted):
        def answers(self, question: Question) -> Iterator[list[Event]]:
            yield [{"event": "text", "column": 0, "text": "half", "tokens": 1}]
            time.sleep(0.3)  # until the other thread has sent it
            os._exit(1)

    child = os.fork()
    if not child:
        serve(workspace, Dying(), 60.0)
        os._exit(0)
    _until(lambda: client.status(workspace) is not None)
    talk = conversation.new()
    now = answering.ask(workspace, talk, "w1", {"base": (columns.base("b"), None)}, "/base")
    _until(lambda: not now.alive)
    os.waitpid(child, 0)
    answer = there(conversation.load(workspace, talk.id)).turns[0].answers["base"]
    assert (answer.ended, answer.text) == ("failed", "half")
    assert "killed" in answer.problems[0]["fault"] and "Start again" in answer.problems[0]["fix"]
    assert socket_file(workspace).exists() and client.status(workspace) is None, "a stale socket is recognised"


def _question(prompt: str, *, columns: int = 1, tokens: int = 3) -> Question:
    return Question("/base", [Asked([], [{"role": "user", "content": prompt}])] * columns, tokens)


def _heard(workspace: Workspace, question: Question) -> list[Event]:
    return [event for event in client.answer(workspace, question) if event is not None]


def _status(workspace: Workspace) -> Status:
    """On a busy machine the first look may be too short."""
    _until(lambda: client.status(workspace) is not None)
    return client.status(workspace) or _status(workspace)


def _until(true, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
