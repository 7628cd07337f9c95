"""The Run page sends a run's adapter to the hub: what would be sent is shown first."""

from __future__ import annotations

from typing import Any

import pytest

from sstmerge_core.adapters.places import CONFIG, WEIGHTS
from sstmerge_core.runs import push
from sstmerge_core.store import EventWriter, Owner
from sstmerge_core.store.events import read_events
from sstmerge_core.workspace import Workspace
from tests.pages.conftest import Open
from tests.there import there

REPOSITORY = "someone/careful"


@pytest.fixture
def run(full_workspace: Workspace, tmp_path) -> tuple[Workspace, str]:
    """A finished merge in a workspace of its own, with the files of an adapter."""
    with Owner.open(full_workspace) as owner:
        sql = "SELECT run_id FROM runs WHERE source = 'measured' AND method = 'linear' AND status = 'finished' LIMIT 1"
        run_id = str(there(owner.cursor().execute(sql).fetchone())[0])
    workspace = Workspace(tmp_path / "push").create()
    with EventWriter(workspace.run(run_id)) as events:
        for event in read_events(full_workspace.run(run_id)):
            events.write(event["event"], **{name: value for name, value in event.items() if name not in ("event", "t")})
        about: dict[str, Any] = {"name": "adapter", "path": "artifacts/adapter", "sha256": "0", "bytes": 1}
        events.write("artifact", **about)
    folder = workspace.merged_adapter(run_id)
    folder.mkdir(parents=True)
    for name in (CONFIG, WEIGHTS, "README.md"):
        (folder / name).write_text("x")
    with Owner.open(workspace) as owner:
        owner.ingest()
        owner.publish()
    return workspace, run_id


def test_the_plan_is_shown_before_the_button_sends_it(
    open_page: Open, run: tuple[Workspace, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, run_id = run
    sent: list[push.Plan] = []

    def send(_: Workspace, planned: push.Plan) -> str:
        sent.append(planned)
        return planned.url

    monkeypatch.setattr(push, "push", send)
    app = open_page(workspace, "run", run=run_id)
    assert not app.exception
    button = f"push.now.{run_id}"
    assert app.button(button).disabled
    app.text_input(f"push.name.{run_id}").set_value("no name").run()
    assert any("is no repository's id" in error.value for error in app.error) and app.button(button).disabled
    app.text_input(f"push.name.{run_id}").set_value(REPOSITORY).run()
    assert any(f"{REPOSITORY}: private" in code.value and WEIGHTS in code.value for code in app.code)
    app.button(button).click().run()
    assert not app.exception
    assert [(one.repository, one.private) for one in sent] == [(REPOSITORY, True)]
    assert any(f"https://huggingface.co/{REPOSITORY}" in text.value for text in app.markdown)
