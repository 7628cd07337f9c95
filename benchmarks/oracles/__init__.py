"""An independent oracle for every merge method that has one: another library's code, or dense float64 matrices.

    python -m benchmarks.oracles

prints the worst relative error of each. The tests hold every method to its tolerance, and `make docs` writes the errors
into the tables. An oracle shares no code with what it checks: it never sees core coordinates, Gram matrices or factors
side by side, only the dense ΔW of the adapters and, where a method needs them, dense per-sample gradients.

Every module here that has a dict ``ORACLES``, by method, is found by itself.
"""

from importlib import import_module
from pkgutil import iter_modules

from benchmarks.oracles.cases import Case, Oracle

__all__ = ["ORACLES", "Case", "Oracle"]

ORACLES: dict[str, Oracle] = {}
"""By method"""

for _module in iter_modules(__path__):
    if _module.name != "__main__":
        ORACLES |= getattr(import_module(f"{__name__}.{_module.name}"), "ORACLES", {})
