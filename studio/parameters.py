"""The form of a merge method, made from its signature in the registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from sstmerge_core.methods import Choice, Flag, Method, Parameter, Whole
from studio import link

SYMBOLS = {"alpha": "α", "rho": "ρ", "tau": "τ"}
COMMON = ("alpha", "k")
"""Drawn first; the rest below."""


def fields(method: Method) -> link.Fields:
    """Parameter name → (parser of the link's text, default)."""
    return {parameter.name: (_parser(parameter), parameter.default) for parameter in method.parameters}


def form(state: link.Link, method: Method) -> dict[str, Any]:
    """One widget per parameter; returns their values. `state.read(fields(method), group=method.name)` comes before."""
    ordered = sorted(method.parameters, key=lambda parameter: parameter.name not in COMMON)
    values = {}
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        for parameter in ordered:
            values[parameter.name] = _widget(parameter, state.key(parameter.name, method.name))
    return {parameter.name: values[parameter.name] for parameter in method.parameters}


def _parser(parameter: Parameter) -> Callable[[list[str]], Any]:
    return lambda values: parameter.parse(values[-1])


def _widget(parameter: Parameter, key: str) -> Any:
    schema = parameter.schema
    label = SYMBOLS.get(parameter.name, parameter.name)
    about = f"{schema.help} Allowed: {parameter.bounds()}. Default {parameter.default}."
    if isinstance(schema, Flag):
        return st.toggle(label, key=key, help=schema.help)
    if isinstance(schema, Choice):
        return st.selectbox(label, schema.options, key=key, help=about, width=150)
    if isinstance(schema, Whole):
        return st.number_input(label, schema.low, schema.high, step=schema.step, key=key, help=about, width=150)
    # an excluded lower end is left to preflight, which says so in words
    low, high = float(schema.low), float(schema.high)
    return st.number_input(label, low, high, step=float(schema.step), format="%g", key=key, help=about, width=150)
