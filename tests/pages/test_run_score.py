from __future__ import annotations

from sstmerge_core.recipe import record
from sstmerge_core.store import Owner


def test_a_metric_that_came_later_is_computed_at_a_press_and_then_offered_no_more(open_page, without_rouge) -> None:
    workspace, run_id = without_rouge
    with Owner.open(workspace) as owner:
        owner.ingest()
        owner.publish()
    app = open_page(workspace, "run", run=run_id)
    assert not app.exception and app.button("run.score").label == "Compute ROUGE-L"
    app.button("run.score").click().run()
    assert not app.exception
    computed = record.read(workspace.run(run_id)).metrics
    assert any(metric == "rouge_l" and row["value"] is not None for (metric, _, _), row in computed.items())
    again = open_page(workspace, "run", run=run_id)
    assert "run.score" not in [button.key for button in again.button]
    assert any("ROUGE-L" in str(frame.value.to_dict()) for frame in again.dataframe)
