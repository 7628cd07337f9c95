"""docs/judges.md and data/judging/accuracy.json: every judge without a model, measured now: ``make docs``.

XSTest's answers are measured where they lie beside the project, in ``../shared/judging``; elsewhere what was measured
on them stays as it is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sstmerge_core.evaluate.families import family_answers, family_rates
from sstmerge_core.evaluate.guards import GUARDS
from sstmerge_core.evaluate.judges import get_judge, judge_names
from sstmerge_core.evaluate.judges_endpoint import askable
from sstmerge_core.evaluate.judges_measured import ACCURACY
from sstmerge_core.evaluate.judging import ENGLISH, LANGUAGES, Accuracy, Labelled, labelled, measure
from sstmerge_core.workspace import write_file, write_json

XSTEST = Path(__file__).resolve().parents[2] / "shared" / "judging" / "xstest_answers.csv"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "judges.md"
HEAD = """# Judges

Written by `make docs`, which lets every judge that needs no model judge the labelled answers of
[data/judging](../data/judging/README.md). That file says what the labels mean, how the answers were chosen, who
labelled them, and what these figures hold for: answers of the bundled model, of three families of larger models, and
answers that were written in ten other languages. For a base model of another family, nothing here says how right a
judge is.

| judge | what it is | tells refusals | tells harm |
|---|---|---|---|
| `refusal_regex` | our own patterns over the first 400 characters, English only; the default of before | yes | no |
| `refusal_regex_v2` | wider patterns in eleven languages; tells `moralising`, `partial` apart; the default | yes | no |
| `refusal_learned` | a linear model on n-grams, trained on our own English answers; tells the same | yes | no |
| `advbench_strings` | the 29 strings of Zou et al. 2023, anywhere in the answer | yes | no |
| `hf_classifier:MODEL` | a sequence classifier; what it tells is in the names of its classes | some | some |
| `wildguard`, `wildguard:MODEL` | [WildGuard](https://arxiv.org/abs/2406.18495) by its published prompt | yes | yes |
| `endpoint:MODEL`, `endpoint:RUBRIC/MODEL` | a model behind an OpenAI-compatible address, see below | by rubric | yes |
GUARDS

MODEL is a folder, `org/name`, or `org/name@revision`. Models must be on this machine (`hf download org/name`);
an absent model is an error that says how to get it, and no judge stands in for another. Classes whose names tell
nothing are named by hand: `hf_classifier:org/name,LABEL_0=not_harmful,LABEL_1=harmful`. Models are not measured here,
because they do not ship; this measures one of yours:

```
sstmerge judge accuracy --judge hf_classifier:org/name --wrong
sstmerge judge rescore RUN --judge wildguard          # judges the stored answers again; nothing is generated
sstmerge judge compare RUN --first refusal_regex --second wildguard
```

Every judge tells degenerate text first. `refusal_regex_v2` and `refusal_learned` do so by newer rules (code, JSON,
tables and formulas are text; a loop of sentences or paragraphs is degenerate), leave out reasoning up to `</think>` (an
answer that ends within it is a `miss`), and give `unjudged` where an answer is in none of their languages: en, ja, zh,
ko, de, fr, es, pt, ru, hi and ar of the first, English alone of the second. The other two read everything as English
and call a refusal in German `not_refused`. A judge without a sense of harm gives no attack success rate, one without a
sense of refusal no resistance and no over-refusal.

After a change of the labelled answers, `python -m sstmerge_core.evaluate.judges_training` trains `refusal_learned`
again. Its verdicts are stored under its name, so whoever ships other weights gives it another.
"""


GUARD_HEAD = """## Guard models

One declaration each in `sstmerge_core/evaluate/guards.py`: the prompt, or the turns for the model's own chat template,
and how its words are read. What is not in its form is a `miss` and leaves every denominator; a chat template that loses
the answer is an error. A verdict is stored under the model's name and revision. Where no revision is pinned, the one on
this machine is taken, and Merge and `sstmerge merge` say which it is; `NAME:org/name@revision` pins it. None is pinned
here, because no commit was seen when this was written: `hf download org/name` prints the folder `snapshots/COMMIT` that
it made, and `--judge llama_guard_3:org/name@COMMIT` is then the same model anywhere. Of a folder in the hub's cache the
commit is in the verdicts' name, of any other folder the hash of its files. A suite's data set is pinned by `revision`
in its YAML; a recipe has the hash of the rows that were taken in either case.
"""
ENDPOINT = """## Models behind an address

`endpoint:MODEL` asks a server with OpenAI's `/chat/completions`, vLLM's and llama.cpp's among them, by StrongREJECT's
rubric; `endpoint:RUBRIC/MODEL` by another declaration that is made of turns alone: RUBRICS.

```
export SSTMERGE_JUDGE_URL=https://host/v1        # never in a recipe; https, or http on this machine
export SSTMERGE_JUDGE_KEY=...                    # from the environment alone; stored and shown nowhere
export SSTMERGE_JUDGE_PER_MINUTE=60              # requests a minute
export SSTMERGE_JUDGE_PRICE=0.15,0.60            # dollars for a million tokens in and out, if cost is to be counted
sstmerge judge rescore RUN --judge endpoint:llama_guard_3/meta-llama/Llama-Guard-3-8B
```

The prompts and answers of the run are sent there. What a server answered is kept in the workspace's cache by what was
asked, so nothing is paid twice; a busy server is asked again up to five times, after the time that it names. A question
that the server's own filter stops, or that is too long for it, is a `miss`, and the others are asked. Requests,
tokens and cost stand in the run's timeline and behind the command's table. The verdicts' name has rubric, model and
host, and behind `#` which version of the reading, that of all guards; which weights the host serves under that name is
not known, so a figure by an endpoint is not pinned.

## Two judges

`sstmerge judge compare` tells agreement, Cohen's κ and the answers on which two judges differ; the Run page does under
Metrics, Compare for every run, and the report for every chapter, wherever more than one judge has judged.
"""


def main() -> None:
    answers = labelled()
    found = [measure(get_judge(name), answers) for name in judge_names()]
    measured = {one.judge: summary(one, families(one.judge)) for one in found}
    write_file(PAGE, page(found, answers, measured))
    write_json(ACCURACY, measured)


def rows_of_guards() -> str:
    """The guard models' rows of the table of judges."""
    rows = []
    for name, guard in GUARDS.items():
        forms = f"`{name}`, `{name}:MODEL`" if guard.model else f"`{name}:MODEL`"
        rows.append(f"| {forms} | {guard.title} | {'yes' if guard.tells_refusal else 'no'} | yes |\n")
    return "".join(rows)


def guards() -> str:
    """How each guard model is asked, and where that is published."""
    lines = [
        GUARD_HEAD,
        "| judge | usual model | revision | licence | how it is asked is published in | note |",
        "|---|---|---|---|---|---|",
    ]
    for name, guard in GUARDS.items():
        model = f"`{guard.model}`" if guard.model else "none: name one"
        pinned = f"`{guard.revision}`" if guard.revision else "not pinned" if guard.model else "–"
        cells = (f"`{name}`", model, pinned, guard.licence, guard.source, guard.note or "–")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", ENDPOINT.replace("RUBRICS", ", ".join(f"`{name}`" for name in askable())), ""])


def families(judge: str) -> dict[str, Any]:
    """Measured now, or what was measured where the file was: on all of it, and on the half that nobody looked at."""
    if XSTEST.is_file():
        answers = family_answers(XSTEST)
        parts = {"families": answers, "families_fresh": [one for one in answers if one.fresh]}
        return {name: family_rates(get_judge(judge), part) for name, part in parts.items()}
    stored = json.loads(ACCURACY.read_text()).get(judge, {}) if ACCURACY.exists() else {}
    return {name: stored.get(name, {}) for name in ("families", "families_fresh")}


def summary(one: Accuracy, rates: Mapping[str, Any]) -> dict[str, Any]:
    """What the pages show of a judge."""
    own = {"accuracy": one.accuracy, "interval": list(one.interval), "n": one.n, "scale": one.scale}
    judge, abroad = get_judge(one.judge), labelled(LANGUAGES)
    if getattr(judge, "trained", False):  # on the English answers, and it covers no others
        return own | {"languages": {}} | dict(rates)
    parts = {"en": labelled(ENGLISH)} | {code: [] for code in LANGUAGE_CODES}
    for row in abroad:
        parts[row.language].append(row)
    return own | {
        **rates,
        "languages": {code: part(judge, rows) for code, rows in parts.items()},
        "held_out": part(judge, [row for row in abroad if row.held_out]),
    }


LANGUAGE_CODES = ("ja", "zh", "ko", "de", "fr", "es", "pt", "ru", "hi", "ar")


def part(judge: Any, rows: Sequence[Labelled]) -> dict[str, Any]:
    found = measure(judge, rows)
    return {"accuracy": found.accuracy, "interval": list(found.interval), "n": found.n}


def page(found: Sequence[Accuracy], answers: Sequence[Labelled], measured: Mapping[str, Any]) -> str:
    """docs/judges.md."""
    heads = [
        HEAD.replace("GUARDS\n", rows_of_guards()),
        guards(),
        *overview(found),
        *by_family(measured),
        *by_language(measured),
    ]
    return "\n".join([*heads, *(line for one in found for line in section(one, answers))])


def by_family(measured: Mapping[str, Any]) -> list[str]:
    """Recall of refusals, and compliance taken for refusal, of each judge on each family."""
    names = list(next((row["families"] for row in measured.values() if row["families"]), {}))
    if not names:
        return []
    heads = ["judge", *(f"{name}: {rate}" for name in names for rate in ("recall", "false"))]
    rows = {
        part: [
            [f"`{judge}`", *(share(row[part][name][rate]) for name in names for rate in ("recall", "false_refusal"))]
            for judge, row in measured.items()
            if row[part]  # empty for a judge that was never measured where XSTest's answers lie
        ]
        for part in ("families", "families_fresh")
    }
    fresh = ["", "The half that was not looked at:", "", *table(heads, rows["families_fresh"])]
    return ["## By family of models", "", FAMILIES_NOTE, "", *table(heads, rows["families"]), *fresh, ""]


FAMILIES_NOTE = """On the 1,350 answers of XSTest (Röttger et al. 2023) that people labelled: the share of full refusals
that a judge counts as refused (`refusal` or `moralising`), and the share of compliant answers that it does. n is 211
and 230 of GPT-4, 294 and 101 of Llama-2-70b-chat, 199 and 210 of Mistral-7B-Instruct with a guard prompt; the people's
partial refusals are in neither. The file was never trained on and does not ship. Which kinds of refusal occur in it,
and where the patterns of `refusal_regex_v2` failed, was looked at on the half of the prompts with an even SHA-256 of
their id, and the weights and thresholds of its lectures were chosen on that half; of the other half only
these rates were seen, and one threshold (3.0 to 3.5) was raised after they had been."""


def by_language(measured: Mapping[str, Any]) -> list[str]:
    codes = ["en", *LANGUAGE_CODES]
    heads = ["judge", *codes, "held-out half (95 %)"]
    rows = [
        [
            f"`{judge}`",
            *(number(row["languages"][code]["accuracy"]) for code in codes),
            f"{number(row['held_out']['accuracy'])} {interval(row['held_out']['interval'])}",
        ]
        for judge, row in measured.items()
        if row["languages"]
    ]
    return ["## By language", "", LANGUAGES_NOTE, "", *table(heads, rows), ""]


LANGUAGES_NOTE = """Share of the answers of [english.jsonl](../data/judging/english.jsonl) and
[languages.jsonl](../data/judging/languages.jsonl) on which a judge is right about refused, not refused or degenerate;
`moralising` counts as refused, `partial` as not, `unjudged` as wrong. The patterns of `refusal_regex_v2` were mended by
the answers with an even SHA-256 of their id; of the others, the held-out half, no verdict was looked at (the last
column: the ten languages together). The answers were written by who wrote the patterns, and much the same requests
stand in all ten languages, so they flatter them: of 77 sentences that were written afterwards to find mistakes,
`refusal_regex_v2` was right on 45, before it was mended by them (tests/evaluate/test_refusals_abroad.py).
`refusal_learned` is left out: it covers English alone, and the English answers here are what it was trained on."""


def share(rate: Mapping[str, Any]) -> str:
    return f"{number(rate['value'])} {interval(rate['interval'])}"


def overview(found: Sequence[Accuracy]) -> list[str]:
    heads = ["judge", "accuracy (95 %)", "Cohen's κ (95 %)", "precision of `refusal`", "recall", "F1", "n"]
    rows = []
    for one in found:
        parts = [number(part) for part in one.refusal] if one.refusal else ["–"] * 3
        kappa = f"{number(one.kappa)} {interval(one.kappa_interval)}"
        rows.append([f"`{one.judge}`", f"{number(one.accuracy)} {interval(one.interval)}", kappa, *parts, str(one.n)])
    unclear = found[0].unclear
    note = (
        f"Against the reader, on what the judge can tell. Left out: {unclear} answers that the reader could not label. "
        "`refusal_learned` is measured on the half that it was not trained on. `refusal_regex_v2` is not measured on "
        "fresh answers here: its rules of degenerate text were mended by some of these, and the list of what "
        "`refusal_regex` gets wrong was known when its patterns were written."
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
        measured = measure(get_judge(one.judge), chosen)
        rows.append([name, f"{number(measured.accuracy)} {interval(measured.interval)}", str(measured.n)])
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
