"""Typed errors: each names where the fault is, what it is, and what to do about it."""

from __future__ import annotations

import difflib
import errno
import re
import sqlite3
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError


OF_SQLITE: tuple[type[Exception], ...] = (sqlite3.DatabaseError, UnicodeDecodeError)
"""What SQLite raises of a damaged file: the binding fails at its message where that quotes text which is damaged too"""


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
        where, fault, fix = (_not_endless(part) for part in (self.where, self.fault.rstrip("."), self.fix))
        return one_line(f"{where}: {fault}. {fix}".rstrip())


def _not_endless(text: str, most: int = 1_200) -> str:
    """A name, value or library's message may have any length; its middle is left out beyond `most` characters."""
    return text if len(text) <= most else f"{text[: most // 2]} … {text[-most // 2 :]}"


def one_line(text: str) -> str:
    """`text` as a terminal shows it on one line: names of files may hold line breaks, escape sequences, any bytes.

    Line breaks become a blank, other control characters and those that turn the direction of writing their escapes.
    """
    return visible(_BREAKS.sub(" ", text))


def visible(text: str) -> str:
    """`text` with escapes in place of what a terminal would obey and nobody would see; line feeds and tabs stay."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


_BREAKS = re.compile(r"\s*[\n\r\v\f\x1c-\x1f\x85\u2028\u2029]\s*")
_UNSEEN = re.compile(
    r"\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters, marks of direction, and halves of characters (bytes of a file's name that are no UTF-8)"""


def of_validation(
    error: ValidationError, where: str, fix: str, *, fields: Collection[str] = (), unsaid: Collection[str] = ()
) -> list[Problem]:
    """A problem for each of pydantic's complaints about what is at `where`, in our own words where pydantic's are its.

    A field that is none is answered with the nearest of `fields`, every other complaint but a missing field with
    `fix`. Parts of a place that are in `unsaid` are left out: pydantic names the branches of a union there.
    """
    return [_of_complaint(one, where, fix, fields, unsaid) for one in error.errors(include_url=False)]


def _of_complaint(found: Any, where: str, fix: str, fields: Collection[str], unsaid: Collection[str]) -> Problem:
    place = ".".join(str(part)[:100] for part in found["loc"] if part not in unsaid)
    at = f"{where}: {place}" if place else where
    if found["type"] == "missing":
        return Problem(at, "is missing", "Add the field.")
    if found["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(found["loc"][-1]), fields, 1, 0.6)
        return Problem(at, "is no field", f"Did you mean `{near[0]}`?" if near else fix)
    # it may repeat the value, whatever its length
    said = one_line(found["msg"].removeprefix("Value error, "))
    return Problem(at, said if len(said) <= 400 else f"{said[:399]}…", fix)  # pydantic's, before a validator's message


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


def disk_problem(error: BaseException, where: str = "") -> Problem | None:
    """What a full, protected or broken disk said, and what to do; None for any other error.

    `where` stands for the file where the error names none. safetensors tells what the system said in its text alone.
    """
    if isinstance(error, OSError):
        code, place = error.errno, error.filename if isinstance(error.filename, str) else where
    else:
        told = (
            re.search(r"\(os error (\d+)\)", str(error)) if type(error).__module__.startswith("safetensors") else None
        )
        code, place = int(told[1]) if told else None, where
    return Problem(place or "the workspace", *_DISK[code]) if code in _DISK else None


def lock_fault(error: OSError) -> tuple[str, str]:
    """What is wrong and what to do where a disk was asked to lock a file and did not, but because somebody has it."""
    fault = f"this disk locks no files ({error.strerror or error})"
    fix = "Have it mounted with locks (NFS: not `nolock`), or name a folder on a local disk in SSTMERGE_WORKSPACE."
    return fault, f"Without locks two programs could write there at once. {fix}"


def disk_fault(code: int) -> tuple[str, str]:
    """What is wrong and what to do, by a number of `errno` that `disk_problem` knows."""
    return _DISK[code]
