"""Merge methods in the groups in which a researcher looks for them."""

from __future__ import annotations

from sstmerge_core import methods

FAMILIES = ("SST-Merge", "Averaging", "Sparse", "Safety-aware")
_OF_KIND = {
    "combination": "Averaging",
    "angular": "Averaging",
    "weights": "Averaging",
    "elementwise": "Sparse",
    "located": "Safety-aware",
    "core": "Safety-aware",
    "mask": "SST-Merge",
    "patch": "SST-Merge",
}
_OTHERWISE = {"fisher": "Averaging", "alignguard": "Safety-aware"}
"""Methods that are computed like those of one family and meant like those of another"""


def of(name: str) -> str:
    """The family of a merge method, one of `FAMILIES`; a new method is where its kind is."""
    return _OTHERWISE.get(name, _OF_KIND[methods.get(name).kind])


def names(family: str | None = None) -> list[str]:
    """Every merge method of a family (None: of all), the families one after the other."""
    found = sorted(methods.names(), key=lambda name: FAMILIES.index(of(name)))
    return [name for name in found if family in (None, of(name))]


def label(name: str) -> str:
    """``Sparse · TIES``: a list of methods reads in groups, and typing a family finds all of it."""
    title, family = methods.get(name).title, of(name)
    return title if family in title else f"{family} · {title}"
