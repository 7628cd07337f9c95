"""The score of a task by its own measure, as a report gives it."""

from sstmerge_core.metrics.declare import Metric

METRIC = Metric(
    "task_performance",
    "Task performance",
    "utility",
    higher_is_better=True,
    help="The score of the task by the measure of the report that gives it: only in reported figures.",
    headline=False,
)
