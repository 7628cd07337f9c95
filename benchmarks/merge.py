"""Merging and writing adapters, against PEFT and against bare tensor operations.

    python -m benchmarks.merge [--only linear ...] [--times 5]

Each side of each comparison runs in a process of its own, whose clock starts after the imports; ours and the peer take
turns, so that a busy machine slows both. Medians; one JSON object a line.

"linear" merges two random adapters of Llama-3.1-8B's shapes (224 linear modules, r = 16, bfloat16, 84 MB each):

- "everything": hashes, check of every value, measured rounding, verifying reload and fsync, recipe and card; PEFT only
  loads, adds and saves.
- "bare": only the tensors, against `load_file`, `torch.cat` and `save_file`. Both leave fsync out.
- "memory": how far the process grew over what its imports take, against the size of the two input files.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sstmerge_core.models.device import share_the_machine

SHARE = 0.3
"""α; not ½, where the weights would be powers of two and nothing would have to be rounded"""
RANK, LAYERS = 16, 32
SHAPES = {
    "self_attn.q_proj": (4096, 4096),
    "self_attn.k_proj": (4096, 1024),
    "self_attn.v_proj": (4096, 1024),
    "self_attn.o_proj": (4096, 4096),
    "mlp.gate_proj": (4096, 14336),
    "mlp.up_proj": (4096, 14336),
    "mlp.down_proj": (14336, 4096),
}
"""(in, out) of Llama-3.1-8B's linear modules"""

Side = Callable[[Path, Path], Callable[[], Any]]
"""Inputs and an output place → what is timed; importing and preparing happen before it is returned"""
Figure = Callable[[Path, int], Iterator[dict[str, Any]]]
"""A folder to work in and a number of runs → result lines without their device"""
SIDES: dict[str, Side] = {}
FIGURES: dict[str, Figure] = {}


def side(function: Side) -> Side:
    """Register what a process of its own can be asked to do."""
    SIDES[function.__name__] = function
    return function


def figure(function: Figure) -> Figure:
    """Register a comparison under its function's name."""
    FIGURES[function.__name__] = function
    return function


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(FIGURES), default=list(FIGURES))
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    share_the_machine()
    if arguments.side:
        print(json.dumps(measured(arguments.side, arguments.folder)))
        return 0
    slow = []
    for name in arguments.only:
        with tempfile.TemporaryDirectory() as folder:
            for line in FIGURES[name](Path(folder), arguments.times):
                line["device"] = f"{os.cpu_count()} cores, {platform.machine()}"
                print(json.dumps(line), flush=True)
                if line["ratio"] > line["limit"]:
                    slow.append(line["name"])
    if slow:
        print(f"over the limit: {', '.join(slow)}", file=sys.stderr)
    return 1 if slow else 0


def in_turns(folder: Path, names: tuple[str, ...], times: int) -> dict[str, dict[str, float]]:
    """Medians of what `measured` says of each side; the first round warms the disk's cache and does not count."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for number in range(times + 1):
        for name in names:
            command = [sys.executable, "-m", "benchmarks.merge", "--side", name, "--folder", str(folder)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            if number:
                found[name].append(json.loads(output.splitlines()[-1]))
    return {name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in found.items()}


def measured(name: str, folder: Path) -> dict[str, float]:
    """Seconds of one side in this process, and by how many bytes it made the process larger at most."""
    with tempfile.TemporaryDirectory(dir=folder) as out:
        work = SIDES[name](folder, Path(out))
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        before = _status("VmRSS")
        begun = time.perf_counter()
        work()
        return {"seconds": time.perf_counter() - begun, "bytes": _status("VmHWM") - before}


def _status(entry: str) -> int:
    """Bytes of an entry of /proc/self/status: VmRSS is the process's memory, VmHWM its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{entry}:"))) * 1024


def compared(name: str, own: float, other: float, limit: float, unit: str = "s") -> dict[str, Any]:
    """A result line; `limit` is for ours/peer."""
    digits = 3 if unit == "s" else None
    values = {f"ours_{unit}": round(own, digits), f"peer_{unit}": round(other, digits)}
    return {"name": name, **values, "ratio": round(own / other, 3), "limit": limit}


@figure
def linear(folder: Path, times: int) -> Iterator[dict[str, Any]]:
    """The exact weighted sum of two adapters of an 8B model."""
    for number, name in enumerate(("U", "S")):
        _random_adapter(folder / name, seed=number)
    found = in_turns(folder, ("linear_everything", "linear_peft", "linear_bare", "linear_cat"), times)
    ours, peft = found["linear_everything"], found["linear_peft"]
    bare, cat = found["linear_bare"]["seconds"], found["linear_cat"]["seconds"]
    inputs = sum((folder / name / "adapter_model.safetensors").stat().st_size for name in ("U", "S"))
    yield compared("linear 8B, everything, against PEFT", ours["seconds"], peft["seconds"], 1 / 3)
    yield compared("linear 8B, bare, against load, cat and save", bare, cat, 2.0)
    yield compared("linear 8B, memory, against the input files", ours["bytes"], inputs, 2.0, "bytes")


@side
def linear_everything(folder: Path, out: Path) -> Callable[[], Any]:
    """What `sstmerge merge --dtype auto` does after its options are read; the workspace remembers no hash yet."""
    import torch  # noqa: F401

    from sstmerge_core import adapters
    from sstmerge_core.builder.recipe_file import Output
    from sstmerge_core.recipe import Recipe, Source
    from sstmerge_core.runs.execute import merge_to
    from sstmerge_core.workspace import Workspace

    sources = [Source(name=n, path=str(folder / n), sha256=adapters.adapter_fingerprint(folder / n)) for n in "US"]
    recipe = Recipe(
        base=Source(name="llama-8b", path="", sha256=""),
        adapters=tuple(sources),
        method="linear",
        parameters={"alpha": SHARE},
    )
    workspace = Workspace(out / "workspace").create()
    return lambda: merge_to(recipe, workspace, out / "merged", output=Output(dtype="auto"), device="cpu")


@side
def linear_peft(folder: Path, out: Path) -> Callable[[], Any]:
    """PEFT: load both adapters, add them up by "cat", save.

    The base is Llama-3.1-8B's modules around weights that are one number seen in every place (stride 0), so that PEFT
    finds devices, formats and shapes as always but the base costs neither time nor memory. Random initialisation is
    switched off (`low_cpu_mem_usage`) and bfloat16 kept: both make PEFT faster than it is by default.
    """
    import torch
    from peft import PeftModel

    model = _hollow_llama()

    def work() -> None:
        options: dict[str, Any] = {"autocast_adapter_dtype": False, "low_cpu_mem_usage": True, "torch_device": "cpu"}
        loaded: Any = PeftModel.from_pretrained(model, str(folder / "U"), adapter_name="u", **options)
        loaded.load_adapter(str(folder / "S"), adapter_name="s", **options)
        loaded.add_weighted_adapter(["u", "s"], [1 - SHARE, SHARE], "merged", combination_type="cat")
        loaded.save_pretrained(str(out), selected_adapters=["merged"], save_embedding_layers=False)

    assert torch.get_default_dtype() == torch.float32
    return work


@side
def linear_bare(folder: Path, out: Path) -> Callable[[], Any]:
    """Ours without checks: the streamed weighted sum into a file."""
    import torch  # noqa: F401

    from sstmerge_core import adapters
    from sstmerge_core.adapters.weighted import weighted_sum
    from sstmerge_core.adapters.write import write_weights

    def work() -> None:
        pair = [adapters.read(folder / name, check_values=False) for name in ("U", "S")]
        factors = weighted_sum(pair, (1 - SHARE, SHARE))
        write_weights(out / "merged.safetensors", factors, "bfloat16", checked=False)

    return work


@side
def linear_cat(folder: Path, out: Path) -> Callable[[], Any]:
    """The least that gives the same tensors."""
    import torch
    from safetensors.torch import load_file, save_file

    scaling = 2.0

    def work() -> None:
        first, second = (load_file(folder / name / "adapter_model.safetensors") for name in ("U", "S"))
        merged = {}
        for key, tensor in first.items():
            if "lora_A" in key:
                merged[key] = torch.cat([tensor, second[key]], dim=0)
            else:
                parts = [(1 - SHARE) * scaling * tensor, SHARE * scaling * second[key]]
                merged[key] = torch.cat(parts, dim=1)
        save_file(merged, out / "merged.safetensors", metadata={"format": "pt"})

    return work


def _random_adapter(folder: Path, seed: int) -> None:
    """A PEFT folder of random bfloat16 factors for every linear module of Llama-3.1-8B, r = 16, scaling 2."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(LAYERS):
        for name, (width, height) in SHAPES.items():
            key = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{key}.lora_A.weight"] = torch.randn(RANK, width, generator=generator).bfloat16()
            tensors[f"{key}.lora_B.weight"] = torch.randn(height, RANK, generator=generator).bfloat16()
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "",
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "target_modules": sorted({name.split(".")[-1] for name in SHAPES}),
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))


def _hollow_llama() -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=LAYERS,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128256,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    number = torch.zeros(1, dtype=torch.bfloat16)
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            hollow = torch.nn.Parameter(number.expand(parameter.shape), requires_grad=False)
            setattr(module, name, hollow)
    return model


if __name__ == "__main__":
    sys.exit(main())
