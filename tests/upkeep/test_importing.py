"""Another workspace's runs taken in: each once, nothing replaced, what differs named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sstmerge_core import catalog
from sstmerge_core.cli import main
from sstmerge_core.errors import DataError
from sstmerge_core.store import EventWriter, Owner, audit, queries, remarks, saved
from sstmerge_core.upkeep import backup, importing
from sstmerge_core.workspace import Workspace
from tests.upkeep.test_backup import contents, finished


@pytest.fixture
def here(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path / "here").create()
    finished(made, "both")
    finished(made, "ours")
    return made


@pytest.fixture
def there(tmp_path: Path, here: Workspace, tiny_pair: tuple[Path, Path]) -> Workspace:
    made = Workspace(tmp_path / "there").create()
    shutil.copytree(here.run("both"), made.run("both"))
    finished(made, "theirs", b"weights")
    with EventWriter(made.run("at work")) as events:
        events.write("run_started")
    with EventWriter(made.run("running")) as events:
        events.write("run_started")
    with EventWriter(made.catalog) as events:
        events.write("sweep_submitted", sweep_id="s", name="n", user="u", recipe_count=1, run_ids=["theirs"])
    shutil.copytree(tiny_pair[0], made.adapters / "mine")
    catalog.add(made, made.adapters / "mine", "mine", "utility", tags=["good"])
    catalog.add(made, tiny_pair[1], "elsewhere", "safety")
    remarks.tag(made, "theirs", "keep")
    remarks.note(made, "both", "said there")
    saved.save(made, saved.SavedQuery("all", "SELECT 1"))
    return made


@pytest.mark.parametrize("how", ["folder", "backup"])
def test_what_is_new_comes_in_once_and_again_nothing_does(how, here, there, tmp_path):
    source = there.root
    if how == "backup":
        source = tmp_path / "there.zip"
        backup.make(there, source)
        shutil.rmtree(there.root)
    planned = importing.take(here, source, dry_run=True)
    assert not here.run("theirs").exists() and planned.new["runs"] == 1
    found = importing.take(here, source)
    assert found.new == {"runs": 1, "remarks": 2, "adapters": 1, "sweeps": 1, "queries": 1} == planned.new
    assert (here.merged_adapter("theirs") / "adapter_model.safetensors").read_bytes() == b"weights"
    (mine,) = [one for one in catalog.entries(here) if not one.bundled]
    assert (mine.name, mine.path, mine.tags) == ("mine", here.adapters / "mine", ("good",))
    with Owner.open(here) as owner:
        owner.ingest()
        assert queries.counts(owner.cursor())["finished"] == 3
        assert queries.tags(owner.cursor())["tag"].tolist() == ["keep"]
        assert queries.sweeps(owner.cursor())["name"].tolist() == ["n"]
    assert any("running is running there" in conflict for conflict in found.conflicts)
    before = contents(here.root)
    again = importing.take(here, source)
    assert not again.new and again.known >= 4
    assert contents(here.root) == before
    assert [one["action"] for one in audit.entries(here)].count("imported") == 1
    assert not list(here.root.glob(".import*"))


def test_a_run_that_differs_is_named_and_stays_as_it_is(here, there):
    with EventWriter(there.run("both")) as events:
        events.write("run_failed", error="another end")
    before = (here.run("both") / "events.jsonl").read_bytes()
    found = importing.take(here, there.root)
    assert "Run both is finished here and failed there: the one here stays." in found.conflicts
    assert (here.run("both") / "events.jsonl").read_bytes() == before


def test_a_run_that_was_judged_further_here_is_known(here, there):
    with EventWriter(here.run("both")) as events:
        events.write("verdicts", judge="j", suite="harmful", rows=[])
    assert not [one for one in importing.take(here, there.root).conflicts if "both" in one]


def test_a_tag_that_was_taken_off_here_later_does_not_come_back(here, there):
    remarks.tag(there, "both", "old")
    remarks.tag(here, "both", "OLD")
    remarks.tag(here, "both", "old", removed=True)
    found = importing.take(here, there.root)
    assert any("said otherwise here, later" in one for one in found.conflicts)
    with Owner.open(here) as owner:
        owner.ingest()
        assert "old" not in queries.tags(owner.cursor())["tag"].str.lower().tolist()


def test_an_adapter_query_or_prompt_set_of_the_same_name_is_a_conflict(here, there, tiny_pair):
    shutil.copytree(tiny_pair[1], here.adapters / "mine")
    catalog.add(here, here.adapters / "mine", "mine", "safety")
    saved.save(here, saved.SavedQuery("all", "SELECT 2"))
    for workspace, text in ((here, "a"), (there, "b")):
        (workspace.root / "suites").mkdir()
        (workspace.root / "suites" / "s.yaml").write_text(text)
    found = importing.take(here, there.root)
    assert [word for word in ("Adapter mine", "query “all”", "s.yaml") if word in " ".join(found.conflicts)] == [
        "Adapter mine",
        "query “all”",
        "s.yaml",
    ]
    assert saved.saved(here)[0].sql == "SELECT 2" and (here.root / "suites" / "s.yaml").read_text() == "a"


def test_links_and_odd_names_of_another_workspace_bring_nothing_in(here, there, tmp_path):
    (tmp_path / "secret").write_text("hidden words")
    (there.run("theirs") / "artifacts" / "link").symlink_to(tmp_path / "secret")
    (there.run("theirs") / "artifacts" / "out").symlink_to(tmp_path)
    (there.runs / "link").symlink_to(there.run("theirs"))
    importing.take(here, there.root)
    assert not [data for data in contents(here.root).values() if b"hidden words" in data]


def test_what_is_no_workspace_and_this_one_itself_are_refused(here, tmp_path):
    for source, why in ((tmp_path, "is no workspace"), (here.root, "is this workspace itself")):
        with pytest.raises(DataError, match=why):
            importing.take(here, source)


def test_the_command_names_the_conflicts(here, there, monkeypatch, capsys):
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(here.root))
    assert main(["import", str(there.root), "--dry-run"]) == 0
    assert "would come: 1 runs" in capsys.readouterr().out
    assert main(["import", str(there.root)]) == 0
    out = capsys.readouterr().out
    assert "conflict: Run running is running there" in out and "1 runs, 2 remarks" in out
