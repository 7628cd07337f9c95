"""The wheel, installed where there is no checkout: every command, the demo with its model fetched, the dashboard."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
import sysconfig
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.browser import chromium, drawn, free_port, running
from sstmerge_core.demo import model

ROOT = Path(__file__).resolve().parents[1]
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
OURS = ("sstmerge", "_sstmerge", "__editable__", model.MODULE)
"""How the names begin, among the installed packages, of what the new environment must not see"""
HELP = """
import contextlib, io, sstmerge_core.cli as cli
choices = next(action.choices for action in cli._parser()._actions if action.choices)
for name in choices:
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
        cli.main([name, "--help"])
    assert said.getvalue().startswith(f"usage: sstmerge {name}"), name
    print(name)
"""


class Installed:
    """An environment with the wheel in it, and an empty folder to stand in."""

    def __init__(self, environment: Path, folder: Path, index: Path):
        self.bin, self.folder = environment / "bin", folder
        # pip finds the model's package in this folder and asks nobody else
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SSTMERGE_"))}
        self.variables = clean | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index), "OMP_NUM_THREADS": "1"}

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.bin / program, *arguments], cwd=self.folder, env=self.variables, capture_output=True, text=True
        )

    def said(self, *arguments: str) -> str:
        """What ``sstmerge`` printed, which is to succeed."""
        done = self.run("sstmerge", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def site(self) -> Path:
        return next(self.bin.parent.glob("lib/python*/site-packages"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # The builder is installed with the tests, so nothing is fetched for it.
    own = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", folder)
    subprocess.run([*PIP, "wheel", ROOT, *own], check=True)
    return next(folder.glob("sstmerge-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """A new environment with the wheel, and what the wheel requires as it is here; the model's package is not in it."""
    root = tmp_path_factory.mktemp("installed")
    libraries = root / "libraries" / "site-packages"  # Streamlit anywhere else takes itself for its own checkout
    for folder in (root / "index", root / "elsewhere", libraries):
        folder.mkdir(parents=True)
    _pack_model(root / "index")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root / "venv"], check=True)
    found = Installed(root / "venv", root / "elsewhere", root / "index")
    into = ("--no-deps", "--no-index", "--no-compile", "--quiet", wheel)
    subprocess.run([*PIP, "--python", found.bin / "python", "install", *into], check=True)
    for place in dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib")):
        for package in Path(place).iterdir():
            if package.suffix != ".pth" and not package.name.startswith(OURS):
                (libraries / package.name).symlink_to(package)
    (found.site / "libraries.pth").write_text(f"{libraries}\n")
    return found


def _pack_model(folder: Path) -> None:
    """The installed package of the demo's model as the wheel it came in."""
    package = importlib.metadata.distribution(model.MODULE.replace("_", "-"))
    name = f"{model.MODULE}-{package.version}"
    with zipfile.ZipFile(folder / f"{name}-py3-none-any.whl", "w") as packed:
        record = []
        for file in package.files or ():
            inside = file.suffix != ".pyc" and ".." not in file.parts
            if inside and file.name not in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json"):
                data = file.read_binary()
                digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
                packed.writestr(str(file), data)
                record.append(f"{file},sha256={digest},{len(data)}\n")
        packed.writestr(f"{name}.dist-info/RECORD", "".join(record))


@pytest.fixture(scope="module")
def prepared(installed: Installed) -> Installed:
    """With the demo prepared in `workspace` where the commands stand."""
    installed.said("demo", "--prepare")
    return installed


def test_the_package_is_the_wheels_and_its_data_and_pages_are_inside_it(installed: Installed) -> None:
    script = "import sstmerge_core, sstmerge_core.resources as r; print(sstmerge_core.__file__, r.TOP, sep='\\n')"
    package, top = map(Path, installed.run("python", "-c", script).stdout.splitlines())
    assert package == installed.site / "sstmerge_core" / "__init__.py"
    assert top == installed.site / "sstmerge_core" / "shipped"


def test_the_wheel_holds_every_file_of_the_program_and_of_its_data_and_no_other(wheel: Path) -> None:
    own = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    tracked = subprocess.run(own, cwd=ROOT, capture_output=True, text=True).stdout.split()
    if not tracked:
        pytest.skip("not a checkout of Git")
    shipped = {f"sstmerge_core/shipped/{name}" for name in tracked if name.startswith(("data/", "pages/", "studio/"))}
    program = {name for name in tracked if name.startswith("sstmerge_core/")}
    alone = {f"sstmerge_core/shipped/{name}" for name in ("app.py", ".streamlit/config.toml")}
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert inside == shipped | program | alone


def test_every_command_tells_its_usage(installed: Installed) -> None:
    done = installed.run("python", "-c", HELP)
    assert done.returncode == 0, done.stderr
    assert {"serve", "demo", "merge", "query"} <= set(done.stdout.split())
    assert "serve" in installed.said("--help")


def test_the_suites_are_listed(installed: Installed) -> None:
    names = {json.loads(line)["name"] for line in installed.said("suites", "--json").splitlines()}
    assert {"harmful", "facts", "mmlu_chat"} <= names


def test_the_demo_is_prepared_and_can_be_queried(prepared: Installed) -> None:
    assert (prepared.site / model.MODULE).is_dir(), "its model's package was fetched"
    assert (prepared.folder / "workspace").is_dir()
    assert json.loads(prepared.said("query", "SELECT 1 AS one", "--format", "json")) == {"one": 1}
    counted = json.loads(prepared.said("query", "SELECT count(*) AS n FROM runs", "--format", "json"))
    assert counted["n"] > 200


@pytest.fixture(scope="module")
def address(prepared: Installed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    command = [str(prepared.bin / "sstmerge"), "serve", "--no-browser", "--port", str(port), "--base-url", "http://us"]
    log = tmp_path_factory.mktemp("server") / "log"
    healthy = f"http://localhost:{port}/_stcore/health"
    with running(command, healthy, folder=prepared.folder, environment=prepared.variables, log=log):
        yield f"http://localhost:{port}"
    assert "Traceback" not in log.read_text()


def test_the_dashboard_is_served(address: str) -> None:
    with urllib.request.urlopen(f"{address}/_stcore/health") as answer:
        assert answer.read() == b"ok"
    with urllib.request.urlopen(f"{address}/pareto?pair=A5_A7") as answer:
        assert answer.status == 200 and b"<html" in answer.read()


@pytest.mark.e2e
def test_a_page_of_it_shows_the_demo_in_the_projects_colours(address: str) -> None:
    try:
        opened = chromium()
        browser = opened.__enter__()
    except RuntimeError as error:
        pytest.skip(str(error))
    try:
        page = browser.new_page()
        page.goto(f"{address}/pareto?pair=A5_A7")
        drawn(page, ".js-plotly-plot .main-svg")
        assert not page.locator('[data-testid="stException"]').count()
        background = page.evaluate("getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor")
        assert background == "rgb(253, 253, 252)", "the theme of .streamlit/config.toml"
    finally:
        opened.__exit__(None, None, None)
