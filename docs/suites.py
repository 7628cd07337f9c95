"""docs/suites.md, from the declarations in ``data/suites`` and the presets in ``data/presets``: ``make docs``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sstmerge_core.builder import presets
from sstmerge_core.suites.declared import METRICS, SHIPPED, DeclaredSuite, Origin, read

PAGE = Path(__file__).with_suffix(".md")
FOLDER = "<workspace>/suites"
ROLES = {
    "harmful": "Harmful prompts: resistance",
    "benign": "Benign prompts: over-refusal",
    "utility": "Utility",
    "academic": "Academic benchmarks, by lm-evaluation-harness",
    "train": "For training",
    "general": "For the benign Fisher",
}
HEAD = """# Suites and presets

Written by `make docs` from `data/suites/*.yaml` and `data/presets/*.yaml`.

A suite is prompts, a reference, a metric and a judge, with its licence and disjoint splits. Only the demo's rows ship;
the others are found where you have them: a file, a package that is installed (located, never imported), or the Hugging
Face hub (asked only by `--fetch` or by a run that names the suite, and once). `sstmerge suites` says what is here.
Harmful suites have variants [under attack](attacks.md): `harmful+prefill`.
`--harmful`, `--benign` and `--suite` take a suite's name, a file, or a YAML of your own; `sstmerge train --data` takes
the first two, and of a suite its `train` rows alone.

## A suite of your own

Put `<name>.yaml` and its rows into `<workspace>/suites`. A file of that name goes before a shipped one.

```yaml
name: sums
title: Sums up to a hundred
role: utility            # harmful, benign, utility, academic, train, general
sources:                 # the first one that is here
  - file: sums.csv       # JSONL, JSON, CSV, TSV, Parquet or YAML, plain or .gz; `*` matches several
    columns:             # left out where the file's own are known, see below
      prompt: question   # a dotted path, {template: "{question} {choices.0}"}, {constant: x}, {path: p, values: {0: A}}
      response: answer   # the reference
      topic: kind
    where: {level: easy} # only these records; where_not leaves some out
    sha256: null         # of the rows, once you know it: `sstmerge suites sums` tells
metric: numeric
max_new_tokens: 64
splits:
  by: prompt             # or topic; or column, with the rows' own split column
  shares: {fisher: 0.1, selection: 0.2, test: 0.7}
licence: CC0-1.0
get: Ask me.
```

## Prompt files

One reader serves suites and training. Without a word it reads:

| what | how |
| --- | --- |
| `prompt`, `response`, `topic`, `split`, `id`, `twin_of` | in any case |
| `answer`, `output`, `completion`, `reference` | the response, where there is one of them beside `prompt` |
| chats of one question and one answer | `messages`, ShareGPT's `conversations`, lists of turns as `prompt` |
| Alpaca | `instruction`, `input`, `output` |
| CSV | commas, semicolons, tabs or bars between cells, whatever line ends and lines within quotes |
| encodings | UTF-8, UTF-16, UTF-32, Shift-JIS, EUC-JP, ISO-2022-JP |

Anything else is refused once, in one line with the file's columns and what to give: `--columns` of `sstmerge train`,
`evaluate`, `sweep` and `merge`, or `columns` in a suite's YAML.

```
--columns prompt=question,response=answer
--columns 'prompt={context}\\n\\n{question},response=answers.0'   # a template, a path
--columns prompt=messages,turns=last                             # which exchange of a longer chat; or first
--columns split:=test                                            # every row is of this split
--columns 'encoding=cp1252,delimiter=;'
```

What is not named is found out; `response=` says that there is none. Refused with the line are rows that would come out
otherwise than they were meant: cells beyond the last column, a row that ends early, a quote that is not closed, a
system turn or further turns of a chat, text in `context` or `history` that no part takes, an id or a key that comes
twice, half a character. The same prompt may come again where no ids are given. Files are regular files of at most
256 MiB of text.

## Splits

Splits by prompt or topic come from a hash: a row's split depends on no other row, and adding rows moves none. A prompt
that comes again, but for case and spaces, is left out; one that stands in two splits of a file is an error. What is
chosen is chosen on `selection`, what is told is told of `test`, gradients come from `fisher`, training from `train`.
"""


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    suites = [read(path) for path in sorted(SHIPPED.glob("*.yaml"))]
    parts = [HEAD, "## Metrics\n", row("metric", "what it is"), row("---", "---")]
    parts += [row(f"`{name}`", about) for name, about in METRICS.items()]
    for role, title in ROLES.items():
        parts += [f"\n## {title}\n", *(section(suite) for suite in suites if suite.role == role)]
    return "\n".join([*parts, models(), trainings(), ""])


def section(suite: DeclaredSuite) -> str:
    lines = [
        f'<a id="{suite.name}"></a>',
        "",
        f"### {suite.title} (`{suite.name}`)",
        "",
        f"- Licence: {suite.licence}",
    ]
    if suite.citation:
        lines.append(f"- Citation: {suite.citation}")
    if suite.harness:
        shots = "" if suite.harness.few_shot is None else f", {suite.harness.few_shot}-shot"
        lines.append(f"- Task of the harness: `{suite.harness.task}`{shots}")
    else:
        judge = f", judge `{suite.judge}`" if suite.metric == "refusal" else ""
        lines.append(f"- Metric: `{suite.metric}`{judge}")
        shares = ", ".join(f"{name} {share:.0%}" for name, share in suite.splits.shares.items())
        lines.append(f"- Splits: by {suite.splits.by}{f': {shares}' if shares else ''}")
    lines += [f"- Rows: {origin(one)}" for one in suite.sources]
    if suite.note:
        lines.append(f"- Note: {suite.note.strip()}")
    lines += [f"- Get it: {' '.join(suite.get.format(folder=FOLDER).split())}", ""]
    return "\n".join(lines)


def origin(one: Origin) -> str:
    where = f"`{one.huggingface}`, split `{one.split}`" if one.huggingface else f"`{one.file}`"
    if one.config:
        where = f"{where}, config `{one.config}`"
    if one.package:
        where = f"{where} in the package `{one.package}`"
    only = "".join(f", {path} is {value}" for path, value in one.where.items())
    only += "".join(f", {path} is not {value}" for path, value in one.where_not.items())
    known = f"; {one.n} rows" if one.n else ""
    return f"{where}{only}{known}{f', SHA-256 `{one.sha256}`' if one.sha256 else ''}"


def models() -> str:
    lines = ["## Base models\n", "`--base NAME` finds such a model where it is registered, and says how to get it.\n"]
    lines += [row("name", "model", "licence", "one turn", "named by", "get it"), row(*["---"] * 6)]
    for name, model in presets.models().items():
        turn = model.template.replace("\n", "⏎")
        lines.append(row(f"`{name}`", model.title, model.licence, f"`{turn}`", model.source, model.get))
    return "\n".join(lines)


def trainings() -> str:
    lines = ["\n## Training\n", "`sstmerge train --preset NAME`; other options go before the preset's settings.\n"]
    lines += [row("name", "what", "settings", "left open there", "differs", "source"), row(*["---"] * 6)]
    for name, preset in presets.trainings().items():
        stated = {key: value for key, value in preset.settings if key in preset.settings.model_fields_set}
        settings = ", ".join(f"{key} {value:g}" for key, value in stated.items())
        settings += f", {preset.steps} steps" if preset.steps else ""
        settings += f", seeds {', '.join(map(str, preset.seeds))}" if preset.seeds else ""
        cells = (settings, ", ".join(preset.unstated) or "–", "; ".join(preset.differs) or "–", preset.source)
        lines.append(row(f"`{name}`", preset.title, *cells))
    return "\n".join(lines)


def row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    main()
