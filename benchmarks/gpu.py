"""Everything that is promised of one GPU, in one run of at most 8 minutes; JSON lines.

    python -m benchmarks.gpu [--minutes 8] [--only tests agree pass gevp ties sst sweep generate] > gpu.jsonl

NOT YET RUN ON A GPU: this was written and read on a machine without one. Without a CUDA device it ends with code 2.

- "tests": the tests marked gpu.
- "agree": logits of a random 1B model in float32 on CPU and CUDA, largest difference over the largest; at most 1e-5.
- "pass": per-sample gradients against a plain forward and backward pass, 1B in bfloat16; at most 1.15.
- "gevp": 500 + 500 samples, d = 229,376, from gradients to the patch; at most 0.5 s.
- "ties": TIES on two dense ΔW of an 8B's modules, one after another: against two CPU cores (one layer, times 32), at
  most 1/20; and against the least time in which the card can read two float32 and write one, at most 1/0.6.
- "sst": an 8B-shaped random model in bfloat16, 500 + 500 samples of 512 tokens: gradients and patch, at most 120 s and
  22 GB of the card.
- "sweep": ten strengths against one, from those gradients; at most 1.2.
- "generate": answers of that model with a merge beside its weights, against `model.generate` on the base, at most 1.15;
  and against vLLM where it is installed, told without a limit.

A figure that the time left does not allow is told as skipped, never guessed. What is slow comes last.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import memory
from benchmarks.lines import Line, compared, parser, report, take_turns, within
from sstmerge_core.models.device import share_the_machine

SAMPLES, LENGTH, STRENGTHS = 500, 512, [0.3 * number for number in range(1, 11)]
PROMPTS, NEW_TOKENS = 32, 64
NEEDS = {"tests": 90, "agree": 40, "pass": 40, "gevp": 20, "ties": 60, "sst": 200, "sweep": 20, "generate": 60}
"""Seconds that a figure should be given; guessed"""


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--minutes", type=float, default=8.0)
    options.add_argument("--only", nargs="+", choices=list(NEEDS), default=list(NEEDS))
    arguments = options.parse_args()
    share_the_machine()
    import torch

    if not torch.cuda.is_available():
        print("benchmarks.gpu: there is no CUDA device here", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        return report(figures(Bench(Path(folder), arguments)))


def figures(bench: Bench) -> Iterator[Line]:
    for name in bench.arguments.only:
        left = bench.ends - time.monotonic()
        if left < NEEDS[name]:
            print(
                json.dumps({"name": name, "skipped": f"{left:.0f} s are left, {NEEDS[name]} s are wanted"}), flush=True
            )
            continue
        try:
            yield from FIGURES[name](bench)
        except Exception as error:  # the other figures are wanted all the same
            print(json.dumps({"name": name, "failed": f"{type(error).__name__}: {error}"}), flush=True)


class Bench:
    """The models and what was found of them, made when first asked for."""

    def __init__(self, folder: Path, arguments: argparse.Namespace):
        self.folder, self.arguments = folder, arguments
        self.ends = time.monotonic() + 60 * arguments.minutes
        self.kept: dict[str, Any] = {}

    def model(self, name: str, sizes: dict[str, Any], dtype: str, device: str = "cuda") -> Any:
        from sstmerge_core.models.device import give_memory_back
        from sstmerge_core.models.resident import ResidentModel

        place = self.folder / name
        if not place.is_dir():
            memory.random_model(place, sizes)
        key = f"{name} {dtype} {device}"
        if key not in self.kept:
            self.kept = {key: None}  # one model at a time
            give_memory_back()
            self.kept[key] = ResidentModel.load(place, dtype, device)
        return self.kept[key]

    def pair(self, sizes: dict[str, Any], device: str = "cuda") -> list[Any]:
        from sstmerge_core import adapters

        found = []
        for seed, side in enumerate(("U", "S")):
            place = self.folder / f"{side}{sizes['hidden_size']}"
            if not place.is_dir():
                memory.random_adapter(place, memory.shapes(sizes), seed)
            found.append(adapters.read(place).load(device))
        return found


def tests(bench: Bench) -> Iterator[Line]:
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/models", "tests/merge", "tests/fisher"]
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, timeout=NEEDS["tests"])
    print(json.dumps({"name": "tests marked gpu", "told": done.stdout.strip().splitlines()[-1:]}), flush=True)
    failed = within("gpu: tests marked gpu, seconds", time.perf_counter() - begun, NEEDS["tests"])
    yield failed if done.returncode == 0 else failed | {"ratio": float("inf")}


def agree(bench: Bench) -> Iterator[Line]:
    """Logits of one and the same model, adapter on, on both devices."""
    import torch

    from sstmerge_core.fisher import expansion

    ids = torch.arange(5, 69)[None]
    found = []
    for device in ("cpu", "cuda"):
        resident = bench.model("1b", memory.SMALL, "float32", device)
        resident.set_delta(None, expansion.low_rank(bench.pair(memory.SMALL, device), [0.5, 0.5]))
        with torch.inference_mode():
            found.append(resident.model(ids.to(device)).logits.double().cpu())
    off = float((found[0] - found[1]).abs().max() / found[0].abs().max())
    yield within("gpu: logits on CPU and CUDA, float32, relative difference", off, 1e-5)


def fisher_pass(bench: Bench) -> Iterator[Line]:
    from benchmarks.fisher import forward_and_backward
    from sstmerge_core.fisher import core_gradients
    from sstmerge_core.space import core_space

    resident = bench.model("1b", memory.SMALL, "bfloat16")
    space, rows = core_space(bench.pair(memory.SMALL)), samples(32, 200)
    ours = partial(core_gradients, resident.model, resident.tokenizer, space, rows)
    peer = partial(forward_and_backward, resident.model, resident.tokenizer, rows)
    yield compared("gpu: fisher pass, 1B in bf16, against forward and backward", *take_turns(ours, peer, 3), 1.15)


def gevp(bench: Bench) -> Iterator[Line]:
    from benchmarks.fisher import gevp as sides

    ours, _ = sides("cuda")
    seconds, _ = take_turns(ours, lambda: None, 3)
    yield within("gpu: gevp 500+500, d=229376", seconds, 0.5)


def ties(bench: Bench) -> Iterator[Line]:
    """Module by module; what is timed reads two float32 updates and writes one."""
    import torch

    from sstmerge_core import methods
    from sstmerge_core.methods.sparsify import Cut

    function = methods.get("ties").function
    settings = methods.get("ties").own(methods.get("ties").complete({}))
    layer = [shape for name, shape in memory.shapes(memory.LARGE).items() if ".0." in name]

    def seconds(device: str) -> float:
        total = 0.0
        for shape in layer:
            tensors = [torch.randn(shape, device=device) for _ in range(2)]
            cuts = [Cut(torch.Generator().manual_seed(seed)) for seed in (1, 2)]
            total += take_turns(partial(function, tensors, (0.7, 0.3), cuts, **settings), lambda: None, 2)[0]
        return total

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    on_cpu = seconds("cpu")
    torch.set_num_threads(threads)
    own = 32 * seconds("cuda")
    yield compared("gpu: ties on ΔW of an 8B, against two CPU cores", own, 32 * on_cpu, 1 / 20)
    numbers = 32 * sum(height * width for height, width in layer)
    block = torch.empty(1 << 28, device="cuda")
    copied = take_turns(lambda: block.clone(), lambda: None, 5)[0]
    floor = 3 * 4 * numbers / (2 * 4 * block.numel() / copied)
    yield compared("gpu: ties on ΔW of an 8B, against its bandwidth floor", own, floor, 1 / 0.6)


def sst(bench: Bench) -> Iterator[Line]:
    """Gradients of all samples at base + ΔU, and the patch; the model is loaded before."""
    import torch

    from sstmerge_core.fisher import core_gradients, expansion
    from sstmerge_core.merge import Calibrated, merge
    from sstmerge_core.space import core_space

    resident = bench.model("8b", memory.LARGE, "bfloat16")
    pair = bench.pair(memory.LARGE)
    torch.cuda.reset_peak_memory_stats()
    begun = time.perf_counter()
    resident.set_delta(None, expansion.low_rank(pair, expansion.weights("utility", 2)))
    space = core_space(pair)
    # as on a card of 24 GB: what the weights leave of it
    room = max(1 << 30, (24 << 30) - torch.cuda.memory_allocated()) // 2
    both = [
        core_gradients(resident.model, resident.tokenizer, space, samples(SAMPLES, seed), max_length=LENGTH, room=room)
        for seed in (100, 101)
    ]
    calibrated = Calibrated(space, both[0], both[1])
    merge(pair, "sst_gevp", {"alpha": 1.0, "k": 48}, calibrated=calibrated)
    torch.cuda.synchronize()
    seconds = time.perf_counter() - begun
    bench.kept["calibrated"] = calibrated
    yield within("gpu: 8B in bf16, SST of 500+500 samples of 512 tokens", seconds, 120.0)
    most = torch.cuda.max_memory_reserved()
    yield compared("gpu: 8B in bf16, SST, peak against 22 GB", most, 22e9, 1.0, "bytes")


def sweep(bench: Bench) -> Iterator[Line]:
    from sstmerge_core.merge import merge

    calibrated = bench.kept.get("calibrated")
    if calibrated is None:
        raise RuntimeError("the gradients of sst are missing")
    pair = bench.pair(memory.LARGE)

    def points(count: int) -> None:
        solved: dict[Any, Any] = {}
        for alpha in STRENGTHS[:count]:
            merge(pair, "sst_gevp", {"alpha": alpha, "k": 48}, calibrated=calibrated, memory=solved).factors()

    ours, peer = take_turns(partial(points, len(STRENGTHS)), partial(points, 1), 2)
    yield compared("gpu: sweep of 10 strengths, against one merge, 8B", ours, peer, 1.2)


def generate(bench: Bench) -> Iterator[Line]:
    """Both decode greedily, and the same number of tokens: a random model hardly ever ends by itself."""
    import torch

    from sstmerge_core.fisher import expansion

    resident = bench.model("8b", memory.LARGE, "bfloat16")
    prompts = [" ".join(f"w{(7 * n + k) % 90}" for k in range(40)) for n in range(PROMPTS)]
    resident.set_delta(None, expansion.low_rank(bench.pair(memory.LARGE), [0.5, 0.5]))
    ids = resident.tokenizer([resident.chat(prompt) for prompt in prompts], return_tensors="pt").to("cuda")

    def peer() -> None:
        with torch.inference_mode():
            resident.model.generate(
                input_ids=ids["input_ids"],
                attention_mask=ids["attention_mask"],
                do_sample=False,
                max_new_tokens=NEW_TOKENS,
                pad_token_id=1,
            )

    def ours() -> None:
        resident.generate(prompts, NEW_TOKENS)

    seconds, theirs = take_turns(ours, peer, 2)
    yield compared("gpu: answers of an 8B, merge beside, against generate", seconds, theirs, 1.15)
    from sstmerge_core.evaluate import served

    if served.installed():
        bench.kept.clear()
        engine = served.ServedModel.load(bench.folder / "8b", "bfloat16", "cuda", 0)
        other = take_turns(lambda: engine.generate(prompts, NEW_TOKENS), lambda: None, 2)[0]
        told = {"name": "gpu: answers of an 8B, merge beside, against vLLM's base", "ours_s": seconds, "peer_s": other}
        print(json.dumps(told), flush=True)


def samples(count: int, seed: int) -> list[tuple[str, str]]:
    """Prompts that fill a sample of `LENGTH` tokens together with answers of half of it."""
    half = LENGTH // 2
    return [(f"w{seed % 90} " * LENGTH, " ".join(f"w{(seed + n) % 90}" for _ in range(half - 1))) for n in range(count)]


FIGURES: dict[str, Callable[[Bench], Iterator[Line]]] = {
    "tests": tests,
    "agree": agree,
    "pass": fisher_pass,
    "gevp": gevp,
    "ties": ties,
    "sst": sst,
    "sweep": sweep,
    "generate": generate,
}


if __name__ == "__main__":
    sys.exit(main())
