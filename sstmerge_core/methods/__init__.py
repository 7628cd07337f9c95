"""Merge methods: one small pure function each, and the registry that describes them.

Importing this package imports every module in it, which fills the registry, and imports no torch. A new method is a
new module here with a function under `registry.method`; nothing else has to know of it.
"""

from importlib import import_module
from pkgutil import iter_modules

from sstmerge_core.methods.registry import (
    AXES,
    FAMILIES,
    Choice,
    Flag,
    Look,
    Method,
    Numbers,
    Parameter,
    Real,
    Whole,
    get,
    methods,
    names,
)

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = [
    "AXES",
    "FAMILIES",
    "Choice",
    "Flag",
    "Look",
    "Method",
    "Numbers",
    "Parameter",
    "Real",
    "Whole",
    "get",
    "methods",
    "names",
]
