"""Choosing what to merge: base model, utility and safety adapter; shared by Adapters, Merge and Sweep."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TypeVar

import streamlit as st

from sstmerge_core.catalog import Base, Entry, bases, entries
from studio import blocks, link, start

T = TypeVar("T", Base, Entry)


@dataclass(frozen=True)
class Trio:
    """What the three selectboxes say."""

    base: Base
    utility: Entry
    safety: Entry
    values: dict[str, str]
    """For the link: the names as they stand in the URL."""


class Shelf:
    """The base models and adapters of this workspace under names that are unique here."""

    def __init__(self) -> None:
        workspace = start.workspace()
        self.bases = _named(bases(workspace))
        self.adapters = _named(entries(workspace))

    def of_role(self, role: str) -> list[str]:
        """Every adapter's name, those made for `role` first."""
        return sorted(self.adapters, key=lambda name: self.adapters[name].role != role)

    def fields(self) -> link.Fields:
        names = list(self.adapters)
        return {
            "base": (link.one_of(list(self.bases)), next(iter(self.bases), None)),
            "utility": (link.one_of(names), next(iter(self.of_role("utility")), None)),
            "safety": (link.one_of(names), next(iter(self.of_role("safety")), None)),
        }


def trio(state: link.Link, shelf: Shelf) -> Trio:
    """Draw the three selectboxes. Call `state.read(shelf.fields())` before, and only where the shelf is not empty."""
    _forget_missing(state, shelf)
    with st.container(horizontal=True, gap="small"):
        base = st.selectbox("Base model", list(shelf.bases), key=state.key("base"), width=230)
        utility = st.selectbox(
            "Utility adapter",
            shelf.of_role("utility"),
            key=state.key("utility"),
            width=150,
            help="What the model should do well.",
        )
        safety = st.selectbox(
            "Safety adapter",
            shelf.of_role("safety"),
            key=state.key("safety"),
            width=150,
            help="What makes it refuse harmful requests.",
        )
    values = {"base": base, "utility": utility, "safety": safety}
    return Trio(shelf.bases[base], shelf.adapters[utility], shelf.adapters[safety], values)


def missing(shelf: Shelf) -> bool:
    """Say what is needed before anything can be merged; True where something is."""
    if not shelf.bases:
        blocks.empty(
            "No base model is known here. Install the demo model (`make setup` does it), or register a folder on the "
            "command line with `sstmerge adapters`."
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


def _named(items: list[T]) -> dict[str, T]:
    often = Counter(item.name for item in items)
    return {item.name if often[item.name] == 1 else f"{item.name}@{item.sha256[:8]}": item for item in items}


def _forget_missing(state: link.Link, shelf: Shelf) -> None:
    """An adapter that was removed elsewhere is no longer chosen."""
    for name, (_, default) in shelf.fields().items():
        known = shelf.bases if name == "base" else shelf.adapters
        if st.session_state[state.key(name)] not in known:
            st.session_state[state.key(name)] = default
