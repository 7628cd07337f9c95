"""The dashboard below a path of another server: nginx with the configuration that ships."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.browser import ROOT, drawn, free_port, running
from sstmerge_core.workspace import Workspace
from tests.synthetic_workspace import fill

PATH = "sst"
CHART = ".js-plotly-plot .main-svg"


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address behind nginx; the server itself is asked for nothing else."""
    nginx = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if nginx is None:
        pytest.skip("nginx is not installed")
    folder = tmp_path_factory.mktemp("proxy")
    workspace = fill(Workspace(folder / "workspace"))
    server, outside = free_port(), free_port()
    shipped = (ROOT / "deploy" / "nginx.conf").read_text()
    own = shipped.replace("http://server:8501", f"http://127.0.0.1:{server}").replace("8080;", f"{outside};")
    assert own != shipped and "8501" not in own
    places = "".join(
        f"    {kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "site.conf").write_text(own)
    (folder / "nginx.conf").write_text(
        f"daemon off;\npid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{}}\nhttp {{\n"
        f"    access_log off;\n{places}    include {folder}/site.conf;\n}}\n"
    )
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(server)]
    command += ["--server.headless", "true", "--server.baseUrlPath", PATH]  # as `sstmerge serve` says it
    environment = os.environ | {"SSTMERGE_WORKSPACE": str(workspace.root)}
    environment.pop("BASE_URL", None)
    inside = f"http://127.0.0.1:{server}/{PATH}/_stcore/health"
    address = f"http://localhost:{outside}/{PATH}"
    front = [nginx, "-e", f"{folder}/error.log", "-p", str(folder), "-c", f"{folder}/nginx.conf"]
    with (
        running(command, inside, folder=ROOT, environment=environment),
        running(front, f"{address}/_stcore/health", folder=folder),
    ):
        yield address


def test_pages_links_downloads_and_reloads_stay_below_the_path(proxied: str, new_page: Any, tmp_path: Path) -> None:
    page = new_page()
    strays: list[str] = []
    page.on("request", lambda request: strays.append(request.url) if "/sst" not in request.url else None)
    sockets: list[str] = []
    page.on("websocket", lambda socket: sockets.append(socket.url))
    page.goto(proxied)  # without the slash
    drawn(page, CHART)
    assert [url for url in sockets if f"/{PATH}/_stcore/stream" in url]
    page.locator("[data-testid='stPageLink'] a").first.click()
    page.wait_for_url(lambda url: url.startswith(f"{proxied}/") and url.rstrip("/") != proxied)
    page.goto(f"{proxied}/pareto")
    drawn(page, CHART)
    page.reload()
    drawn(page, CHART)
    page.get_by_role("button", name="Share").first.click()
    shared = page.locator("[data-testid='stCode']").filter(has_text="/pareto?").first.text_content()
    assert shared is not None and shared.strip().startswith(f"{proxied}/pareto?")
    page.goto(shared.strip())
    drawn(page, CHART)
    page.goto(f"{proxied}/report")
    drawn(page, "[data-testid='stDownloadButton'] button, [data-testid='stMainBlockContainer'] button")
    with page.expect_download() as coming:
        page.get_by_role("button", name="Markdown").first.click()
    coming.value.save_as(tmp_path / "report.md")
    text = (tmp_path / "report.md").read_text()
    assert f"{proxied}/run?" in text, "links of what leaves the page lead back through the proxy"
    assert not [url for url in strays if url.startswith(proxied.rpartition("/")[0])]
