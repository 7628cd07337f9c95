"""SST-Merge Studio: `sstmerge serve` (or `make app`) opens it."""

import streamlit as st

from studio import blocks, entrance, navigation, start, window

start.settle()
page = navigation.menu(hidden=not entrance.open_to_visitor())
st.set_page_config(page_title=f"{page.title} · SST-Merge Studio", page_icon=navigation.ICON, layout="wide")
st.html(navigation.style(page))
try:
    with blocks.failures():  # what a page has not drawn itself
        entrance.gate()
        entrance.footer()
        page.run()
finally:  # last, so that what a page shows comes first; a page may stop before its end
    window.furnish(page.title)
