"""A page's state in its URL: read with a message for what cannot be used, written once the user changes something.

Streamlit's own `bind="query-params"` drops what it cannot use without a word and leaves defaults out of the URL, so
that a later change of a default would change old links.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import streamlit as st

from sstmerge_core.errors import Problem
from sstmerge_core.words import shortened

Parser = Callable[[list[str]], Any]
"""Takes every value of one parameter in the URL; raises ValueError that says what would be right."""
Fields = dict[str, tuple[Parser, Any]]
"""Parameter name → its parser and its default."""


def one_of(options: Sequence[str]) -> Parser:
    def parse(values: list[str]) -> str:
        if values[-1] not in options:
            shown = ", ".join(options[:8]) + (" …" if len(options) > 8 else "")
            raise ValueError(f"there is none of that name here; there are: {shown or 'none yet'}")
        return values[-1]

    return parse


def some_of(options: Sequence[str]) -> Parser:
    one = one_of(options)
    return lambda values: list(dict.fromkeys(one([value]) for value in values))


def flag(values: list[str]) -> bool:
    if values[-1] not in ("0", "1"):
        raise ValueError("must be 0 or 1")
    return values[-1] == "1"


def text(values: list[str]) -> str:
    return values[-1]


def texts(values: list[str]) -> list[str]:
    return values


class Link:
    """One page's state in the URL, for one run of the page: `read` before the widgets, `write` after them.

    A widget with key ``<page>.<name>`` belongs to the parameter `name`.
    """

    def __init__(self, page: str):
        self.page = page
        self.problems: list[Problem] = []
        self._current = _current()
        self._fields: dict[str, tuple[Parser, Any]] = {}
        self._keys: list[str] = []
        # not the URL that this session wrote last: a first visit, a link that was followed, the back button
        self.moved = st.session_state.get(f"{page}:url") != self._current
        st.session_state[f"{page}:url"] = self._current
        # Streamlit forgets a widget that is not drawn, such as the α of a method that is not chosen at the moment
        self._kept: dict[str, Any] = st.session_state.setdefault(f"{page}:kept", {})

    def given(self, name: str) -> str | None:
        """The URL's last value of a parameter as it stands."""
        return self._current[name][-1] if name in self._current else None

    def read(self, fields: Fields, *, group: str = "", trust: bool = True) -> None:
        """Set the session state of these parameters' widgets from the URL where it moved, else leave it as it is.

        `group`: goes into the key (``<page>.<group>.<name>``) where one name means different things, as α of two
        methods does. `trust=False`: the URL speaks of another group. What cannot be used goes to `problems`.
        """
        for name, (parse, default) in fields.items():
            key = self.key(name, group)
            self._fields[name] = (parse, default)
            self._keys.append(key)
            if key in st.session_state and not (self.moved and trust):
                st.session_state[key] = st.session_state[key]  # else it is dropped while its widget is not drawn
                continue
            value = default if self.moved else self._kept.get(key, default)
            if trust and self.moved and name in self._current:
                try:
                    value = parse(self._current[name])
                except ValueError as error:
                    self.problems.append(self._problem(name, error))
            st.session_state[key] = value

    def unknown(self, name: str, options: Sequence[str]) -> list[Problem]:
        """What is wrong with what the URL says of `name`, where its options are known only after `read`."""
        try:
            some_of(options)([value for value in self._current.get(name, []) if value])
        except ValueError as error:
            return [self._problem(name, error)]
        return []

    def key(self, name: str, group: str = "") -> str:
        return ".".join(filter(None, (self.page, group, name)))

    def write(self, values: Mapping[str, Any]) -> None:
        """Spell `values` out in the URL where it says something else; a plain URL stays plain until a change."""
        self._kept.update({key: st.session_state[key] for key in self._keys})
        if all(values.get(name) == self._said(name) for name in {*self._fields, *values}):
            return
        st.query_params.from_dict(spelled(values))
        st.session_state[f"{self.page}:url"] = _current()

    def _problem(self, name: str, error: ValueError) -> Problem:
        where = f"{name}={shortened(', '.join(self._current[name]))} in the link"
        return Problem(where, str(error), "The default is shown instead.")

    def _said(self, name: str) -> Any:
        parse, default = self._fields.get(name, (text, None))
        if name not in self._current:
            return default
        try:
            return parse(self._current[name])
        except ValueError:
            return object()  # equal to nothing, so that the URL is put right


def spelled(values: Mapping[str, Any]) -> dict[str, Any]:
    """Every value as URL text; None and empty ones are left out."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if value is None or value == "" or value == []:
            continue
        if isinstance(value, (list, tuple)):
            found[name] = [_text(item) for item in value]
        else:
            found[name] = _text(value)
    return found


def share(base: str, path: str, values: Mapping[str, Any]) -> str:
    """The address that opens this page in this state, every parameter spelled out."""
    return f"{base}/{path}?{urlencode(spelled(values), doseq=True)}"


def _current() -> dict[str, list[str]]:
    return {name: st.query_params.get_all(name) for name in st.query_params}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    return f"{value:g}" if isinstance(value, float) else str(value)
