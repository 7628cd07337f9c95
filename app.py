"""SST-Merge Studio: `streamlit run app.py` (or `make app`)."""

import streamlit as st

from studio import house, start

start.settle()
page = house.navigation()
st.set_page_config(page_title=f"{page.title} · SST-Merge Studio", page_icon=house.ICON, layout="wide")
st.html(house.STYLE.replace("PAGE", page.title))
page.run()
