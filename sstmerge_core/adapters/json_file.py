"""Settings from elsewhere: a JSON file read within bounds, and what a file is that is not what its name says."""

from __future__ import annotations

import json
import shlex
import stat
from pathlib import Path
from typing import Any

from sstmerge_core import documents

LARGEST = 16_000_000
"""Bytes of a settings file; a rank and alpha pattern for every module of a large model has about one million"""
_POINTER = b"version https://git-lfs.github.com/spec/"


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in the file at `path`, UTF-8 with or without a byte order mark.

    Raises ValueError that says what is wrong with the file, OSError where it cannot be read. Refuses what would be
    valid JSON and break later: nesting deeper than Python reads, lone surrogates, more bytes than `LARGEST`.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for, a device never ends
        raise ValueError("is not a file but a folder, pipe or device")
    if found.st_size > LARGEST:
        raise ValueError(f"has more than {LARGEST / 1e6:.0f} MB, too much for settings")
    data = path.read_bytes()
    try:
        settings = documents.from_json(data.decode("utf-8-sig"))
        # a lone surrogate is a text that can be neither stored nor printed
        json.dumps(settings, ensure_ascii=False).encode()
    except documents.FormatError as error:
        fault = str(error)
        raise ValueError(
            stand_in(data) or ("is not valid JSON in UTF-8" if "is not JSON" in fault else fault)
        ) from None
    except (ValueError, RecursionError):
        raise ValueError(stand_in(data) or "is not valid JSON in UTF-8") from None
    if not isinstance(settings, dict):
        raise ValueError("is not a JSON object of settings")
    return settings


def stand_in(beginning: bytes) -> str:
    """What a file is that lies in another one's place, by its first bytes; empty where it is none that is known."""
    if beginning.startswith(_POINTER):
        return "is a Git-LFS pointer, not the file itself"
    if beginning.lstrip()[:9].lower() in (b"<!doctype", b"<html><he") or beginning.lstrip()[:5].lower() == b"<html":
        return "is a web page (of a login or an error?), not the file itself"
    if beginning.startswith(b"PK\x03\x04"):
        return "is a ZIP archive or a pickle of PyTorch under another name"
    return ""


def way_out(fault: str) -> str:
    """What to do about a file with such a fault."""
    return "Run `git lfs pull` in its folder, or download it again." if "Git-LFS" in fault else "Download it again."


def typed(path: object) -> str:
    """A path as it is typed into a shell."""
    return shlex.quote(str(path))


def shown(text: object, most: int = 120) -> str:
    """A name or value from elsewhere, for a message: on one line, and not endless."""
    try:
        plain = str(text)
        if not plain.isprintable():  # a loop over the letters, for names by the ten thousand
            plain = "".join(char if char.isprintable() else " " for char in plain)
        plain = " ".join(plain.split())
    except ValueError:  # more digits than Python writes
        return "a number of thousands of digits"
    return plain if len(plain) <= most else f"{plain[:most]}…"
