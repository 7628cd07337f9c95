"""The choice on the Merge page is drawn only where an adapter has modules that were trained whole."""

from __future__ import annotations

import json

from streamlit.testing.v1 import AppTest


def _script(folders):
    from pathlib import Path
    from types import SimpleNamespace
    from typing import Any

    import streamlit as st

    from studio import link, pick

    state = link.Link("merge")
    state.read(pick.saved_fields())
    used: list[Any] = [SimpleNamespace(name=Path(one).name, path=Path(one)) for one in folders]
    st.session_state["said"] = pick.trained_whole(state, used)


def test_the_choice_is_drawn_where_it_matters_and_nowhere_else(tmp_path):
    folders = []
    for name, config in (("plain", {}), ("headed", {"modules_to_save": ["lm_head"]})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text(json.dumps(config))
        folders.append(str(tmp_path / name))
    plain = AppTest.from_function(_script, args=(folders[:1],)).run()
    assert not plain.exception and not plain.selectbox and plain.session_state["said"] == {}
    page = AppTest.from_function(_script, args=(folders,)).run()
    [choice] = page.selectbox
    assert "headed: lm_head" in choice.label and page.session_state["said"] == {"saved": "refuse"}
    choice.select("utility").run()
    assert page.session_state["said"] == {"saved": "utility"}
