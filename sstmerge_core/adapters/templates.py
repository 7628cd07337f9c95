"""The chat template in a folder of a base or an adapter, as its files have it. No transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sstmerge_core import documents
from sstmerge_core.adapters.json_file import read_object

_FILE = "chat_template.jinja"


def settings_template(folder: Path) -> Any:
    """The chat template in ``tokenizer_config.json``: a text, named ones, or None; the file beside it goes first."""
    try:
        return read_object(folder / "tokenizer_config.json").get("chat_template")
    except (OSError, ValueError):
        return None


def template(folder: Path) -> Any:
    """The chat template of a folder; None where there is none."""
    try:
        return documents.read_text(folder / _FILE)
    except documents.FormatError:
        return settings_template(folder)
