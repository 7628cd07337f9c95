"""What the server holds: freed memory goes back, and a frame that is lent to pages for ever does not grow."""

from __future__ import annotations

import gc
import sys
import weakref

import numpy as np
import pandas as pd
import psutil
import pytest

from studio import memory, start


def test_a_frame_that_pages_get_again_and_again_does_not_grow() -> None:
    known = start.Answers()
    frame = pd.DataFrame({name: [name] * 3 for name in "abcdefgh"})
    known.of("key", lambda: frame)
    before = _notes()
    for _ in range(45 * start.LENT):  # pandas itself looks after 500
        lent = known.lend("key", known.of("key", lambda: frame))
    lent.loc[0, "a"] = "changed by a page"
    assert _notes() - before < 150 * len(frame.columns)
    assert known.of("key", lambda: frame).equals(frame)


def _notes() -> int:
    gc.collect()
    return sum(isinstance(one, weakref.ref) for one in gc.get_objects())


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_what_was_freed_between_what_is_kept_goes_back_to_the_system() -> None:
    if not memory.bound_arenas():
        pytest.skip("another C library")
    held = [np.ones(12_500) for _ in range(800)]  # 100 kB each: not a mapping of its own
    kept = held[::40]
    del held
    process = psutil.Process()
    before = process.memory_info().rss
    memory.trim()
    assert before - process.memory_info().rss > 30e6 and all(one.sum() == 12_500 for one in kept)


def test_memory_is_given_back_while_pages_are_drawn_and_once_after(monkeypatch: pytest.MonkeyPatch) -> None:
    now, trimmed = 1000.0, []
    monkeypatch.setattr(memory.time, "monotonic", lambda: now)
    monkeypatch.setattr(memory, "trim", lambda: trimmed.append(now))
    trimmer = memory.Trimmer()
    assert trimmer.look(asked=999.0)
    now = 1010.0
    assert not trimmer.look(asked=1005.0), "twice in ten seconds"
    now = 1030.0
    assert trimmer.look(asked=1005.0)
    now = 1100.0
    assert not trimmer.look(asked=1005.0), "nothing was drawn since"
    assert trimmed == [1000.0, 1030.0]
