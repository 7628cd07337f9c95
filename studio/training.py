"""The settings of a training as widgets, and rows that came from a browser."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, NamedTuple

import streamlit as st

from sstmerge_core import access
from sstmerge_core.builder import presets
from sstmerge_core.demo.adapters import DATA
from sstmerge_core.errors import DataError, Problem
from sstmerge_core.suites.bundled import ROLES
from sstmerge_core.train import TrainingSettings
from sstmerge_core.words import shortened
from sstmerge_core.workspace import Workspace, write_file
from studio import link

ENDINGS = ("jsonl", "ndjson", "json", "csv", "tsv", "parquet", "yaml", "yml", "gz")
OWN = "This program's defaults"


class Setting(NamedTuple):
    label: str
    low: float
    high: float
    step: float
    help: str


SETTINGS = {
    "epochs": Setting("Epochs", 0.1, 1000.0, 0.5, "How often each row is learnt."),
    "learning_rate": Setting("Learning rate", 1e-7, 1.0, 1e-4, "Its highest value; it rises first and then falls."),
    "batch_size": Setting("Batch", 1, 4096, 1, "Rows learnt in one step."),
    "r": Setting("Rank r", 1, 1024, 1, "Of the LoRA adapter, on every linear module."),
    "lora_alpha": Setting("LoRA α", 1, 4096, 1, "The adapter's scale is α / r."),
    "max_length": Setting("Tokens at most", 2, 131_072, 64, "Of prompt and response; longer rows are cut."),
    "warmup": Setting("Warm-up", 0.0, 1.0, 0.05, "Share of the steps over which the learning rate rises."),
    "seed": Setting("Seed", 0, 2**31 - 1, 1, "Of the first weights and of the order of the rows."),
    "patience": Setting(
        "Patience", 0, 1000, 1, "Stop after so many epochs without a lower validation loss and keep the best. 0: off."
    ),
}
DEFAULTS = {name: field.default for name, field in TrainingSettings.model_fields.items()}
DEFAULTS["epochs"] = float(DEFAULTS["epochs"])


def fields() -> link.Fields:
    """Setting → (parser of the link's text, default); and the preset they were taken from."""
    found: dict[str, tuple[link.Parser, Any]] = {
        name: (number(one.low, one.high, type(DEFAULTS[name])), DEFAULTS[name]) for name, one in SETTINGS.items()
    }
    return found | {"preset": (link.one_of([OWN, *presets.trainings()]), OWN)}


def settings(state: link.Link, rows: int) -> TrainingSettings:
    """A folded part with a widget for each setting, and the presets. Call `state.read(fields())` before."""
    changed = [
        f"{SETTINGS[name].label} {st.session_state[state.key(name)]:g}"
        for name in SETTINGS
        if st.session_state[state.key(name)] != DEFAULTS[name]
    ]
    st.session_state["train:folded"] = bool(changed) or st.session_state.get("train:folded", False)
    with st.expander(
        f"Settings · {', '.join(changed)}" if changed else "Settings", expanded=st.session_state["train:folded"]
    ):

        def take() -> None:
            chosen = st.session_state[state.key("preset")]
            taken = presets.training(chosen).for_rows(rows) if chosen != OWN else TrainingSettings()
            for name in SETTINGS:
                st.session_state[state.key(name)] = type(DEFAULTS[name])(getattr(taken, name))

        chosen = st.selectbox(
            "Take them from",
            [OWN, *presets.trainings()],
            key=state.key("preset"),
            format_func=lambda name: name if name == OWN else presets.trainings()[name].title,
            on_change=take,
            width=380,
        )
        if chosen != OWN:
            preset = presets.training(chosen)
            open_ = f"Not stated there: {', '.join(preset.unstated)}." if preset.unstated else ""
            st.caption(" ".join(filter(None, [preset.source, open_])))
        with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
            values = {name: _widget(state.key(name), name) for name in SETTINGS}
    return TrainingSettings(**values)


def files(workspace: Workspace) -> list[str]:
    """What can be chosen without writing a path: bundled rows, and those uploaded before, newest first."""
    uploaded = sorted(workspace.uploads.glob("*/*"), key=lambda path: -path.stat().st_mtime)
    return [*(str(path) for path in uploaded), *ROLES]


def path_of(chosen: str) -> Path:
    """The file of a choice, whether there is one or not. Raises DataError for what no file can be called."""
    try:
        path = DATA / f"{chosen}.jsonl" if chosen in ROLES else access.place(chosen.strip())
        path.stat()
    except FileNotFoundError:
        return path
    except (OSError, RuntimeError, ValueError) as error:  # too long, no such user's home, a NUL in it
        reason = getattr(error, "strerror", None) or str(error)
        where = f"file {shortened(chosen)}"
        raise DataError(Problem(where, f"cannot be opened: {reason}", "Choose another file.")) from None
    return path


def file_label(chosen: str) -> str:
    """``facts (bundled)``, an upload's own name, a path as it is."""
    if chosen in ROLES:
        return f"{chosen} (bundled)"
    return f"{Path(chosen).name} (uploaded)" if Path(chosen).parent.parent.name == "uploads" else chosen


def keep_upload(workspace: Workspace, name: str, data: bytes) -> str:
    """Write an uploaded file into the workspace, once for each content; its path."""
    plain = re.sub(r"[^\w.+-]", "_", Path(name).name).lstrip(".") or "rows.jsonl"
    path = workspace.uploads / hashlib.sha256(data).hexdigest()[:12] / plain
    if not path.exists():
        write_file(path, data)
    return str(path)


def number(low: float, high: float, kind: type = float) -> link.Parser:
    def parse(values: list[str]) -> Any:
        try:
            value = kind(values[-1])
        except ValueError:
            raise ValueError("must be a number") from None
        if not low <= value <= high:
            raise ValueError(f"must be from {low:g} to {high:g}")
        return value

    return parse


def _widget(key: str, name: str) -> Any:
    label, low, high, step, about = SETTINGS[name]
    help_ = f"{about} Default: {DEFAULTS[name]:g}."
    kind = type(DEFAULTS[name])
    return st.number_input(
        label,
        kind(low),
        kind(high),
        step=kind(step),
        format="%g" if kind is float else None,
        key=key,
        help=help_,
        width=140,
    )
