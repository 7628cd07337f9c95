"""The dual solver of the generalized eigenvalue problem between harm and benign Fisher."""

from sstmerge_core.gevp.dual import Cost, DualPatch, DualProblem, Spectrum, largest_strength
from sstmerge_core.gevp.least_squares import LeastSquares
from sstmerge_core.gevp.signed import Constraints, Correction, Signs

__all__ = [
    "Constraints",
    "Correction",
    "Cost",
    "DualPatch",
    "DualProblem",
    "LeastSquares",
    "Signs",
    "Spectrum",
    "largest_strength",
]
