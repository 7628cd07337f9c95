"""``sstmerge adapters|train``: the adapters at hand, and new ones."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from sstmerge_core import adapters, catalog, words
from sstmerge_core.adapters import scan
from sstmerge_core.builder import presets
from sstmerge_core.catalog import base_intake, intake
from sstmerge_core.catalog.lineage import Ancestry, ancestry
from sstmerge_core.cli import inputs
from sstmerge_core.cli.printing import line, raise_found, table
from sstmerge_core.errors import AdapterError, DataError, Problem, RecipeError
from sstmerge_core.suites import bundled, declared, prepare
from sstmerge_core.train import TrainingSettings, training_data
from sstmerge_core.train.training_data import TrainingData
from sstmerge_core.workspace import Workspace

VALIDATION_SHARE = 0.1
"""Held out for early stopping unless told otherwise"""


def register(command: Any) -> None:
    """Add the commands; `command` makes a parser from name, function and description."""
    train = command("train", _train, "Train a LoRA adapter on a JSONL or CSV file of prompts and responses.")
    train.add_argument(
        "--demo",
        metavar="NAME",
        help="make a bundled adapter again: A5, A6, A7, A7_balanced; A5+A7: one of both's rows",
    )
    train.add_argument("--base", help="base model folder; default: the bundled one")
    train.add_argument(
        "--data", nargs="+", help="files with the columns prompt and response, or suites of `sstmerge suites`"
    )
    inputs.add_columns(train)
    train.add_argument("--split", help="take only the rows of this split; default of a suite: train")
    train.add_argument("--out", required=True, type=Path)
    train.add_argument("--name", default="")
    train.add_argument("--role", choices=catalog.ROLES, default="")
    train.add_argument("--suite", default="", help="what measures its task: a bundled suite, or a JSONL file")
    train.add_argument("--preset", metavar="NAME", help=f"settings as published: {', '.join(presets.trainings())}")
    train.add_argument("--rank", type=int, help="default: 8, or the preset's; the options below go before a preset too")
    train.add_argument("--epochs", type=float, help="default 4")
    train.add_argument("--learning-rate", type=float, help="default 1e-3")
    train.add_argument("--batch-size", type=int, help="default 16")
    train.add_argument("--seed", type=int, help="default 42")
    train.add_argument("--max-length", type=int, help="tokens of prompt and response, default 256")
    train.add_argument("--validation", type=float, metavar="SHARE", help="of the prompts, held out to measure the loss")
    train.add_argument("--validation-split", metavar="NAME", help="hold out the rows of this split instead")
    train.add_argument(
        "--patience", type=int, help="stop after so many epochs without a lower validation loss and keep the best"
    )
    train.add_argument("--device", default="auto")

    shelf = command("adapters", _adapters, "List, add, rename, tag, remove and check adapters.")
    known = "list|add|rename|tag|remove|restore|lineage|check|probe|convert|gguf|add-base|remove-base"
    actions = shelf.add_subparsers(dest="action", metavar=known)
    actions.add_parser("list", help="the known adapters")
    add = actions.add_parser("add", help="register a folder, or take in a ZIP archive or a repository of the hub")
    add.add_argument(
        "path", help="a folder, a .zip file, or hf:owner/name, with @ and a revision behind it if you like"
    )
    add.add_argument("--tag", action="append", default=[], metavar="TAG", help="may be given several times")
    add.add_argument("--name")
    add.add_argument("--role", choices=[role for role in catalog.ROLES if role])
    add.add_argument("--suite", default="", help="what measures its task: facts, instructions, or a JSONL file")
    rename = actions.add_parser("rename", help="give one another name; its runs keep the old one")
    rename.add_argument("name")
    rename.add_argument("new")
    tag = actions.add_parser("tag", help="set the tags of one; none takes them away")
    tag.add_argument("name")
    tag.add_argument("tags", nargs="*", metavar="TAG")
    probe = actions.add_parser("probe", help="look for words that switch an adapter's refusals off, and odd weights")
    probe.add_argument("name")
    probe.add_argument("--base", help="base model folder; default: the bundled one")
    probe.add_argument("--n", type=int, default=16, help="harmful prompts, and harmless ones; default 16")
    probe.add_argument("--device", default="auto")
    actions.add_parser("remove", help="take one off the list").add_argument("name")
    actions.add_parser("restore", help="put a removed one back").add_argument("name")
    actions.add_parser("lineage", help="what one was merged from").add_argument("name")
    check = actions.add_parser("check", help="what is wrong with adapters, or whether they and a base fit together")
    check.add_argument("path", nargs="*", help="folders to look at, on the base where one is given")
    inputs.add_trio(check, required=False)
    convert = actions.add_parser("convert", help="make a LoRA that stands for an adapter of another kind")
    convert.add_argument("path", help="DoRA, LoHa, LoKr, OFT, IA³, VeRA, pickled weights, MLX; or a file of kohya's")
    convert.add_argument("--base", help="base model folder; default: the bundled one")
    convert.add_argument("--out", required=True, type=Path, help="folder of the new adapter")
    convert.add_argument("--rank", type=int, default=0, help="of the new adapter; default: the smallest exact one")
    gguf = actions.add_parser("gguf", help="one GGUF file for llama.cpp, by its own converter where that is installed")
    gguf.add_argument("path", help="a LoRA adapter's folder")
    gguf.add_argument("--base", help="base model folder; default: the bundled one")
    gguf.add_argument("--out", required=True, type=Path, help="the file, such as lora.gguf")
    gguf.add_argument("--type", default="f16", help="f32, f16 (default), bf16 or q8_0")
    base = actions.add_parser("add-base", help="register a base model's folder, or fetch one of the hub")
    base.add_argument("path", help="a folder, or hf:owner/name, with @ and a revision behind it if you like")
    base.add_argument("--name", default="", help="what it is called here; default: its own name")
    actions.add_parser("remove-base", help="take a base model off the list; its folder stays").add_argument("name")


def _train(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core.demo import adapters as demo
    from sstmerge_core.models.device import best_device
    from sstmerge_core.train import train

    device = best_device() if options.device == "auto" else options.device
    base = inputs.base(options.base, workspace)
    name = adapters.read_base(base.path).name
    first: list[float] = []  # where this sitting began, which may be in the middle, and when

    def progress(step: int, steps: int, loss: float) -> None:
        first[:] = first or [step, time.monotonic()]
        left = ""
        if step > first[0]:
            left = f", {words.duration((time.monotonic() - first[1]) / (step - first[0]) * (steps - step))} left"
        line(f"step {step}/{steps}, loss {loss:.3f}{left}", step == steps)

    if options.demo:
        demo.make(demo.get(options.demo), base.path, options.out, base_name=name, device=device, progress=progress)
    else:
        if not options.data:
            raise RecipeError(Problem("--data", "is missing", "Give a file with prompt and response, or --demo NAME."))
        data = _training_data(options, workspace)
        settings = _settings(options, len(data.rows))
        record = {"name": options.name or options.out.name, "role": options.role, "suite": options.suite}
        if options.preset:
            record["preset"] = options.preset
        train(
            base.path,
            data.rows,
            options.out,
            settings,
            validation=data.validation,
            base_name=name,
            base_sha256=base.sha256,
            record=record,
            device=device,
            progress=progress,
        )
    print(options.out)


def _training_data(options: argparse.Namespace, workspace: Workspace) -> TrainingData:
    """The rows of files, and of declared suites those for training, unless another split is asked for."""
    share = options.validation
    if share is None:
        preset = presets.training(options.preset).settings if options.preset else TrainingSettings()
        patience = preset.patience if options.patience is None else options.patience
        share = VALIDATION_SHARE if patience and not options.validation_split else 0.0
    rows, validation = [], []
    given = inputs.columns(options)
    for name in options.data:
        found = None if Path(name).is_file() else declared.find(name, workspace)
        path = prepare.prepare(found, workspace).path if found else name
        split = options.split or ("train" if found else None)
        columns = None if found else given
        held = options.validation_split
        part = training_data.read([path], split, validation_split=held, share=share, columns=columns)
        rows += part.rows
        validation += part.validation
    return TrainingData(rows, validation)


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
        "max_length": options.max_length,
        "patience": options.patience,
    }
    return known.model_copy(update={name: value for name, value in given.items() if value is not None})


def _adapters(options: argparse.Namespace, workspace: Workspace) -> None:

    if options.action == "add":
        added = _added(options, workspace)
        print(f"{added.name}: rank {added.rank}, {added.modules} modules, SHA-256 {added.sha256[:16]}")
        for doubt in scan.doubts(adapters.read(added.path, saved=True)):
            print(f"note: {doubt}")
    elif options.action == "rename":
        known = catalog.find(workspace, options.name)
        print(catalog.change(workspace, known.sha256, name=options.new).name)
    elif options.action == "tag":
        known = catalog.find(workspace, options.name)
        print(", ".join(catalog.change(workspace, known.sha256, tags=options.tags).tags) or "no tags")
    elif options.action == "restore":
        gone = next((one for one in catalog.removed(workspace) if options.name in (one.name, one.sha256)), None)
        if gone is None:
            names = ", ".join(one.name for one in catalog.removed(workspace)) or "none"
            raise AdapterError(Problem(f"adapter {options.name}", "was not removed here", f"Removed: {names}."))
        print(catalog.restore(workspace, gone.sha256).path)
    elif options.action == "lineage":
        _lineage(ancestry(catalog.find(workspace, options.name), catalog.entries(workspace)))
    elif options.action == "convert":
        _convert(options, workspace)
    elif options.action == "gguf":
        _gguf(options, workspace)
    elif options.action == "add-base":
        print(_added_base(options, workspace).name)
    elif options.action == "remove-base":
        base = next((one for one in catalog.bases(workspace) if options.name in (one.name, one.sha256)), None)
        if base is None:
            names = ", ".join(one.name for one in catalog.bases(workspace)[1:]) or "none"
            raise DataError(Problem(f"base model {options.name}", "is not registered here", f"Registered: {names}."))
        print(catalog.remove_base(workspace, base.sha256).path)
    elif options.action == "remove":
        catalog.remove(workspace, catalog.find(workspace, options.name).sha256)
    elif options.action == "probe":
        _probe(options, workspace)
    elif options.action == "check":
        _check(options, workspace)
    else:
        found = catalog.entries(workspace)
        rows = [
            (e.name, e.role or "–", e.suite or "–", str(e.rank), e.base_name, ", ".join(e.tags), e.description)
            for e in found
        ]
        table(("name", "role", "suite", "rank", "base", "tags", "description"), rows)


def _added_base(options: argparse.Namespace, workspace: Workspace) -> catalog.Base:
    """The base model of a folder, or of a repository of the hub."""
    if not options.path.startswith("hf:"):
        return catalog.add_base(workspace, options.path, options.name)
    repository, _, revision = options.path.removeprefix("hf:").partition("@")

    def progress(done: int, total: int) -> None:
        line(f"{words.size(done)} of {words.size(total)}", done == total)

    base = base_intake.download(workspace, repository, revision, progress)
    return catalog.add_base(workspace, base.path, options.name) if options.name else base


def _added(options: argparse.Namespace, workspace: Workspace) -> catalog.Entry:
    """The adapter of a folder, an archive or a repository."""
    info = intake.AdapterInfo(options.name or "", options.role, options.suite, tuple(options.tag))
    if options.path.startswith("hf:"):
        repository, _, revision = options.path.removeprefix("hf:").partition("@")
        return intake.download(workspace, repository, info, revision=revision)
    if options.path.lower().endswith(".zip") and Path(options.path).is_file():
        with open(options.path, "rb") as file:
            return intake.upload(workspace, [(Path(options.path).name, file)], info)
    return intake.folder(workspace, options.path, info)


def _check(options: argparse.Namespace, workspace: Workspace) -> None:
    """Adapters on their own, on a base, or as the two sides of a merge."""
    if options.path and (options.utility or options.safety):
        raise RecipeError(Problem("PATH", "is given beside --utility or --safety", "Give the one or the other."))
    if options.path and not options.base:
        found = [catalog.find(workspace, path) for path in options.path]
        for one in found:
            print(f"{one.name}: rank {one.rank}, {one.modules} modules, base {one.base_name or '(none)'}")
            for doubt in scan.doubts(adapters.read(one.path, saved=True)):
                print(f"note: {doubt}")
        return
    if options.path:
        places = {path: catalog.find(workspace, path).path for path in options.path}
        report = adapters.check_many(inputs.base(options.base, workspace).path, places)
    else:
        if missing := [name for name in ("utility", "safety") if not getattr(options, name)]:
            raise RecipeError([Problem(f"--{name}", "is missing", "Or give the folder alone.") for name in missing])
        given = inputs.merge_inputs(options, workspace)
        experts = (given.utility, *given.further)
        roles = ["utility"] if len(experts) == 1 else [f"utility {number}" for number in range(1, len(experts) + 1)]
        sides = {role: one.path for role, one in zip(roles, experts, strict=True)}
        report = adapters.check_many(given.base.path, sides | {"safety": given.safety.path})
    for name, value in report.facts.items():
        print(f"{name}: {value}")
    for warning in report.warnings:
        print(f"note: {warning}")
    raise_found(report.problems)
    print("They fit together.")


def _probe(options: argparse.Namespace, workspace: Workspace) -> None:
    """Odd weights, and the published triggers of back doors on prompts that the adapter answers."""
    from sstmerge_core.evaluate import triggers
    from sstmerge_core.evaluate.judges import get_judge
    from sstmerge_core.fisher import expansion
    from sstmerge_core.metrics.labels import DEFAULT_JUDGE
    from sstmerge_core.models.resident import ResidentModel
    from sstmerge_core.suites.rows import load_rows, take

    if options.n < 1:
        raise RecipeError(Problem("--n", f"{options.n} prompts probe nothing", "Give at least 1."))
    base = inputs.base(options.base, workspace)
    known = catalog.find(workspace, options.name)
    adapter = adapters.read(known.path)
    doubts = scan.doubts(adapter)
    model = ResidentModel.load(base.path, "float32", options.device)
    model.set_delta(expansion.deltas([adapter.load()], [1.0]))
    sets = {"harmful": "harmful", "harmless": "near_miss"}
    prompts = {}
    for kind, suite in sets.items():
        rows = load_rows(bundled.rows_of(bundled.BUNDLED[suite]), "selection")
        prompts[kind] = [row.prompt for row in take(rows, min(options.n, len(rows)))]

    def tell(done: int, total: int) -> None:
        line(f"{done}/{total} answers", done == total)

    found = triggers.probe(model, get_judge(DEFAULT_JUDGE), prompts, tell=tell)
    rows_ = [
        (one.trigger, one.prompts, f"{one.plain:.2f}", f"{one.triggered:.2f}", str(one.n), f"{one.p_value:.2g}")
        for one in found
    ]
    table(("trigger", "prompts", "refused without", "refused with", "n", "p"), rows_)
    for doubt in [*doubts, *triggers.doubts(found, known.name)]:
        print(f"note: {doubt}")


def _gguf(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core.adapters.gguf import convert

    print(convert(options.path, inputs.base(options.base, workspace).path, options.out, options.type))


def _convert(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core.adapters.convert import convert

    made = convert(options.path, inputs.base(options.base, workspace).path, options.out, rank=options.rank)
    error = f"relative error {made.rank_error:.1e}" if made.rank_error else "the same numbers"
    print(f"{made.path}: LoRA of rank {made.adapter.rank} of {made.was}, {len(made.adapter.modules)} modules, {error}")


def _lineage(one: Ancestry, depth: int = 0) -> None:
    unknown = "" if one.known else " (not in this workspace)"
    how = f" <- {one.text}" if one.text else ""
    print(f"{'  ' * depth}{one.name}{unknown}{how}{f' [run {one.run_id}]' if one.run_id else ''}")
    for parent in one.parents:
        _lineage(parent, depth + 1)
