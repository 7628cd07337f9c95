"""The load benchmark's workers and its section of the document; the load itself is `python -m benchmarks.load`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import load, load_work
from benchmarks.reliability import checks
from sstmerge_core.errors import Cancelled
from sstmerge_core.store.events import last_status
from sstmerge_core.workspace import Workspace


def test_the_workers_of_the_load_write_every_answer_once_and_stop_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSTMERGE_LOAD_PAUSE", "0")
    own, work = Workspace(tmp_path / "ws").create(), [load_work.recipe(0), load_work.recipe(1)]
    told: dict[str, Any] = {"report": lambda *_: None, "tell": lambda part: None, "user": "", "job_id": "j"}
    load_work.execute(work, own, should_cancel=lambda: False, **told)
    load_work.execute(work, own, should_cancel=lambda: False, **told)
    assert {last_status(own.run(one.run_id)) for one in work} == {"finished"} and len({one.run_id for one in work}) == 2
    assert checks.doubled(own) == []
    rows = checks.results(own, work[0].run_id)
    assert sum(len(batch) for name, batch in rows.items() if name.startswith("samples")) == (
        load_work.BATCHES * load_work.ANSWERS
    )
    with pytest.raises(Cancelled):
        load_work.execute([load_work.recipe(2)], own, should_cancel=lambda: True, **told)


def test_the_slope_of_a_flat_memory_is_none_and_the_section_tells_every_figure() -> None:
    assert load._slope([(0.0, 5.0), (1.0, 5.0), (2.0, 5.0)]) == 0.0
    assert load._slope([(0.0, 5.0), (1.0, 7.0), (2.0, 9.0)]) == pytest.approx(2.0)
    told = {
        **{"minutes": 1.0, "sessions": 8, "workers": 4, "jobs": {"done": 50}, "answers": 24000, "pages": 300},
        **{"median_s": 0.2, "p95_s": 1.5, "slowest_s": 3.25, "by_page": {"run": [3, 0.1, 0.2]}, "parts": 7},
        **{"parts_p95_s": 0.4, "memory_mb": [400, 450, 430], "slope_mb_per_minute": -0.5, "noise": 0},
        "faults": ["lost: one"],
    }
    text = load.text(told)
    for figure in (
        "8 sessions",
        "4 workers",
        "50 queued jobs",
        "0.2 s, 1.5 s, 3.25 s",
        "24,000",
        "-0.50 MB",
        "lost: one",
    ):
        assert figure in text


@pytest.mark.parametrize(("line", "noise"), [("  URL: http://localhost:1", False), ("", False), ("Traceback", True)])
def test_what_a_server_prints_at_its_start_is_no_noise(line: str, noise: bool) -> None:
    assert (load.EXPECTED.search(line) is None) == noise
