"""The pages, and the one way into them."""

from __future__ import annotations

from pathlib import Path

import streamlit as st
from streamlit.navigation.page import StreamlitPage

ICON = str(Path(__file__).with_name("icon.png"))
STYLE = """
<style>
/* a wide table scrolls by itself, never the page; narrow cells let a telephone show one whole */
/* draws nothing */
.st-key-window {position: absolute; width: 0; height: 0; overflow: hidden}
[data-testid='stMarkdownContainer'] table {display: block; overflow-x: auto}
[data-testid='stMarkdownContainer'] :is(td, th) {padding: 0.3rem 0.45rem}
[data-testid='stMarkdownContainer'] td[style*='right'] {white-space: nowrap}
/* below the underscore of A5_A7, which the line would hide */
[data-testid='stMarkdownContainer'] a {text-underline-offset: 0.2em}
/* as tall as the select boxes beside it */
button[data-variant='segmented_control'] {min-height: 2.5rem}
/* white on the light blue of the dark theme is 3.3:1, this is 5.9:1 */
:is(button[kind^='primary']:enabled, [data-tag]), [data-tag] * {color: light-dark(#fff, #0b1017)}
/* Streamlit writes the shortcut on a button so pale that it is hard to read */
button kbd {opacity: 1 !important; color: inherit !important}
/* so is the label of what cannot be changed now */
[data-testid='stWidgetLabel'][disabled] {color: light-dark(#5c6672, #a3adba) !important}
/* a tall letter stands out by a pixel: without room for it the formula would scroll */
.katex-display > .katex {padding-inline: 0.25rem}
/* a telephone has the menu folded away: the name of the page in its place */
@media (max-width: 767px) {
  [data-testid='stExpandSidebarButton']::after
    {content: 'PAGE'; margin-left: 0.6rem; font-weight: 600; font-size: 1.05rem}
  .st-key-title {position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%)}
  [data-testid='stMarkdownContainer'] table {font-size: 0.82rem}
  [data-testid='stMarkdownContainer'] :is(td, th) {padding-inline: 0.25rem}
  /* an interval goes below its value, so that the last measure is not cut */
  [data-testid='stMarkdownContainer'] td[style*='right'] {white-space: normal}
}
</style>
"""
"""On every page; PAGE is its title. Being first, it also has the browser fetch early what draws HTML."""
HERE = """
<style>
/* the menu folds the pages by section: the one that is open is named beside its section */
[data-testid='stTopNav'] > :nth-child(SECTION) [data-testid='stTopNavSection']
  {background: color-mix(in srgb, currentcolor 12%, transparent); border-radius: 0.5rem}
[data-testid='stTopNav'] > :nth-child(SECTION) [data-testid='stTopNavSection'] p::after
  {content: ' · PAGE' / ''; font-weight: 600}
</style>
"""


PAGES = {
    "": {"overview": "Overview"},
    "Make": {"adapters": "Adapters", "prompts": "Prompts", "train": "Train", "merge": "Merge", "sweep": "Sweep"},
    "Decide": {"pareto": "Pareto", "alpha_curves": "Alpha curves", "compare": "Compare"},
    "Look": {"run": "Run", "playground": "Playground", "query": "Query"},
    "Tell": {"experiments": "Experiments", "report": "Report"},
}
"""The pages by the question that they serve: section → file → title"""
FIRST = "overview"
MAIN = "Ctrl+Enter"
"""Shortcut of a page's main action"""
KEYS = {
    "Overview": [(MAIN, "Try it: a small merge")],
    "Prompts": [(MAIN, "Make the set")],
    "Train": [(MAIN, "Start the training")],
    "Merge": [(MAIN, "Merge")],
    "Sweep": [(MAIN, "Start the runs")],
    "Run": [("← →", "The answer before, the next one"), ("1 … 5", "Your label of the answer; 0 takes it back")],
    "Query": [(MAIN, "Run the query")],
}
"""Title → the page's own shortcuts, as the window lists them under ?"""


def menu(*, hidden: bool = False) -> StreamlitPage:
    """The page that the URL asks for, with the menu on top unless it is `hidden`.

    No icons: for a page with a named one, the browser asks another server for its picture.
    """
    st.session_state["navigation:entered"] = True
    pages = {
        section: [st.Page(f"pages/{name}.py", title=title, default=name == FIRST) for name, title in listed.items()]
        for section, listed in PAGES.items()
    }
    return st.navigation(pages, position="hidden" if hidden else "top")


def style(page: StreamlitPage) -> str:
    """The style sheet of a page, which also marks where in the menu it is."""
    titles = [list(listed.values()) for listed in PAGES.values()]
    section = next((number for number, own in enumerate(titles) if page.title in own), 0)
    here = HERE.replace("SECTION", str(section + 1)) if section else ""
    return (STYLE + here).replace("PAGE", page.title)


def enter_by_the_door() -> None:
    """Run app.py first where Streamlit ran a page by itself.

    A folder called ``pages`` beside the entry file is taken for Streamlit's older way of routing until `st.navigation`
    is called once, so the first visitor of a fresh server who follows a link to a page would get it without the menu.
    """
    if not st.session_state.get("navigation:entered"):
        menu(hidden=True)
        st.rerun()
