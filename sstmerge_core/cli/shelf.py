"""``sstmerge adapters|train``: the adapters at hand, and new ones."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from sstmerge_core import catalog, presets, words
from sstmerge_core.cli import inputs
from sstmerge_core.cli.printing import line, raise_found, table
from sstmerge_core.errors import Problem, RecipeError
from sstmerge_core.evaluate import declared, prepare, suites
from sstmerge_core.train import TrainingSettings
from sstmerge_core.workspace import Workspace


def register(command: Any) -> None:
    """Add the commands; `command` makes a parser from name, function and description."""
    train = command("train", _train, "Train a LoRA adapter on a JSONL or CSV file of prompts and responses.")
    train.add_argument("--demo", metavar="NAME", help="make a bundled adapter again: A5, A6, A7, A7_balanced")
    train.add_argument("--base", help="base model folder; default: the bundled one")
    train.add_argument(
        "--data", nargs="+", help="files with the columns prompt and response, or suites of `sstmerge suites`"
    )
    train.add_argument("--split", help="take only the rows of this split; default of a suite: train")
    train.add_argument("--out", required=True, type=Path)
    train.add_argument("--name", default="")
    train.add_argument("--role", choices=["utility", "safety", ""], default="")
    train.add_argument("--preset", metavar="NAME", help=f"settings as published: {', '.join(presets.trainings())}")
    train.add_argument("--rank", type=int, help="default: 8, or the preset's; the options below go before a preset too")
    train.add_argument("--epochs", type=float, help="default 4")
    train.add_argument("--learning-rate", type=float, help="default 1e-3")
    train.add_argument("--batch-size", type=int, help="default 16")
    train.add_argument("--seed", type=int, help="default 42")
    train.add_argument("--device", default="auto")

    shelf = command("adapters", _adapters, "List, add, remove and check adapters.")
    actions = shelf.add_subparsers(dest="action", metavar="list|add|remove|check|add-base")
    actions.add_parser("list", help="the known adapters")
    add = actions.add_parser("add", help="register a folder")
    add.add_argument("path")
    add.add_argument("--name")
    add.add_argument("--role", choices=["utility", "safety"])
    add.add_argument("--suite", default="", help="what measures its task: facts, instructions, or a JSONL file")
    actions.add_parser("remove", help="take one off the list").add_argument("name")
    inputs.add_trio(actions.add_parser("check", help="whether adapters and a base fit together"))
    actions.add_parser("add-base", help="register a base model's folder").add_argument("path")


def _train(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core import adapters
    from sstmerge_core.demo import adapters as demo
    from sstmerge_core.device import best_device
    from sstmerge_core.train import train

    device = best_device() if options.device == "auto" else options.device
    base = inputs.base(options.base, workspace)
    name = adapters.read_base(base.path).name
    begun = time.monotonic()

    def progress(step: int, steps: int, loss: float) -> None:
        left = (time.monotonic() - begun) / step * (steps - step)
        line(f"step {step}/{steps}, loss {loss:.3f}, {words.duration(left)} left", step == steps)

    if options.demo:
        demo.make(demo.get(options.demo), base.path, options.out, base_name=name, device=device, progress=progress)
    else:
        if not options.data:
            raise RecipeError(Problem("--data", "is missing", "Give a file with prompt and response, or --demo NAME."))
        rows = [row for name in options.data for row in _training_rows(name, options.split, workspace)]
        settings = _settings(options, len(rows))
        record = {"name": options.name or options.out.name, "role": options.role}
        if options.preset:
            record["preset"] = options.preset
        pairs = [(row.prompt, row.response) for row in rows]
        train(base.path, pairs, options.out, settings, base_name=name, record=record, device=device, progress=progress)
    print(options.out)


def _training_rows(name: str, split: str | None, workspace: Workspace) -> list[suites.Row]:
    """The rows of a file, or those of a declared suite that are for training, unless another split is asked for."""
    found = None if Path(name).is_file() else declared.find(name, workspace)
    if found is None:
        return suites.load_rows(name, split)
    return suites.load_rows(prepare.prepare(found, workspace).path, split or "train")


def _settings(options: argparse.Namespace, rows: int) -> TrainingSettings:
    """The preset's settings, or the defaults, under what the options say."""
    known = TrainingSettings()
    if options.preset:
        preset = presets.training(options.preset)
        known = preset.for_rows(rows)
        notes = [*preset.differs, *(f"{name} is not stated there: {getattr(known, name)}" for name in preset.unstated)]
        for note in notes:
            print(f"sstmerge: note: {options.preset}: {note}", file=sys.stderr)
    given: dict[str, Any] = {
        "r": options.rank,
        "lora_alpha": 2 * options.rank if options.rank else None,
        "learning_rate": options.learning_rate,
        "epochs": options.epochs,
        "batch_size": options.batch_size,
        "seed": options.seed,
    }
    return known.model_copy(update={name: value for name, value in given.items() if value is not None})


def _adapters(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core import adapters

    if options.action == "add":
        added = catalog.add(workspace, options.path, options.name, options.role, options.suite)
        print(f"{added.name}: rank {added.rank}, {added.modules} modules, SHA-256 {added.sha256[:16]}")
    elif options.action == "add-base":
        print(catalog.add_base(workspace, options.path).name)
    elif options.action == "remove":
        catalog.remove(workspace, catalog.find(workspace, options.name).sha256)
    elif options.action == "check":
        given = inputs.trio(options, workspace)
        experts = (given.utility, *given.experts)
        roles = ["utility"] if len(experts) == 1 else [f"utility {number}" for number in range(1, len(experts) + 1)]
        places = {role: one.path for role, one in zip(roles, experts, strict=True)}
        report = adapters.check_many(given.base.path, places | {"safety": given.safety.path})
        for name, value in report.facts.items():
            print(f"{name}: {value}")
        for warning in report.warnings:
            print(f"note: {warning}")
        raise_found(report.problems)
        print("They fit together.")
    else:
        found = catalog.entries(workspace)
        rows = [(e.name, e.role or "–", e.suite or "–", str(e.rank), e.base_name, e.description) for e in found]
        table(("name", "role", "suite", "rank", "base", "description"), rows)
