"""Options that several commands share, and what they name: base model, adapters, how to measure."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sstmerge_core import catalog
from sstmerge_core.adapters import saved
from sstmerge_core.builder import chosen_suites, preflight, presets
from sstmerge_core.catalog import base_intake
from sstmerge_core.errors import DataError, Problem, RecipeError, SSTMergeError
from sstmerge_core.evaluate import served
from sstmerge_core.jobs import backends
from sstmerge_core.models.device import APPLIED, DTYPES
from sstmerge_core.suites.columns import Columns, parse
from sstmerge_core.workspace import Workspace, given_path

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


def add_trio(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """--base, --utility, --safety."""
    parser.add_argument("--base", help="name, folder, or owner/name[@revision] of the cache; default: the bundled one")
    parser.add_argument("--utility", required=required, nargs="+", help="names or folders, one of each expert")
    parser.add_argument("--safety", required=required, help="name or folder")


class _Backend(argparse.Action):
    """--backend says what generates, and of a sweep also where it is computed: given twice it says both."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        setattr(namespace, "where" if values in backends.NAMES else "backend", values)


def add_measuring(parser: argparse.ArgumentParser, *, where: bool = False) -> None:
    """--harmful, --attacks, --benign, --refusals, --near-misses, --split, --n, --dtype, --applied, --max-length,
    --backend, --device, --json."""
    what = "a suite of `sstmerge suites`, or a file; default:"
    parser.add_argument("--harmful", default="harmful", metavar="SUITE", help=f"what to resist: {what} the bundled one")
    about = "what the harmful prompts are asked under besides, with commas, such as prefill,base64 (docs/attacks.md)"
    parser.add_argument("--attacks", default="", metavar="NAMES", help=about)
    parser.add_argument(
        "--benign", default="near_miss", metavar="SUITE", help=f"what to answer: {what} the bundled one"
    )
    parser.add_argument(
        "--refusals", default="harmful", metavar="SUITE", help=f"what F_harm is taken of: {what} the bundled one"
    )
    parser.add_argument(
        "--near-misses",
        default="near_miss",
        metavar="SUITE",
        help=f"harmless look-alikes that methods are fitted on: {what} the bundled one",
    )
    add_columns(parser)
    parser.add_argument(
        "--split", default="test", choices=["selection", "test", "unseen"], help="which held-out prompts"
    )
    parser.add_argument("--n", type=int, default=64, help="prompts per suite, default 64")
    about = "of the model; auto: bfloat16 on a GPU, float32 on a CPU. Merges are computed in float32 anyway"
    parser.add_argument("--dtype", default="auto", choices=["auto", *DTYPES], help=about)
    about = "a low-rank ΔW is added to the weights, or works beside them; auto: beside on a GPU"
    parser.add_argument("--applied", default="auto", choices=["auto", *APPLIED], help=about)
    add_max_length(parser)
    add_chat(parser)
    about = "what generates; auto: vLLM where it is installed beside a GPU, else transformers"
    about += "; or where the points are computed: local, ray, slurm" if where else ""
    choices = ["auto", *served.BACKENDS, *(backends.NAMES if where else ())]
    parser.add_argument("--backend", default="auto", choices=choices, action=_Backend, help=about)
    parser.set_defaults(where=backends.LOCAL)
    about = "of the base's linear weights while it answers, by bitsandbytes, with ΔW beside them (extra [bits])"
    parser.add_argument("--bits", type=int, choices=[8, 4], help=about)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true", help="one JSON object per run")


def add_chat(parser: argparse.ArgumentParser) -> None:
    """--system, --thinking, --too-long and --modules-to-save."""
    about = "system prompt of every prompt and sample; default: the template's own, or none"
    parser.add_argument("--system", default="", metavar="TEXT", help=about)
    about = "whether the template lets the model reason first (enable_thinking)"
    parser.add_argument(
        "--thinking", choices=["template", "yes", "no"], help=f"{about}; default: as the template has it"
    )
    about = (
        "a prompt beyond the model's positions: refuse the suite (default), or cut the prompt's beginning and count it"
    )
    parser.add_argument("--too-long", choices=["refuse", "cut"], help=about)
    about = (
        "modules that an adapter has trained whole (modules_to_save): refuse (default), keep the utility side's "
        "as they are, or merge them too, as W' - W (dense)"
    )
    parser.add_argument("--modules-to-save", choices=saved.POLICIES, help=about)


def chat(options: argparse.Namespace) -> dict[str, Any]:
    """Fields of `preflight.Options` by the options of `add_chat`."""
    thinking = {"yes": True, "no": False}.get(options.thinking or "")
    told = {"too_long": options.too_long or "refuse", "modules_to_save": options.modules_to_save or "refuse"}
    return {"system": options.system, "thinking": thinking, **told}


def add_max_length(parser: argparse.ArgumentParser) -> None:
    """--max-length."""
    about = "tokens of a calibration sample, longer ones are cut; default: 512 on a GPU, 256 on a CPU"
    parser.add_argument("--max-length", type=int, metavar="TOKENS", help=about)


def computing(options: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """Fields of `preflight.Options` by --device, --max-length and --applied. Raises RecipeError."""
    device = "" if options.device == "auto" else options.device
    length, applied = getattr(options, "max_length", None), getattr(options, "applied", "auto")
    return preflight.how_to_compute(device, dtype, length, applied)


def add_columns(parser: argparse.ArgumentParser) -> None:
    """--columns."""
    parser.add_argument(
        "--columns",
        default="",
        metavar="NAME=COLUMN,…",
        help="what the columns of a file of rows are, such as prompt=question,response=answer; also id, topic, split "
        "(split:=test for all rows), turns (first or last of a chat), encoding and delimiter",
    )


def columns(options: argparse.Namespace) -> Columns | None:
    """What --columns says. Raises RecipeError."""
    text = getattr(options, "columns", "")
    return parse(text) if text else None


def base(path: str | None, workspace: Workspace) -> catalog.Base:
    """The base model in a folder or of a preset's name, or the bundled one, made ready where it is not."""
    if path:
        known = {base.name: base for base in catalog.bases(workspace)}
        preset = presets.models().get(path)
        if preset and path not in known and not given_path(path).exists():
            path = preset.folder
            if path not in known:
                raise DataError(Problem(f"base model {preset.huggingface}", "is not here", f"Get it: {preset.get}."))
        if path not in known and not given_path(path).exists() and HUB_ID.fullmatch(path):
            return _of_cache(path, workspace)
        return known.get(path) or catalog.base_at(path, workspace)
    from sstmerge_core.demo import model

    model.prepare(workspace)
    return catalog.bases(workspace)[0]


def _of_cache(given: str, workspace: Workspace) -> catalog.Base:
    """A model of the Hugging Face cache by its id; nothing is fetched unasked."""
    name, _, revision = given.partition("@")
    found = base_intake.cached(name, revision)
    if not found:
        fix = f"`sstmerge adapters add-base hf:{given}` fetches it."
        raise DataError(Problem(f"base model {given}", "is neither registered nor in the Hugging Face cache", fix))
    return replace(catalog.base_at(found[0].path, workspace), name=name)


@dataclass(frozen=True)
class MergeInputs:
    """What --base, --utility and --safety name."""

    base: catalog.Base
    utility: catalog.Entry
    safety: catalog.Entry
    further: tuple[catalog.Entry, ...]
    """The utility experts after the first"""

    @property
    def plan(self) -> dict[str, Any]:
        """As `preflight.plan` takes them."""
        return vars(self)


def merge_inputs(options: argparse.Namespace, workspace: Workspace) -> MergeInputs:
    """Base and adapters; the problems of all of them at once."""
    problems: list[Problem] = []
    found: list[Any] = []
    code: type[SSTMergeError] = RecipeError
    looks: list[Callable[[], Any]] = [lambda: base(options.base, workspace)]
    looks += [partial(catalog.find, workspace, name) for name in (*options.utility, options.safety)]
    for look in looks:
        try:
            found.append(look())
        except SSTMergeError as error:
            problems += error.problems
            code = type(error)
    if problems:
        raise code(problems)
    return MergeInputs(found[0], found[1], found[-1], tuple(found[2:-1]))


def measuring(options: argparse.Namespace, workspace: Workspace) -> preflight.Options:
    if options.n < 1:
        raise RecipeError(Problem("--n", f"{options.n} prompts measure nothing", "Give at least 1."))
    return chosen_suites.options(
        workspace,
        harmful=options.harmful,
        attacks=[name.strip() for name in getattr(options, "attacks", "").split(",") if name.strip()],
        benign=options.benign,
        utility=getattr(options, "suite", ""),
        refusals=options.refusals,
        near_misses=options.near_misses,
        columns=columns(options),
        split=options.split,
        n=options.n,
        **computing(options, options.dtype),
        **chat(options),
        bits=options.bits,
        backend=served.best_backend(options.device) if options.backend == "auto" else options.backend,
    )


def assignments(texts: Sequence[str], option: str) -> dict[str, str]:
    """``KEY=VALUE`` texts as a mapping. Raises RecipeError for those without a value."""
    pairs = [text.partition("=") for text in texts]
    lacking = [name for name, equals, _ in pairs if not equals]
    if lacking:
        raise RecipeError([Problem(f"{option} {name}", "has no value", "Write NAME=VALUE.") for name in lacking])
    return {name: value for name, _, value in pairs}
