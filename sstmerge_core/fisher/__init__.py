"""Per-sample gradients in core coordinates, their Gram matrices and their cache."""

from sstmerge_core.fisher import cache
from sstmerge_core.fisher.gradients import Gradients, core_gradients
from sstmerge_core.fisher.problem import dual_problem, primal, scaled_rows

__all__ = ["Gradients", "cache", "core_gradients", "dual_problem", "primal", "scaled_rows"]
