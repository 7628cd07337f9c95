"""System prompt, thinking and prompts that are too long in the forms of Merge and Sweep, and in their links."""

from __future__ import annotations

from tests.pages.conftest import Open


def test_a_link_says_how_prompts_become_text(open_page: Open, full_workspace) -> None:
    app = open_page(full_workspace, "merge", system="Be brief.", too_long="cut")
    assert not app.exception
    assert app.text_area("merge.system").value == "Be brief."
    assert app.selectbox("merge.too_long").value == "cut" and app.selectbox("merge.thinking").value == "template"
    app.text_area("merge.system").set_value("Be long.").run()
    assert "Be long." in app.query_params["system"] and "cut" in app.query_params["too_long"]


def test_a_link_says_in_how_many_bits_the_base_answers(open_page: Open, full_workspace) -> None:
    app = open_page(full_workspace, "sweep", bits="4")
    assert not app.exception
    assert app.selectbox("sweep.bits").value == "4"
