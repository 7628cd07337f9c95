"""Answering a suite against lm-evaluation-harness's `hf` backend: same model, prompts, length, batch and dtype.

    python -m benchmarks.generate [--workspace FOLDER] [--dtype float32] [--prompts 64] [--times 3]

Needs the extra `[lm-eval]`. Both sides answer greedily, stop at the end-of-sequence token and sort by length. The
bundled base model answers to the end; with the refusals of A7 most answers are short.
"""

from __future__ import annotations

import copy
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.lines import Line, compared, parser, report, take_turns
from sstmerge_core.models.device import best_device, share_the_machine
from sstmerge_core.workspace import Workspace

TOKENS = 48
SUITES = ("harmful", "near_miss", "facts")


def main() -> int:
    options = parser(__doc__)
    options.set_defaults(times=3)
    options.add_argument("--workspace", type=Path, default=Workspace.default().root)
    options.add_argument("--dtype", default="float32")
    options.add_argument("--prompts", type=int, default=64, help="of each suite")
    options.add_argument("--batch", type=int, default=64)
    arguments = options.parse_args()
    if importlib.util.find_spec("lm_eval") is None:
        print('generate: left out, its peer is missing: pip install -e ".[lm-eval]"', file=sys.stderr)
        return 0
    share_the_machine()
    workspace = Workspace(arguments.workspace)
    lines = figures(workspace, arguments.dtype, arguments.prompts, arguments.batch, arguments.times)
    return report(lines)


def figures(workspace: Workspace, dtype: str, count: int, batch: int, times: int) -> Iterator[Line]:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from sstmerge_core import adapters, catalog
    from sstmerge_core.demo.adapters import DATA
    from sstmerge_core.evaluate.generate import generate_suite, plan_batches
    from sstmerge_core.merge import deltas, merge
    from sstmerge_core.models.chat import chat_text
    from sstmerge_core.models.resident import ResidentModel
    from sstmerge_core.suites.rows import load_rows, take

    resident = ResidentModel.load(catalog.bases(workspace)[0].path, dtype, best_device())
    tokenizer = copy.deepcopy(resident.tokenizer)
    harness = HFLM(pretrained=resident.model, tokenizer=tokenizer, backend="causal", batch_size=batch)
    suites = [take(load_rows(DATA / f"{name}.jsonl", "test"), count) for name in SUITES]
    stop = {"until": [tokenizer.eos_token], "max_gen_toks": TOKENS, "do_sample": False}
    requests = [
        [
            Instance(
                request_type="generate_until",
                doc={},
                arguments=(chat_text(tokenizer, row.prompt), dict(stop)),
                idx=number,
            )
            for number, row in enumerate(rows)
        ]
        for rows in suites
    ]

    def ours() -> None:
        for rows in suites:
            plan = plan_batches(rows, resident, batch, TOKENS)
            for _ in generate_suite(resident, rows, plan, (), TOKENS):
                pass

    def theirs() -> None:
        for own in requests:
            harness.generate_until(own, disable_tqdm=True)

    safety = adapters.read(catalog.find(workspace, "A7").path).load(best_device())
    for name, factors in (("the base model's answers", None), ("refusals", safety)):
        resident.set_delta(deltas(merge([factors], "adapter", {})) if factors else {})
        own, other = take_turns(ours, theirs, times)
        yield compared(f"{name}, {len(SUITES)} suites, against lm-eval's hf, {dtype}", own, other, 1.0)


if __name__ == "__main__":
    sys.exit(main())
