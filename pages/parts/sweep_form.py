"""The form of a sweep: methods, the lists of values that they take, and the points that these make together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from sstmerge_core import methods, words
from sstmerge_core.analysis.screening import Screening
from sstmerge_core.builder import grid, preflight, presets
from sstmerge_core.catalog import Base
from sstmerge_core.errors import RecipeError
from sstmerge_core.jobs import backends
from sstmerge_core.plots import table
from sstmerge_core.recipe import KEPT, Kept, kept_of_many
from studio import entrance, families, link, navigation, pick, preset, start

FIRST = presets.sweeps()["compare"]
LISTS = {
    "alpha": (
        "α = share",
        "0 is the utility side alone, 1 the safety adapter. Where α is the share of the tuned model, "
        "0 is the base model and 1 the utility side.",
    ),
    "strength": ("α = strength", "How much safety is added to the whole utility side; may exceed 1."),
    "k": ("k", "Directions kept."),
    "seed": ("Seeds", "Of the random masks."),
}
"""Label and explanation of each list of values"""


def fields() -> link.Fields:
    """What the link says of this part."""
    lists = {name: (link.text, getattr(FIRST, name)) for name in LISTS}
    own: link.Fields = {"keep": (link.one_of(KEPT), _usually_kept())}
    own |= {"method": (link.some_of(methods.names()), list(FIRST.methods)), "screen": (_whole, 0)}
    return own | lists


def _whole(values: list[str]) -> int:
    """A link's number, from 0. Raises ValueError for another."""
    found = int(values[-1])
    if found < 0:
        raise ValueError("give a number from 0")
    return found


def choose_preset(state: link.Link) -> None:
    """The grids that ship. Call `state.read(fields())` and `state.read(pick.measured_fields())` before."""

    def said(one: presets.SweepPreset) -> bool:
        wanted = _values(one)
        used = {name for method in wanted["method"] for name in _varied(method)}
        now = {name: st.session_state[state.key(name)] for name in wanted if name not in LISTS or name in used}
        now["method"] = sorted(now["method"], key=families.names().index)
        return now == {name: wanted[name] for name in now}

    def fill(one: presets.SweepPreset) -> dict[str, Any]:
        return {state.key(name): value for name, value in _values(one).items()}

    preset.choose(state, presets.sweeps(), said=said, fill=fill, wrap=True)


def choose_methods() -> list[str]:
    """Methods one by one, and all of a family at once."""
    chosen = st.multiselect(
        "Methods",
        families.names(),
        key="sweep.method",
        wrap=True,
        format_func=families.label,
        help=f"Type to search: a name, or a family ({', '.join(families.FAMILIES)}).",
    )
    whole = [family for family in families.FAMILIES if set(families.names(family)) <= set(chosen)]
    st.session_state["sweep.families"] = st.session_state["sweep:whole"] = whole
    st.pills(
        "All of a family",
        families.FAMILIES,
        selection_mode="multi",
        key="sweep.families",
        format_func=lambda family: f"all {len(families.names(family))} {family}",
        on_change=_toggle_family,
        wrap=True,
        label_visibility="collapsed",
    )
    return chosen


def choose_values(state: link.Link, chosen: Sequence[str]) -> tuple[dict[str, str], pick.Measured]:
    """The text of each list, drawn where a chosen method takes it, each with whose it is; and what to measure on."""
    texts = {name: st.session_state[state.key(name)] for name in LISTS}
    with st.container(horizontal=True, gap="small"):
        for name, (label, about) in LISTS.items():
            if users := [method for method in chosen if name in _varied(method)]:
                with st.container(width=290, gap=None):
                    help_ = f"{about} Numbers with commas, or start:stop:step."
                    texts[name] = st.text_input(label, key=state.key(name), help=help_)
                    st.caption(_whose(name, users))
        measured = pick.measured(state)
    if alone := [name for name in chosen if not _varied(name)]:
        st.caption(f"One point each, without α: {table.method_titles(alone)}")
    return texts, measured


def choose_kept(state: link.Link) -> Kept:
    """Of which points the merged adapter stays."""
    return st.selectbox(
        "Adapters that stay",
        KEPT,
        key=state.key("keep"),
        format_func={"always": "of every point", "front": "of points on the front", "never": "of none"}.__getitem__,
        width=290,
        help="Weights of merged adapters fill the disk. On the front is a point that no other of the pair, measured "
        "alike, beats in resistance and utility. What does not stay is made again from its recipe by one button, bit "
        "for bit. A run that is tagged, noted or registered stays.",
    )


def choose_screening(state: link.Link) -> Screening | None:
    """How many points are generated after all have been screened; None: all, and nothing is screened."""
    with st.container(width=290, gap=None):
        keep = st.number_input(
            "Screen first, generate the best",
            0,
            key=state.key("screen"),
            help="Every point is merged and looked at on selection prompts without generating: what a refusal and a "
            "helpful answer would cost it, and how far it is from the utility side. Only the best are generated. "
            "0: nothing is screened, every point is generated.",
        )
        if keep:
            st.caption(Screening(keep).rule)
    return Screening(keep) if keep else None


def plan(
    inputs: pick.MergeInputs,
    chosen: Sequence[str],
    texts: Mapping[str, str],
    options: preflight.Options,
    unaligned: Base | None = None,
    screening: Screening | None = None,
) -> preflight.SweepPlan:
    """What the form says as recipes. Raises RecipeError for a list that cannot be read and that a method takes."""
    used = {name for method in chosen for name in _varied(method)}
    read = {name: text if name in used else "" for name, text in texts.items()}
    return preflight.plan_sweep(
        start.workspace(),
        base=inputs.base,
        utility=inputs.utility,
        safety=inputs.safety,
        methods=chosen,
        alphas=grid.numbers(read["alpha"], where="alpha"),
        strengths=grid.numbers(read["strength"], where="strength"),
        ks=grid.numbers(read["k"], where="k", whole=True),
        seeds=grid.numbers(read["seed"], where="seed", whole=True),
        further=inputs.further,
        unaligned=unaligned,
        options=options,
        screening=screening,
    )


def launch(plan: preflight.SweepPlan, inputs: pick.MergeInputs, *, blocked: bool) -> bool:
    """How many points, how long they take, and the button that starts them; `blocked`: there are problems above."""
    start_label = f"Start {words.count(len(plan.recipes), 'run')}" if plan.recipes else "Nothing to start"
    if plan.recipes and plan.screening:
        kept = min(plan.screening.keep, plan.points)
        start_label = f"Screen {words.count(plan.points, 'point')}, run the best {kept:,}"
    with st.container(horizontal=True, vertical_alignment="center"):
        pressed = st.button(
            start_label,
            type="primary",
            icon=":material/play_arrow:",
            **entrance.guard("launch", disabled=blocked or not plan.recipes),
            key="sweep.launch",
            shortcut=navigation.MAIN,
        )
        if plan.points and not blocked:
            known = f", {plan.skipped} of them known already" if plan.skipped else ""
            st.caption(f"{words.count(plan.points, 'point')}{known}.", width="content")
        if plan.recipes:
            pick.estimate(plan, plan.recipes, inputs.base)
    return pressed


def workers(plan: preflight.SweepPlan) -> dict[str, Any]:
    """Who may share the points, as `jobs.submit` takes it: one worker for each GPU, on the CPU one, unless it is said.

    Drawn where there are several points.
    """
    if len(plan.recipes) < 2:
        return {}
    about = (
        "Points are shared out between so many processes at most, one on each GPU. Empty: every GPU there is. On the "
        "CPU one is the fastest unless each leaves cores idle: every one has its own copy of the model."
    )
    with st.expander("Workers", icon=":material/dns:"), st.container(horizontal=True, gap="small"):
        given = st.number_input(
            "At most",
            min_value=1,
            max_value=64,
            value=None,
            key="sweep.workers",
            placeholder="auto",
            help=about,
            width=140,
        )
        chosen: dict[str, Any] = {"workers": int(given) if given is not None else None}
        if (how := backends.missing(backends.RAY)) is not None:
            st.caption(f"On several machines with Ray: `{how}`, then start the dashboard again.")
        elif st.toggle("On Ray", key="sweep.ray", help="One worker on each GPU, or CPU, of a cluster of Ray."):
            about = "Such as head:6379. Empty: Ray is started on this machine."
            address = st.text_input(
                "Address of the cluster", key="sweep.address", help=about, placeholder="this machine"
            )
            chosen |= {"backend": backends.RAY, "address": address.strip()}
    return chosen


def preview(plan: preflight.SweepPlan) -> None:
    """Every point that would run."""
    st.subheader("What will run", anchor=False)
    st.dataframe(
        table.grid(plan.recipes),
        column_config={"method": "Method"},
        hide_index=True,
        placeholder="–",
        height="auto" if len(plan.recipes) < 11 else 360,
        alt="Points of the sweep",
    )


def _usually_kept() -> Kept:
    try:
        return kept_of_many()
    except RecipeError:  # the server's setting is none, and the launch says so
        return "front"


def _varied(name: str) -> list[str]:
    """The lists that a method takes its values from."""
    method = methods.get(name)
    point = preflight.grid(name, [0.5], [0.5], [1], [1])[0]
    return ["strength" if each == "alpha" and method.axis == "strength" else each for each in point]


def _values(one: presets.SweepPreset) -> dict[str, Any]:
    lists = {name: getattr(one, name) for name in LISTS}
    return {"method": [name for name in families.names() if name in one.methods], "n": one.n, **lists}


def _toggle_family() -> None:
    """A family that was switched on brings all of its methods, one that was switched off takes them along."""
    before, now = set(st.session_state["sweep:whole"]), set(st.session_state["sweep.families"])
    chosen = [name for name in st.session_state["sweep.method"] if families.of(name) not in before - now]
    wanted = {*chosen, *(name for family in now - before for name in families.names(family))}
    st.session_state["sweep.method"] = [name for name in families.names() if name in wanted]


def _whose(name: str, users: Sequence[str]) -> str:
    """The methods that take a list, those apart whose α is a share of the tuned model."""
    tuned = [method for method in users if name == "alpha" and methods.get(method).axis == "tuned"]
    of_safety = table.method_titles([method for method in users if method not in tuned])
    of_tuned = f"Share of the tuned model: {table.method_titles(tuned)}" if tuned else ""
    return "  \n".join(filter(None, [of_safety, of_tuned]))
