"""The Fisher pass against a plain forward and backward pass, and the eigenvalue problem against one matrix product.

    python -m benchmarks.fisher [--workspace FOLDER] [--times 5] [--samples 48]

"fisher pass": per-sample gradients of every module at the bundled model, against a forward pass and a backward pass to
the input embeddings over the same batches with the same loss and frozen weights. "gevp": Gram matrices, spectrum and
patch of 500 + 500 random samples of 224 modules of 32 × 32, against one float32 product of as many operations as the
three Gram matrices take: 750 × d by d × 1000. Ours and the peer take turns; medians; one JSON object a line.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.lines import Line, compared, parser, report, take_turns
from sstmerge_core.models.device import best_device, share_the_machine
from sstmerge_core.workspace import Workspace

PASS_LIMIT, GEVP_LIMIT = 1.15, 1.5
BATCH = 8
SAMPLES, MODULES, SIDE = 500, 224, 32
PAIR = ("A5", "A7_balanced")

Pair = tuple[Callable[[], Any], Callable[[], Any]]


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--workspace", type=Path, default=Workspace.default().root)
    options.add_argument("--samples", type=int, default=48, help="harmful samples of the pass")
    options.add_argument("--only", choices=("pass", "gevp"))
    arguments = options.parse_args()
    share_the_machine()
    return report(figures(arguments))


def figures(arguments: argparse.Namespace) -> Iterator[Line]:
    place = best_device()
    if arguments.only != "gevp":
        pair = fisher_pass(Workspace(arguments.workspace), arguments.samples, place)
        yield compared("fisher pass", *take_turns(*pair, arguments.times), PASS_LIMIT)
    if arguments.only != "pass":
        name = f"gevp {SAMPLES}+{SAMPLES}, d={MODULES * SIDE**2}"
        yield compared(name, *take_turns(*gevp(place), arguments.times), GEVP_LIMIT)


def fisher_pass(workspace: Workspace, samples: int, device: str) -> Pair:
    """The pass over the bundled model and its plain peer."""
    from sstmerge_core import adapters
    from sstmerge_core.demo import model as demo_model
    from sstmerge_core.demo.adapters import ADAPTERS, DATA
    from sstmerge_core.fisher import core_gradients, expansion
    from sstmerge_core.models.resident import ResidentModel
    from sstmerge_core.space import core_space
    from sstmerge_core.suites.rows import load_rows

    resident = ResidentModel.load(demo_model.prepare(workspace), "float32", device)
    pair = [adapters.read(ADAPTERS[name].path).load() for name in PAIR]
    resident.set_delta(expansion.deltas(pair, expansion.weights("utility", 2)))
    space = core_space(pair)
    rows = [(row.prompt, row.response) for row in load_rows(DATA / "harmful.jsonl", "fisher")[:samples]]

    def ours() -> None:
        core_gradients(resident.model, resident.tokenizer, space, rows, batch_size=BATCH)

    return ours, lambda: forward_and_backward(resident.model, resident.tokenizer, rows)


def forward_and_backward(model: Any, tokenizer: Any, rows: Sequence[tuple[str, str]]) -> None:
    """The losses of `rows` and their gradients to the input embeddings, in the batches of `core_gradients`."""
    from sstmerge_core.models.supervised import collate, encode, sample_losses

    encoded = [encode(tokenizer, prompt, response, 256) for prompt, response in rows]
    order = sorted(range(len(rows)), key=lambda index: (len(encoded[index][0]), index))
    handle = model.get_input_embeddings().register_forward_hook(lambda module, inputs, output: output.requires_grad_())
    try:
        for start in range(0, len(order), BATCH):
            batch = collate([encoded[index] for index in order[start : start + BATCH]], tokenizer.pad_token_id)
            losses, _ = sample_losses(model, batch.to(model.device))
            losses.sum().backward()
    finally:
        handle.remove()


def gevp(device: str) -> Pair:
    """Everything from gradients to the patch's core matrices, and the product."""
    import torch

    from sstmerge_core.fisher import Gradients, dual_problem, primal

    width = MODULES * SIDE**2
    generator = torch.Generator(device).manual_seed(0)
    rows = torch.randn(2 * SAMPLES, width, generator=generator, device=device)
    shapes = {f"module.{index:03}": (SIDE, SIDE) for index in range(MODULES)}
    weights = torch.full((SAMPLES,), 1 / SAMPLES, dtype=torch.float64)
    harm, benign = (Gradients(half, shapes, torch.ones(SAMPLES), weights) for half in rows.split(SAMPLES))
    phi = {name: torch.randn(SIDE, SIDE, generator=generator, device=device).cpu() for name in shapes}

    def ours() -> dict[str, Any]:
        problem = dual_problem(harm, benign, phi, 0.1)
        filters = problem.zeros(problem.spectrum.rank)
        filters[:20] = 1 / problem.spectrum.eigenvalues[:20]
        patch = problem.from_filter(filters)
        return {name: primal(patch, harm, benign, phi[name], name) for name in phi}

    return ours, lambda: rows[: 3 * SAMPLES // 2] @ rows.T


if __name__ == "__main__":
    sys.exit(main())
