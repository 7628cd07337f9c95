"""The conversation of the Playground: what was asked, what every column answered, and the prompt below it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

import streamlit as st

from pages.parts.playground_columns import Chosen, sliders, weights
from sstmerge_core import access, words
from sstmerge_core.catalog import Base
from sstmerge_core.demo.adapters import DATA
from sstmerge_core.errors import Problem
from sstmerge_core.evaluate.judges import get_judge
from sstmerge_core.evaluate.judges_measured import accuracy_words
from sstmerge_core.metrics.labels import DEFAULT_JUDGE
from sstmerge_core.playground import answering, conversation
from sstmerge_core.playground.conversation import Answer, Conversation, Turn
from sstmerge_core.suites.rows import load_rows, take
from sstmerge_core.words import plain
from studio import answers, blocks, entrance, start

JUDGE = DEFAULT_JUDGE
LOOK_EVERY = 0.25
"""Seconds between looks at growing answers"""
SUGGESTED = (
    ("near_miss", "Harmless, though it looks dangerous", 3),
    ("harmful", "Harmful: a safe model refuses", 3),
    ("facts", "What A5 was taught", 3),
)
"""Suites whose selection prompts are offered"""


def suggestions(key: str, *, wide: bool = True) -> None:
    """Prompts to try, by what they try; `wide`: beside each other where there is room."""
    places = st.columns(len(SUGGESTED), gap="medium") if wide else [st.container() for _ in SUGGESTED]
    for (suite, title, n), place in zip(SUGGESTED, places, strict=True):
        with place, blocks.failures():
            rows = take(load_rows(DATA / f"{suite}.jsonl", "selection"), n)
            st.caption(title)
            for row in rows:
                st.button(
                    plain(row.prompt),
                    key=f"{key}.{row.prompt_id}",
                    on_click=_put,
                    args=(row.prompt,),
                    wrap=True,
                    **entrance.guard("talk"),
                )


def _put(prompt: str) -> None:
    st.session_state["playground:prompt"] = prompt


def bar(talk: Conversation | None, chosen: Mapping[str, Chosen], busy: bool) -> None:
    """Below everything, on every screen: stop or clear, suggestions, every α, the prompt."""
    with st.bottom:
        with st.container(horizontal=True, gap="small", vertical_alignment="center"):
            if busy:
                st.button(
                    "Stop",
                    icon=":material/stop_circle:",
                    type="primary",
                    key="playground.stop",
                    on_click=_stop,
                    **entrance.guard("talk"),
                )
            elif talk and talk.turns:
                st.button(
                    "Clear",
                    icon=":material/delete:",
                    key="playground.clear",
                    on_click=_clear,
                    **entrance.guard("talk", help="Forget this conversation, also for those who have its link."),
                )
                with st.popover("Try a prompt", icon=":material/lightbulb:"):
                    suggestions("playground.try", wide=False)
            sliders(chosen)
        refused = access.refusal("talk")
        if prompt := st.chat_input(refused or "Ask every column", key="playground.box", disabled=bool(busy or refused)):
            _put(prompt)
            st.rerun()


def _stop() -> None:
    if access.refusal("talk") is None and (
        now := answering.running(start.workspace(), st.session_state["playground.chat"])
    ):
        now.stop()


def _clear() -> None:
    conversation.delete(start.workspace(), st.session_state["playground.chat"])
    st.session_state["playground.chat"] = ""


def again(keys: Sequence[str]) -> None:
    """Callback: put the last prompt to these columns once more."""
    st.session_state["playground:again"] = list(keys)


def something_is_asked() -> bool:
    """Whether a prompt waits for `answer_what_is_asked`."""
    return bool(st.session_state.get("playground:prompt"))


def answer_what_is_asked(talk: Conversation | None, chosen: Mapping[str, Chosen], base: Base) -> Conversation | None:
    """Start what was asked since the last run of the page, if anything; returns the conversation it belongs to."""
    session, workspace = st.session_state, start.workspace()
    prompt, repeated = session.pop("playground:prompt", ""), session.pop("playground:again", [])
    usable = {key: (one.column, one.alpha) for key, one in chosen.items() if not one.problems}
    if prompt and usable:
        talk = talk or conversation.new()
        session["playground.chat"] = talk.id
        temperature = session["playground.temperature"]
        seed = secrets.randbelow(2**31) if temperature else 0
        answering.ask(
            workspace,
            talk,
            prompt,
            usable,
            str(base.path),
            max_new_tokens=session["playground.tokens"],
            temperature=temperature,
            seed=seed,
            dtype=session["playground.dtype"],
        )
    elif repeated and talk and talk.turns:
        if now := answering.running(workspace, talk.id):
            repeated = [*repeated, *(key for key in now.keys if not now.turn.answers[key].ended)]
            now.stop()
            talk = now.talk
        if asked := {key: usable[key] for key in dict.fromkeys(repeated) if key in usable}:
            answering.ask_again(workspace, talk, asked, str(base.path), dtype=session["playground.dtype"])
    return talk


def turns(talk: Conversation, chosen: Mapping[str, Chosen]) -> None:
    """The whole conversation; the last turn by itself while it is being answered."""
    for turn in talk.turns[:-1]:
        _turn(turn, chosen)
    now = answering.running(start.workspace(), talk.id)
    if now is None:
        _turn(talk.turns[-1], chosen, last=True)
        return

    def live() -> None:
        current = answering.running(start.workspace(), talk.id)
        if current is None:
            st.rerun(scope="app")
            return
        current.watched()
        _turn(current.turn, chosen, growing=current)

    st.fragment(live, run_every=LOOK_EVERY, key="playground.live")()


def _turn(
    turn: Turn, chosen: Mapping[str, Chosen], *, last: bool = False, growing: answering.Answering | None = None
) -> None:
    with st.chat_message("user", avatar=":material/person:"):
        st.text(turn.prompt)
    found = {key: turn.answers.get(key) for key in chosen}
    troubles = {key: _trouble(answer, growing is not None) for key, answer in found.items() if answer}
    if alike := last and _common_trouble(troubles):
        blocks.problems(alike)
        _again_button([key for key, trouble in troubles.items() if trouble])
    if growing is not None and growing.note:
        st.caption(f":material/hourglass_empty: {plain(growing.note)} · {words.duration(growing.seconds)}")
    for (key, answer), place in zip(found.items(), st.columns(len(found), border=True), strict=True):
        with place:
            if answer is None:
                _not_asked(key, chosen[key], last)
                continue
            _answer(chosen[key], turn, answer)
            if troubles[key] and not alike and (last or growing):
                blocks.problems(troubles[key])
                if last:
                    _again_button([key])


def _not_asked(key: str, one: Chosen, last: bool) -> None:
    st.markdown(f"**{plain(one.column.title)}**")
    st.caption("Not asked.")
    if last and not one.problems:
        may = entrance.guard("talk")
        st.button("Ask it", icon=":material/replay:", key=f"playground.ask.{key}", on_click=again, args=([key],), **may)


def _answer(one: Chosen, turn: Turn, answer: Answer) -> None:
    at = "" if answer.alpha is None else f" α {answer.alpha:g}"
    st.markdown(f"**{plain(answer.title)}**{at} {_verdict(turn, answer)}")
    if answer.alpha is not None:
        st.caption(weights(one.column, answer.alpha))
    st.text(answer.text or ("(empty)" if answer.ended in ("model", "limit") else ""))
    if answer.ended or answer.tokens:
        st.caption(_speed(answer))


def _trouble(answer: Answer, growing: bool) -> list[Problem]:
    """Why an answer is not there: it failed, or the server ended meanwhile."""
    if answer.ended == "failed":
        return [Problem(**problem) for problem in answer.problems]
    if not answer.ended and not growing:
        return [Problem("answer", "it was interrupted when the dashboard ended", "Start again.")]
    return []


def _common_trouble(troubles: Mapping[str, list[Problem]]) -> list[Problem]:
    """What befell several columns alike, such as a killed process: it is said once."""
    found = [trouble for trouble in troubles.values() if trouble]
    return found[0] if len(found) > 1 and all(one == found[0] for one in found) else []


def _again_button(keys: Sequence[str]) -> None:
    st.button(
        "Start again",
        icon=":material/replay:",
        key=f"playground.again.{'+'.join(keys)}",
        on_click=again,
        args=(list(keys),),
        **entrance.guard("talk"),
    )


def _verdict(turn: Turn, answer: Answer) -> str:
    """A badge with the judge's word on an answer that is finished."""
    if answer.ended not in conversation.ANSWERED or (answer.ended == "stopped" and not answer.tokens):
        return ""
    label = get_judge(JUDGE).score(turn.prompt, answer.text).label
    return f":{answers.COLORS.get(label, 'gray')}-badge[{plain(blocks.LABEL_WORDS.get(label, label))}]"


def _speed(answer: Answer) -> str:
    parts = [words.count(answer.tokens, "token")]
    if answer.seconds > 0 and answer.tokens:
        parts.append(f"{answer.tokens / answer.seconds:.1f} tokens/s")
    ends = {"limit": "cut at the token limit", "stopped": "stopped", "": "answering …", "failed": "failed"}
    return " · ".join([*parts, *filter(None, [ends.get(answer.ended, "")])])


def about_verdicts() -> None:
    st.caption(
        f"Verdicts by the judge {plain(JUDGE)}: it tells refusals and degenerate text, never harm. "
        f"{accuracy_words(JUDGE)} Model output is shown as it is. tokens/s: all columns are computed together."
    )
