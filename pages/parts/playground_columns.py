"""The columns of the Playground: what can answer, what was chosen, and how it answers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from sstmerge_core import adapters, words
from sstmerge_core.adapters.places import WEIGHTS
from sstmerge_core.catalog import Base, Entry
from sstmerge_core.errors import AdapterError, Problem, SSTMergeError
from sstmerge_core.methods import get as method
from sstmerge_core.models.device import DTYPES
from sstmerge_core.playground import client, columns
from sstmerge_core.playground.columns import Column
from sstmerge_core.plots import compare as pictures
from sstmerge_core.recipe import validated
from sstmerge_core.store import queries
from sstmerge_core.words import plain
from studio import blocks, entrance, link, pick, start
from studio.training import number

RUNS_OFFERED = 100
"""Newest runs in the list; a link may name any"""
TOKENS = (16, 1024)
HOTTEST = 1.5
PROGRAM = 500_000_000
"""Bytes of the model process beside the base: 1.03 GB were measured with a base of 0.54 GB"""


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
        raise AdapterError(Problem(f"column={words.shortened(key)} in the link", "names nothing that can answer", fix))

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
            raise AdapterError(
                Problem(f"adapter {words.shortened(name)}", "there is none of that name here", f"There are: {known}.")
            )
        return self._shelf.adapters[name]

    def _of_run(self, run_id: str) -> Column:
        run = self._store.query(queries.run, run_id)
        if run is None or run_id not in self._runs:
            fault = "there is no such run here" if run is None else "it is no finished merge of this workspace"
            raise AdapterError(
                Problem(f"run {words.shortened(run_id)}", fault, "Choose among the columns of the list.")
            )
        known = {entry.sha256: (name, entry.path) for name, entry in self._shelf.adapters.items()}
        recipe = validated(run["recipe"], f"run {words.shortened(run_id)}")
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
        if (start.workspace().merged_adapter(run) / WEIGHTS).is_file():
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
    """α by column; where the link moved, as it says. What it says and cannot be used goes to `state.problems`."""
    known: dict[str, float] = st.session_state.setdefault("playground:alphas", {})
    given = iter(st.session_state["playground.alpha"] if state.moved and state.given("alpha") else [])
    for key in keys:
        slider = offer.column(key).slider
        if slider is None:
            continue
        known.setdefault(key, slider.default)
        if (said := next(given, None)) is None:
            continue
        try:
            known[key] = number(slider.low, slider.high)([said])
        except ValueError as error:
            where = f"alpha={words.shortened(said)} in the link"
            state.problems.append(Problem(where, str(error), f"{slider.default:g} is shown instead."))
            known[key] = slider.default
    return known


def heads(keys: Sequence[str], offer: Offer, base: Base, known: dict[str, float], *, brief: bool) -> dict[str, Chosen]:
    """What each column is, and what stands in its way; `brief`: only that."""
    found = {}
    for key in keys:
        column = offer.column(key)
        found[key] = Chosen(column, known[key] if column.slider else None, problems(column, base))
    if brief:
        blocks.problems([problem for one in found.values() for problem in one.problems])
        return found
    for one, place in zip(found.values(), st.columns(len(keys), gap="small"), strict=True):
        with place, st.container(gap=None):
            st.markdown(f"**{plain(one.column.title)}**")
            st.caption(plain(one.column.note) if not one.column.slider else weights(one.column, one.alpha))
            blocks.problems(one.problems)
    return found


def sliders(chosen: Mapping[str, Chosen]) -> None:
    """α of every column that has one. It stays beside the prompt, where a long conversation does not push it away."""
    for key, one in chosen.items():
        if (slider := one.column.slider) is None:
            continue
        name = f"playground.alpha.{key}"
        st.session_state[name] = one.alpha
        st.slider(
            f"α · {plain(one.column.title)}",
            slider.low,
            slider.high,
            step=slider.step,
            key=name,
            on_change=_moved,
            args=(key,),
            width=300,
            help=f"α is the {slider.meaning}. Moving it rescales the patch; nothing is loaded again. {one.column.note}",
        )


def _moved(key: str) -> None:
    st.session_state["playground:alphas"][key] = st.session_state[f"playground.alpha.{key}"]
    if st.session_state.get("playground.follow", True):
        st.session_state["playground:again"] = [key]


def weights(column: Column, alpha: float | None) -> str:
    """``ΔW = 0.75 · A5 + 0.25 · A7``"""
    terms = [f"**{weight:.4g}** · {plain(name)}" for name, _, weight in column.weights(alpha)]
    return f"ΔW = {' + '.join(terms) or 0}"


def problems(column: Column, base: Base) -> tuple[Problem, ...]:
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
        may = entrance.guard("end model")
        st.button("End it now", icon=":material/power_settings_new:", key="playground.quit", on_click=_quit, **may)


def _memory(base: Base, dtype: str) -> int:
    """Bytes of the base in this number format, and of the program itself."""
    numbers = sum(math.prod(shape) for shape in adapters.read_base(base.path).shapes.values())
    return numbers * (4 if dtype == "float32" else 2) + PROGRAM


def _quit() -> None:
    try:
        client.stop(start.workspace())
    except SSTMergeError as error:
        st.toast(plain(str(error)), icon=":material/warning:")
