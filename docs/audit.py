"""Known weaknesses in what is installed, by `pip-audit`: ``make audit``. Says so where nobody could be asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("requirements.lock", "requirements-alone.lock")


def told(report: dict[str, Any]) -> tuple[list[str], int]:
    """Lines to print of pip-audit's report, and the exit code: 1 where a package has a known weakness."""
    packages = report["dependencies"]
    asked = [one for one in packages if "skip_reason" not in one]
    lines = [
        f"{one['name']} {one['version']}: {weakness['id']}, mended in {', '.join(weakness['fix_versions']) or 'none'}"
        for one in asked
        for weakness in one["vulns"]
    ]
    weak = bool(lines)
    if not asked:
        return ["skipped: the service of known weaknesses cannot be reached, or knows none of these packages"], 0
    if skipped := len(packages) - len(asked):
        lines.append(f"skipped: {skipped} packages that the service does not know")
    return [*lines, f"{len(asked)} packages asked for, {'weaknesses found' if weak else 'no known weakness'}"], int(
        weak
    )


def main(program: str) -> int:
    code = 0
    for lock in LOCKS:
        command = [
            program,
            "-r",
            lock,
            "--require-hashes",
            "--disable-pip",
            "--format",
            "json",
            "--progress-spinner",
            "off",
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        try:
            lines, found = told(json.loads(done.stdout))
        except ValueError:  # no report: it could not ask
            reason = (done.stderr.strip().splitlines() or ["no report"])[-1][:200]
            lines, found = [f"skipped: {reason}"], 0
        print("\n".join(f"{lock}: {line}" for line in lines))
        code = max(code, found)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
