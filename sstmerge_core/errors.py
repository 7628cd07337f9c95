"""Typed errors: each names where the fault is, what it is, and what to do about it."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError


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


def of_validation(
    error: ValidationError, where: str, fix: str, *, fields: Collection[str] = (), unsaid: Collection[str] = ()
) -> list[Problem]:
    """A problem for each of pydantic's complaints about what is at `where`, in our own words where pydantic's are its.

    A field that is none is answered with the nearest of `fields`, every other complaint but a missing field with
    `fix`. Parts of a place that are in `unsaid` are left out: pydantic names the branches of a union there.
    """
    return [_of_complaint(one, where, fix, fields, unsaid) for one in error.errors(include_url=False)]


def _of_complaint(found: Any, where: str, fix: str, fields: Collection[str], unsaid: Collection[str]) -> Problem:
    place = ".".join(str(part) for part in found["loc"] if part not in unsaid)
    at = f"{where}: {place}" if place else where
    if found["type"] == "missing":
        return Problem(at, "is missing", "Add the field.")
    if found["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(found["loc"][-1]), fields, 1, 0.6)
        return Problem(at, "is no field", f"Did you mean `{near[0]}`?" if near else fix)
    return Problem(at, found["msg"].removeprefix("Value error, "), fix)  # pydantic's, before a validator's message


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


class AccessError(SSTMergeError):
    """Who asks may not do this, or may not name this file or folder."""

    exit_code = 7


class Cancelled(SSTMergeError):
    """The user asked the work to stop; everything finished so far is kept."""

    exit_code = 130

    def __init__(self, what: str = "job"):
        super().__init__(Problem(what, "cancelled", "Launch it again to resume where it stopped."))


_FREE = "Free some space (`sstmerge runs prune`, `sstmerge runs empty`), then launch it again: what is done is kept."
_RIGHTS = "Give this user the rights, or name another folder in SSTMERGE_WORKSPACE."
_DISK = {
    errno.ENOSPC: ("the disk is full", _FREE),
    errno.EDQUOT: ("this user's share of the disk is used up", _FREE),
    errno.EFBIG: ("the file is larger than this system allows", _FREE),
    errno.EROFS: ("the disk can only be read", "Have it mounted for writing, or name another in SSTMERGE_WORKSPACE."),
    errno.EACCES: ("this user may not open or write it", _RIGHTS),
    errno.EPERM: ("this user may not open or write it", _RIGHTS),
    errno.ENOTDIR: ("a part of its path is no folder", "Correct the path."),
    errno.EISDIR: ("is a folder, not a file", "Move that folder away."),
    errno.ENAMETOOLONG: ("the name is too long for the disk", "Give a shorter name."),
    errno.EIO: ("the disk answers with an error", "Have the disk checked; the system's log says more."),
    errno.EMFILE: ("this process has too many files open", "Raise the limit (`ulimit -n 4096`), then start it again."),
}
"""What a full, protected or broken disk answers; any other error of the system is a fault of ours"""


def disk_problem(error: OSError, where: str = "") -> Problem | None:
    """What a full, protected or broken disk said, and what to do; None for any other error of the system.

    `where` stands for the file where the error names none.
    """
    if error.errno not in _DISK:
        return None
    place = error.filename if isinstance(error.filename, str) else where
    return Problem(place or "the workspace", *_DISK[error.errno])


def disk_fault(code: int) -> tuple[str, str]:
    """What is wrong and what to do, by a number of `errno` that `disk_problem` knows."""
    return _DISK[code]
