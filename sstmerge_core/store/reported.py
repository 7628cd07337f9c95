"""Figures that others reported, as runs with ``source='reported'``. Never mixed with what was measured here."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from pathlib import Path

from sstmerge_core import resources
from sstmerge_core.store.fold import Batch, Row

REFERENCE = resources.DATA / "reference"


def reported_batch(folder: Path = REFERENCE) -> Batch:
    """The rows of the reported tables that are there (an installation may ship without them)."""
    batch = Batch()
    for name, read in (("sst_merge_report.csv", _report_row), ("pre_post_tuning_paper.csv", _paper_row)):
        for line in _lines(folder / name):
            run, metrics = read(line)
            run_id = "reported-" + _digest(name, line)
            batch.tables["runs"][run_id,] = run | {"run_id": run_id, "source": "reported", "status": "finished"}
            for row in metrics:
                row |= {"run_id": run_id, "judge": "reported", "status": "ok", "reference": ""}
                batch.tables["metrics"][run_id, row["metric"], row["suite"], "reported"] = row
    return batch


def _report_row(line: dict[str, str]) -> tuple[Row, list[Row]]:
    suite = line["utility_metric"].split()[0].lower()
    details = [f"k={line['k']}" if line["k"] else "", "layer-wise" if line["layerwise"] == "true" else ""]
    details.append(f"α={float(line['alpha']):g}" if line["alpha"] else "")
    utility, _, safety = line["pair"].partition("_")
    run = {
        "pair": line["pair"],
        "utility": utility,
        "safety": safety or None,
        "method": line["method"],
        "label": " ".join([line["reported_name"], *filter(None, details)]),
        "k": int(line["k"]) if line["k"] else None,
        "layerwise": line["layerwise"] == "true" if line["layerwise"] else None,
        "alpha": float(line["alpha"]) if line["alpha"] else None,
        "parameters": {"table": line["table"], "reported_name": line["reported_name"]},
        "utility_suite": suite,
        "utility_metric": "rouge_l",
    }
    resistance = {"metric": "resistance", "suite": "jailbreak", "value": _share(line["jailbreak_resistance_pct"])}
    return run, [resistance, {"metric": "rouge_l", "suite": suite, "value": _share(line["utility_pct"])}]


def _paper_row(line: dict[str, str]) -> tuple[Row, list[Row]]:
    run = {
        "pair": f"{line['model']} · {line['task']}",
        "base": line["model"],
        "method": line["method"],
        "label": line["method"].replace("_", " "),
        "parameters": {"table": "paper", "reported_name": line["method"]},
        "utility_suite": line["task"],
        "utility_metric": "task_performance",
    }
    metrics = [{"metric": "task_performance", "suite": line["task"], "value": float(line["task_performance"])}]
    metrics += [
        {"metric": "asr", "suite": suite, "value": _share(line[f"asr_{suite}_pct"])} for suite in ("advbench", "hexphi")
    ]
    return run, metrics


def _lines(path: Path) -> Iterator[dict[str, str]]:
    if path.exists():
        with open(path, newline="", encoding="utf-8") as file:
            yield from csv.DictReader(file)


def _digest(name: str, line: dict[str, str]) -> str:
    return hashlib.sha256(",".join([name, *line.values()]).encode()).hexdigest()[:12]


def _share(percent: str) -> float:
    """Per cent as a share; rounded, because 70.8 / 100 is 0.7079999999999999."""
    return round(float(percent) / 100, 6)
