"""An adapter folder as one file to hand on, and back: files that somebody sends, checked before they are kept."""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from sstmerge_core import words
from sstmerge_core.adapters.places import CONFIG, PICKLE, WEIGHTS
from sstmerge_core.adapters.write import RECORD
from sstmerge_core.errors import AdapterError, Problem

FILES = (CONFIG, WEIGHTS, RECORD)
"""What is taken of an adapter from elsewhere: settings, weights, and this program's own record where there is one"""
LARGEST = 4_000_000_000
"""Bytes of an adapter's files together; a LoRA of rank 64 on a model of 70 billion parameters has about 3 GB"""
_CHUNK = 1 << 20


def zip_adapter(folder: Path) -> bytes:
    """The files of an adapter folder as a ZIP archive, stored uncompressed (weights do not shrink).

    Raises AdapterError where the folder is gone.
    """
    if not folder.is_dir():
        fix = "Its merge can be launched again; the same recipe gives the same adapter."
        raise AdapterError(Problem(str(folder), "the merged adapter is not on this machine", fix))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    return buffer.getvalue()


def unpack(sent: Sequence[tuple[str, IO[bytes]]], folder: Path, *, largest: int = LARGEST) -> None:
    """Write an adapter's files into `folder`: out of one ZIP archive, or sent one by one under their own names.

    Of an archive the settings' own folder is taken, wherever it lies; nothing but `FILES` is written, under their plain
    names. Raises AdapterError naming the file at fault.
    """
    archives = [(name, file) for name, file in sent if name.lower().endswith(".zip")]
    if archives and len(sent) > 1:
        fault = f"was sent together with {words.count(len(sent) - 1, 'other file')}"
        raise AdapterError(Problem(archives[0][0], fault, "Send one ZIP archive, or the files without it."))
    if archives:
        _unzip(*archives[0], folder, largest)
    else:
        _take(sent, folder, largest)


def _unzip(name: str, file: IO[bytes], folder: Path, largest: int) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            members = _members(name, archive)
            size = sum(member.file_size for member in members)
            if size > largest:
                raise _too_large(name, size, largest)
            for member in members:
                if member.flag_bits & 1:
                    raise AdapterError(Problem(f"{name}: {member.filename}", "is encrypted", "Zip it without."))
                with archive.open(member) as source:
                    # what the archive says of sizes need not be true
                    _copy(source, folder / PurePosixPath(member.filename).name, member.file_size, name)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, ValueError) as error:
        fault = f"is not a ZIP archive that can be read ({error})"
        raise AdapterError(Problem(name, fault, "Zip the adapter's folder again.")) from None


def _members(name: str, archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The adapter's files in an archive that holds exactly one adapter."""
    found = [member for member in archive.infolist() if not member.is_dir() and "__MACOSX" not in member.filename]
    homes = [PurePosixPath(member.filename).parent for member in found if _plain(member) == CONFIG]
    if not homes:
        raise AdapterError(Problem(name, f"holds no {CONFIG}", "Zip the folder that PEFT saved."))
    if len(homes) > 1:
        fault = f"holds {len(homes)} adapters: {', '.join(str(home) for home in homes[:4])}"
        raise AdapterError(Problem(name, fault, "Zip one adapter's folder."))
    beside = {_plain(member): member for member in found if PurePosixPath(member.filename).parent == homes[0]}
    _check_names(name, list(beside))
    return [beside[wanted] for wanted in FILES if wanted in beside]


def _take(sent: Sequence[tuple[str, IO[bytes]]], folder: Path, largest: int) -> None:
    names = [Path(name).name for name, _ in sent]
    if strange := [name for name in names if name not in (*FILES, PICKLE)]:
        fix = f"Send {CONFIG} and {WEIGHTS}, or one ZIP archive of the folder."
        raise AdapterError([Problem(name, "is no file of a PEFT adapter", fix) for name in strange])
    if CONFIG not in names:
        raise AdapterError(Problem(CONFIG, "was not sent", f"Send it together with {WEIGHTS}."))
    _check_names("", names)
    left = largest
    for name, file in sent:
        left -= _copy(file, folder / Path(name).name, left, name, largest)


def _check_names(where: str, names: Sequence[str]) -> None:
    """The weights are there, and not as a pickle."""
    if WEIGHTS not in names:
        pickled = PICKLE in names
        fault = f"is missing; {PICKLE} is a pickle, which can run code" if pickled else "is missing"
        fix = "Save it with safe_serialization=True." if pickled else "Send the whole folder."
        raise AdapterError(Problem(": ".join(filter(None, [where, WEIGHTS])), fault, fix))


def _copy(source: IO[bytes], target: Path, most: int, where: str, largest: int | None = None) -> int:
    """Copy at most `most` bytes; returns how many. Raises AdapterError where there are more."""
    size = 0
    with target.open("wb") as file:
        while chunk := source.read(_CHUNK):
            size += len(chunk)
            if size > most:
                raise _too_large(where, size, most if largest is None else largest)
            file.write(chunk)
    return size


def _too_large(where: str, size: int, largest: int) -> AdapterError:
    fault = f"holds more than {words.size(largest)}" if size > largest else "is larger than it says"
    return AdapterError(Problem(where, fault, "Copy the folder to this machine and add it by its path."))


def _plain(member: zipfile.ZipInfo) -> str:
    return PurePosixPath(member.filename).name


def free_space(folder: Path) -> int:
    """Bytes free where `folder` is, or will be."""
    here = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return shutil.disk_usage(here).free
