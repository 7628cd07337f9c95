"""Typed errors: each names where the fault is, what it is, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One fault in the user's input."""

    where: str
    """The file, adapter, parameter or module at fault."""
    fault: str
    """What is wrong, as a sentence without the final stop."""
    fix: str = ""
    """What the user can do about it."""

    def __str__(self) -> str:
        text = f"{self.where}: {self.fault.rstrip('.')}."
        return f"{text} {self.fix}".rstrip()


class SSTMergeError(Exception):
    """Base of every error that is the user's to mend. Carries one or more problems."""

    exit_code = 1

    def __init__(self, problems: Problem | Iterable[Problem]):
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class RecipeError(SSTMergeError):
    """A parameter or a combination of parameters is not usable."""

    exit_code = 2


class AdapterError(SSTMergeError):
    """An adapter folder cannot be read, or does not fit the base model or its partner."""

    exit_code = 3


class DataError(SSTMergeError):
    """A data file (prompts, training rows, base model files) cannot be used."""

    exit_code = 4


class StoreError(SSTMergeError):
    """The database, a snapshot or a query cannot be served."""

    exit_code = 5


class JobError(SSTMergeError):
    """A job cannot be started, found, or did not finish."""

    exit_code = 6


class Cancelled(SSTMergeError):
    """The user asked the work to stop; everything finished so far is kept."""

    exit_code = 130

    def __init__(self, what: str = "job"):
        super().__init__(Problem(what, "cancelled", "Launch it again to resume where it stopped."))
