"""What judges that are models share: finding the model on this machine, and judging in batches.

Nothing is fetched: an absent model is an error that says how to get it. Weights are read from safetensors only, code
from a model's folder is never run. torch and transformers load with the first answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sstmerge_core.adapters import places
from sstmerge_core.errors import DataError, Problem, RecipeError
from sstmerge_core.evaluate.degenerate import degeneracy
from sstmerge_core.evaluate.judge import Pair, Verdict
from sstmerge_core.workspace import given_path

BATCH = 16
"""Answers that a model sees at once; of like length, so that little is padding."""


@dataclass(frozen=True)
class Checkpoint:
    """A model's folder, and what its verdicts are known by."""

    folder: Path
    name: str
    """Its name on the hub, or the folder's"""
    revision: str
    """First 12 digits of the hub's commit, or of the SHA-256 of configuration, tokenizer and weights"""

    def judge_id(self, kind: str) -> str:
        return f"{kind}:{self.name}@{self.revision}"


def find(model: str, kind: str) -> Checkpoint:
    """The checkpoint that `model` names: a folder, or ``org/name`` or ``org/name@revision`` in the hub's local cache.

    Raises RecipeError where nothing is named, DataError where it is not there or has no safetensors weights.
    """
    from sstmerge_core.adapters.fingerprint import base_fingerprint

    if not model:
        raise RecipeError(Problem(f"judge {kind}", "no model is named", f"Write {kind}:FOLDER or {kind}:ORG/NAME."))
    folder = given_path(model)
    if folder.is_dir():
        folder = places.snapshot(folder.resolve())
        _check(folder, model)
        if repository := places.repository(folder):
            return Checkpoint(folder, repository, folder.name[:12])
        return Checkpoint(folder, folder.resolve().name, base_fingerprint(folder)[:12])
    name, _, revision = model.partition("@")
    snapshot = _cached(name, revision, kind)
    _check(snapshot, model)
    return Checkpoint(snapshot, name, snapshot.name[:12])


def _cached(name: str, revision: str, kind: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    get = f"hf download {name}{f' --revision {revision}' if revision else ''}"
    try:
        return Path(snapshot_download(name, revision=revision or None, local_files_only=True))
    except HFValidationError as error:
        fix = f"Write {kind}:FOLDER with a folder that exists, or {kind}:ORG/NAME."
        raise DataError(
            Problem(f"model {name}", "there is no such folder, and it is no name on the hub", fix)
        ) from error
    except LocalEntryNotFoundError as error:
        fix = (
            f"Get it with `{get}` (where its page https://huggingface.co/{name} asks for consent, give it there and "
            f"run `hf auth login` first), or name a folder: {kind}:FOLDER."
        )
        raise DataError(Problem(f"model {name}", "is not on this machine", fix)) from error


def _check(folder: Path, model: str) -> None:
    if not (folder / "config.json").is_file():
        raise DataError(Problem(f"model {model}", "has no config.json", "Give the folder of a complete model."))
    if not list(folder.glob("*.safetensors")):
        fix = "Convert it to safetensors; files of other kinds can run code when they are read."
        raise DataError(Problem(f"model {model}", "has no safetensors weights", fix))


def judged(judge_id: str, pairs: Sequence[Pair], score: Callable[[Sequence[Pair]], list[Verdict]]) -> list[Verdict]:
    """Verdicts in the order of `pairs`: the others by `score`, in batches of like length, after the degenerate ones.

    Degenerate text is told by rules, as with every judge here: a model would call gibberish harmless.
    """
    found: dict[int, Verdict] = {}
    for index, (_, response) in enumerate(pairs):
        if reason := degeneracy(response):
            found[index] = Verdict("degenerate", 0.0, reason, judge_id)
    rest = [index for index in range(len(pairs)) if index not in found]
    for batch in _batches(sorted(rest, key=lambda index: -sum(map(len, pairs[index])))):
        found |= zip(batch, score([pairs[index] for index in batch]), strict=True)
    return [found[index] for index in range(len(pairs))]


def _batches(indices: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(indices), BATCH):
        yield indices[start : start + BATCH]
