"""Per-sample gradients in core coordinates, their Gram matrices and their cache."""

from sstmerge_core.fisher import answers, cache, expansion, importance
from sstmerge_core.fisher.gradients import Gradients, core_gradients, stack
from sstmerge_core.fisher.problem import dual_problem, gram, primal, project, scaled_rows

__all__ = [
    "Gradients",
    "answers",
    "cache",
    "core_gradients",
    "dual_problem",
    "expansion",
    "gram",
    "importance",
    "primal",
    "project",
    "scaled_rows",
    "stack",
]
