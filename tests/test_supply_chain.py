"""What is installed is named by hashes, and NOTICE names whose work ships or is installed."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from docs import audit, notice

ROOT = Path(__file__).resolve().parents[1]
LOCK = (ROOT / "requirements.lock").read_text()
LOCK_ALONE = (ROOT / "requirements-alone.lock").read_text()
_ENTRY = re.compile(r"^([\w.-]+)==(\S+)(?: ; (.*?))? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE)


def asked(name: str) -> list[Requirement]:
    lines = (line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return [Requirement(line) for line in lines if line]


def locked(text: str) -> dict[str, set[str]]:
    """Name → versions for this system and Python."""
    found: dict[str, set[str]] = {}
    for name, version, marker, _ in _ENTRY.findall(text):
        if not marker or Marker(marker).evaluate():
            found.setdefault(canonicalize_name(name), set()).add(version)
    return found


@pytest.mark.parametrize(
    ("text", "wanted"),
    [(LOCK, "requirements.txt"), (LOCK_ALONE, "requirements-alone.txt")],
    ids=["all", "alone"],
)
def test_the_lock_has_what_the_requirements_ask_for_each_by_its_hashes(text: str, wanted: str) -> None:
    found = locked(text)
    entries = "".join(match[0] for match in _ENTRY.finditer(text))
    assert entries == "".join(
        line + "\n" for line in text.splitlines() if not line.startswith("#")
    )  # nothing else in it
    for one in asked(wanted):
        assert [one.specifier.contains(version) for version in found[canonicalize_name(one.name)]] == [True], one.name


def test_the_lock_fits_what_the_package_itself_requires() -> None:
    found = locked(LOCK)
    for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]:
        one = Requirement(line)
        assert all(one.specifier.contains(version) for version in found[canonicalize_name(one.name)]), line


def test_the_lock_leaves_out_nothing_that_what_is_in_it_requires() -> None:
    found = locked(LOCK)
    missing = []
    for name in found:
        try:
            needed = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # of a machine with a GPU
        for one in map(Requirement, needed):
            if one.marker is None or one.marker.evaluate({"extra": ""}):
                versions = found.get(canonicalize_name(one.name), set())
                if not versions:
                    missing.append(f"{name} requires {one}")
    assert not missing


def test_no_address_of_a_registry_is_in_the_lock() -> None:
    for text in (LOCK, LOCK_ALONE):
        assert not re.search(r"://|--(?:extra-)?index|--find-links|--trusted-host", text)


def test_notice_names_all_that_ships_and_all_that_is_required() -> None:
    text, named = notice.PAGE.read_text(), notice.named()
    folders = {f"data/{path.name}" for path in (ROOT / "data").iterdir() if path.is_dir()}
    assert folders <= {place for places in notice.SHIPPED for place in places.split(", ")}
    for place, (what, terms) in (notice.SHIPPED | notice.FETCHED).items():
        assert f"{place}\n    {what}: {terms}\n" in text
    assert len(notice.packages()) > 40 and not set(notice.packages()) - set(named), "make docs"
    assert all(named.values())


def test_the_licences_in_notice_are_those_that_the_packages_and_the_data_state() -> None:
    assert notice.licence("streamlit") == notice.named()["streamlit"] == "Apache-2.0"
    for folder in ("demo", "judging"):
        assert (
            f"**Licence.** {notice.SHIPPED[f'data/{folder}'][1]}" in (ROOT / "data" / folder / "README.md").read_text()
        )


def test_no_javascript_is_vendored_without_its_licence() -> None:
    folders = [ROOT / name for name in ("studio", "pages", "sstmerge_core", "data")]
    scripts = [path for folder in folders for kind in ("*.js", "*.js.gz") for path in folder.rglob(kind)]
    libraries = [path for path in scripts if path.suffix == ".gz" or path.stat().st_size >= 40_000]
    assert scripts and {path.parent.relative_to(ROOT).as_posix() for path in libraries} <= set(notice.SHIPPED)
    assert all((path.parent / "LICENSE").is_file() for path in libraries), "a library comes with its licence"


def test_an_audit_tells_weaknesses_and_what_it_could_not_ask() -> None:
    weak = {"name": "x", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}
    fine = {"name": "y", "version": "1", "vulns": []}
    unknown = {"name": "z", "version": "1", "skip_reason": "not found"}
    assert audit.told({"dependencies": [weak, fine]})[1] == 1
    assert audit.told({"dependencies": [weak]})[0][0] == "x 1: CVE-1, mended in 2"
    lines, code = audit.told({"dependencies": [fine, unknown]})
    assert code == 0 and lines == [
        "skipped: 1 packages that the service does not know",
        "1 packages asked for, no known weakness",
    ]
    assert audit.told({"dependencies": [unknown]}) == (
        ["skipped: the service of known weaknesses cannot be reached, or knows none of these packages"],
        0,
    )
