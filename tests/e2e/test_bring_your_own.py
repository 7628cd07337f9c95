"""From an empty workspace to a merge of one's own base, adapters and prompts, as a person does it in a browser."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.browser import drawn, serving

NewPage = Callable[..., Any]
MOST_CLICKS = 12


class Walker:
    """A person at the browser, whose clicks are counted; typing and Enter are none."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.clicks: list[str] = []

    def click(self, what: str, locator: Any) -> None:
        self.clicks.append(what)
        locator.click()
        self.settled()

    def write(self, label: str, text: str) -> None:
        field = self.page.get_by_label(label, exact=True).locator("visible=true").first
        field.fill(text)
        field.press("Enter")
        self.settled()

    def settled(self) -> None:
        self.page.wait_for_timeout(400)
        self.page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]')


@pytest.mark.timeout(400)
def test_from_an_empty_workspace_to_the_first_measured_merge_of_ones_own(
    tmp_path: Path, new_page: NewPage, tiny_base: Path, tiny_pair: tuple[Path, Path]
) -> None:
    prompts = tmp_path / "my sums.csv"
    prompts.write_text("prompt,response\n" + "".join(f"What is {i} and {i}?,{2 * i}\n" for i in range(50)))
    with serving(tmp_path / "w") as address:
        page = new_page()
        page.goto(f"{address}/adapters")
        drawn(page, '[data-testid="stExpander"]')
        walker = Walker(page)
        page.get_by_label("Folder on this machine", exact=True).nth(1).fill(str(tiny_base))
        page.get_by_label("Folder on this machine", exact=True).nth(1).press("Enter")
        page.get_by_text(re.compile("^Added ")).first.wait_for()
        for folder, name in zip(tiny_pair, ("mine", "safe"), strict=True):
            if not page.get_by_label("Folder on this machine", exact=True).first.is_visible():
                walker.click("Add an adapter", page.get_by_text("Add an adapter"))
            page.get_by_label("Folder on this machine", exact=True).first.fill(str(folder))
            page.get_by_label("Name", exact=True).first.fill(name)
            page.get_by_label("Name", exact=True).first.press("Enter")
            page.get_by_text(f"Added {name}.").first.wait_for()
            walker.settled()
        walker.click("Make", page.get_by_test_id("stTopNavSection").first)
        walker.click("Prompts", page.get_by_role("menuitem", name="Prompts"))
        page.wait_for_url("**/prompts**")
        drawn(page, '[data-testid="stFileUploader"]')
        walker.clicks.append("Upload")
        page.locator('input[type="file"]').set_input_files(str(prompts))
        page.get_by_text(re.compile("50 rows")).first.wait_for()
        walker.settled()
        walker.click("Make the set", page.get_by_role("button", name=re.compile("Make the set")))
        walker.click("Measure a merge on it", page.get_by_role("link", name=re.compile("Measure a merge on it")))
        page.wait_for_url("**/merge**suite=my_sums**")
        drawn(page, ".st-key-merge-launch")
        walker.write("Prompts of each set", "8")
        launch = page.locator(".st-key-merge-launch button").first
        page.wait_for_timeout(3000)
        walker.click("Merge", launch)
        download = page.get_by_role("button", name=re.compile(r"Adapter \(zip\)"))
        download.wait_for(timeout=240_000)
        assert len(walker.clicks) <= MOST_CLICKS, walker.clicks
        assert page.locator('[data-testid="stException"]').count() == 0

        page.goto(f"{address}/pareto")
        drawn(page, ".js-plotly-plot")
        assert page.get_by_text("Which should I ship?").is_visible()

        page.go_back()
        download.wait_for()
        walker.settled()
        with page.expect_download() as sent:
            download.click()
        with zipfile.ZipFile(sent.value.path()) as archive:
            archive.extractall(tmp_path / "out")
    _loads(tiny_base, next((tmp_path / "out").rglob("adapter_config.json")).parent)


def _loads(base: Path, adapter: Path) -> None:
    """PEFT takes it, and it changes the model."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    moved = [name for name, weight in model.named_parameters() if "lora_B" in name and bool(torch.any(weight != 0))]
    assert moved


@pytest.mark.timeout(300)
def test_a_second_press_on_start_queues_nothing_twice(
    tmp_path: Path, new_page: NewPage, tiny_base: Path, tiny_pair: tuple[Path, Path]
) -> None:
    from sstmerge_core import catalog, jobs
    from sstmerge_core.workspace import Workspace

    workspace = Workspace(tmp_path / "w").create()
    catalog.add_base(workspace, tiny_base)
    catalog.add(workspace, tiny_pair[0], "U", "utility", "facts")
    catalog.add(workspace, tiny_pair[1], "S", "safety")
    with serving(workspace.root) as address:
        page = new_page()
        page.goto(f"{address}/merge?method=linear&n=16")
        drawn(page, ".st-key-merge-launch")
        launch = page.locator(".st-key-merge-launch button").first
        launch.dblclick()
        page.wait_for_timeout(1500)
        if launch.is_enabled():
            launch.click()
        page.get_by_role("button", name=re.compile(r"Adapter \(zip\)")).wait_for(timeout=200_000)
    assert len(jobs.jobs(workspace)) == 1
