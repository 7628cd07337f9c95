"""What the documents promise is there."""

from __future__ import annotations

import argparse
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from sstmerge_core import __version__
from sstmerge_core.cli import _parser
from sstmerge_core.evaluate.judge import OneByOne
from sstmerge_core.methods import registry
from sstmerge_core.metrics import Metric

ROOT = Path(__file__).resolve().parents[1]
TOP = ("README.md", "README.ja.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
PAGES = [*(ROOT / name for name in TOP), *sorted((ROOT / "docs").rglob("*.md"))]
HEADINGS = {
    "SST-Merge Studio": "SST-Merge Studio",
    "Start": "はじめに",
    "Five things to do next": "次にすること五つ",
    "Methods": "手法",
    "On the command line": "コマンドライン",
    "The demo's adapters": "デモのアダプタ",
    "Take part": "参加する",
    "Licence": "ライセンス",
}
"""Of README.md, and what they are called in README.ja.md"""


def blocks(page: Path, language: str = r"\w*") -> list[str]:
    """The code blocks of a document."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    """The lines of its code blocks without their comments."""
    lines = (line.partition(" #")[0].strip() for block in blocks(page) for line in block.splitlines())
    return [line for line in lines if line]


def headings(page: Path) -> list[tuple[str, str]]:
    """Level and text of its headings, code left out."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^(#+) (.+)$", text, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_document_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", page.read_text())
    missing = [one for one in targets if "://" not in one and not (page.parent / one).exists()]
    assert not missing


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (found,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return found.choices


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_document_names_exists(page: Path) -> None:
    known = subcommands(_parser())
    named = set(re.findall(r"^(?:`|\s*)sstmerge ([a-z]+)", page.read_text(), re.MULTILINE))
    assert named <= set(known)


@pytest.mark.parametrize("line", [one for one in commands(ROOT / "README.md") if one.startswith("sstmerge ")])
def test_every_command_of_the_readme_is_one_that_the_program_takes(line: str) -> None:
    _, name, *rest = shlex.split(line)
    alternatives = rest[0].split("|") if rest and "|" in rest[0] else []
    if alternatives:
        known = next(action.choices for action in subcommands(_parser())[name]._actions if action.choices)
        assert set(alternatives) <= set(known)
    else:
        _parser().parse_args([name, *rest])


@pytest.mark.parametrize("page", [ROOT / name for name in TOP], ids=lambda page: page.name)
def test_every_target_of_make_that_a_document_names_is_in_the_makefile(page: Path) -> None:
    known = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make ([a-z]+)|`make ([a-z]+)", page.read_text(), re.MULTILINE)) <= (
        {(name, "") for name in known} | {("", name) for name in known}
    )


def test_the_japanese_readme_has_the_same_headings_in_the_same_order() -> None:
    english = headings(ROOT / "README.md")
    assert [text for _, text in english] == list(HEADINGS)
    assert headings(ROOT / "README.ja.md") == [(level, HEADINGS[text]) for level, text in english]


def test_the_japanese_readme_has_the_same_commands() -> None:
    assert commands(ROOT / "README.ja.md") == commands(ROOT / "README.md")
    assert len(commands(ROOT / "README.md")) > 10


def test_the_change_log_begins_with_what_is_unreleased_and_has_the_version() -> None:
    versions = re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == "Unreleased"
    assert versions[1] == __version__


def test_the_citation_is_of_this_version_and_licence() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["cff-version"] == "1.2.0"
    assert citation["message"] and citation["title"] and citation["authors"]  # what the format asks for
    assert (citation["version"], citation["license"]) == (__version__, project["license"])


def example(defines: str) -> dict[str, Any]:
    """What the Python example of CONTRIBUTING.md that has `defines` in it leaves behind when it is run."""
    (text,) = (block for block in blocks(ROOT / "CONTRIBUTING.md", "python") if defines in block)
    namespace: dict[str, Any] = {"__name__": __name__}
    exec(compile(text, "CONTRIBUTING.md", "exec", dont_inherit=True), namespace)
    return namespace


def test_the_guides_method_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    negation = example("def negation")["negation"]
    entry = registry.get("negation")
    assert negation(2, alpha=0.5) == (1.0, -0.5)
    assert [parameter.name for parameter in entry.parameters] == ["alpha"]


def test_the_guides_metric_is_one() -> None:
    metric = example("METRIC")["METRIC"]
    assert isinstance(metric, Metric) and metric.score is not None
    assert (metric.score("Oslo", "It is OSLO."), metric.score("Oslo", "Rome")) == (True, False)


def test_the_guides_judge_is_one() -> None:
    judge = example("SaysNo")["SaysNo"]()
    assert isinstance(judge, OneByOne)
    verdicts = judge.score_all([("q", "No, I will not."), ("q", "Here is how it is done."), ("q", "")])
    assert [one.label for one in verdicts] == ["refusal", "not_refused", "degenerate"]
