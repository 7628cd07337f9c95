"""SST-Merge Studio: `sstmerge serve` (or `make app`) opens it."""

import streamlit as st

from studio import blocks, entrance, navigation, start, window

start.settle()
page = navigation.menu(hidden=not entrance.open_to_visitor())
st.set_page_config(page_title=f"{page.title} · SST-Merge Studio", page_icon=navigation.ICON, layout="wide")
st.html(navigation.style(page))
body, foot = st.container(), st.container()
with foot:  # drawn before the page, which may stop wherever it likes, and shown below it
    entrance.footer()
    window.furnish(page.title)
with body, blocks.failures():  # what a page has not drawn itself
    entrance.gate()
    page.run()
