"""What the ways of adding an adapter or a base model share: a form of one line, and its fields."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st


@contextmanager
def line(key: str) -> Iterator[None]:
    """A form whose fields stand beside each other."""
    with (
        st.form(key, enter_to_submit=True, border=False),
        st.container(horizontal=True, vertical_alignment="bottom", gap="small"),
    ):
        yield


def folder_field(key: str, example: str, help: str, width: int = 380) -> str:
    """Where something lies on the machine that serves the dashboard; empty where nothing is written."""
    label = "Folder on this machine"
    return st.text_input(label, key=key, placeholder=f"/models/{example}", width=width, help=help).strip()


def hub_fields(repository: str, revision: str, help: str) -> tuple[str, str]:
    """Repository and revision on the hub, by their fields' keys."""
    named = st.text_input("Repository", key=repository, placeholder="owner/name", width=290).strip()
    return named, st.text_input("Revision", key=revision, placeholder="main", width=150, help=help)
