"""What the whole window does: the app's links stay in their tab, and "?" lists the page's keyboard shortcuts."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from studio import navigation

SCRIPT = Path(__file__).with_name("window.js")


def furnish(title: str) -> None:
    """On every page, `title` being the one that is open."""
    files = [name for listed in navigation.PAGES.values() for name in listed]
    paths = ["" if name == navigation.FIRST else name for name in files]
    with st.container(key="window"):
        _component()(data={"pages": paths, "keys": navigation.KEYS.get(title, []), "title": title}, key="window.js")


@st.cache_resource(show_spinner=False)
def _component() -> st.components.v2.types.ComponentRenderer:
    return st.components.v2.component("sstmerge_window", html="", js=SCRIPT.read_text(encoding="utf-8"))
