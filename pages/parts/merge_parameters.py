"""The form of a merge method, made from its signature in the registry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st

from sstmerge_core.methods import AXES, Choice, Flag, Method, Numbers, Parameter, Whole, shared
from sstmerge_core.words import plain
from studio import link, pick

LABELS = {"general": "general prompts ×", "attention": "attention ×", "mlp": "MLP ×"}
"""Where neither a name nor a symbol says it to people"""
SHARED = {value.name for value in vars(shared).values() if isinstance(value, Parameter)} - {"alpha"}
"""Parameters that mean the same in many methods: folded away until one of them is changed"""


def fields(method: Method) -> link.Fields:
    """Parameter name → (parser of the link's text, default)."""
    return {parameter.name: (_parser(parameter), parameter.default) for parameter in method.parameters}


def form(state: link.Link, method: Method) -> tuple[dict[str, Any], pick.Measured]:
    """One widget per parameter, α first; returns their values, and what to measure on.

    Call `state.read(fields(method), group=method.name)` and `state.read(pick.measured_fields())` before.
    """
    first = [parameter for parameter in method.parameters if parameter.name not in SHARED]
    rest = [parameter for parameter in method.parameters if parameter.name in SHARED]
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        values = _widgets(state, method, sorted(first, key=lambda parameter: parameter.name != "alpha"))
    with (
        _folded(state, method, rest),
        st.container(horizontal=True, gap="small", vertical_alignment="bottom"),
    ):
        values |= _widgets(state, method, rest)
        measured = pick.measured(state)
    return {parameter.name: values[parameter.name] for parameter in method.parameters}, measured


def _folded(state: link.Link, method: Method, parameters: Sequence[Parameter]) -> Any:
    """An expander that opens by itself where something in it is not at its default, and then stays open."""
    changed = {
        _label(parameter): value
        for parameter in parameters
        if (value := st.session_state[state.key(parameter.name, method.name)]) != parameter.default
    }
    words = {"split": "measured on", "n": "prompts", "suite": "task", "attack": "under"}
    for name, (_, default) in pick.measured_fields().items():
        if (value := st.session_state[state.key(name)]) != default:
            changed[words.get(name, name)] = " and ".join(value) if isinstance(value, list) else value
    key = f"{state.page}:{method.name}:more"
    st.session_state[key] = bool(changed) or st.session_state.get(key, False)
    said = ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else plain(f"{name} {value}") for name, value in changed.items()
    )
    return st.expander(f"More options · {said}" if said else "More options", expanded=st.session_state[key])


def _widgets(state: link.Link, method: Method, parameters: Sequence[Parameter]) -> dict[str, Any]:
    keys = {parameter.name: state.key(parameter.name, method.name) for parameter in parameters}
    return {parameter.name: _widget(parameter, method, keys[parameter.name]) for parameter in parameters}


def _label(parameter: Parameter) -> str:
    return LABELS.get(parameter.name, parameter.symbol)


def _parser(parameter: Parameter) -> Callable[[list[str]], Any]:
    return lambda values: parameter.parse(values[-1])


def _widget(parameter: Parameter, method: Method, key: str) -> Any:
    schema = parameter.schema
    label, width = _label(parameter), 150
    if parameter.name == "alpha" and method.axis:
        label, width = f"α = {AXES[method.axis]}", 350
    default = f"{parameter.default:g}" if isinstance(parameter.default, float) else str(parameter.default).lower()
    default = default or "nothing"
    about = f"{schema.help} Allowed: {parameter.bounds()}. Default: {default}."
    if isinstance(schema, Flag):
        return st.toggle(label, key=key, help=about, width=width)
    if isinstance(schema, Choice):
        return st.selectbox(label, schema.options, key=key, help=about, width=width)
    if isinstance(schema, Numbers):
        return st.text_input(label, key=key, help=about, width=width)
    if isinstance(schema, Whole):
        return st.number_input(label, schema.low, schema.high, step=schema.step, key=key, help=about, width=width)
    # an excluded lower end is left to preflight, which says so in words
    low, high = float(schema.low), float(schema.high)
    return st.number_input(label, low, high, step=float(schema.step), format="%g", key=key, help=about, width=width)
