"""Merge methods in the groups in which a researcher looks for them."""

from __future__ import annotations

from sstmerge_core import methods
from sstmerge_core.methods import FAMILIES

__all__ = ["FAMILIES", "label", "names", "of"]


def of(name: str) -> str:
    """The family of a merge method, one of `FAMILIES`."""
    return methods.get(name).family


def names(family: str | None = None) -> list[str]:
    """Every merge method of a family (None: of all), the families one after the other."""
    return [name for name in methods.names() if family in (None, of(name))]


def label(name: str) -> str:
    """``Sparse · TIES``: a list of methods reads in groups, and typing a family finds all of it."""
    title, family = methods.get(name).title, of(name)
    return title if family in title else f"{family} · {title}"
