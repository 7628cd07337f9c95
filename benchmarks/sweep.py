"""A sweep over α against a single merge: gradients, eigenvalue problem, patch and the adapters' factors.

    python -m benchmarks.sweep [--workspace FOLDER] [--times 3]

The bundled pair A5_A7 by sst_gevp from an empty cache: ten strengths against one. The model is loaded before.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.lines import Line, compared, parser, report, take_turns
from sstmerge_core.models.device import best_device, share_the_machine
from sstmerge_core.workspace import Workspace

STRENGTHS = [round(0.3 * number, 1) for number in range(1, 11)]


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--workspace", type=Path, default=Workspace.default().root)
    arguments = options.parse_args()
    share_the_machine()
    return report(figures(Workspace(arguments.workspace), arguments.times))


def figures(workspace: Workspace, times: int) -> Iterator[Line]:
    from sstmerge_core import catalog
    from sstmerge_core.builder import preflight
    from sstmerge_core.runs.execute import merge_now
    from sstmerge_core.runs.session import Session

    base = catalog.bases(workspace)[0]
    utility, safety = (catalog.find(workspace, name) for name in ("A5", "A7"))
    recipes = [preflight.merge_recipe(base, (utility,), safety, "sst_gevp", {"alpha": alpha}) for alpha in STRENGTHS]
    warm = Session(workspace, best_device())
    warm.model(recipes[0].base, "float32")

    def sweep(count: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            empty = Workspace(Path(folder)).create()
            session = replace(warm, workspace=empty, _adapters={}, _factors={}, _calibrated=None, patches={})
            for recipe in recipes[:count]:
                merge_now(recipe, session).factors()

    own, other = take_turns(lambda: sweep(len(recipes)), lambda: sweep(1), times)
    yield compared("sweep of 10 strengths, against one merge", own, other, 1.2)


if __name__ == "__main__":
    sys.exit(main())
