"""The pages, and the one way into them."""

from __future__ import annotations

import streamlit as st
from streamlit.navigation.page import StreamlitPage


def navigation() -> StreamlitPage:
    """The page that the URL asks for, with the menu on top."""
    st.session_state["house:entered"] = True
    return st.navigation(
        [
            st.Page("pages/overview.py", title="Overview", icon=":material/home:", default=True),
            st.Page("pages/adapters.py", title="Adapters", icon=":material/extension:"),
            st.Page("pages/merge.py", title="Merge", icon=":material/merge:"),
            st.Page("pages/sweep.py", title="Sweep", icon=":material/grid_on:"),
            st.Page("pages/pareto.py", title="Pareto", icon=":material/scatter_plot:"),
            st.Page("pages/alpha_curves.py", title="Alpha curves", icon=":material/show_chart:"),
            st.Page("pages/run.py", title="Run", icon=":material/description:"),
            st.Page("pages/query.py", title="Query", icon=":material/database:"),
        ],
        position="top",
    )


def enter_by_the_door() -> None:
    """Run app.py first where Streamlit ran a page by itself.

    A folder called ``pages`` beside the entry file is taken for Streamlit's older way of routing until `st.navigation`
    is called once, so the first visitor of a fresh server who follows a link to a page would get it without the menu.
    """
    if not st.session_state.get("house:entered"):
        navigation()
        st.rerun()
