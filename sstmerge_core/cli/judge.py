"""``sstmerge judge``: how right a judge is, another judge on stored answers, two judges beside each other."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from sstmerge_core.cli.printing import line, table
from sstmerge_core.cli.records import ingest
from sstmerge_core.workspace import Workspace


def register(command: Any) -> None:
    """Add the command; `command` makes a parser from name, function and description."""
    judge = command("judge", _judge, "Measure a judge, let it judge stored answers, compare two on one run.")
    actions = judge.add_subparsers(dest="action", required=True, metavar="list|accuracy|rescore|compare")
    actions.add_parser("list", help="the judges")
    accuracy = actions.add_parser("accuracy", help="how often judges are right on the labelled answers that ship")
    accuracy.add_argument("--judge", action="append", help="may be repeated; default: every judge without a model")
    accuracy.add_argument("--wrong", action="store_true", help="list the answers they got wrong")
    rescore = actions.add_parser("rescore", help="judge the stored answers of runs; nothing is generated")
    rescore.add_argument("runs", nargs="+", metavar="RUN")
    rescore.add_argument("--judge", required=True)
    compare = actions.add_parser("compare", help="agreement and κ of two judges on a run, and where they differ")
    compare.add_argument("run_id", metavar="RUN")
    compare.add_argument("--first", required=True)
    compare.add_argument("--second", required=True)
    for parser in (accuracy, rescore, compare):
        parser.add_argument("--device", default="auto")
        parser.add_argument("--json", action="store_true")


def _judge(options: argparse.Namespace, workspace: Workspace) -> None:
    {"list": _list, "accuracy": _accuracy, "rescore": _rescore, "compare": _compare}[options.action](options, workspace)


def _list(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core.evaluate.judges import MODEL_JUDGES, judge_names
    from sstmerge_core.evaluate.judges_measured import accuracy_words

    table(("judge", "measured"), [(name, accuracy_words(name) or "–") for name in (*judge_names(), *MODEL_JUDGES)])


def _accuracy(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core.evaluate import judging
    from sstmerge_core.evaluate.judges import get_judge, judge_names

    answers = judging.labelled()
    found = [judging.measure(get_judge(name, options.device), answers) for name in options.judge or judge_names()]
    if options.json:
        for one in found:
            print(json.dumps(one.as_json(), ensure_ascii=False))
        return
    rows = [
        (
            one.judge,
            f"{one.accuracy:.3f} {_interval(one.interval)}",
            _number(one.kappa),
            *(_number(part) for part in one.refusal or (None, None, None)),
            *(_number(part) for part in one.harmful or (None, None, None)),
            str(one.missed),
            str(one.n),
        )
        for one in found
    ]
    of = [f"{part} of {label}" for label in ("refusal", "harmful") for part in ("precision", "recall", "F1")]
    table(("judge", "accuracy (95 %)", "κ with the reader", *of, "missed", "n"), rows)
    for one in found:
        print(f"\n{one.judge}: the reader's label down, the judge's across")
        _matrix(one.confusion)
        if options.wrong:
            print()
            keys = ("id", "label", "found", "prompt", "response")
            table(keys, [[_short(row[key]) for key in keys] for row in one.wrong])


def _rescore(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core.evaluate.judges import get_judge
    from sstmerge_core.runs.rescore import rescore, usage_of

    judge = get_judge(options.judge, options.device)
    rows = []
    try:
        for run_id in options.runs:
            done = rescore(workspace, run_id, judge, partial(_progress, run_id))
            rows += [{"run_id": run_id, "judged": done.judged, **row} for row in done.metrics]
    finally:
        ingest(workspace)
    if options.json:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
        return
    columns = ("run_id", "metric", "suite", "value", "ci_low", "ci_high", "n", "status")
    table(columns, [[_number(row[column]) for column in columns] for row in rows])
    print(f"Judge {judge.judge_id}. Its verdicts stand beside the earlier ones; nothing was generated.")
    if usage := usage_of(judge):
        print(f"{usage.words}.")


def _progress(run_id: str, done: int, total: int) -> None:
    if total:
        line(f"{run_id}: {done} of {total} answers", done == total)


def _compare(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core.evaluate.judges import get_judge
    from sstmerge_core.recipe import record
    from sstmerge_core.runs import rescore

    known = record.answered(workspace, options.run_id).verdicts
    # a stored judge needs no model to be compared
    first, second = (
        name if name in known else get_judge(name, options.device).judge_id for name in (options.first, options.second)
    )
    compared = rescore.compare(workspace, options.run_id, first, second)
    found = compared.found
    if options.json:
        parts = {"scale", "n", "missed", "agreement", "interval", "kappa", "kappa_interval", "confusion"}
        head = {"run_id": compared.run_id, "first": first, "second": second}
        figures = {name: value for name, value in asdict(found).items() if name in parts}
        print(json.dumps(head | figures | {"disagreements": compared.disagreements}, ensure_ascii=False))
        return
    print(f"agreement {_number(found.agreement)} {_interval(found.interval)}")
    print(f"Cohen's κ {_number(found.kappa)} {_interval(found.kappa_interval)}")
    missed = f", {found.missed} left out: a judge gave no verdict" if found.missed else ""
    print(f"{found.n} answers{missed}\n\n{first} down, {second} across")
    _matrix(found.confusion)
    if compared.disagreements:
        print(f"\n{len(compared.disagreements)} disagreements")
        columns = ("suite", "prompt_id", "first", "second", "prompt", "response")
        table(columns, [[_short(row[column]) for column in columns] for row in compared.disagreements])


def _matrix(confusion: dict[str, dict[str, int]]) -> None:
    table(("", *confusion), [(label, *map(str, row.values())) for label, row in confusion.items()])


def _interval(interval: Sequence[float] | None) -> str:
    return f"({interval[0]:.3f}–{interval[1]:.3f})" if interval else ""


def _number(value: Any) -> str:
    return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= 80 else f"{plain[:79]}…"
