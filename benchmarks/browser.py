"""A Streamlit server and a headless Chromium, for benchmarks, screenshots and the browser tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FLAGS = (
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--use-angle=swiftshader",  # WebGL without a GPU
    "--enable-unsafe-swiftshader",
    # a page with anything that moves took 81 % of a core without this, and 13 % with it
    "--disable-gpu-compositing",
)


@contextlib.contextmanager
def serving(
    workspace: Path, *, script: Path = ROOT / "app.py", port: int | None = None, log: Path | None = None
) -> Iterator[str]:
    """Run `script` on `workspace`; yields its address. The server and what it started are ended afterwards."""
    port = port or free_port()
    command = [sys.executable, "-m", "streamlit", "run", script.name, "--server.port", str(port)]
    command += ["--server.headless", "true", "--server.fileWatcherType", "none", "--browser.gatherUsageStats", "false"]
    environment = os.environ | {"SSTMERGE_WORKSPACE": str(workspace)}
    address = f"http://localhost:{port}"
    with running(command, f"{address}/_stcore/health", folder=script.parent, environment=environment, log=log):
        yield address


@contextlib.contextmanager
def running(
    command: Sequence[str],
    healthy: str,
    *,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> Iterator[None]:
    """Run a server from when it answers at the address `healthy`; it and what it started are ended afterwards."""
    with contextlib.ExitStack() as stack:
        output: Any = stack.enter_context(open(log, "wb")) if log else subprocess.DEVNULL
        server = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        stack.callback(_end, server)
        _wait_until_healthy(healthy, server)
        yield


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A Playwright browser. Raises RuntimeError that says what to install where there is none."""
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=found, args=list(FLAGS))
        except Exception as error:
            raise RuntimeError("no Chromium: install one (apt-get install chromium, or playwright install)") from error
        try:
            yield browser
        finally:
            browser.close()


def drawn(page: Any, mark: str, *, timeout: float = 60.0, whole: bool = True) -> None:
    """Wait until the page's script has run, `mark` (a CSS selector) is visible, and every chart on it is drawn.

    Not `whole`: the script may go on, with what stands below.
    """
    page.wait_for_function(
        """([mark, whole]) => {
            const app = document.querySelector('[data-testid="stApp"]');
            const ran = app && app.getAttribute('data-test-script-state') === 'notRunning';
            const found = document.querySelector(mark);
            const charts = [...document.querySelectorAll('[data-testid="stPlotlyChart"]')];
            const visible = found && found.getClientRects().length > 0;
            const loading = document.querySelector('[data-testid="stSkeleton"]');
            if (!whole) return visible;
            return ran && visible && !loading && charts.every(chart => chart.querySelector('.main-svg'));
        }""",
        arg=[mark, whole],
        polling="raf",
        timeout=timeout * 1000,
    )


def points_drawn(page: Any, chart: str, count: int, *, timeout: float = 120.0) -> None:
    """Wait until the Plotly chart in `chart` (a CSS selector) shows `count` points: as SVG marks, or WebGL pixels."""
    page.wait_for_function(
        """([mark, count]) => {
            const found = document.querySelector(mark);
            const chart = found && (found.matches('.js-plotly-plot') ? found : found.querySelector('.js-plotly-plot'));
            if (!chart || !chart._fullData || !chart.calcdata) return false;
            const held = type => chart._fullData
                .filter(trace => trace.visible === true && trace.type === type && trace.mode.includes('markers'))
                .reduce((sum, trace) => sum + (trace._length || 0), 0);
            const [svg, gl] = [held('scatter'), held('scattergl')];
            if (svg + gl < count) return false;
            if (svg >= count && chart.querySelectorAll('.scatterlayer .point').length < count) return false;
            const painted = canvas => {
                const copy = document.createElement('canvas');
                [copy.width, copy.height] = [200, 100];
                const pen = copy.getContext('2d');
                pen.drawImage(canvas, 0, 0, copy.width, copy.height);
                return pen.getImageData(0, 0, copy.width, copy.height).data.some(value => value > 0);
            };
            const canvases = [...chart.querySelectorAll('.gl-canvas')].filter(canvas => canvas.width);
            return gl === 0 || canvases.some(painted);
        }""",
        arg=[chart, count],
        polling="raf",
        timeout=timeout * 1000,
    )


def many_points_drawn(page: Any, count: int, *, timeout: float = 120.0) -> None:
    """Wait until our canvas of thousands (`studio/many.js`) is painted, with `count` points or more."""
    page.wait_for_function(
        """count => {
            const canvas = document.querySelector('.many-chart canvas');
            if (!canvas || Number(canvas.dataset.points ?? 0) < count || !canvas.getClientRects().length) return false;
            const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
            if (!pixels.some((value, place) => place % 4 === 3 && value > 0)) return false;
            return new Promise(done => requestAnimationFrame(() => setTimeout(() => done(true))));  // on the screen
        }""",
        arg=count,
        polling="raf",
        timeout=timeout * 1000,
    )


def answers(page: Any, chart: str, label: str, *, timeout: float = 120.0) -> None:
    """Wait until the chart in `chart` shows `label` (CSS selectors both) for a mouse that moves over its middle."""
    page.wait_for_function(
        """([chart, label]) => {
            const place = document.querySelector(chart);
            if (!place) return false;
            const box = place.getBoundingClientRect();
            const at = window.hand = ((window.hand ?? 0) + 1) % 40;  // a hand that looks for a point
            const where = {clientX: box.left + box.width * (0.3 + at / 100), clientY: box.top + box.height * 0.5};
            for (const [Kind, name] of [[PointerEvent, 'pointermove'], [MouseEvent, 'mousemove']])
                place.dispatchEvent(new Kind(name, {...where, bubbles: true, view: window}));
            const shown = document.querySelector(label);
            return Boolean(shown && shown.getClientRects().length);
        }""",
        arg=[chart, label],
        polling="raf",
        timeout=timeout * 1000,
    )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return int(listener.getsockname()[1])


def _wait_until_healthy(healthy: str, server: subprocess.Popen[bytes], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"the server ended with {server.returncode} before it answered")
        with contextlib.suppress(OSError), urllib.request.urlopen(healthy, timeout=2):
            return
        time.sleep(0.1)
    raise RuntimeError(f"the server did not answer within {seconds:g} s")


def _end(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
