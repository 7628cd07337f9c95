"""Every benchmark, one after another, each in a process of its own: ``python -m benchmarks [NAME ...] [--record]``.

``--record`` puts the results into ``benchmarks/RESULTS.md``, in place of older ones of the same name and device.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

NAMES = (
    *("merge", "elementwise", "fisher", "sweep", "generate", "pages", "scale", "path", "simulate", "memory"),
    "scale_out",
    "first_minutes",
)
RESULTS = Path(__file__).with_name("RESULTS.md")
HEAD = """# Results of the benchmarks

Ours against a peer, side by side in one run; the less the ratio the better, the limit is the most it may be. Where a
line says "within", the peer's column is the time that is allowed. Made by `make bench` on an otherwise idle machine.
Memory is in bytes.

| benchmark | ours | peer | ratio | limit | device | date |
|---|---:|---:|---:|---:|---|---|
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(NAMES)}; all by default")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    codes = []
    for name in arguments.names or NAMES:
        process = subprocess.Popen([sys.executable, "-m", f"benchmarks.{name}"], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if arguments.record and line.startswith("{"):
                record(json.loads(line))
        codes.append(process.wait())
    return 1 if any(codes) else 0


def record(result: dict[str, Any], path: Path = RESULTS) -> None:
    """Put one result into the table, in place of the older one of its name and device."""
    rows = {}
    if path.is_file():
        for line in path.read_text().splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if line.startswith("|") and len(cells) == 7 and cells[0] != "benchmark" and not cells[0].startswith("-"):
                rows[cells[0], cells[5]] = cells
    unit = "s" if "ours_s" in result else "bytes"
    peer = "allowed" if "allowed_s" in result else "peer"
    shown = [f"{result[f'{side}_{unit}']:,}" + (" s" if unit == "s" else "") for side in ("ours", peer)]
    today = datetime.date.today().isoformat()
    cells = [result["name"], *shown, f"{result['ratio']:.3f}", f"{result['limit']:.2f}", result["device"], today]
    rows[result["name"], result["device"]] = cells
    path.write_text(HEAD + "".join(f"| {' | '.join(cells)} |\n" for cells in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
