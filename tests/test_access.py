"""Roles and the folders that visitors may name: what the core allows, whatever page asks."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sstmerge_core import access, catalog, jobs
from sstmerge_core.catalog import intake
from sstmerge_core.errors import AccessError, DataError, JobError
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.playground import answering, client, conversation
from sstmerge_core.recipe import Source
from sstmerge_core.runs import push
from sstmerge_core.runs.rescore import score
from sstmerge_core.store import EventWriter, audit, remarks, saved, trash
from sstmerge_core.suites import own
from sstmerge_core.suites.bundled import source
from sstmerge_core.worker import base_download, convert_job, rescore_job
from sstmerge_core.workspace import Workspace

As = Callable[..., None]
SOURCE = Source(name="a", path="", sha256="0" * 64)
ANY_BASE = catalog.Base("b", Path("b"), "0" * 64, True, "")


@pytest.fixture
def acting() -> Iterator[As]:
    """``acting("ada", "viewer")``: from here on everything is done by that visitor of a dashboard."""

    def become(name: str, role: str, *roots: Path) -> None:
        given = (lambda: list(roots)) if roots else None
        access.identify_by(lambda: access.Actor(name, role, "dashboard", given))

    before = access._ask
    yield become
    access.identify_by(before)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path / "w").create()
    for run_id in ("r1", "r2"):
        with EventWriter(made.run(run_id)) as events:
            events.write("run_started", label=f"label of {run_id}")
            events.write("run_finished")
    Queue(made).add("j1", kind="merge", name="of ada", user="ada", device="none", spec={}, run_ids=[])
    Queue(made).add("j2", kind="merge", name="of bob", user="bob", device="none", spec={}, run_ids=[])
    return made


SIDES = ("base", "utility", "safety")
TALK = conversation.new()
ACTIONS: dict[str, tuple[str, Callable[[Workspace], object]]] = {
    "submit": ("launch", lambda w: jobs.submit(w, [], name="n", kind="inspect", sources=dict.fromkeys(SIDES, SOURCE))),
    "enqueue": ("launch", lambda w: jobs.enqueue(w, "base", "n", {}, device="none")),
    "fetch a base": ("launch", lambda w: base_download.submit(w, "owner/name")),
    "convert": ("add", lambda w: convert_job.submit(w, "mine", ANY_BASE)),
    "resume": ("launch", lambda w: jobs.resume(w, "j1")),
    "cancel another's": ("cancel others", lambda w: jobs.cancel(w, "j2")),
    "move another's": ("move others", lambda w: jobs.move(w, "j2", "first")),
    "delete run": ("delete", lambda w: trash.delete_run(w, "r1")),
    "delete weights": ("delete", lambda w: trash.delete_weights(w, "r1")),
    "empty": ("empty", lambda w: trash.empty(w)),
    "tag": ("say", lambda w: remarks.tag(w, "r1", "t")),
    "note": ("say", lambda w: remarks.note(w, "r1", "t")),
    "label": ("say", lambda w: remarks.label(w, "r1", {("harmful", "p"): "refusal"})),
    "save query": ("save query", lambda w: saved.save(w, saved.SavedQuery("n", "SELECT 1"))),
    "rename query": ("save query", lambda w: saved.rename(w, "n", "m")),
    "delete query": ("save query", lambda w: saved.delete(w, "n")),
    "score": ("score", lambda w: score(w, "r1")),
    "upload": ("add", lambda w: intake.upload(w, [("a.zip", io.BytesIO(b""))])),
    "download": ("add", lambda w: intake.download(w, "owner/name")),
    "talk": ("talk", lambda w: answering.ask(w, TALK, "hello", {}, "base", max_new_tokens=1)),
    "clear a talk": ("talk", lambda w: conversation.delete(w, "0" * 12)),
    "push": ("push", lambda w: push.push(w, push.Plan("a/b", w.root, True, False, "", {}, (), ""))),
    "end the model": ("end model", lambda w: client.stop(w)),
}
"""What reaches the core's actions from the pages, and the action that each is"""


@pytest.mark.parametrize("what", ACTIONS)
def test_whoever_has_not_the_role_is_refused_and_nothing_is_changed(what, workspace, acting):
    name, act = ACTIONS[what]
    needed = access.ROLES.index(access.ACTIONS[name].role)
    before = {path: path.read_bytes() for path in workspace.root.rglob("*") if path.is_file()}
    for role in (access.NOBODY, *access.ROLES[:needed]):
        acting("vera", role)
        with pytest.raises(AccessError, match=f"takes the role {access.ROLES[needed]}"):
            act(workspace)
    after = {path: path.read_bytes() for path in workspace.root.rglob("*") if path.is_file()}
    assert {k: v for k, v in after.items() if "queue" not in k.name} == {
        k: v for k, v in before.items() if "queue" not in k.name
    }
    assert [job.state for job in Queue(workspace).jobs(9)] == ["queued", "queued"]


def test_every_action_that_is_declared_is_asked_for_somewhere():
    top = Path(access.__file__).parents[1]
    text = "".join(path.read_text() for folder in ("sstmerge_core", "studio") for path in (top / folder).rglob("*.py"))
    for name in access.ACTIONS:
        asked = (f'require("{name}")', f'act(workspace, "{name}"', f'allowed("{name}")')
        others = name.removesuffix(" others")
        assert any(one in text for one in asked) or f'whose("{others}"' in text, name


def test_the_document_says_of_every_action_who_may():
    text = (Path(access.__file__).parents[1] / "docs" / "share-a-server.md").read_text()
    rows = {
        row[0]: row[1:] for row in (list(map(str.strip, line.split("|")[1:-1])) for line in text.splitlines()) if row
    }
    for one in access.ACTIONS.values():
        least = access.ROLES.index(one.role)
        assert rows[one.words] == ["✓", *("✓" if place >= least else "" for place in range(len(access.ROLES)))]


def test_a_runner_may_cancel_and_move_a_job_of_their_own(workspace, acting, monkeypatch):
    monkeypatch.setattr(jobs, "settle", lambda workspace: None)
    acting("ada", "runner")
    jobs.move(workspace, "j1", "down")
    jobs.cancel(workspace, "j1")
    with pytest.raises(AccessError):
        jobs.cancel(workspace, "j2")
    acting("carl", "admin")
    jobs.cancel(workspace, "j2")
    found = audit.entries(workspace)
    assert [(one["user"], one["role"], one["action"], one["subject"]) for one in found] == [
        ("carl", "admin", "cancelled", "job j2"),
        ("ada", "runner", "cancelled", "job j1"),
        ("ada", "runner", "moved down", "job j1"),
    ]


def test_who_deleted_a_run_and_brought_it_back_is_recorded_under_its_name(workspace, acting):
    acting("carl", "admin")
    trash.restore(workspace, trash.delete_run(workspace, "r1"))
    said = [(one["action"], one["subject"], one["about"]) for one in audit.entries(workspace)[::-1]]
    assert said == [("deleted run", "run r1", "label of r1"), ("restored run", "run r1", "")]


def test_what_failed_is_not_recorded(workspace):
    with pytest.raises(JobError):
        jobs.cancel(workspace, "unknown")
    assert audit.entries(workspace) == []


def test_the_command_line_acts_for_the_account_with_every_right(monkeypatch):
    monkeypatch.setattr(access, "_ask", lambda: None)
    monkeypatch.setenv("LOGNAME", "grace")
    assert access.actor() == access.Actor("grace", "admin", "command line")
    assert access.place("/etc/../etc") == Path("/etc").resolve()


def test_a_worker_acts_for_whoever_launched_its_job(workspace):
    before = access.actor()
    with access.acting_for("ada"):
        audit.record(workspace, "added adapter")
        assert access.place("/etc") == Path("/etc").resolve()
    assert access.actor() == before
    assert [(one["user"], one["origin"]) for one in audit.entries(workspace)] == [("ada", "worker")]


# --- roles -----------------------------------------------------------------------------------------------------------


def test_roles_are_read_from_the_workspace_and_the_secrets_go_before(workspace):
    assert access.read_roles(workspace).of("anybody@example.org") == "viewer"
    access.roles_file(workspace).write_text('default = "none"\n[people]\n"Ada@Example.org" = "admin"\n')
    found = access.read_roles(workspace)
    assert (found.of(" ada@example.ORG"), found.of("eve@example.org")) == ("admin", "none")
    assert found.of("ada@example.org", verified=False) == "none"
    assert access.read_roles(workspace, {"people": {"eve@example.org": "runner"}}).of("eve@example.org") == "runner"


@pytest.mark.parametrize("text", ['default = "boss"', "[people]\nada = 1", 'people = "ada"', "[peple]", "default = ["])
def test_roles_that_cannot_be_read_are_refused_and_not_guessed(workspace, text):
    access.roles_file(workspace).write_text(text)
    with pytest.raises(DataError, match="roles.toml"):
        access.read_roles(workspace)


# --- folders ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path: Path, acting: As) -> tuple[Path, Path]:
    """A folder that visitors may name, and one beside it that they may not."""
    inside, outside = tmp_path / "models", tmp_path / "private"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "a.jsonl").write_text('{"prompt": "p", "response": "r", "split": "test"}\n')
    acting("ada", "admin", inside)
    return inside, outside


def test_a_path_within_the_roots_is_taken_without_links_and_dots(folders):
    inside, _ = folders
    (inside / "link").symlink_to(inside / "a.jsonl")
    assert access.place(inside / "sub" / ".." / "link") == (inside / "a.jsonl").resolve()
    assert access.place(inside / "not there") == inside.resolve() / "not there"


def test_no_spelling_of_a_path_leads_out_of_the_roots(folders, monkeypatch):
    inside, outside = folders
    (inside / "file").symlink_to(outside / "a.jsonl")
    (inside / "folder").symlink_to(outside)
    monkeypatch.setenv("HOME", str(outside))
    monkeypatch.chdir(inside)
    spelled = ("", "not there", "a.jsonl", "a.jsonl/..", "./a.jsonl")
    tried = [f"{outside}/{name}" for name in spelled]
    tried += [f"{inside}/../private/a.jsonl", f"{inside}2", "file", "folder/a.jsonl", "~/a.jsonl", "../private", "/"]
    tried += [f"{inside}/folder/../a.jsonl", "/proc/self/root/etc/passwd", "/etc/passwd", "~nobody", "a\0b"]
    for text in tried:
        with pytest.raises(AccessError):
            access.place(text)


def test_a_folder_with_a_link_that_leads_out_is_refused(folders):
    inside, outside = folders
    adapter = inside / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    assert access.place(adapter) == adapter.resolve()
    (adapter / "adapter_model.safetensors").symlink_to(outside / "a.jsonl")
    with pytest.raises(AccessError, match="outside"):
        access.place(adapter)


def test_the_answer_does_not_tell_whether_there_is_such_a_file(folders):
    _, outside = folders
    said = []
    for name in ("a.jsonl", "nothing"):
        with pytest.raises(AccessError) as refused:
            access.place(outside / name)
        said.append(str(refused.value).replace(name, "NAME"))
    assert said[0] == said[1]


def test_prompts_named_by_path_come_from_within_the_roots(folders):
    inside, outside = folders
    assert source(str(inside / "a.jsonl"), "test")[1] == 1
    assert source("harmful", "test", 4)[1] == 4
    with pytest.raises(AccessError):
        source(str(outside / "a.jsonl"), "test")


def test_a_path_hidden_in_the_settings_of_a_job_is_found(folders, workspace):
    _, outside = folders
    for settings in ({"base": str(outside)}, {"tasks": [{"suite": f"{outside}/a.jsonl"}]}, {"judge": f"hf:{outside}"}):
        given = {"name": "tax", "settings": settings}
        with pytest.raises(AccessError):
            jobs.submit(workspace, [], name="n", kind="experiment", experiment=given, device="none")
    for training in ({"files": [f"{outside}/a.jsonl"], "base": {}}, {"files": [], "suite": str(outside), "base": {}}):
        with pytest.raises(AccessError):
            jobs.submit(workspace, [], name="n", kind="train", training=training, device="none")


def test_the_roots_are_the_workspace_what_is_registered_and_what_is_named(tmp_path, monkeypatch):
    workspace = Workspace(tmp_path / "w").create()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv(access.ROOTS)
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.chdir(workspace.root)
    always = [workspace.root, *access.roots(workspace)[1:2], tmp_path / "registered"]
    assert access.roots(workspace, [tmp_path / "registered"]) == always
    assert access.roots(workspace, private=True)[2:] == [tmp_path / "home"]
    monkeypatch.setenv(access.ROOTS, f"{tmp_path}/a:{tmp_path}/b")
    assert access.roots(workspace, private=True)[2:] == [tmp_path / "a", tmp_path / "b"]


def test_what_was_taken_off_the_list_may_be_put_back(tmp_path):
    workspace = Workspace(tmp_path / "w").create()
    with EventWriter(workspace.catalog) as events:
        events.write("base_added", sha256="a", name="b", path="/models/b")
        events.write("base_removed", sha256="a")
    assert catalog.ever_registered(workspace) == [Path("/models/b")]


def test_a_set_of_prompts_is_made_of_a_file_for_those_who_may_add_alone(tmp_path, folders, acting):
    inside, _ = folders
    workspace = Workspace(tmp_path / "w").create()
    told = own.OwnSuite("mine", "harmful", shares={"test": 1.0})
    acting("vera", "viewer", inside)
    with pytest.raises(AccessError):
        own.add(workspace, inside / "a.jsonl", told)
    assert not own.is_own(workspace, "mine")
    acting("rob", "runner", inside)
    own.add(workspace, inside / "a.jsonl", told)
    with pytest.raises(AccessError):
        own.remove(workspace, "mine")
    assert own.is_own(workspace, "mine")


def test_another_judge_whose_model_is_outside_is_refused_before_anything_is_queued(folders, workspace):
    _, outside = folders
    with pytest.raises(AccessError):
        rescore_job.submit(workspace, "r1", f"wildguard:{outside}")
