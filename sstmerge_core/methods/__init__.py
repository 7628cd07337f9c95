"""Merge methods: one small pure function each, and the registry that describes them.

Importing this package fills the registry and imports no torch.
"""

from sstmerge_core.methods import combine, elementwise, sst
from sstmerge_core.methods.registry import Choice, Flag, Method, Parameter, Real, Whole, get, methods, names

__all__ = [
    "Choice",
    "Flag",
    "Method",
    "Parameter",
    "Real",
    "Whole",
    "combine",
    "elementwise",
    "get",
    "methods",
    "names",
    "sst",
]
