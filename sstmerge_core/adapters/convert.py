"""A plain LoRA of PEFT's of an adapter that is none: exact where its ΔW is of low rank, else with the stated error."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sstmerge_core.adapters import places, renamed
from sstmerge_core.adapters.by_peft import stand_in
from sstmerge_core.adapters.check import BaseModel, read_base
from sstmerge_core.adapters.json_file import read_object, shown
from sstmerge_core.adapters.places import CONFIG, MLX_WEIGHTS, PICKLE, WEIGHTS
from sstmerge_core.adapters.read import Adapter, read
from sstmerge_core.adapters.settings import is_convertible
from sstmerge_core.adapters.skeleton import spelling
from sstmerge_core.adapters.unpickle import unpickle
from sstmerge_core.adapters.write import RECORD, refuse_foreign, write_adapter
from sstmerge_core.errors import AdapterError, Problem, RecipeError
from sstmerge_core.workspace import given_path, new_folder, write_json


@dataclass(frozen=True)
class Converted:
    """An adapter folder that was made of another one."""

    path: Path
    adapter: Adapter
    was: str
    """What it was made of, such as ``LOKR``"""
    rank_error: float
    """‖ΔW − BA‖_F / ‖ΔW‖_F; 0 where the numbers are the same"""


def convert(source: str | Path, base: str | Path, out: str | Path, *, rank: int = 0) -> Converted:
    """Write a plain LoRA to `out` that stands for the adapter `source` on the model in folder `base`.

    `source` is a PEFT folder of any kind that moves weight matrices (DoRA, LoHa, LoKr, OFT, IA³, VeRA, AdaLoRA, trained
    tokens, modules_to_save, pickled weights), an MLX folder, or a file in kohya's format. Of MLX, kohya and pickles the
    numbers stay the same; of the others ΔW is factored, to `rank` where it is given. Raises AdapterError for what
    no LoRA stands for, RecipeError for a rank below 0, DataError for an unusable base.
    """
    if rank < 0:
        raise RecipeError(Problem("--rank", f"{rank} is no rank", "Give 1 or more, or leave it out."))
    place = places.snapshot(given_path(source, AdapterError).resolve())
    model, out = read_base(base), Path(out)
    refuse_foreign(out)
    if place.is_file() and place.name not in (CONFIG, WEIGHTS, PICKLE, MLX_WEIGHTS):
        return _of_file(place, model, out)
    place = place.parent if place.is_file() else place
    if not place.is_dir():
        raise AdapterError(Problem(str(place), "there is no such folder or file", "Give the folder of an adapter."))
    if not (place / CONFIG).is_file():
        raise AdapterError(places.no_adapter(place))
    try:
        config = read_object(place / CONFIG)
    except ValueError as error:
        raise AdapterError(places.damaged(place / CONFIG, error, "Export the adapter again.")) from None
    if (place / WEIGHTS).is_file():
        if config.get("peft_type") == "LORA" and renamed.is_kohya(place / WEIGHTS):
            return _of_file(place / WEIGHTS, model, out, config)
        return _of_peft(place, config, model, out, rank)
    if (place / PICKLE).is_file():
        return _of_pickle(place, config, model, out, rank)
    if (place / MLX_WEIGHTS).is_file():
        return _write(renamed.of_mlx(place / MLX_WEIGHTS, config, model), out, "an MLX adapter")
    raise AdapterError(Problem(str(place / WEIGHTS), "is missing", "Copy or download the whole folder."))


def _of_file(file: Path, base: BaseModel, out: Path, config: dict[str, Any] | None = None) -> Converted:
    try:
        known = renamed.is_kohya(file)
    except ValueError as error:
        raise AdapterError(places.damaged(file, error, "Copy or download the file again.")) from None
    if not known:
        raise AdapterError(Problem(str(file), "is not in kohya's format", "Give the folder of the adapter."))
    return _write(renamed.of_kohya(file, base, config), out, "an adapter in kohya's format")


def _of_pickle(folder: Path, config: dict[str, Any], base: BaseModel, out: Path, rank: int) -> Converted:
    with tempfile.TemporaryDirectory(prefix="sstmerge-") as name:
        temporary = Path(name)
        unpickle(folder / PICKLE, temporary / WEIGHTS)
        shutil.copyfile(folder / CONFIG, temporary / CONFIG)
        try:
            read(temporary)
        except AdapterError:
            return _of_peft(temporary, config, base, out, rank, where=folder)

        def fill(new: Path) -> None:
            shutil.copyfile(temporary / WEIGHTS, new / WEIGHTS)
            shutil.copyfile(temporary / CONFIG, new / CONFIG)

        return _keep(out, fill, "pickled weights")


def _of_peft(
    folder: Path, config: dict[str, Any], base: BaseModel, out: Path, rank: int, *, where: Path | None = None
) -> Converted:
    kind = shown(config.get("peft_type"), 40)
    if kind != "LORA" and not is_convertible(kind):
        fault = f"peft_type is {kind}; no LoRA stands for it"
        raise AdapterError(Problem(str(folder / CONFIG), fault, "Train a LoRA, DoRA, LoHa, LoKr, OFT or IA³ adapter."))
    if config.get("lora_bias"):
        fault = "adds a bias to lora_B (lora_bias); no LoRA stands for it"
        raise AdapterError(Problem(str(folder / CONFIG), fault, "Train with lora_bias=False."))
    try:
        made = stand_in(folder, config, base.path, rank)
    except AdapterError as error:
        if where is None:
            raise
        moved = [Problem(one.where.replace(str(folder), str(where)), one.fault, one.fix) for one in error.problems]
        raise AdapterError(moved) from None
    named = config.get("base_model_name_or_path")
    was = "DoRA" if kind == "LORA" and config.get("use_dora") else kind
    write_adapter(
        made.factors,
        out,
        base_name=named if isinstance(named, str) and named else base.name,
        embeddings=made.embeddings,
        fan_in_fan_out=made.fan_in_fan_out,
        spelling=spelling(base.path),
        record={"description": f"Converted from {was}, relative error {made.rank_error:.1e}"},
    )
    return Converted(out, read(out), was, made.rank_error)


def _write(made: renamed.Renamed, out: Path, was: str) -> Converted:
    from safetensors.torch import save_file

    def fill(new: Path) -> None:
        save_file(made.tensors, new / WEIGHTS, metadata={"format": "pt"})
        write_json(new / CONFIG, made.config)

    return _keep(out, fill, was)


def _keep(out: Path, fill: Callable[[Path], None], was: str) -> Converted:
    """A new folder, filled and read as an adapter before it is kept."""
    with new_folder(out) as new:
        fill(new)
        write_json(new / RECORD, {"description": f"Converted from {was}"})
        read(new)
    return Converted(out, read(out), was, 0.0)
