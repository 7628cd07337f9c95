"""The dual solver of the generalized eigenvalue problem between harm and benign Fisher."""

from sstmerge_core.gevp.dual import Cost, DualPatch, DualProblem, Spectrum, largest_strength

__all__ = ["Cost", "DualPatch", "DualProblem", "Spectrum", "largest_strength"]
