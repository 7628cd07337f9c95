"""Gradients on disk while they are being computed: a pass that was killed goes on at its next batch, with equal bits.

The rows lie in a safetensors file from the first batch on, so that neither the pass nor what reads it needs all of them
in memory: what is read again is a mapping of the file.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sstmerge_core.adapters.safetensors_header import TensorHeader
from sstmerge_core.adapters.safetensors_writer import layout
from sstmerge_core.workspace import seal, sync, write_json

if TYPE_CHECKING:
    import torch

FILE, SHAPES, JOURNAL, ABOUT = "gradients.safetensors", "shapes.json", "done.jsonl", "about.json"


@dataclass
class Partial:
    """Rows (n, d) of samples, and their response tokens, of which some are there."""

    folder: Path
    done: set[int] = field(default_factory=set)
    """Samples whose rows are on disk"""
    _file: int = -1
    _places: Mapping[str, TensorHeader] = field(default_factory=dict)

    def begin(self, n: int, shapes: Mapping[str, tuple[int, int]], about: Mapping[str, Any]) -> None:
        """Go on with what is there, where it is of the same samples, modules and way of computing; else start anew."""
        width = sum(p * q for p, q in shapes.values())
        plan = layout({"rows": ("F32", (n, width)), "tokens": ("F32", (n,))})
        self._places = plan.tensors
        wanted = json.loads(json.dumps({"n": n, "shapes": list(shapes.items()), "about": dict(about)}))
        path = self.folder / FILE
        if not (path.is_file() and path.stat().st_size == plan.bytes and _read(self.folder / ABOUT) == wanted):
            for name in (JOURNAL, ABOUT, FILE):
                (self.folder / name).unlink(missing_ok=True)
            with path.open("wb") as file:
                file.write(plan.header)
                file.truncate(plan.bytes)
            write_json(self.folder / SHAPES, {"shapes": [[name, *shape] for name, shape in shapes.items()]})
            write_json(self.folder / ABOUT, wanted)
        self._file = os.open(path, os.O_RDWR)
        self.done = set(_journal(self.folder / JOURNAL, n))

    def write(self, chosen: Sequence[int], rows: torch.Tensor, tokens: torch.Tensor) -> None:
        """Put one batch's rows (b, d) and token counts (b,) on disk, and only then note that they are there."""
        rows, tokens = rows.float().cpu().contiguous(), tokens.float().cpu()
        for place, index in enumerate(chosen):
            for name, values in (("rows", rows[place]), ("tokens", tokens[place : place + 1])):
                size = 4 * values.numel()
                _write_all(self._file, values.numpy().tobytes(), self._places[name].start + index * size)
        os.fsync(self._file)
        with (self.folder / JOURNAL).open("a") as journal:
            journal.write(json.dumps(list(chosen)) + "\n")
            journal.flush()
            os.fsync(journal.fileno())
        self.done |= set(chosen)

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows and tokens as they are on disk, the rows as a mapping."""
        from safetensors import safe_open

        with safe_open(self.folder / FILE, framework="pt") as file:
            return file.get_tensor("rows"), file.get_tensor("tokens")

    def finish(self, folder: Path, parts: Mapping[str, Any]) -> None:
        """Make it the finished entry at `folder`."""
        os.close(self._file)
        self._file = -1
        write_json(self.folder / "parts.json", dict(parts))
        for name in (JOURNAL, ABOUT):
            (self.folder / name).unlink(missing_ok=True)
        seal(self.folder)
        sync(self.folder)
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(self.folder, folder)
        sync(folder.parent)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


@contextmanager
def under_way(folder: Path) -> Iterator[Partial | None]:
    """What is being computed for the entry at `folder`; None where another process is at it, which then has its own."""
    place = folder.with_name(f"{folder.name}.partial")
    place.mkdir(parents=True, exist_ok=True)
    lock = os.open(place, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        found = Partial(place)
        try:
            yield found
        finally:
            found.close()
    finally:
        os.close(lock)


def _write_all(descriptor: int, data: bytes, position: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, position)
        view, position = view[written:], position + written


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _journal(path: Path, n: int) -> Iterator[int]:
    """The samples noted; a last line that was cut off by a kill is none, and is taken away."""
    try:
        text = path.read_text()
    except OSError:
        return
    whole, _, rest = text.rpartition("\n")
    if rest:
        path.write_text(f"{whole}\n" if whole else "")
    for line in whole.splitlines():
        yield from (index for index in json.loads(line) if 0 <= index < n)
