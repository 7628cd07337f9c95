"""From a file of prompts to its text: regular files only, of bounded size, in whichever encoding is sure. No torch.

Nothing is read whole here: a text comes as a stream, and what unpacks to more than `MOST_BYTES` is refused once it
does.
"""

from __future__ import annotations

import codecs
import gzip
import io
import os
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from sstmerge_core.errors import DataError, Problem

MOST_BYTES = 256 * 2**20
"""Of one file once unpacked"""
MOST_LINE = 16 * 2**20
"""Characters of one JSON line or one CSV cell"""
_CHUNK = 2**18
_MARKS = (  # the longer first: UTF-32's mark begins with UTF-16's
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_FOREIGN = {
    b"PK\x03\x04": ("is a ZIP archive or an Excel workbook", "Export it as CSV or JSONL."),
    b"PAR1": ("is a Parquet file", "Let its name end in .parquet."),
    b"BZh": ("is packed by bzip2", "Unpack it, or pack it by gzip."),
    b"\xfd7zXZ\x00": ("is packed by xz", "Unpack it, or pack it by gzip."),
    b"\x28\xb5\x2f\xfd": ("is packed by zstd", "Unpack it, or pack it by gzip."),
    b"version https://git-lfs": ("is a Git LFS pointer and not the file itself", "Run `git lfs pull` where it lies."),
}
"""Beginnings of files that are no text, and what to do"""


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a regular file, unpacked where it is gzipped, and an error past `MOST_BYTES`.

    Raises DataError for what is no regular file (a pipe would hang, a device never ends), too large, or broken.
    """
    try:
        # without waiting: opening a named pipe would hang until somebody writes to it
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(Problem(str(path), f"cannot be read: {reason}", _FIX)) from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        fault = "is not a regular file but a folder, pipe or device"
        raise DataError(Problem(str(path), fault, "Give the file itself."))
    with os.fdopen(handle, "rb") as raw:
        start = raw.read(32)
        raw.seek(0)
        packed = start.startswith(b"\x1f\x8b")
        for beginning, (fault, fix) in _FOREIGN.items():
            if start.startswith(beginning) and path.suffix.lower() != ".parquet":
                raise DataError(Problem(str(path), fault, fix))
        try:
            source: Any = gzip.GzipFile(fileobj=raw) if packed or path.suffix.lower() == ".gz" else raw
            with _Bounded(source, path) as bounded, io.BufferedReader(bounded, _CHUNK) as stream:
                yield stream
        except (OSError, EOFError, zlib.error) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise DataError(Problem(str(path), f"cannot be read: {reason}", _FIX)) from error


_TWO_BYTES = re.compile(rb"\x1b\$(?:[@AB]|\([CD])|\x1b\(I")
"""Escape sequences of ISO-2022 after which letters stand for others; those of terminals are text like any other"""


@contextmanager
def text(path: Path, encoding: str | None = None) -> Iterator[io.TextIOWrapper]:
    """A file as a stream of text whose line ends are as they stand. Without an `encoding`, that of `encoding_of`."""
    encoding = encoding or encoding_of(path)
    try:
        io.TextIOWrapper(io.BytesIO(), encoding=encoding)  # refuses base64 and rot13 too, which are codecs of no text
    except (LookupError, ValueError):
        fix = "Give for example utf-8 or cp932."
        raise DataError(Problem(str(path), f"no encoding is called {encoding!r}", fix)) from None
    with opened(path) as stream:
        try:
            with io.TextIOWrapper(stream, encoding=encoding, newline="") as wrapped:
                yield wrapped
        except UnicodeError as error:
            raise DataError(Problem(str(path), f"cannot be read as {encoding}: {error}", _ENCODING_FIX)) from None


def encoding_of(path: Path) -> str:
    """The encoding of a file's text: by its mark, UTF-8 where all of it is, or one of Japan's where only it fits.

    Single-byte encodings cannot be told from each other, so text in one of them is refused until it is named. Raises
    DataError.
    """
    with opened(path) as stream:
        start = stream.read(4096)
    for mark, name in _MARKS:
        if start.startswith(mark):
            if _fits(path, name):
                return name
            raise DataError(Problem(str(path), f"cannot be read: is not UTF-8 text, nor all of it {name}", _FIX))
    if _TWO_BYTES.search(start) and _fits(path, "ascii"):  # ISO-2022 has seven bits, and would pass for ASCII
        return _japanese(path, ("iso2022_jp",))
    if b"\0" in start:
        even, odd = start[::2].count(0), start[1::2].count(0)
        for zeros, others, name in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
            if zeros > 4 * others and zeros * 8 > len(start) and _fits(path, name):
                return name
        raise DataError(Problem(str(path), "cannot be read: is not UTF-8 text but binary (it has zero bytes)", _FIX))
    return "utf-8" if _fits(path, "utf-8") else _japanese(path, ("cp932", "euc_jp"))


def _japanese(path: Path, candidates: tuple[str, ...]) -> str:
    """The one candidate under which the text is Japanese. Raises DataError where none is, or several are."""
    found = [name for name in candidates if _looks_japanese(path, name)]
    if len(found) == 1:
        return found[0]
    fault = f"cannot be read: is not UTF-8 text{_first_fault(path)}, and its encoding is not sure"
    raise DataError(Problem(str(path), fault, _ENCODING_FIX))


def _looks_japanese(path: Path, name: str) -> bool:
    """Whether it decodes to kana beside ideographs and next to nothing else beyond ASCII.

    Half-width kana count against it: they are what other encodings' bytes turn into under Shift-JIS.
    """
    kana = japanese = beyond = 0
    try:
        for piece in _pieces(path, name):
            for letter in piece:
                if letter < "\x80":
                    continue
                beyond += 1
                kana += "\u3041" <= letter <= "\u30fc"
                japanese += "\u3000" <= letter <= "\u30fc" or "\u4e00" <= letter <= "\u9fff" or letter in _FULL_WIDTH
    except UnicodeError:
        return False
    return beyond > 0 and japanese >= 0.95 * beyond and kana >= 0.1 * beyond


_FULL_WIDTH = {chr(code) for code in range(0xFF01, 0xFF5F)} | set("…‥―─、。「」『』・①②③④⑤⑥⑦⑧⑨⑩→←↑↓×÷°※○●◎△▲□■☆★±≠≦≧∞")


def _fits(path: Path, name: str) -> bool:
    try:
        for _ in _pieces(path, name):
            pass
    except UnicodeError:
        return False
    return True


def _pieces(path: Path, name: str) -> Iterator[str]:
    """The whole text in pieces. Raises UnicodeError where it is no such text."""
    decoder = codecs.getincrementaldecoder(name)()
    with opened(path) as stream:
        while chunk := stream.read(_CHUNK):
            yield decoder.decode(chunk)
        yield decoder.decode(b"", final=True)


def _first_fault(path: Path) -> str:
    """Where UTF-8 ends, for a file with one wrong byte in the middle."""
    line = 1
    decoder = codecs.getincrementaldecoder("utf-8")()
    with opened(path) as stream:
        while chunk := stream.read(_CHUNK):
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                return f" (first in line {line + chunk.count(10, 0, max(error.start, 0))})"
            line += chunk.count(10)
    return ""


class _Bounded(io.RawIOBase):
    """Hands on what it reads, up to `MOST_BYTES`."""

    def __init__(self, source: IO[bytes], path: Path) -> None:
        self._source, self._path, self._read = source, path, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self._source.read(len(buffer))
        self._read += len(chunk)
        if self._read > MOST_BYTES:
            fault = f"has more than {MOST_BYTES >> 20} MiB of text once unpacked"
            raise DataError(Problem(str(self._path), fault, "Cut it into several files, or leave rows out."))
        buffer[: len(chunk)] = chunk
        return len(chunk)


_FIX = "Give a JSONL, JSON, CSV, Parquet or YAML file."
_ENCODING_FIX = "Save it as UTF-8, or name its encoding, such as `--columns encoding=cp1252`."
