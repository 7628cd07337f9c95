"""A LoRA made of an adapter of another kind as a job of the queue, and by a press on the Adapters page."""

from __future__ import annotations

from pathlib import Path

import pytest

from sstmerge_core import catalog, jobs
from sstmerge_core.errors import AdapterError, RecipeError
from sstmerge_core.worker import convert_job, run_job
from sstmerge_core.workspace import Workspace
from tests.pages.conftest import open_page  # noqa: F401
from tests.there import there
from tests.tiny_models import make_adapter


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setattr(jobs, "settle", lambda workspace: None)  # no worker of its own: it runs here
    return Workspace(tmp_path / "w").create()


@pytest.fixture
def dora(tiny_base: Path, tmp_path: Path) -> Path:
    return make_adapter(tiny_base, tmp_path / "dora", 3, use_dora=True, target_modules=["q_proj"])


def test_the_job_makes_a_lora_and_registers_it_with_where_it_comes_from(workspace, dora, tiny_base, capsys):
    job_id = convert_job.submit(workspace, str(dora), catalog.base_at(tiny_base), rank=2)
    job = there(jobs.job(workspace, job_id))
    assert run_job(workspace, job, "") == ("done", None)
    (entry,) = [one for one in catalog.entries(workspace) if one.name == "dora-lora"]
    assert entry.rank == 2 and entry.path == workspace.adapters / "dora-lora"
    assert sorted(file.name for file in entry.path.iterdir() if file.is_dir()) == []
    assert "relative error" in capsys.readouterr().out


def test_what_no_lora_stands_for_fails_the_job_in_one_line_and_leaves_nothing(workspace, tiny_base, tmp_path):
    folder = make_adapter(tiny_base, tmp_path / "biased", 3, lora_bias=True, target_modules=["q_proj"])
    job = there(jobs.job(workspace, convert_job.submit(workspace, str(folder), catalog.base_at(tiny_base))))
    state, said = run_job(workspace, job, "")
    assert state == "failed" and "lora_bias" in there(said)
    assert not (workspace.adapters / "biased-lora").exists()


def test_a_name_that_is_taken_and_a_rank_that_is_none_make_no_job(workspace, dora, tiny_base, tiny_pair):
    catalog.add(workspace, tiny_pair[0], "taken", None, "")
    with pytest.raises(AdapterError, match="taken"):
        convert_job.submit(workspace, str(dora), catalog.base_at(tiny_base), "taken")
    with pytest.raises(RecipeError, match="rank"):
        convert_job.submit(workspace, str(dora), catalog.base_at(tiny_base), rank=-1)


def test_a_press_on_the_page_queues_it(workspace, dora, tiny_base, open_page):  # noqa: F811
    catalog.add_base(workspace, tiny_base, "tiny")
    app = open_page(workspace, "adapters")
    app = app.button_group("adapters.way").set_value("convert").run()
    assert not app.exception
    app.text_input("adapters.source").set_value(str(dora))
    app.selectbox("adapters.on").set_value("tiny")
    app = next(button for button in app.button if button.label == "Convert").click().run()
    assert not app.exception
    assert [job.name for job in jobs.jobs(workspace)] == ["LoRA of dora on tiny"]
