"""A file of prompts with more than texts: refused on the page too, until what is left out is chosen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from streamlit.testing.v1 import AppTest

from sstmerge_core.suites import declared
from sstmerge_core.workspace import Workspace

Open = Callable[..., AppTest]


def test_pictures_are_left_out_by_choice_alone(open_page: Open, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w").create()
    path = tmp_path / "seen.jsonl"
    rows = [{"prompt": f"what is on picture {n}", "response": f"a {n}", "images": [f"{n}.png"]} for n in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    app = open_page(workspace, "prompts")
    app.text_input("prompts.path").set_value(str(path)).run()
    assert not app.exception
    assert any("in the column images" in error.value for error in app.error)
    assert "Make the set" not in [button.label for button in app.button]
    app.checkbox("prompts.leave_out").check().run()
    assert not app.exception and not app.error
    next(button for button in app.button if button.label == "Make the set").click().run()
    assert not app.exception and "seen" in declared.names(workspace)
