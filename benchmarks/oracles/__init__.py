"""An independent oracle for every merge method: another library's code, or dense float64 matrices.

    python -m benchmarks.oracles

prints the worst relative error of each. The tests hold every method to its tolerance, and `make docs` writes the errors
into the tables. An oracle shares no code with what it checks: it never sees core coordinates, Gram matrices or factors
side by side, only the dense ΔW of the adapters and, where a method needs them, dense per-sample gradients.
"""

from benchmarks.oracles import combine, core, elementwise, located, sst
from benchmarks.oracles.cases import Case, Oracle

__all__ = ["ORACLES", "Case", "Oracle"]

ORACLES: dict[str, Oracle] = combine.ORACLES | elementwise.ORACLES | core.ORACLES | located.ORACLES | sst.ORACLES
"""By method"""
