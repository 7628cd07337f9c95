from __future__ import annotations

import os
import threading

import pytest

from sstmerge_core.errors import StoreError
from sstmerge_core.store import saved
from sstmerge_core.store.saved import PastQuery, SavedQuery


def names(workspace):
    return [query.name for query in saved.saved(workspace)]


def test_a_saved_query_comes_back_as_it_was(workspace):
    query = SavedQuery("Größte α", "SELECT 'ü'\n-- why", {"view": "chart", "kind": "bar"}, "ada", 1.5)
    assert saved.save(workspace, query) is None
    assert saved.saved(workspace) == [query]


def test_saved_queries_are_listed_by_name_whatever_their_case(workspace):
    for name in ("beta", "Alpha", "gamma"):
        saved.save(workspace, SavedQuery(name, "SELECT 1"))
    assert names(workspace) == ["Alpha", "beta", "gamma"]


def test_saving_under_a_name_again_replaces_it_and_returns_the_old_one(workspace):
    old = SavedQuery("q", "SELECT 1", user="ada")
    saved.save(workspace, old)
    assert saved.save(workspace, SavedQuery(" q\n", "SELECT 2")) == old
    assert [query.sql for query in saved.saved(workspace)] == ["SELECT 2"]


def test_deleting_returns_what_saving_brings_back(workspace):
    query = SavedQuery("q", "SELECT 1", {"view": "chart"}, "ada", 3.0)
    saved.save(workspace, query)
    gone = saved.delete(workspace, "q")
    assert names(workspace) == []
    saved.save(workspace, gone, replace=False)
    assert saved.saved(workspace) == [query]


def test_an_undo_does_not_overwrite_what_somebody_saved_meanwhile(workspace):
    saved.save(workspace, SavedQuery("q", "SELECT 1"))
    gone = saved.delete(workspace, "q")
    saved.save(workspace, SavedQuery("q", "SELECT 2"))
    with pytest.raises(StoreError, match="one of this name already"):
        saved.save(workspace, gone, replace=False)
    assert [query.sql for query in saved.saved(workspace)] == ["SELECT 2"]


def test_renaming_keeps_everything_but_the_name_and_takes_no_other_ones_name(workspace):
    saved.save(workspace, SavedQuery("a", "SELECT 1", user="ada", t=2.0))
    saved.save(workspace, SavedQuery("b", "SELECT 2"))
    with pytest.raises(StoreError, match="one of this name already"):
        saved.rename(workspace, "a", "b")
    saved.rename(workspace, "a", "c")
    assert names(workspace) == ["b", "c"]
    assert saved.saved(workspace)[1] == SavedQuery("c", "SELECT 1", user="ada", t=2.0)
    saved.rename(workspace, "c", "c")
    assert names(workspace) == ["b", "c"]


@pytest.mark.parametrize("change", [saved.delete, lambda workspace, name: saved.rename(workspace, name, "new")])
def test_what_is_gone_already_is_said_to_be(workspace, change):
    with pytest.raises(StoreError, match="not here any more"):
        change(workspace, "q")


@pytest.mark.parametrize(
    ("name", "sql", "reason"),
    [(" ", "SELECT 1", "needs one"), ("x" * 81, "SELECT 1", "too many"), ("q", " \n", "nothing to save")],
)
def test_what_cannot_be_saved_is_refused_and_changes_nothing(workspace, name, sql, reason):
    with pytest.raises(StoreError, match=reason):
        saved.save(workspace, SavedQuery(name, sql))
    assert not workspace.queries.exists()


def test_the_history_is_newest_first_and_capped(workspace, monkeypatch):
    monkeypatch.setattr(saved, "REMEMBERED", 3)
    for number in range(5):
        saved.remember(workspace, PastQuery(f"SELECT {number}", "ada", rows=1, seconds=0.1))
    assert [query.sql for query in saved.history(workspace)] == ["SELECT 4", "SELECT 3", "SELECT 2"]


def test_asking_the_same_again_moves_it_to_the_head_but_not_for_another_person(workspace):
    for sql, user in (("a", "ada"), ("b", "ada"), ("a", "bob"), ("a", "ada")):
        saved.remember(workspace, PastQuery(sql, user))
    assert [(query.sql, query.user) for query in saved.history(workspace)] == [("a", "ada"), ("a", "bob"), ("b", "ada")]


def test_a_query_of_megabytes_is_not_remembered(workspace):
    saved.remember(workspace, PastQuery("SELECT '" + "x" * 30_000 + "'"))
    assert saved.history(workspace) == []


def test_many_at_once_lose_nothing(workspace):
    def keep(number):
        saved.save(workspace, SavedQuery(f"q{number}", "SELECT 1"))

    threads = [threading.Thread(target=keep, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names(workspace)) == 12
    assert os.listdir(workspace.queries) == ["saved.json"]


def test_a_spoiled_file_is_named_and_left_alone(workspace):
    saved.save(workspace, SavedQuery("q", "SELECT 1"))
    path = workspace.queries / "saved.json"
    path.write_text('[{"name": "q"')
    for action in (saved.saved, lambda workspace: saved.save(workspace, SavedQuery("r", "SELECT 1"))):
        with pytest.raises(StoreError, match=r"saved\.json.*cannot be read"):
            action(workspace)
    assert path.read_text() == '[{"name": "q"'
