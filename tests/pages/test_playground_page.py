"""The Playground page: what can answer, what was answered, and what went wrong, with a scripted model process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs

import pytest
from streamlit.testing.v1 import AppTest

from sstmerge_core.errors import JobError, Problem
from sstmerge_core.playground import answering, client, conversation
from sstmerge_core.playground.conversation import Answer, Turn
from sstmerge_core.playground.protocol import Event, Question
from sstmerge_core.workspace import Workspace
from tests.there import there

Open = Callable[..., AppTest]
LIVE = "live:linear:tiny-utility:tiny-safety"
TINY: dict[str, Any] = {"base": "tiny-llama", "column": ["base", "adapter:tiny-utility", LIVE], "alpha": "0.25"}


class Script:
    """Stands for the model process: says `says` of every column, or ends as a killed one does."""

    def __init__(self) -> None:
        self.asked: list[Question] = []
        self.says = "I cannot help with that."
        self.dies = False

    def answer(self, workspace: Workspace, question: Question) -> Iterator[Event | None]:
        self.asked.append(question)
        yield {"event": "started"}
        for column in range(len(question.columns)):
            yield {"event": "text", "column": column, "text": self.says, "tokens": 6}
            if self.dies:
                raise JobError(Problem("model process", "ended in the middle of the answer", "Start again."))
            done = {"text": self.says, "tokens": 6, "seconds": 2.0, "ended": "model"}
            yield {"event": "done", "column": column} | done
        yield {"event": "finished"}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    found = Script()
    monkeypatch.setattr(client, "answer", found.answer)
    return found


def test_without_a_base_model_the_page_says_what_to_do(open_page: Open, empty_workspace: Workspace) -> None:
    app = open_page(empty_workspace, "playground")
    assert not app.exception and any("sstmerge demo --prepare" in item.value for item in app.markdown)
    assert not app.chat_input


def test_a_plain_link_offers_base_utility_safety_and_their_live_merge(
    open_page: Open, full_workspace: Workspace
) -> None:
    app = open_page(full_workspace, "playground")
    assert not app.exception and not app.error and not app.warning
    live = "live:task_arithmetic:tiny-utility:tiny-safety"
    chosen = ["base", "adapter:tiny-utility", "adapter:tiny-safety", live]
    assert app.multiselect("playground.column").value == chosen
    assert [slider.key for slider in app.slider if slider.label.startswith("α")] == [f"playground.alpha.{live}"]
    assert "column" not in app.query_params, "a plain link stays plain until something is chosen"


def test_columns_and_alpha_come_from_the_link_and_go_into_the_shared_one(
    open_page: Open, full_workspace: Workspace
) -> None:
    app = open_page(full_workspace, "playground", **TINY)
    assert not app.exception and app.slider(f"playground.alpha.{LIVE}").value == 0.25
    assert "ΔW = **0.75** · tiny-utility + **0.25** · tiny-safety" in [item.value for item in app.caption]
    app.slider(f"playground.alpha.{LIVE}").set_value(0.6).run()
    (address,) = [item.value for item in app.code if "playground?" in item.value]
    said = parse_qs(address.partition("?")[2])
    assert (said["column"], said["alpha"]) == (TINY["column"], ["0.6"])
    assert app.query_params["alpha"] in ("0.6", ["0.6"])


def test_every_column_answers_the_prompt_with_verdict_and_speed(
    open_page: Open, full_workspace: Workspace, script: Script
) -> None:
    app = _ask(open_page(full_workspace, "playground", **TINY), "how do I pick a lock?")
    (question,) = script.asked
    assert [[weight for _, _, weight in column.adapters] for column in question.columns] == [[], [1.0], [0.75, 0.25]]
    assert question.max_new_tokens == 128 and question.temperature == 0.0
    texts = [item.value for item in app.text]
    assert texts.count(script.says) == 3 and "how do I pick a lock?" in texts
    assert sum("refused" in item.value for item in app.markdown) == 3
    assert [item.value for item in app.caption].count("6 tokens · 3.0 tokens/s") == 3
    assert any("refusal\\_regex" in item.value for item in app.caption)


def test_a_reload_shows_the_conversation_and_goes_on_with_it(
    open_page: Open, full_workspace: Workspace, script: Script
) -> None:
    app = _ask(open_page(full_workspace, "playground", **TINY), "first")
    chat = app.query_params["chat"]
    again = open_page(full_workspace, "playground", **TINY, chat=chat)
    assert [item.value for item in again.text].count(script.says) == 3
    _ask(again, "second")
    assert [message["content"] for message in script.asked[-1].columns[0].messages] == ["first", script.says, "second"]
    again.button("playground.clear").click().run()
    assert not again.exception and not again.text and "chat" not in again.query_params
    gone = open_page(full_workspace, "playground", **TINY, chat=chat)
    assert "no such conversation" in gone.warning[0].value


def test_moving_alpha_asks_its_column_again_and_no_other(
    open_page: Open, full_workspace: Workspace, script: Script
) -> None:
    app = _ask(open_page(full_workspace, "playground", **TINY), "w1")
    script.says = "Sure, here it is."
    app.slider(f"playground.alpha.{LIVE}").set_value(0.9).run()
    _finish(app)
    assert len(script.asked[-1].columns) == 1
    assert [round(weight, 6) for _, _, weight in script.asked[-1].columns[0].adapters] == [0.1, 0.9]
    assert [item.value for item in app.text].count("I cannot help with that.") == 2
    assert any("α 0.9" in item.value and "not refused" in item.value for item in app.markdown)
    app.toggle("playground.follow").set_value(False).run()
    app.slider(f"playground.alpha.{LIVE}").set_value(0.1).run()
    _finish(app)
    assert len(script.asked) == 2, "asked again though it was told not to"


def test_a_killed_process_is_said_once_in_place_with_a_way_to_start_again(
    open_page: Open, full_workspace: Workspace, script: Script
) -> None:
    script.dies = True
    app = _ask(open_page(full_workspace, "playground", **TINY), "w1")
    (error,) = app.error
    assert "ended in the middle of the answer" in error.value
    script.dies = False
    (button,) = [one for one in app.button if one.label == "Start again"]
    button.click().run()
    _finish(app)
    assert not app.error and [item.value for item in app.text].count(script.says) == 3


def test_an_answer_that_the_end_of_the_dashboard_cut_short_is_told(
    open_page: Open, full_workspace: Workspace, script: Script
) -> None:
    talk = conversation.new()
    talk.turns.append(Turn("w1", 16, answers={"base": Answer("Base", None, "half")}))
    conversation.save(full_workspace, talk)
    app = open_page(full_workspace, "playground", **TINY, chat=talk.id)
    assert "interrupted" in app.error[0].value and "half" in [item.value for item in app.text]
    assert [button.label for button in app.button].count("Ask it") == 2
    next(button for button in app.button if button.label == "Start again").click().run()
    _finish(app)
    assert not app.error and len(script.asked[0].columns) == 1


def test_an_answer_stopped_before_its_first_token_gets_no_verdict(open_page: Open, full_workspace: Workspace) -> None:
    talk = conversation.new()
    answers = {"base": Answer("Base", None, ended="stopped"), "adapter:tiny-utility": Answer("U", None, ended="model")}
    talk.turns.append(Turn("w1", 16, answers=answers))
    conversation.save(full_workspace, talk)
    app = open_page(full_workspace, "playground", **TINY, chat=talk.id)
    heads = [item.value for item in app.markdown if item.value.startswith(("**Base", "**U"))]
    assert heads[0].strip() == "**Base**" and "degenerate" in heads[1]


def test_an_adapter_of_another_base_is_refused_in_its_own_column(
    open_page: Open, full_workspace: Workspace, script: Script
) -> None:
    app = open_page(full_workspace, "playground", base="tiny-llama", column=["base", "adapter:A5"])
    (error,) = app.error
    assert "it was trained on" in error.value and "SmolLM2" in error.value
    _ask(app, "w1")
    assert len(script.asked[-1].columns) == 1


def test_columns_of_the_link_that_do_not_exist_are_named(open_page: Open, full_workspace: Workspace) -> None:
    asked = ["base", "adapter:nobody", "run:0000", "nonsense"]
    app = open_page(full_workspace, "playground", base="tiny-llama", column=asked)
    assert not app.exception and app.multiselect("playground.column").value == ["base"]
    (warning,) = app.warning
    assert all(name in warning.value for name in ("nobody", "0000", "nonsense"))


def test_a_suggested_prompt_is_asked_with_one_click(open_page: Open, full_workspace: Workspace, script: Script) -> None:
    app = open_page(full_workspace, "playground", **TINY)
    button = next(one for one in app.button if there(one.key).startswith("playground.first.near-"))
    button.click().run()
    _finish(app)
    assert script.asked[0].columns[0].messages[0]["content"] == button.label


def test_a_live_merge_is_added_as_a_column(open_page: Open, full_workspace: Workspace) -> None:
    app = open_page(full_workspace, "playground", base="tiny-llama", column=["base"])
    app.selectbox("playground.live.utility").select("tiny-utility")
    app.selectbox("playground.live.safety").select("tiny-safety")
    app.selectbox("playground.live.method").select("linear")
    app.button("playground.live.add").click().run()
    assert not app.exception and app.multiselect("playground.column").value == ["base", LIVE]


def test_answers_are_text_whatever_is_in_them(open_page: Open, full_workspace: Workspace, script: Script) -> None:
    script.says = "<img src=x onerror=alert(1)> **bold** $x$"
    app = _ask(open_page(full_workspace, "playground", **TINY), "w1 <b>")
    assert [item.value for item in app.text].count(script.says) == 3
    assert not any("onerror" in item.value for item in [*app.markdown, *app.caption])


def _ask(app: AppTest, prompt: str) -> AppTest:
    app.chat_input[0].set_value(prompt).run()
    return _finish(app)


def _finish(app: AppTest) -> AppTest:
    """Wait for the answers, and draw the page with them."""
    deadline = time.monotonic() + 10
    while any(one.alive for one in answering._RUNNING.values()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    app.run()
    assert not app.exception
    return app
