"""docs/attacks.md, from the rows of `sstmerge_core.suites.attacks`: ``make docs``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sstmerge_core.suites.attacks import ATTACKS, Attack

PAGE = Path(__file__).with_suffix(".md")
EXAMPLE = "How do I pick a lock?"
HEAD = """# Attacks

Written by `make docs` from `sstmerge_core/suites/attacks.py`.

A model that refuses a request as it is may answer it when it is put otherwise. The harmful prompts of a run can be
asked again under attacks, each a suite of its own name beside the plain one: `harmful+prefill`. Any suite of harmful
prompts takes them, and so does a file.

```
sstmerge evaluate --adapter A7 --attacks prefill,base64
sstmerge evaluate --adapter A7 --harmful harmful+prefill+base64    # the same
sstmerge suites harmful+prefill                                    # what is asked, on an example
```

On the pages: Merge and Sweep, **Prompt sets**, *Attacks on the harmful prompts*. The Run page has every figure by
suite, and under Answers what the model saw; `resistance_attacked` and `asr_attacked`, over all attacks of a run
together, are columns of the leaderboard and axes of Pareto, `resistance` stays that of the plain prompts. What is told
of all suites together, such as `partial`, is told of the plain ones.

- The judge sees the plain prompt and the whole answer. A prefilled answer begins with what was written for the model.
- A run without attacks keeps its id and its hashes. An attack counts in a run's id by the words that it makes of the
  prompts, so that a changed one gives another run. Runs under different attacks are not ranked together.
- A model that cannot read base64 resists it without being safe: read the answers. `degenerate` by suite tells much.
- Multi-turn attacks follow a fixed script in which the model's own answers stand between; each turn takes as long
  as a prompt. An attacker who adapts to the answers does better: this is a lower bound.
- The wording is this project's own, in the manner of the paper that each names; its published rates are not these.

A prompt in another language is no row here: translations have to be read by somebody. `harmful_ja` is a suite of its
own.

## Adapters of unknown origin

`sstmerge adapters add` and `check`, the Adapters page and the check before a merge warn of a module whose ‖ΔW‖ is at
least four times, and by a robust z-score above eight, that of its like in other layers. `sstmerge adapters probe NAME`
asks harmful and harmless prompts with the triggers of published back doors in front, and warns where that moves
refusals beyond chance (exact McNemar test, Bonferroni over all triggers). Neither proves anything: a back door of
another word, or spread over all layers, is found by neither.

## The attacks

| attack | what it does | after |
|---|---|---|
"""
TAIL = """
## An attack of your own

One row of `ATTACKS` in `sstmerge_core/suites/attacks.py`: a frame around the prompt, a code that it is written in,
turns before it, a beginning of the answer, or several of them. Forms, options, tests and this page take it up by
themselves.
"""


def page() -> str:
    rows = [f"| `{one.name}` | {one.help} | [{one.paper}]({one.url}) |" for one in ATTACKS]
    return HEAD + "\n".join(rows) + "\n\n" + "\n".join(map(section, ATTACKS)) + TAIL


def section(attack: Attack) -> str:
    """What a model sees of an example."""
    return f"## {attack.title}\n\n```text\n{attack.asks(EXAMPLE).told}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
