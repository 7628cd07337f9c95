"""``python -m sstmerge_core.adapters.unpickle FROM TO``: tensors of a pickle as safetensors, in a process of its own.

`torch.load` with ``weights_only`` builds tensors and plain containers only; should a file get past that, it is past it
in a process that ends here and holds nothing.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sstmerge_core.adapters.json_file import shown
from sstmerge_core.errors import AdapterError, Problem

PATIENCE = 600.0
"""Seconds; a file of 4 GB takes about ten"""


def unpickle(source: Path, target: Path) -> None:
    """Write the tensors in the pickle `source` to `target` as safetensors. Raises AdapterError where it has others."""
    command = [sys.executable, "-m", "sstmerge_core.adapters.unpickle", str(source), str(target)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise AdapterError(Problem(str(source), "takes too long to read", "Save it as safetensors.")) from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["the process ended"])[-1]
        fault = f"is no pickle of tensors alone ({shown(said)})"
        raise AdapterError(Problem(str(source), fault, "Save it with safe_serialization=True where it was trained."))


def _main(source: str, target: str) -> None:
    import torch
    from safetensors.torch import save_file

    found = torch.load(source, map_location="cpu", weights_only=True)
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in found.items()
    ):
        raise SystemExit("it is not a mapping from names to tensors")
    # clones: tied tensors would be refused as shared memory
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in found.items()}, target)


if __name__ == "__main__":
    _main(*sys.argv[1:])
