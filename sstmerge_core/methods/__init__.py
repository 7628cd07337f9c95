"""Merge methods: one small pure function each, and the registry that describes them.

Importing this package fills the registry and imports no torch.
"""

from sstmerge_core.methods import combine, core, elementwise, located, sst
from sstmerge_core.methods.registry import AXES, Choice, Flag, Method, Parameter, Real, Whole, get, methods, names

__all__ = [
    "AXES",
    "Choice",
    "Flag",
    "Method",
    "Parameter",
    "Real",
    "Whole",
    "combine",
    "core",
    "elementwise",
    "get",
    "located",
    "methods",
    "names",
    "sst",
]
