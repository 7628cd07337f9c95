"""Children forked from this process, which has imported everything already: a kill costs a second, not twenty.

This process itself never computes gradients, opens no database and starts no thread, so that a fork of it is as good
as a new one.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE = 120.0
"""Seconds after which a child counts as hung"""


@dataclass
class Child:
    """A process in a session of its own, and where it writes."""

    pid: int
    log: Path
    status: int | None = None
    """As `subprocess.Popen.returncode`: negative for a signal"""

    def poll(self) -> int | None:
        if self.status is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status

    def wait(self, seconds: float = PATIENCE) -> int | None:
        """Its exit status; None where it still runs after `seconds`."""
        deadline = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.status

    def kill(self) -> None:
        """SIGKILL to it and to what it started."""
        if self.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
            self.wait()

    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


def fork(work: Callable[[], Any], log: Path) -> Child:
    """Run `work` in a child, its output in `log`; an exception there is printed and ends it with status 70."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return Child(pid, log)
    status = 70
    try:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        status = int(work() or 0)
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def asked(work: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """What `work` returns (it must be JSON) in a child of its own. Raises RuntimeError where it fails or hangs."""
    number = time.monotonic_ns()
    folder = Path(tempfile.gettempdir())  # never the disk that may be full
    answer = folder / f"sstmerge.{os.getpid()}.{number}.json"

    def told() -> None:
        answer.write_text(json.dumps(work(), default=str))

    child = fork(told, answer.with_suffix(".log"))
    if child.wait(seconds) != 0:
        hung = child.status is None
        child.kill()
        raise RuntimeError(f"{'hung' if hung else f'ended with {child.status}'}: {child.text()[-3000:]}")
    found = json.loads(answer.read_text())
    answer.unlink()
    child.log.unlink(missing_ok=True)
    return found
