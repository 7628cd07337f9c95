"""What leaves for the hub: planned, shown, and sent to a client that stands in for it. Nothing goes out here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import errors

from sstmerge_core import catalog, cli
from sstmerge_core.builder import preflight
from sstmerge_core.errors import AdapterError, DataError
from sstmerge_core.runs import push
from sstmerge_core.runs.card import PLACE
from sstmerge_core.runs.execute import execute
from sstmerge_core.store import audit
from sstmerge_core.workspace import Workspace
from tests.there import there

REPOSITORY = "someone/careful-adapter"


class Hub:
    """Remembers what it was asked, and fails where it is told to."""

    def __init__(self, existing: tuple[str, ...] = (), fails: dict[str, Exception] | None = None) -> None:
        self.existing, self.fails = existing, fails or {}
        self.made: list[tuple[str, bool]] = []
        self.commits: list[tuple[str, dict[str, bytes], str]] = []

    def whoami(self) -> Any:
        self._fail("whoami")
        return {"name": "someone"}

    def repo_exists(self, repo_id: str) -> bool:
        return repo_id in self.existing

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        self._fail("create_repo")
        assert not exist_ok
        self.made.append((repo_id, private))

    def create_commit(self, repo_id: str, operations: Any, *, commit_message: str) -> None:
        self._fail("create_commit")
        content = {}
        for one in operations:
            with one.as_file() as file:
                content[one.path_in_repo] = file.read()
        self.commits.append((repo_id, content, commit_message))

    def _fail(self, name: str) -> None:
        if name in self.fails:
            raise self.fails[name]


@pytest.fixture(scope="module")
def merged(tiny_base, tiny_pair, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, str]:
    """A workspace with one finished merge that was not measured, and its run's id."""
    workspace = Workspace(tmp_path_factory.mktemp("push") / "workspace").create()
    utility, safety = (catalog.entry(path, name=name) for path, name in zip(tiny_pair, "US", strict=True))
    plan = preflight.plan(
        workspace,
        base=catalog.base_at(tiny_base),
        utility=utility,
        safety=safety,
        method="linear",
        parameters={},
        evaluate=False,
    )
    recipe = there(plan.recipe)
    execute([recipe], workspace)
    return workspace, recipe.run_id


def test_the_card_loads_what_lies_beside_it(merged, tiny_base: Path) -> None:
    workspace, run_id = merged
    folder = workspace.merged_adapter(run_id)
    card = (folder / "README.md").read_text()
    snippet = card.split("## Load it")[1].split("```")[1].removeprefix("python\n")
    assert PLACE in snippet and "PeftModel.from_pretrained(base" in snippet
    found: dict[str, Any] = {}
    exec(snippet.replace(PLACE, str(folder)).replace('"tiny-llama"', repr(str(tiny_base))), found)
    assert any("lora_A" in name for name, _ in found["model"].named_parameters())


def test_a_run_is_pushed_private_with_a_card_that_loads_from_the_repository(merged) -> None:
    workspace, run_id = merged
    planned = push.plan(workspace, run_id, f"https://huggingface.co/{REPOSITORY}/")
    hub = Hub()
    assert push.push(workspace, planned, hub) == f"https://huggingface.co/{REPOSITORY}"
    assert hub.made == [(REPOSITORY, True)]
    ((repository, content, message),) = hub.commits
    assert repository == REPOSITORY and run_id in message
    assert {"adapter_config.json", "adapter_model.safetensors", "README.md", "recipe.yaml"} <= set(content)
    assert {name: len(text) for name, text in content.items()} == planned.sizes
    assert f'from_pretrained(base, "{REPOSITORY}")' in content["README.md"].decode()
    assert str(workspace.root).encode() not in b"".join(
        text for name, text in content.items() if name != "adapter_model.safetensors"
    )
    assert [(one["action"], one["subject"]) for one in audit.entries(workspace)] == [("pushed", REPOSITORY)]


def test_one_that_is_there_is_only_written_to_where_that_is_asked_for(merged) -> None:
    workspace, run_id = merged
    hub = Hub(existing=(REPOSITORY,))
    with pytest.raises(AdapterError, match="is there already"):
        push.push(workspace, push.plan(workspace, run_id, REPOSITORY), hub)
    assert not hub.commits
    push.push(workspace, push.plan(workspace, run_id, REPOSITORY, update=True, public=True), hub)
    assert len(hub.commits) == 1 and not hub.made  # nor is its visibility changed
    push.push(workspace, push.plan(workspace, run_id, "someone/new", public=True), hub)
    assert hub.made == [("someone/new", False)]


class Response:
    def __init__(self, code: int) -> None:
        self.status_code = code


def answered(code: int, text: str) -> Exception:
    error = Exception(text)
    error.response = Response(code)  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    ("step", "error", "words"),
    [
        ("whoami", errors.LocalTokenNotFoundError("x"), "no token for the hub.*HF_TOKEN"),
        ("whoami", answered(401, "Invalid credentials"), "no token for the hub"),
        ("create_repo", answered(403, "You don't have the rights"), "does not let you write"),
        ("create_commit", answered(500, "oops"), "refuses it .oops"),
        ("whoami", OSError("no route"), "cannot be reached from here .OSError: no route"),
    ],
)
def test_what_the_hub_says_is_told_in_one_line(merged, step: str, error: Exception, words: str) -> None:
    workspace, run_id = merged
    before = len(audit.entries(workspace))
    with pytest.raises(AdapterError, match=words):
        push.push(workspace, push.plan(workspace, run_id, REPOSITORY), Hub(fails={step: error}))
    assert len(audit.entries(workspace)) == before


@pytest.mark.parametrize("name", ["", "alone", "a/b/c", "../etc/passwd", "a/..", "-a/b", "a/b c", "a//b"])
def test_what_is_no_name_of_a_repository_is_refused(merged, name: str) -> None:
    workspace, run_id = merged
    with pytest.raises(DataError, match="is no repository's id"):
        push.plan(workspace, run_id, name)


def test_what_holds_nothing_to_send_is_refused_and_what_does_not_belong_stays(merged, tmp_path: Path) -> None:
    workspace, run_id = merged
    with pytest.raises(AdapterError, match="neither a run of this workspace nor a folder"):
        push.plan(workspace, str(tmp_path / "none"), REPOSITORY)
    with pytest.raises(AdapterError, match="neither an adapter nor a model"):
        push.plan(workspace, str(tmp_path), REPOSITORY)
    folder = tmp_path / "adapter"
    folder.mkdir()
    for file in workspace.merged_adapter(run_id).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "training.pkl").write_bytes(b"x")
    (folder / ".env").write_text("KEY=1")
    (folder / "link.json").symlink_to("/etc/hostname")
    planned = push.plan(workspace, str(folder), REPOSITORY)
    assert set(planned.left_out) == {"training.pkl", ".env", "link.json"}
    assert not {"training.pkl", ".env", "link.json"} & set(planned.sizes)
    (folder / "README.md").unlink()
    with pytest.raises(AdapterError, match="has no model card"):
        push.plan(workspace, str(folder), REPOSITORY)


def test_a_dry_run_shows_what_would_be_sent_and_sends_nothing(
    merged, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace, run_id = merged
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(workspace.root))
    monkeypatch.setattr(push, "push", lambda *_: pytest.fail("it was sent"))
    assert cli.main(["push", run_id, REPOSITORY, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert f"{REPOSITORY}: private" in shown and "adapter_model.safetensors" in shown and "Nothing was sent." in shown
    assert cli.main(["push", run_id, REPOSITORY, "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["pushed"] is False and told["private"] is True and "README.md" in told["files"]
    assert cli.main(["push", "0" * 16, REPOSITORY]) == 3
    assert capsys.readouterr().err.count("\n") == 1
