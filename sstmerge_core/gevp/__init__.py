"""The dual solver of the generalized eigenvalue problem between harm and benign Fisher."""

from sstmerge_core.gevp.dual import DualPatch, DualProblem, Spectrum, benign_cost

__all__ = ["DualPatch", "DualProblem", "Spectrum", "benign_cost"]
