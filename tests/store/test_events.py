from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sstmerge_core.errors import StoreError
from sstmerge_core.store import EventWriter, read_events
from sstmerge_core.store.events import last_status
from tests.there import there


def test_events_come_back_as_written_with_a_name_and_a_time(tmp_path):
    with EventWriter(tmp_path) as events:
        events.write("stage", stage="merge", note="α = “0.5”\u2028\x00")
        events.write("metrics", value=np.float32(0.5), rows=np.arange(2), where=Path("a/b"))
    first, second = read_events(tmp_path)
    assert (first["event"], first["note"]) == ("stage", "α = “0.5”\u2028\x00") and first["t"] > 1e9
    assert (second["value"], second["rows"], second["where"]) == (0.5, [0, 1], "a/b")


def test_numbers_that_json_has_no_word_for_become_null(tmp_path):
    with EventWriter(tmp_path) as events:
        events.write("metrics", rows=[{"value": float("nan")}, {"value": np.float64("inf")}], more=(1.0, -np.inf))
    (event,) = read_events(tmp_path)
    assert event["rows"] == [{"value": None}, {"value": None}] and event["more"] == [1.0, None]


def test_a_torn_last_line_is_not_read_and_is_cut_off_by_the_next_writer(tmp_path):
    with EventWriter(tmp_path) as events:
        events.write("one")
        events.write("two", text="x" * 200_000)  # longer than the block in which the end is searched
    path = tmp_path / "events.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100_000])
    assert [event["event"] for event in read_events(tmp_path)] == ["one"]
    with EventWriter(tmp_path) as events:
        events.write("three")
    assert [event["event"] for event in read_events(tmp_path)] == ["one", "three"]
    path.write_bytes(b'{"event": "torn')
    with EventWriter(tmp_path) as events:
        events.write("first")
    assert [event["event"] for event in read_events(tmp_path)] == ["first"]


def test_no_flipped_bit_is_ever_read_as_something_else(tmp_path):
    with EventWriter(tmp_path) as events:
        events.write("samples", rows=[{"prompt_id": "h1", "response": "I cannot help with that. é"}], value=0.25)
    (whole,) = read_events(tmp_path)
    path = tmp_path / "events.jsonl"
    line = path.read_bytes()
    for place in range(8 * (len(line) - 1)):
        flipped = bytearray(line)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        for event in read_events(tmp_path):  # a flip within the name of the checksum leaves what it is of as it was
            assert {name: event.get(name) for name in whole} == whole


def test_lines_of_before_the_checksums_are_read(tmp_path):
    (tmp_path / "events.jsonl").write_bytes(b'{"event": "stage", "t": 1.5, "stage": "merge"}\r\n')
    assert list(read_events(tmp_path)) == [{"event": "stage", "t": 1.5, "stage": "merge"}]


def test_a_file_has_one_writer_at_a_time(tmp_path):
    with EventWriter(tmp_path), pytest.raises(StoreError, match="another process is writing"):
        EventWriter(tmp_path, wait=0.05)
    EventWriter(tmp_path, wait=0).close()


def test_a_writer_killed_in_the_middle_loses_nothing_complete_and_the_next_one_continues(tmp_path):
    code = (
        "import sys; from sstmerge_core.store import EventWriter; w = EventWriter(sys.argv[1]); n = 0\n"
        "while True:\n w.write('samples', n=n, text='x' * 5000); n += 1; print(n, flush=True)"
    )
    for _ in range(3):
        before = len(list(read_events(tmp_path)))
        child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(20):
            acknowledged = int(there(child.stdout).readline())
        os.kill(child.pid, signal.SIGKILL)
        acknowledged = max([acknowledged, *(int(line) for line in there(child.stdout).read().splitlines() if line)])
        child.wait()
        path = tmp_path / "events.jsonl"
        path.write_bytes(path.read_bytes() + b'{"event": "samples", "n": 9')  # the line it was killed in
        written = list(read_events(tmp_path))[before:]
        assert [event["n"] for event in written] == list(range(len(written)))
        assert len(written) >= acknowledged
    with EventWriter(tmp_path) as events:
        events.write("after")
    lines = (tmp_path / "events.jsonl").read_bytes().splitlines()
    assert json.loads(lines[-1])["event"] == "after" and all(json.loads(line) for line in lines)


def test_the_last_word_about_a_run_is_its_status(tmp_path):
    assert last_status(tmp_path) is None
    with EventWriter(tmp_path) as events:
        events.write("run_started")
        events.write("samples", rows=[{"response": '"run_finished"'}])
        assert last_status(tmp_path) == "running"
        events.write("run_cancelled")
        assert last_status(tmp_path) == "cancelled"
