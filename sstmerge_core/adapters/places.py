"""Where an adapter or a base really lies in the folder that is given, and what the folder is if it is neither."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from sstmerge_core import documents
from sstmerge_core.adapters.json_file import read_object, shown, typed, way_out
from sstmerge_core.errors import DataError, Problem

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PICKLE = "adapter_model.bin"
MLX_WEIGHTS = "adapters.safetensors"
INDEX = "model.safetensors.index.json"
"""Which of several weight files of a base model has which tensor"""
DIFFUSERS_WEIGHTS = "pytorch_lora_weights.safetensors"
_REPOSITORY = re.compile(r"models--(?P<id>.+)")
_QUANTISED = re.compile(
    r"[-_.](unsloth[-_])?(bnb[-_])?([48]bit|gptq(-int[48])?|awq|fp8(-dynamic)?|gguf|int[48])(?=$|[-_.])"
)


def repository(folder: Path) -> str:
    """``org/name`` where the folder is a snapshot in the Hugging Face cache, empty elsewhere.

    Layout: ``models--org--name/snapshots/<commit>``.
    """
    if folder.parent.name != "snapshots":
        return ""
    match = _REPOSITORY.fullmatch(folder.parent.parent.name)
    return match["id"].replace("--", "/", 1) if match else ""


def called(folder: Path) -> str:
    """What to call an adapter or a base of this folder: its repository's or the folder's own name."""
    return repository(folder).rpartition("/")[2] or folder.name


def snapshot(folder: Path) -> Path:
    """The snapshot in a repository's folder of the Hugging Face cache (that of its main branch, or the only one).

    Any other folder is given back as it is.
    """
    if folder.name == "snapshots":
        folder = folder.parent
    if not _REPOSITORY.fullmatch(folder.name) or not (folder / "snapshots").is_dir():
        return folder
    try:
        return _existing(folder / "snapshots" / documents.read_text(folder / "refs" / "main").strip())
    except (OSError, ValueError):
        found = sorted(path for path in (folder / "snapshots").iterdir() if path.is_dir())
        return found[0] if len(found) == 1 else folder


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise ValueError
    return folder


def weight_files(base: Path) -> list[Path]:
    """The files that transformers loads a base model from: a folder may hold the same weights twice, or old ones.

    ``model.safetensors`` where it is there, else those that the index names, else every safetensors file. Raises
    DataError for an index that cannot be read, and one of which a file is missing.
    """
    whole, index = base / "model.safetensors", base / INDEX
    if whole.is_file():
        return [whole]
    if not index.is_file():
        return sorted(base.glob("*.safetensors"))
    try:
        names = sorted(set(read_object(index)["weight_map"].values()))
        if not names or any(Path(name).name != name for name in names):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        fault = "is no index of weight files"
        raise DataError(Problem(str(index), fault, "Copy or download the file again.")) from None
    if missing := [name for name in names if not (base / name).is_file()]:
        fault = f"{len(missing)} of the {len(names)} files that it names are not here, the first is {shown(missing[0])}"
        raise DataError(Problem(str(index), fault, "Download the model again, or copy all of its files."))
    return [base / name for name in names]


def short_name(name: str) -> str:
    """The last part of a hub id or path, for comparing names that differ only in where the model lay.

    A revision behind it (``org/name@main``, ``org/name/tree/main``) is left out.
    """
    parts = [part for part in re.split(r"[/\\]+", name.strip()) if part]
    if len(parts) > 2 and parts[-2] in ("tree", "blob", "resolve"):
        parts = parts[:-2]
    if parts and not parts[-1].startswith("@"):
        parts[-1] = parts[-1].partition("@")[0]
    for part in parts:
        if match := _REPOSITORY.fullmatch(part):
            return match["id"].rpartition("--")[2].lower()
    return parts[-1].lower() if parts else ""


def without_precision(name: str) -> str:
    """The short name without what says that the weights are quantised, as of ``…-bnb-4bit``."""
    return _QUANTISED.sub("", short_name(name))


_SHARD = re.compile(r"adapter_model-\d+-of-\d+\.(safetensors|bin)")
_HALF = (".incomplete", ".crdownload", ".part", ".partial", ".download", ".tmp", ".aria2")
_OTHERS = (".pt", ".pth", ".ckpt", ".bin", ".npz", ".safetensors", ".gguf", ".msgpack", ".h5")
_PACKED = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar", ".gz", ".zst")


def in_place_of_weights(folder: Path) -> tuple[str, str]:
    """Fault and fix for an adapter's folder without its weights, by what lies there in their place."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    if shards := [name for name in names if _SHARD.fullmatch(name)]:
        fault = f"is missing; {shown(shards[0])} is one of {len(shards)} shards"
        return fault, "Save it as one file: load it with PEFT, then save_pretrained."
    if half := [name for name in names if name.endswith(_HALF)]:
        return f"is missing; {shown(half[0])} is a download that was not finished", "Download it again."
    if others := [name for name in names if name.endswith(_OTHERS)]:
        fix = "Save it where it was trained with PEFT's save_pretrained."
        if others[0].endswith(".safetensors"):
            fix = f"If it is PEFT's own file under another name, call it {WEIGHTS}. {fix}"
        return f"is missing; {shown(others[0])} is there", fix
    return "is missing", "Copy or download the whole folder."


def is_packed(path: Path) -> bool:
    """Whether a file is an archive, by its name."""
    return path.name.lower().endswith(_PACKED)


def no_adapter(folder: Path) -> Problem:
    """What a folder without an adapter's settings is, and what to give instead."""
    where = str(folder)
    steps = _numbered(folder, lambda path: (path / CONFIG).is_file())
    if steps:
        fault = f"holds no adapter of its own, only checkpoints: {_list([path.name for path in steps])}"
        return Problem(where, fault, f"Give the newest, {steps[-1]}, or the one that you mean.")
    if inner := _folders(folder, lambda path: (path / CONFIG).is_file()):
        fault = f"holds no adapter of its own, only folders of adapters: {_list([path.name for path in inner])}"
        return Problem(where, fault, f"Give one of them, such as {inner[0]}.")
    whole = "Extract a LoRA of its difference to the base, as by `mergekit-extract-lora`, and give that."
    if (folder / "config.json").is_file():
        return Problem(where, "is a whole model, not an adapter", whole)
    if whole_steps := _numbered(folder, lambda path: (path / "config.json").is_file()):
        return Problem(where, f"holds checkpoints of whole models ({whole_steps[-1].name}), not of an adapter", whole)
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    if DIFFUSERS_WEIGHTS in files:
        fix = "This program merges adapters of language models."
        return Problem(where, f"holds {DIFFUSERS_WEIGHTS}, an adapter of an image model in diffusers' format", fix)
    if ggufs := [name for name in files if name.endswith(".gguf")]:
        fix = "Give the PEFT folder that it was converted from."
        return Problem(where, f"holds {shown(ggufs[0])}, an adapter in llama.cpp's format", fix)
    if MLX_WEIGHTS in files:
        fix = f"Copy the {CONFIG} that MLX wrote beside it."
        return Problem(where, f"holds {MLX_WEIGHTS} of MLX without its settings", fix)
    if others := [name for name in files if name.endswith(".safetensors") and name != WEIGHTS]:
        fault = f"holds no {CONFIG}; {shown(others[0])} alone is an adapter of another trainer"
        fix = f"`sstmerge adapters convert {typed(folder / others[0])} --base BASE --out DIR` reads kohya's format."
        return Problem(where, fault, fix)
    return _no_adapter_at_all(folder, files)


def _no_adapter_at_all(folder: Path, files: list[str]) -> Problem:
    where = str(folder)
    if WEIGHTS in files or PICKLE in files:
        fix = "Copy the one that was saved beside it; rank and α cannot be told from the weights."
        return Problem(str(folder / CONFIG), "the file is missing, while the weights are there", fix)
    if packed := [name for name in files if is_packed(folder / name)]:
        return Problem(where, f"holds {shown(packed[0])}, which is packed", "Unpack it and give the adapter's folder.")
    trained = {
        ".distcp": ("a distributed checkpoint of PyTorch", "Save the adapter with PEFT's save_pretrained."),
        ".nemo": ("a checkpoint of NeMo", "Export it to Hugging Face's format with NeMo's own converter."),
        ".ckpt": ("a checkpoint of Lightning", "Save the adapter with PEFT's save_pretrained."),
        ".pt": ("a checkpoint of PyTorch", "Save the adapter with PEFT's save_pretrained."),
    }
    for ending, (what, fix) in trained.items():
        if found := next((name for name in files if name.endswith(ending)), ""):
            return Problem(where, f"holds {shown(found)}, {what}, and no adapter", fix)
    if "zero_to_fp32.py" in files:
        fix = "Run its zero_to_fp32.py, then save the adapter with PEFT's save_pretrained."
        return Problem(where, "holds a checkpoint of DeepSpeed, and no adapter", fix)
    inner = sorted(path.parent for path in folder.glob(f"*/*/{CONFIG}"))[:6]
    if inner:
        names = [str(path.relative_to(folder)) for path in inner]
        fault = f"holds no adapter of its own, only folders of adapters: {_list(names)}"
        return Problem(where, fault, f"Give one of them, such as {inner[0]}.")
    fix = f"Give the folder that holds {CONFIG} and {WEIGHTS}."
    return Problem(str(folder / CONFIG), "the file is missing, so this is no PEFT adapter", fix)


def _numbered(folder: Path, wanted: Callable[[Path], bool]) -> list[Path]:
    """The folders ``checkpoint-<step>`` of a trainer, by step."""
    found = _folders(folder, lambda path: bool(re.fullmatch(r"checkpoint-\d{1,18}", path.name)) and wanted(path))
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def _folders(folder: Path, wanted: Callable[[Path], bool]) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and wanted(path))


def _list(names: list[str]) -> str:
    some = [shown(name, 60) for name in (names if len(names) <= 5 else [*names[:2], "…", *names[-2:]])]
    return ", ".join(some)


def damaged(path: Path, error: Exception, again: str = "") -> Problem:
    """The problem of a file that cannot be read; `again` is what to do where it is no stand-in for the real one."""
    fault = str(error)
    return Problem(str(path), fault, again if again and "not the file itself" not in fault else way_out(fault))
