"""The row of presets above a form: the one that the form says now is lit, and a click on another fills the form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import streamlit as st

from sstmerge_core.words import plain
from studio import link


class Preset(Protocol):
    @property
    def title(self) -> str: ...

    @property
    def about(self) -> str:
        """What it is for, in one sentence."""


P = TypeVar("P", bound=Preset)


def choose(
    state: link.Link,
    known: Mapping[str, P],
    *,
    said: Callable[[P], bool],
    fill: Callable[[P], Mapping[str, Any]],
    **settings: Any,
) -> None:
    """Draw the presets `known` by name.

    `said`: whether the form says this preset now. `fill`: the key of each widget that it sets, and to what. `settings`
    are those of `st.pills`.
    """
    key = state.key("preset")

    def take() -> None:
        if name := st.session_state[key]:
            for widget, value in fill(known[name]).items():
                st.session_state[widget] = value

    st.session_state[key] = next((name for name, preset in known.items() if said(preset)), None)
    st.pills(
        "Presets",
        list(known),
        key=key,
        format_func=lambda name: known[name].title,
        on_change=take,
        help="  \n".join(f"**{plain(preset.title)}** {plain(preset.about)}" for preset in known.values()),
        **settings,
    )
