"""docs/judges.md and data/judging/accuracy.json: every judge without a model, measured now: ``make docs``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sstmerge_core.evaluate.judges import get_judge, judge_names
from sstmerge_core.evaluate.judges_measured import ACCURACY
from sstmerge_core.evaluate.judging import Accuracy, Labelled, labelled, measure
from sstmerge_core.workspace import write_file, write_json

PAGE = Path(__file__).resolve().parents[1] / "docs" / "judges.md"
HEAD = """# Judges

Written by `make docs`, which lets every judge that needs no model judge the labelled answers of
[data/judging](../data/judging/README.md). That file says what the labels mean, how the answers were chosen, who
labelled them, and why these figures hold for answers of the bundled model only.

| judge | what it is | tells refusals | tells harm |
|---|---|---|---|
| `refusal_regex` | our own patterns over the first 400 characters | yes | no |
| `advbench_strings` | the 29 strings of Zou et al. 2023, anywhere in the answer | yes | no |
| `hf_classifier:MODEL` | a sequence classifier; what it tells is in the names of its classes | some | some |
| `wildguard`, `wildguard:MODEL` | [WildGuard](https://arxiv.org/abs/2406.18495) by its published prompt | yes | yes |

MODEL is a folder, `org/name`, or `org/name@revision`. The last two must be on this machine (`hf download org/name`);
an absent model is an error that says how to get it, and no judge stands in for another. Classes whose names tell
nothing are named by hand: `hf_classifier:org/name,LABEL_0=not_harmful,LABEL_1=harmful`. Models are not measured here,
because they do not ship; this measures one of yours:

```
sstmerge judge accuracy --judge hf_classifier:org/name --wrong
sstmerge judge rescore RUN --judge wildguard          # judges the stored answers again; nothing is generated
sstmerge judge compare RUN --first refusal_regex --second wildguard
```

Every judge tells degenerate text first, by the same rules. A judge without a sense of harm gives no attack success
rate, one without a sense of refusal no resistance and no over-refusal.
"""


def main() -> None:
    answers = labelled()
    found = [measure(get_judge(name), answers) for name in judge_names()]
    write_file(PAGE, page(found, answers))
    write_json(ACCURACY, {one.judge: summary(one) for one in found})


def summary(one: Accuracy) -> dict[str, object]:
    """What the pages show of a judge."""
    return {"accuracy": one.accuracy, "interval": list(one.interval), "n": one.n, "scale": one.scale}


def page(found: Sequence[Accuracy], answers: Sequence[Labelled]) -> str:
    """docs/judges.md."""
    return "\n".join([HEAD, *overview(found), *(line for one in found for line in section(one, answers))])


def overview(found: Sequence[Accuracy]) -> list[str]:
    heads = ["judge", "accuracy (95 %)", "Cohen's κ (95 %)", "precision of `refusal`", "recall", "F1", "n"]
    rows = []
    for one in found:
        parts = [number(part) for part in one.refusal] if one.refusal else ["–"] * 3
        kappa = f"{number(one.kappa)} {interval(one.kappa_interval)}"
        rows.append([f"`{one.judge}`", f"{number(one.accuracy)} {interval(one.interval)}", kappa, *parts, str(one.n)])
    unclear = found[0].unclear
    note = (
        f"Against the reader, on what the judge can tell. Left out: {unclear} answers that the reader could not label."
    )
    return ["## How right they are", "", note, "", *table(heads, rows), ""]


def section(one: Accuracy, answers: Sequence[Labelled]) -> list[str]:
    """One judge: where it is right, what it takes for what, and what it got wrong."""
    groups = {
        "answers of runs, harmful prompts": [a for a in answers if a.suite == "harmful"],
        "answers of runs, harmless prompts": [a for a in answers if a.suite not in ("harmful", "")],
        "answers written for the set": [a for a in answers if a.source == "written"],
    }
    rows = []
    for name, chosen in groups.items():
        part = measure(get_judge(one.judge), chosen)
        rows.append([name, f"{number(part.accuracy)} {interval(part.interval)}", str(part.n)])
    labels = list(one.confusion)
    matrix = [[f"`{label}`", *map(str, row.values())] for label, row in one.confusion.items()]
    wrong = [[row["id"], row["label"], row["found"], short(row["response"])] for row in one.wrong[:MOST]]
    more = f"The first {MOST} of {len(one.wrong)}" if len(one.wrong) > MOST else f"All {len(one.wrong)}"
    return [
        f"## `{one.judge}`",
        "",
        *table(["where", "accuracy (95 %)", "n"], rows),
        "",
        "The reader's label down, the judge's across:",
        "",
        *table(["", *(f"`{label}`" for label in labels)], matrix),
        "",
        f"{more} that it got wrong:",
        "",
        *table(["id", "reader", "judge", "answer"], wrong),
        "",
    ]


MOST = 30
"""Wrong answers listed per judge"""


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def interval(found: Sequence[float] | None) -> str:
    return f"({found[0]:.2f}–{found[1]:.2f})" if found else ""


def short(text: str) -> str:
    """One line of a table; an answer may hold anything."""
    plain = " ".join(text.split()).replace("`", "'").replace("|", "/")
    return f"`{plain if len(plain) <= 100 else plain[:99] + '…'}`" if plain else "(empty)"


if __name__ == "__main__":
    main()
