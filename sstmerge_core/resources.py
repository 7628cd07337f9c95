"""Where what ships with the program lies: at the top of a checkout, inside the package where it is installed."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

_PACKAGE = Path(str(files("sstmerge_core")))
_INSTALLED = _PACKAGE / "shipped"
"""Put there by the wheel (pyproject.toml): data, and the dashboard's app.py, pages and studio"""


def _place() -> Path:
    return _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent


TOP = _place()
"""The folder that has ``data``, ``app.py``, ``pages`` and ``studio``"""
DATA = TOP / "data"
IMPORTED_FROM = _PACKAGE.parent
"""What a process of its own needs on PYTHONPATH to import this very package"""
