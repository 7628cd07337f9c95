"""docs/architectures.md, from the tests: every architecture and kind of adapter is tried when it is written."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.architectures import ARCHITECTURES, STEPS, measured

PAGE = Path(__file__).with_suffix(".md")
HEAD = """# Architectures and kinds of adapter

Written by `make docs`, which tries everything in it on a tiny random model of the installed transformers. *merge*:
the weighted sum of two adapters, loaded by PEFT, has the logits of the two ΔW in the weights. *gradients*: a Fisher
pass has autograd's numbers. *evaluate*: moved weights and side paths have PEFT's logits, and the base comes back bit
for bit. *dense*: the written model, loaded by transformers, has PEFT's logits. *page*: the Merge page offers it, or
says before a launch what is refused.

| architecture | adapter | merge | gradients | evaluate | dense | page |
|---|---|---|---|---|---|---|
"""
TAIL = """
A model that sees pictures or hears is loaded whole; its text part is found under each of the names that transformers
has given it, and an adapter of the text model alone fits too. Experts of a mixture are merged one by one:
`experts.3.down_proj`, and `experts.3.gate_up_proj`, gate above up. What is written of them is a stack, as PEFT has it
since transformers 5 (`target_parameters`), and so it loads there and in nothing older. What is called converted above
became a LoRA by `sstmerge adapters convert`, as the Adapters page does it.
Of `modules_to_save` the utility side's can be kept as they are instead (`--modules-to-save utility`), or all merged as
whole weights (`dense`).
"""


def rows(measured: Iterable[tuple[str, str, dict[str, str]]]) -> list[str]:
    """A row of the table for each kind of adapter."""
    return [f"| {title} | {kind} | {' | '.join(found[step] for step in STEPS)} |" for title, kind, found in measured]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        found = [row for name in ARCHITECTURES for row in rows(measured(name, Path(folder)))]
    PAGE.write_text(HEAD + "\n".join(found) + "\n" + TAIL)
