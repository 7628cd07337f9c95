"""The parts of the Playground page: what can answer, the heads of the columns, and the conversation below them."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from sstmerge_core import adapters, words
from sstmerge_core.catalog import Base, Entry
from sstmerge_core.demo.adapters import DATA
from sstmerge_core.device import DTYPES
from sstmerge_core.errors import AdapterError, Problem, SSTMergeError
from sstmerge_core.evaluate import suites
from sstmerge_core.evaluate.judges import get_judge
from sstmerge_core.evaluate.judges_measured import accuracy_words
from sstmerge_core.methods import get as method
from sstmerge_core.playground import answering, client, columns, conversation
from sstmerge_core.playground.columns import Column
from sstmerge_core.playground.conversation import Answer, Conversation, Turn
from sstmerge_core.plots import compare as pictures
from sstmerge_core.recipe import Recipe
from sstmerge_core.store import queries
from sstmerge_core.words import plain
from studio import answers, blocks, link, pick, start
from studio.training import number

JUDGE = "refusal_regex"
RUNS_OFFERED = 100
"""Newest runs in the list; a link may name any"""
LOOK_EVERY = 0.25
"""Seconds between looks at growing answers"""
TOKENS = (16, 1024)
HOTTEST = 1.5
PROGRAM = 700_000_000
"""Bytes of the model process without a model, measured"""
SUGGESTED = (
    ("near_miss", "Harmless, though it looks dangerous", 3),
    ("harmful", "Harmful: a safe model refuses", 3),
    ("facts", "What A5 was taught", 2),
)
"""Suites whose selection prompts are offered"""


@dataclass(frozen=True)
class Chosen:
    """A column as it is asked now."""

    column: Column
    alpha: float | None
    problems: tuple[Problem, ...] = ()


class Offer:
    """Everything that can be a column here, by key."""

    def __init__(self, store: start.Store, shelf: pick.Shelf, base: str):
        self._store = store
        self._shelf = shelf
        self._base = base
        self._runs: dict[str, str] = store.recall("playground.runs", lambda: _run_titles(store))

    def keys(self) -> list[str]:
        """The base, every adapter, and the newest runs whose adapter is here."""
        here = self._store.recall("playground.kept", lambda: _kept(self._runs))
        return [columns.BASE, *(f"adapter:{name}" for name in self._shelf.adapters), *(f"run:{run}" for run in here)]

    def column(self, key: str) -> Column:
        """Raises an error of the library that says why there is no such column."""
        kind, _, rest = key.partition(":")
        if key == columns.BASE:
            return columns.base(self._base)
        if kind == "adapter":
            return columns.single(rest, self._adapter(rest))
        if kind == "live" and rest.count(":") == 2:
            name, utility, safety = rest.split(":")
            if name in columns.LIVE:
                return columns.live(name, (utility, self._adapter(utility)), (safety, self._adapter(safety)))
        if kind == "run":
            return self._of_run(rest)
        fix = "Choose among the columns of the list."
        raise AdapterError(Problem(f"column={key} in the link", "names nothing that can answer", fix))

    def title(self, key: str) -> str:
        if key.startswith("run:"):
            return self._runs.get(key.removeprefix("run:"), key)
        try:
            return self.column(key).title
        except SSTMergeError:
            return key

    def _adapter(self, name: str) -> Entry:
        if name not in self._shelf.adapters:
            known = ", ".join(self._shelf.adapters) or "none yet"
            raise AdapterError(Problem(f"adapter {name}", "there is none of that name here", f"There are: {known}."))
        return self._shelf.adapters[name]

    def _of_run(self, run_id: str) -> Column:
        run = self._store.query(queries.run, run_id)
        if run is None or run_id not in self._runs:
            fault = "there is no such run here" if run is None else "it is no finished merge of this workspace"
            raise AdapterError(Problem(f"run {run_id}", fault, "Choose among the columns of the list."))
        known = {entry.sha256: (name, entry.path) for name, entry in self._shelf.adapters.items()}
        recipe = Recipe.model_validate(run["recipe"])
        return columns.of_run(start.workspace(), run_id, recipe, self._runs[run_id], known)


def default(shelf: pick.Shelf, base: str) -> list[str]:
    """The base, a utility and a safety adapter, and their live merge; those made for this base come first."""
    first: list[str] = []
    for role in ("utility", "safety"):
        names = sorted(shelf.of_role(role), key=lambda name: not _made_for(shelf.adapters[name], base))
        first += [name for name in names[:1] if name not in first]
    alone = [columns.BASE, *(f"adapter:{name}" for name in first)]
    return [*alone, ":".join(("live", columns.LIVE[0], *first))] if len(first) == 2 else alone


def _made_for(adapter: Entry, base: str) -> bool:
    return adapter.base_name.rstrip("/").rpartition("/")[2].lower() == base.lower()


def _run_titles(store: start.Store) -> dict[str, str]:
    """The finished merges by id, newest first."""
    runs = store.query(queries.comparable_runs)
    merges = runs[~runs["method"].isin(("base", "adapter"))]
    return pictures.names(merges) if len(merges) else {}


def _kept(runs: Iterable[str]) -> list[str]:
    found: list[str] = []
    for run in runs:
        if (start.workspace().merged_adapter(run) / "adapter_config.json").is_file():
            found.append(run)
        if len(found) == RUNS_OFFERED:
            break
    return found


def fields(shelf: pick.Shelf, base: str) -> link.Fields:
    """What the link says: the columns, an α for each of those that have a slider, the settings, the conversation."""
    first = default(shelf, base)
    alpha = method(columns.LIVE[0]).parameter("alpha").default
    return {
        "column": (link.texts, first),
        "alpha": (link.texts, [f"{alpha:g}"] * sum(key.startswith("live:") for key in first)),
        "tokens": (number(*TOKENS, int), 128),
        "temperature": (number(0.0, HOTTEST), 0.0),
        "dtype": (link.one_of(DTYPES), DTYPES[0]),
        "chat": (link.text, ""),
    }


def choose(state: link.Link, offer: Offer) -> list[str]:
    """Draw the choice of columns, and beside it the way to a live merge; the keys chosen."""
    session = st.session_state
    asked = list(dict.fromkeys(session["playground.column"]))
    known = []
    for key in asked:
        try:
            offer.column(key)
            known.append(key)
        except SSTMergeError as error:
            state.problems += error.problems
    if len(known) > columns.MOST:
        fault, fix = f"it names {len(known)} columns", f"The first {columns.MOST} are shown."
        state.problems.append(Problem("the link", fault, fix))
    session["playground.column"] = known[: columns.MOST]
    return st.multiselect(
        "Columns",
        list(dict.fromkeys([*offer.keys(), *known])),
        key="playground.column",
        format_func=offer.title,
        max_selections=columns.MOST,
        select_all=False,
        placeholder=f"Choose up to {columns.MOST}: the base, an adapter, a run",
        label_visibility="collapsed",
    )


def add_live(shelf: pick.Shelf, full: bool) -> None:
    """A merge of two adapters that exists only here, with α as a slider."""
    with st.popover("Live merge", icon=":material/tune:", disabled=len(shelf.adapters) < 2):
        st.caption("A merge of two adapters that is made while you chat: α is a slider.")
        for name, label in (("utility", "Utility adapter"), ("safety", "Safety adapter")):
            st.selectbox(label, shelf.of_role(name), key=f"playground.live.{name}")
        st.selectbox("Method", columns.LIVE, key="playground.live.method", format_func=lambda name: method(name).title)
        st.button(
            "Add the column",
            icon=":material/add:",
            key="playground.live.add",
            on_click=_add_live,
            disabled=full,
            help=f"{columns.MOST} columns are chosen: remove one first." if full else None,
        )


def _add_live() -> None:
    session = st.session_state
    key = ":".join(("live", *(session[f"playground.live.{name}"] for name in ("method", "utility", "safety"))))
    if key not in session["playground.column"]:
        session["playground.column"] = [*session["playground.column"], key]


def settings() -> None:
    """How answers are made."""
    with st.popover("Settings", icon=":material/settings:"):
        st.number_input("Longest answer, in tokens", *TOKENS, step=16, key="playground.tokens")
        st.slider(
            "Temperature",
            0.0,
            HOTTEST,
            step=0.1,
            key="playground.temperature",
            help="0 is greedy: the likeliest token every time, as every figure in this program was measured. Above 0 "
            "tokens are drawn at random.",
        )
        st.selectbox(
            "Number format",
            DTYPES,
            key="playground.dtype",
            help="Of the model in memory. float32 is what runs are measured in; bfloat16 takes half the memory.",
        )
        session = st.session_state
        session["playground.follow"] = session.get("playground.follow", True)
        st.toggle("Answer again when α is moved", key="playground.follow")


def alphas(state: link.Link, keys: Sequence[str], offer: Offer) -> dict[str, float]:
    """α by column; where the link moved, as it says. What it says and cannot be used falls back to the default."""
    known: dict[str, float] = st.session_state.setdefault("playground:alphas", {})
    given = iter(st.session_state["playground.alpha"] if state.moved and state.given("alpha") else [])
    for key in keys:
        slider = offer.column(key).slider
        if slider is None:
            continue
        said = next(given, None)
        try:
            known[key] = slider.default if said is None and key not in known else float(said or known[key])
        except ValueError:
            known[key] = slider.default
        known[key] = min(max(known[key], slider.low), slider.high) if known[key] == known[key] else slider.default
    return known


def heads(keys: Sequence[str], offer: Offer, base: Base, known: dict[str, float]) -> dict[str, Chosen]:
    """One head per column: what it is, its α, and what stands in its way."""
    found = {}
    for key, place in zip(keys, st.columns(len(keys), gap="medium"), strict=True):
        with place, st.container(gap=None):
            column = offer.column(key)
            st.markdown(f"**{plain(column.title)}**")
            words_of = st.container()
            alpha = _slider(key, column, known)
            with words_of:
                _in_words(column, alpha)
            found[key] = Chosen(column, alpha, problems(offer, column, base))
            blocks.problems(found[key].problems)
    return found


def _slider(key: str, column: Column, known: dict[str, float]) -> float | None:
    slider = column.slider
    if slider is None:
        return None
    name = f"playground.alpha.{key}"
    st.session_state[name] = known[key]
    known[key] = st.slider(
        "α",
        slider.low,
        slider.high,
        step=slider.step,
        key=name,
        on_change=_moved,
        args=(key,),
        help=f"α is the {slider.meaning}. Moving it rescales the patch; nothing is loaded again. {column.note}",
    )
    return known[key]


def _moved(key: str) -> None:
    st.session_state["playground:alphas"][key] = st.session_state[f"playground.alpha.{key}"]
    if st.session_state.get("playground.follow", True):
        st.session_state["playground:again"] = [key]


def _in_words(column: Column, alpha: float | None) -> None:
    """What it is: an adapter's own description, the weights of a merge."""
    terms = [f"**{weight:.4g}** · {plain(name)}" for name, _, weight in column.weights(alpha)]
    st.caption(plain(column.note) if column.note and not column.slider else "ΔW = " + (" + ".join(terms) or "0"))


def problems(offer: Offer, column: Column, base: Base) -> tuple[Problem, ...]:
    """Why this column cannot be asked of this base."""
    if column.base and column.base != base.sha256:
        fix = "Choose the base model of the run above."
        return (Problem(column.title, f"the run is of another base model than {base.name}", fix),)
    folders = {name: path for name, path, _ in column.weights(None)} | dict(column.adapters)
    stamps = [(str(path), _stamp(path)) for path in folders.values()]
    known = st.session_state.setdefault("playground:fits", {})
    place = (base.sha256, *stamps)
    if place not in known:
        known[place] = tuple(adapters.check_many(base.path, folders).problems) if folders else ()
    return known[place]


def _stamp(folder: Any) -> int:
    try:
        return (folder / "adapter_model.safetensors").stat().st_mtime_ns
    except OSError:
        return 0


def suggestions(key: str, *, wide: bool = True) -> None:
    """Prompts to try, by what they try; `wide`: beside each other where there is room."""
    places = st.columns(len(SUGGESTED), gap="medium") if wide else [st.container() for _ in SUGGESTED]
    for (suite, title, n), place in zip(SUGGESTED, places, strict=True):
        with place, blocks.failures():
            rows = suites.take(suites.load_rows(DATA / f"{suite}.jsonl", "selection"), n)
            st.caption(title)
            for row in rows:
                st.button(row.prompt, key=f"{key}.{row.prompt_id}", on_click=_put, args=(row.prompt,), type="tertiary")


def _put(prompt: str) -> None:
    st.session_state["playground:prompt"] = prompt


def bar(talk: Conversation | None, busy: bool) -> None:
    """Below everything, on every screen: the prompt, stop, clear, suggestions."""
    with st.bottom:
        with st.container(horizontal=True, gap="small"):
            if busy:
                st.button("Stop", icon=":material/stop_circle:", type="primary", key="playground.stop", on_click=_stop)
            elif talk and talk.turns:
                st.button(
                    "Clear",
                    icon=":material/delete:",
                    key="playground.clear",
                    on_click=_clear,
                    help="Forget this conversation, also for those who have its link.",
                )
                with st.popover("Try a prompt", icon=":material/lightbulb:"):
                    suggestions("playground.try", wide=False)
        if prompt := st.chat_input("Ask every column", key="playground.box", disabled=busy):
            _put(prompt)
            st.rerun()


def process(base: Base) -> None:
    """What the model process holds, asked only while somebody looks."""
    popover = st.popover("Model process", icon=":material/memory:", key="playground.process", on_change="rerun")
    if not popover.open:
        return
    with popover, blocks.failures():
        state = client.status(start.workspace())
        if state is None:
            needs = words.size(_memory(base, st.session_state["playground.dtype"]))
            st.caption(
                f"None runs. The first prompt starts one: it takes about {needs} of memory for {plain(base.name)} and "
                "the adapters of the columns, and loads the base model once."
            )
            return
        held = f"**{plain(state.base)}**" if state.base else "No model yet"
        with_ = f" with {', '.join(map(plain, state.adapters))}" if state.adapters else ""
        st.markdown(f"{held}{with_}: {words.size(state.memory_bytes)} of memory.")
        st.caption(
            f"Process {state.pid}, one for everybody in this workspace. It ends {words.duration(state.idle_seconds)} "
            "after the last answer and frees its memory."
        )
        st.button("End it now", icon=":material/power_settings_new:", key="playground.quit", on_click=_quit)


def _memory(base: Base, dtype: str) -> int:
    """Bytes of the base in this number format, and of the program itself."""
    numbers = sum(math.prod(shape) for shape in adapters.read_base(base.path).shapes.values())
    return numbers * (4 if dtype == "float32" else 2) + PROGRAM


def _quit() -> None:
    try:
        client.stop(start.workspace())
    except SSTMergeError as error:
        st.toast(plain(str(error)), icon=":material/warning:")


def _stop() -> None:
    if now := answering.running(start.workspace(), st.session_state["playground.chat"]):
        now.stop()


def _clear() -> None:
    conversation.delete(start.workspace(), st.session_state["playground.chat"])
    st.session_state["playground.chat"] = ""


def again(keys: Sequence[str]) -> None:
    """Callback: put the last prompt to these columns once more."""
    st.session_state["playground:again"] = list(keys)


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
    with st.chat_message("user"):
        st.text(turn.prompt)
    found = {key: turn.answers.get(key) for key in chosen}
    if last:
        _failure_of_all(found)
    if growing is not None and growing.note:
        st.caption(f":material/hourglass_empty: {plain(growing.note)} · {words.duration(growing.seconds)}")
    for (key, answer), place in zip(found.items(), st.columns(len(found), gap="medium"), strict=True):
        with place:
            _answer(key, chosen[key], turn, answer, last=last, shared=last and _all_failed_alike(found))


def _answer(key: str, one: Chosen, turn: Turn, answer: Answer | None, *, last: bool, shared: bool) -> None:
    if answer is None:
        st.markdown(f"**{plain(one.column.title)}**")
        st.caption("Not asked.")
        if last and not one.problems:
            st.button("Ask it", icon=":material/replay:", key=f"playground.ask.{key}", on_click=again, args=([key],))
        return
    at = "" if answer.alpha is None else f" α {answer.alpha:g}"
    st.markdown(f"**{plain(answer.title)}**{at} {_verdict(turn, answer)}")
    st.text(answer.text or ("" if answer.ended in ("", "failed") else "(empty)"))
    st.caption(_speed(answer))
    if answer.ended == "failed" and not shared:
        blocks.problems([Problem(**problem) for problem in answer.problems])
        if last:
            _again_button([key])
    elif not answer.ended and last:
        blocks.problems([Problem("answer", "it was interrupted when the program ended", "Start again.")])
        _again_button([key])


def _again_button(keys: Sequence[str]) -> None:
    st.button(
        "Start again",
        icon=":material/replay:",
        key=f"playground.again.{'+'.join(keys)}",
        on_click=again,
        args=(list(keys),),
    )


def _all_failed_alike(found: Mapping[str, Answer | None]) -> bool:
    failed = [answer.problems for answer in found.values() if answer and answer.ended == "failed"]
    return len(failed) > 1 and all(one == failed[0] for one in failed)


def _failure_of_all(found: Mapping[str, Answer | None]) -> None:
    """What befell every column, such as a killed process, is said once."""
    if _all_failed_alike(found):
        failed = {key: answer for key, answer in found.items() if answer and answer.ended == "failed"}
        blocks.problems([Problem(**problem) for problem in next(iter(failed.values())).problems])
        _again_button(list(failed))


def _verdict(turn: Turn, answer: Answer) -> str:
    """A badge with the judge's word on an answer that is finished."""
    if answer.ended not in conversation.ANSWERED:
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
