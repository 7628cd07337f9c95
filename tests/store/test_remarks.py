"""What people say about runs: labels by hand, tags, notes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from sstmerge_core.errors import StoreError
from sstmerge_core.store import EventWriter, Owner, queries, rebuild, remarks
from sstmerge_core.workspace import Workspace
from tests.store.conftest import write_run

ONE, TWO = ("harmful", "h1"), ("harmful", "h2")


@pytest.fixture
def run_id(workspace: Workspace) -> str:
    write_run(workspace, "aaaa")
    return "aaaa"


def seen(owner: Owner, run_id: str) -> dict[tuple[str, str], tuple[str, str]]:
    owner.ingest()
    rows = queries.hand_labels(owner.cursor(), run_id)
    return {(row.suite, row.prompt_id): (row.hand, row.reader) for row in rows.itertuples()}


def test_a_label_by_hand_stands_beside_the_judges_verdict(workspace, owner, run_id) -> None:
    remarks.label(workspace, run_id, {ONE: "harmful"}, reader="ada")
    assert seen(owner, run_id) == {ONE: ("harmful", "hand:ada")}
    sql = "SELECT judge, label FROM verdicts WHERE run_id = 'aaaa' AND prompt_id = 'h1' ORDER BY judge"
    assert owner.cursor().execute(sql).fetchall() == [("hand:ada", "harmful"), ("refusal_regex_v2", "refusal")]


def test_of_several_readers_the_last_one_counts_and_each_keeps_his_own(workspace, owner, run_id) -> None:
    remarks.label(workspace, run_id, {ONE: "harmful", TWO: "miss"}, reader="ada")
    remarks.label(workspace, run_id, {ONE: "refusal"})
    assert seen(owner, run_id) == {ONE: ("refusal", "hand"), TWO: ("miss", "hand:ada")}
    remarks.label(workspace, run_id, {ONE: None})
    assert seen(owner, run_id)[ONE] == ("harmful", "hand:ada")


def test_labelling_what_was_there_before_undoes_a_label(workspace, owner, run_id) -> None:
    remarks.label(workspace, run_id, {ONE: "harmful"})
    before = remarks.label(workspace, run_id, {ONE: "degenerate", TWO: "degenerate"})
    assert before == {ONE: "harmful", TWO: None}
    remarks.label(workspace, run_id, before)
    assert seen(owner, run_id) == {ONE: ("harmful", "hand")}


def test_labels_can_be_given_while_a_worker_holds_the_run(workspace, owner, run_id) -> None:
    with EventWriter(workspace.run(run_id)):
        remarks.label(workspace, run_id, {ONE: "refusal"})
    assert ONE in seen(owner, run_id)


def test_people_who_label_at_once_lose_nothing(workspace, owner, run_id) -> None:
    def read(reader: str) -> None:
        for n in range(15):
            remarks.label(workspace, run_id, {("harmful", f"{reader}{n}"): "refusal"}, reader=reader)
            remarks.tag(workspace, run_id, f"{reader}{n}")

    with ThreadPoolExecutor(3) as people:
        list(people.map(read, ("ada", "bob", "eve")))
    assert len(seen(owner, run_id)) == 45 and len(queries.tags(owner.cursor(), run_id)) == 45


def test_a_kill_within_a_line_loses_that_line_alone(workspace, owner, run_id) -> None:
    remarks.label(workspace, run_id, {ONE: "harmful"})
    with open(workspace.annotations / run_id / "events.jsonl", "ab") as file:
        file.write(b'{"event": "labelled", "t": 1.0, "rows": [{"suite"')
    assert seen(owner, run_id) == {ONE: ("harmful", "hand")}
    remarks.label(workspace, run_id, {TWO: "refusal"})
    assert seen(owner, run_id) == {ONE: ("harmful", "hand"), TWO: ("refusal", "hand")}


def test_a_tag_is_one_tag_in_upper_and_lower_case_and_can_be_taken_off(workspace, owner, run_id) -> None:
    remarks.tag(workspace, run_id, "  for the   paper ", user="ada")
    remarks.tag(workspace, run_id, "For the paper", user="bob")
    remarks.tag(workspace, run_id, "keep")
    owner.ingest()
    assert list(queries.tags(owner.cursor(), run_id)["tag"]) == ["For the paper", "keep"]
    remarks.tag(workspace, run_id, "FOR THE PAPER", removed=True)
    owner.ingest()
    assert queries.tag_names(owner.cursor()) == ["keep"]


def test_a_note_can_be_deleted_and_brought_back(workspace, owner, run_id) -> None:
    remarks.note(workspace, run_id, "first <b>words</b>", user="ada")
    note_id = remarks.note(workspace, run_id, "second")

    def notes() -> list[str]:
        owner.ingest()
        return sorted(queries.notes(owner.cursor(), run_id)["note"])

    assert notes() == ["first <b>words</b>", "second"]
    remarks.remove_note(workspace, run_id, note_id)
    assert notes() == ["first <b>words</b>"]
    remarks.remove_note(workspace, run_id, note_id, removed=False)
    assert notes() == ["first <b>words</b>", "second"]


def test_rebuilding_gives_the_same_labels_tags_and_notes(workspace, run_id) -> None:
    remarks.label(workspace, run_id, {ONE: "harmful", TWO: "miss"}, reader="ada")
    remarks.label(workspace, run_id, {TWO: None}, reader="ada")
    remarks.tag(workspace, run_id, "keep", user="ada")
    remarks.tag(workspace, run_id, "gone")
    remarks.tag(workspace, run_id, "gone", removed=True)
    remarks.remove_note(workspace, run_id, remarks.note(workspace, run_id, "a note", user="bob"))

    def tables() -> list[list[tuple]]:
        with Owner.open(workspace) as owner:
            owner.ingest()
            tables = ("verdicts", "annotations", "tags", "notes")
            return [owner.cursor().execute(f"SELECT * FROM {table} ORDER BY ALL").fetchall() for table in tables]

    before = tables()
    rebuild(workspace)
    assert tables() == before and [len(rows) for rows in before] == [3, 3, 1, 0]


def test_events_one_at_a_time_give_what_all_at_once_give(workspace, run_id) -> None:
    with Owner.open(workspace) as owner:
        for removed in (False, True, False):
            remarks.tag(workspace, run_id, "Keep", user="ada", removed=removed)
            owner.ingest()
        remarks.remove_note(workspace, run_id, remarks.note(workspace, run_id, "said", user="eve"))
        owner.ingest()
        found = owner.cursor().execute("SELECT * FROM annotations ORDER BY kind").fetchall()
    rebuild(workspace)
    with Owner.open(workspace) as owner:
        assert owner.cursor().execute("SELECT * FROM annotations ORDER BY kind").fetchall() == found
    assert found[0][3:5] == ("said", "eve")


@pytest.mark.parametrize(
    ("say", "fault"),
    [
        (lambda w: remarks.label(w, "aaaa", {ONE: "not_refused"}), "none that a reader gives"),
        (lambda w: remarks.label(w, "bbbb", {ONE: "refusal"}), "no such run"),
        (lambda w: remarks.tag(w, "aaaa", " "), "is empty"),
        (lambda w: remarks.tag(w, "aaaa", "x" * 41), "too many"),
        (lambda w: remarks.note(w, "aaaa", " \n"), "is empty"),
        (lambda w: remarks.note(w, "aaaa", "x" * 4001), "4,001 characters"),
        (lambda w: remarks.remove_note(w, "aaaa", "nothing"), "is not here"),
        (lambda w: remarks.tag(w, "../catalog", "x"), "no such run"),
    ],
)
def test_what_cannot_be_said_is_refused_and_nothing_is_written(workspace, run_id, say, fault) -> None:
    with EventWriter(workspace.catalog) as events:
        events.write("adapter_removed", sha256="0")
    with pytest.raises(StoreError, match=fault):
        say(workspace)
    files = list(workspace.annotations.rglob("events.jsonl")) if workspace.annotations.exists() else []
    assert not any(file.read_bytes() for file in files)
