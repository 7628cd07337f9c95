"""A terminal obeys nothing that people, adapters or models wrote."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from sstmerge_core.cli.printing import Terminal
from sstmerge_core.store import EventWriter
from sstmerge_core.workspace import Workspace
from tests.corpus.injections import INJECTIONS

OBEYED = {chr(code) for code in (*range(9), 11, 12, 13, *range(14, 32), *range(127, 160))}


@pytest.mark.parametrize("name", INJECTIONS)
def test_what_is_printed_on_a_terminal_holds_no_command_for_it(name: str) -> None:
    stream = io.StringIO()
    print(INJECTIONS[name], file=Terminal(stream))
    told = stream.getvalue()
    assert told.endswith("\n") and not set(told) & OBEYED
    assert not set(told) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def test_a_label_with_an_escape_sequence_is_told_as_text_on_a_terminal_and_as_it_is_in_a_file(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path).create()
    with EventWriter(workspace.run("r1")) as events:
        events.write("run_started", label="\x1b]0;evil\x07\x1b[31mred", run_id="r1")
    program = "import sys; from sstmerge_core.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "query", "SELECT label FROM runs WHERE run_id = 'r1'"]
    environment = os.environ | {"SSTMERGE_WORKSPACE": str(tmp_path)}
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdout=theirs, stderr=subprocess.DEVNULL, env=environment) as child:
        os.close(theirs)
        shown = b""
        while True:
            try:
                chunk = os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
            if not chunk:
                break
            shown += chunk
        assert child.wait() == 0
    os.close(ours)
    assert rb"\x1b]0;evil\x07\x1b[31mred" in shown and b"\x1b" not in shown
    written = subprocess.run([*command, "--format", "json"], capture_output=True, env=environment).stdout
    assert b"\\u001b]0;evil" in written
