"""A LoRA adapter as one GGUF file for llama.cpp, made by llama.cpp's own converter where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from sstmerge_core.adapters.read import read
from sstmerge_core.errors import AdapterError, Problem
from sstmerge_core.workspace import given_path, is_file

SCRIPT = "convert_lora_to_gguf.py"
FOLDER = "LLAMA_CPP"
"""Names the folder of llama.cpp's checkout"""
KINDS = ("f32", "f16", "bf16", "q8_0")
_FIX = f"Check out llama.cpp, install its requirements, and set {FOLDER} to its folder or put {SCRIPT} on the PATH."


def converter() -> Path | None:
    """llama.cpp's ``convert_lora_to_gguf.py``: in the folder that ``LLAMA_CPP`` names, or on the PATH."""
    named = os.environ.get(FOLDER, "").strip()
    found = str(Path(named).expanduser() / SCRIPT) if named else shutil.which(SCRIPT) or ""
    return Path(found) if found and is_file(Path(found)) else None


def convert(adapter: Path | str, base: Path | str, out: Path | str, kind: str = "f16") -> Path:
    """Write the GGUF file `out` of a PEFT LoRA folder and the folder of its base, whose weights are not read.

    Raises AdapterError where the converter is not here, `out` is there already, or the converter says no, with the
    last line that it said.
    """
    script = converter()
    if script is None:
        raise AdapterError(Problem(SCRIPT, "is not on this machine", _FIX))
    if kind not in KINDS:
        raise AdapterError(Problem(f"type {kind}", "is none of the converter's", f"Use {', '.join(KINDS)}."))
    source, target = read(adapter).path, given_path(out, AdapterError)
    if target.exists():
        raise AdapterError(Problem(str(target), "is there already", "Name another file."))
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        str(script),
        "--base",
        str(base),
        "--outfile",
        str(target),
        "--outtype",
        kind,
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not is_file(target):
        target.unlink(missing_ok=True)
        said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
        fix = "llama.cpp may not know this model; it takes LoRA of linear layers alone."
        raise AdapterError(Problem(str(source), f"{SCRIPT} failed: {said[:300]}", fix))
    return target
