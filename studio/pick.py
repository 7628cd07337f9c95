"""Choosing what to merge and what to measure it on; shared by Adapters, Merge and Sweep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import streamlit as st

from sstmerge_core import jobs, words
from sstmerge_core.adapters import saved
from sstmerge_core.builder import chosen_suites, preflight
from sstmerge_core.catalog import Base, Entry, base_intake, bases, entries
from sstmerge_core.errors import Problem, SSTMergeError
from sstmerge_core.evaluate import served
from sstmerge_core.jobs import history
from sstmerge_core.methods import Method
from sstmerge_core.models.device import APPLIED, DTYPES, devices, memory_of
from sstmerge_core.models.device import computing as models_computing
from sstmerge_core.recipe import Recipe
from sstmerge_core.store import queries
from sstmerge_core.suites import attacks, bundled
from studio import blocks, link, start

T = TypeVar("T", Base, Entry)
SPLITS = ("test", "selection", "unseen")
"""Prompts that a merge may be measured on, the default first; the others train or calibrate"""
MOST_PROMPTS = 10_000


def _prompts(values: list[str]) -> int:
    if not values[-1].isdecimal() or len(values[-1]) > 9 or not 1 <= int(values[-1]) <= MOST_PROMPTS:
        raise ValueError(f"must be a whole number from 1 to {MOST_PROMPTS}")
    return int(values[-1])


SUITES = {
    "harmful": ("Harmful prompts", "harmful", "harmful"),
    "benign": ("Harmless look-alikes", "benign", "near_miss"),
    "suite": ("Task", "utility", ""),
}
"""Label, role and default of the suites that a merge is measured on; no task is the utility adapter's own"""


AUTO = "auto"
"""What the device decides"""
WORDS = {"in_weights": "added to the weights", "beside": "low-rank beside them"}


def _length(values: list[str]) -> int | None:
    if values[-1] == AUTO:
        return None
    least, most = preflight.SHORTEST, preflight.LONGEST
    if not values[-1].isdecimal() or len(values[-1]) > 9 or not least <= int(values[-1]) <= most:
        raise ValueError(f"must be a whole number from {least} to {most}")
    return int(values[-1])


def _computing_fields() -> link.Fields:
    """Device, number format and length of a calibration sample: what `computing` draws."""
    return {
        "device": (link.one_of([AUTO, *devices()]), AUTO),
        "dtype": (link.one_of([AUTO, *DTYPES]), AUTO),
        "applied": (link.one_of([AUTO, *APPLIED]), AUTO),
        "length": (_length, None),
        "bits": (link.one_of(list(BITS_WORDS)), ""),
    }


def _chat_fields() -> link.Fields:
    """How prompts become text: what `_chat` draws."""
    return {
        "system": (link.text, ""),
        "thinking": (link.one_of(list(THINKING)), "template"),
        "too_long": (link.one_of(list(TOO_LONG)), "refuse"),
    }


def measured_fields() -> link.Fields:
    """What a merge is measured on: split, number of prompts, the suites known here, and what it is computed with."""
    known = {name: chosen_suites.names(role, start.workspace()) for name, (_, role, _) in SUITES.items()}
    known["suite"] = ["", *known["suite"]]
    fields = {"split": (link.one_of(SPLITS), SPLITS[0]), "n": (_prompts, bundled.PROMPTS)}
    fields |= {name: (link.one_of(known[name]), default) for name, (_, _, default) in SUITES.items()}
    fields |= _computing_fields() | _chat_fields() | {"attack": (link.some_of(attacks.names()), [])}
    return fields | ({"backend": (link.one_of(served.BACKENDS), served.best_backend())} if served.installed() else {})


@dataclass(frozen=True)
class MergeInputs:
    """What the selectboxes say."""

    base: Base
    utility: Entry
    safety: Entry
    values: dict[str, Any]
    """For the link: the names as they stand in the URL."""
    further: tuple[Entry, ...] = ()
    """The utility experts after the first"""

    @property
    def names(self) -> list[str]:
        """The adapters in the order of a merge: utility experts first, safety last."""
        return [entry.name for entry in (self.utility, *self.further, self.safety)]

    @property
    def pair(self) -> str:
        """The name of a merge of these adapters: ``A5_A7``, ``A5+A6_A7``."""
        sources = tuple(entry.source for entry in (self.utility, *self.further, self.safety))
        return Recipe(base=self.base.source, adapters=sources, method="average", parameters={}).pair


class Shelf:
    """The base models and adapters of this workspace under names that are unique here."""

    def __init__(self) -> None:
        workspace = start.workspace()
        self.bases = _named(bases(workspace))
        self.adapters = _named(entries(workspace))

    def of_role(self, role: str) -> list[str]:
        """Every adapter's name: whose base is ready first, then those for `role`, the user's own before others."""

        def place(name: str) -> tuple[bool, bool, bool, bool]:
            one = self.adapters[name]
            return not self._is_ready(one), one.role not in ("", role), one.bundled, one.role != role

        return sorted(self.adapters, key=place)

    def _is_ready(self, one: Entry) -> bool:
        """Whether the base that an adapter names is ready here; of one that names none nobody knows."""
        meant = [base for base in self.bases.values() if base_intake.means(one.base_name, base)]
        return any(base.ready for base in meant) if meant else not one.bundled

    def fields(self) -> link.Fields:
        names = list(self.adapters)
        utility = next(iter(self.of_role("utility")), None)
        safety = next((name for name in self.of_role("safety") if name != utility), utility)
        return {
            "base": (link.one_of(list(self.bases)), self._base_of(utility)),
            "utility": (link.one_of(names), utility),
            "safety": (link.one_of(names), safety),
        }

    def _base_of(self, adapter: str | None) -> str | None:
        """The base that an adapter names, otherwise the first that is ready, otherwise the first."""
        named = self.adapters[adapter].base_name if adapter else ""
        ready = [name for name, base in self.bases.items() if base.ready]
        meant = [name for name in ready if base_intake.means(named, self.bases[name])]
        return next(iter([*meant, *ready, *self.bases]), None)

    def unaligned_fields(self) -> link.Fields:
        return {"unaligned": (link.one_of(["", *self.bases]), "")}

    def expert_fields(self) -> link.Fields:
        return {"expert": (link.some_of(list(self.adapters)), [])}


def merge_inputs(state: link.Link, shelf: Shelf, *, several: bool = False) -> MergeInputs:
    """Draw the three selectboxes, and with `several` the way to further utility experts.

    Call `state.read(shelf.fields())`, with `several` also of `shelf.expert_fields()`, before, and only where the shelf
    is not empty.
    """
    _forget_missing(state, shelf)
    with st.container(horizontal=True, gap="small"):
        base = st.selectbox("Base model", list(shelf.bases), key=state.key("base"), width=210)
        with st.container(horizontal=True, gap="xsmall", width="content", vertical_alignment="bottom"):
            utility = st.selectbox(
                "Utility adapter",
                shelf.of_role("utility"),
                key=state.key("utility"),
                width=135,
                help="What the model should do well.",
            )
            further = _further(state, shelf, utility) if several else []
        safety = st.selectbox(
            "Safety adapter",
            shelf.of_role("safety"),
            key=state.key("safety"),
            width=135,
            help="What makes it refuse harmful requests; for RESTA the harm adapter, which is subtracted.",
        )
    values = {"base": base, "utility": utility, "safety": safety} | ({"expert": further} if several else {})
    chosen = tuple(shelf.adapters[name] for name in further)
    return MergeInputs(shelf.bases[base], shelf.adapters[utility], shelf.adapters[safety], values, chosen)


def unaligned_model(state: link.Link, shelf: Shelf, methods: Sequence[Method], base: Base) -> Base | None:
    """Draw the choice of the model that the base was aligned from, where a method uses a safe direction.

    Call `state.read(shelf.unaligned_fields())` before. None where it has no use for one or none is chosen.
    """
    if not any(method.needs_aligned_part for method in methods):
        return None
    others = [name for name, own in shelf.bases.items() if own.sha256 != base.sha256]
    key = state.key("unaligned")
    if st.session_state[key] not in others:
        st.session_state[key] = ""
    chosen = st.selectbox(
        "Unaligned model",
        ["", *others],
        key=key,
        format_func=lambda name: name or "none: ΔS stands in for the safe direction",
        help="The model that the base was aligned from: base − unaligned is the direction that the method keeps to. "
        + ("" if others else "None is here yet: add one as a base model, such as the pretrained beside an instruct."),
    )
    return shelf.bases[chosen] if chosen else None


SAVED = {
    "refuse": "not accepted: choose",
    "utility": "kept from the utility side, as they are",
    "dense": "merged as whole tensors",
}


def saved_fields() -> link.Fields:
    """What `trained_whole` draws."""
    return {"saved": (link.one_of(list(SAVED)), "refuse")}


def trained_whole(state: link.Link, used: Sequence[Entry]) -> dict[str, str]:
    """Draw what becomes of modules that one of these adapters has trained whole; nothing where none has.

    Call `state.read(saved_fields())` before.
    """
    having = {entry.name: names for entry in used if (names := saved.modules(entry.path))}
    if not having:
        return {}
    told = "; ".join(f"{name}: {', '.join(names)}" for name, names in having.items())
    said = _said(
        state,
        "saved",
        f"Modules trained whole ({told}) are",
        SAVED,
        "What PEFT calls modules_to_save. Kept, the utility side's stand in the place of the base's in gradients, "
        "answers and the written adapter; the safety side's have no part in the merge. Merged, "
        "what each was trained by is a ΔW like any other, and a whole weight is written.",
    )
    return {"saved": said}


@dataclass(frozen=True)
class Measured:
    """What a merge is to be measured on, and what is wrong with that."""

    values: dict[str, Any]
    """For the link"""
    options: preflight.Options
    problems: list[Problem]


def measured(state: link.Link) -> Measured:
    """Draw the choice of prompts to measure on, and of how many. Call `state.read(measured_fields())` before."""
    values: dict[str, Any] = {}
    with st.container(horizontal=True, gap="small", width="content", vertical_alignment="bottom"):
        values["split"] = st.selectbox(
            "Measured on",
            SPLITS,
            key=state.key("split"),
            format_func=lambda name: f"{name} prompts",
            width=160,
            help="Report what the test prompts say. Choose α, k and the method on the selection prompts: what was "
            "chosen on the test prompts looks better there than it is. Unseen: categories of harm that no other split "
            "has. Default: test.",
        )
        values["n"] = st.number_input(
            "Prompts of each set",
            1,
            MOST_PROMPTS,
            step=8,
            key=state.key("n"),
            width=140,
            help="At most so many harmful, harmless look-alike and utility prompts each. Time grows with them; a rate "
            f"of one half has a 95 % interval of ±24 points with 16 prompts, ±17 with 32, ±12 with 64. "
            f"Default: {bundled.PROMPTS}.",
        )
        if served.installed():
            values["backend"] = st.selectbox(
                "Answered by",
                served.BACKENDS,
                key=state.key("backend"),
                width=140,
                help="transformers adds ΔW to the base model's weights. vLLM loads the adapter as it is written, as "
                "LoRA: of a merge that is not low-rank its best approximation. Runs of the two are kept apart. "
                "Default: vLLM beside a GPU.",
            )
        with st.popover("Prompt sets", icon=":material/list_alt:"):
            values |= {name: _suite(state, name) for name in SUITES}
            values["attack"] = _attacks(state)
            st.page_link("pages/prompts.py", label="Your own prompts, and how to get those that are not here")
        with st.popover("Chat", icon=":material/forum:"):
            values |= _chat(state)
        with st.popover("Device", icon=":material/memory:"):
            values |= _computing(state)
    asked: dict[str, Any] = {"harmful": values["harmful"], "attacks": values["attack"]}
    asked |= {"benign": values["benign"], "utility": values["suite"]}
    how: dict[str, Any] = {name: values[name] for name in ("split", "n", "backend") if name in values}
    how |= {"bits": int(values["bits"]) if values["bits"] else None}
    how |= {"system": values["system"], "thinking": THINKING[values["thinking"]], "too_long": values["too_long"]}
    device = "" if values["device"] == AUTO else values["device"]
    how |= preflight.how_to_compute(device, values["dtype"], values["length"], values["applied"])
    try:
        return Measured(values, chosen_suites.options(start.workspace(), **asked, fetch=False, **how), [])
    except SSTMergeError as error:
        return Measured(values, preflight.Options(**how), list(error.problems))


def _computing(state: link.Link) -> dict[str, Any]:
    """Draw what to compute with; what is left to the device is told in the words of the device that a job gets."""
    here = jobs.default_device()
    device = st.selectbox(
        "Compute on",
        [AUTO, *devices()],
        key=state.key("device"),
        format_func=lambda name: f"{here}, what there is here" if name == AUTO else name,
        help="Jobs of one device wait for one another. Another device rounds differently.",
    )
    usual = models_computing(here if device == AUTO else device)
    dtype = st.selectbox(
        "Number format of the model",
        [AUTO, *DTYPES],
        key=state.key("dtype"),
        format_func=lambda name: f"{usual.dtype}, as usual there" if name == AUTO else name,
        help="Of the model that answers and whose gradients are taken; adapters are merged in float32 whatever it is. "
        "Sixteen bits take half of the memory. Runs of two formats are not compared.",
    )
    applied = st.selectbox(
        "A low-rank merge is",
        [AUTO, *APPLIED],
        key=state.key("applied"),
        format_func=lambda name: f"{WORDS[usual.applied]}, as usual there" if name == AUTO else WORDS[name],
        help="In sixteen bits a weight has no room for a small change; beside the weights it is whole. In float32 the "
        "two differ by rounding.",
    )
    length = st.number_input(
        "Tokens of a calibration sample",
        preflight.SHORTEST,
        preflight.LONGEST,
        step=128,
        key=state.key("length"),
        placeholder=f"{usual.max_length}, as usual there",
        help="Longer samples are cut: of a prompt its beginning, of an answer its end.",
    )
    bits = _said(
        state,
        "bits",
        "The base answers in",
        BITS_WORDS,
        "Quantised by bitsandbytes (the extra [bits]) as it is loaded, with the merge beside it: what is left of "
        "refusals where it is deployed so. A run of its own; gradients are those of the floats.",
    )
    return {"device": device, "dtype": dtype, "applied": applied, "length": length, "bits": bits}


BITS_WORDS = {"": "the format above", "8": "8 bits", "4": "4 bits"}


THINKING = {"template": None, "yes": True, "no": False}
_THINKING_WORDS = {"template": "as the template has it", "yes": "yes", "no": "no"}
TOO_LONG = {"refuse": "refused, by its row", "cut": "cut at its beginning, and counted"}


def _said(state: link.Link, name: str, label: str, words: Mapping[str, str], help: str) -> str:
    """Draw a choice among the keys of `words`, each told by its value."""
    return st.selectbox(label, list(words), key=state.key(name), format_func=words.__getitem__, help=help)


def _chat(state: link.Link) -> dict[str, Any]:
    """Draw how prompts become text: system prompt, reasoning, and what is done with prompts that are too long."""
    system = st.text_area(
        "System prompt",
        key=state.key("system"),
        height=90,
        placeholder="the template's own, or none",
        help="Before every prompt, in answers and in the samples whose gradients are taken. Runs with another one are "
        "other runs.",
    )
    thinking = _said(
        state,
        "thinking",
        "The model reasons first",
        _THINKING_WORDS,
        "What chat templates know as enable_thinking. Answers are judged and measured without the reasoning; its "
        "length is a figure of its own.",
    )
    too_long = _said(
        state,
        "too_long",
        "A prompt beyond the model's positions is",
        TOO_LONG,
        "How many were cut stands in the job's log.",
    )
    return {"system": system, "thinking": thinking, "too_long": too_long}


def _attacks(state: link.Link) -> list[str]:
    about = {one.name: f"**{one.title}**: {one.help}" for one in attacks.ATTACKS}
    return st.multiselect(
        "Attacks on the harmful prompts",
        list(about),
        key=state.key("attack"),
        format_func=lambda name: attacks.get(name).title,
        placeholder="none: asked as they are",
        help="The harmful prompts are asked again under each, so that resistance is told plain and attacked; each "
        "takes as long as the prompts alone.  \n" + "  \n".join(about.values()),
    )


def _suite(state: link.Link, name: str) -> str:
    label, role, _ = SUITES[name]
    known = chosen_suites.names(role, start.workspace())
    absent = set(chosen_suites.absent(role, start.workspace()))
    return st.selectbox(
        label,
        ["", *known] if name == "suite" else known,
        key=state.key(name),
        format_func=lambda one: (one or "the utility adapter's own") + (" · not here" if one in absent else ""),
    )


def estimate(plan: preflight.Preflight | preflight.SweepPlan, recipes: list[Recipe], base: Base) -> None:
    """Time and memory that `recipes` will take, each with what it rests on in a tooltip and what is here beside it."""
    workspace = start.workspace()
    device = next((recipe.device for recipe in recipes if recipe.device), "") or jobs.default_device()
    known = start.query(queries.peak_memory, base.name, device, recipes[0].dtype if recipes else "float32")
    memory, memory_basis = history.peak_memory(recipes, plan.memory_bytes, known)
    time_basis = history.time_basis(workspace, recipes, device)
    st.caption(
        f"Takes about {words.duration(plan.seconds)} and up to {words.size(memory)} of memory.",
        width="content",
        help=f"Time: {time_basis}.  \nMemory: {memory_basis}.",
    )
    there = memory_of(device)
    if there is not None and memory > there.free:
        name = "this machine" if device == "cpu" else device
        total = f" of {words.size(there.total)}" if memory > there.total else ""
        st.caption(
            f":orange[:material/warning: Only {words.size(there.free)}{total} of memory are free on {name} now.]",
            width="content",
            help="Linux ends a process that asks for more memory than there is. Close what else runs, or wait."
            if device == "cpu"
            else "Choose bfloat16 or shorter calibration samples, or another device. Batches are halved where memory "
            "runs out, so it may fit all the same.",
        )


def missing(shelf: Shelf) -> bool:
    """Say what is needed before anything can be merged; True where something is."""
    if not shelf.bases:
        blocks.empty(
            "No base model is known here. `sstmerge demo --prepare` brings the bundled one; "
            "`sstmerge adapters add-base` registers a folder."
        )
        return True
    if len(shelf.adapters) < 2:
        blocks.empty(
            "Two adapters are needed: one for utility, one for safety.",
            page="pages/adapters.py",
            label="Add an adapter",
        )
        return True
    return False


def _further(state: link.Link, shelf: Shelf, utility: str) -> list[str]:
    """Further utility experts, out of the way of the many who merge one."""
    key = state.key("expert")
    st.session_state[key] = [name for name in st.session_state[key] if name != utility]
    chosen = len(st.session_state[key])
    with st.popover(f"+{chosen}" if chosen else ":material/group_add:", help="More utility experts"):
        return st.multiselect(
            "More utility experts",
            [name for name in shelf.of_role("utility") if name != utility],
            key=key,
            help="Merged together with the utility adapter: ΔU is their mean, or their sum where the method offers it. "
            "The utility adapter's own prompts measure utility.",
        )


def _named(items: list[T]) -> dict[str, T]:
    often = Counter(item.name for item in items)
    return {item.name if often[item.name] == 1 else f"{item.name}@{item.sha256[:8]}": item for item in items}


def _forget_missing(state: link.Link, shelf: Shelf) -> None:
    """An adapter that was removed elsewhere is no longer chosen."""
    if (further := state.key("expert")) in st.session_state:
        st.session_state[further] = [name for name in st.session_state[further] if name in shelf.adapters]
    for name, (_, default) in shelf.fields().items():
        known = shelf.bases if name == "base" else shelf.adapters
        if st.session_state[state.key(name)] not in known:
            st.session_state[state.key(name)] = default
