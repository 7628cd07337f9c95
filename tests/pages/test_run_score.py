from __future__ import annotations

from sstmerge_core.recipe import record
from sstmerge_core.store import Owner
from sstmerge_core.store.events import EventWriter, read_events
from sstmerge_core.workspace import Workspace


def test_a_metric_that_came_later_is_computed_at_a_press_and_then_offered_no_more(
    open_page, tmp_path, shipped_runs
) -> None:
    workspace = Workspace(tmp_path / "w").create()
    folder = next(path for path in sorted(shipped_runs.iterdir()) if "rouge_l" in (path / "events.jsonl").read_text())
    with EventWriter(workspace.run(folder.name)) as events:
        for event in read_events(folder):
            told = {name: value for name, value in event.items() if name not in ("event", "t")}
            if event["event"] == "metrics":
                told["rows"] = [row for row in told["rows"] if row["metric"] != "rouge_l"]
            events.write(event["event"], **told)
    with Owner.open(workspace) as owner:
        owner.ingest()
        owner.publish()
    app = open_page(workspace, "run", run=folder.name)
    assert not app.exception and app.button("run.score").label == "Compute ROUGE-L"
    app.button("run.score").click().run()
    assert not app.exception
    computed = record.read(workspace.run(folder.name)).metrics
    assert any(metric == "rouge_l" and row["value"] is not None for (metric, _, _), row in computed.items())
    again = open_page(workspace, "run", run=folder.name)
    assert "run.score" not in [button.key for button in again.button]
    assert any("ROUGE-L" in str(frame.value.to_dict()) for frame in again.dataframe)
