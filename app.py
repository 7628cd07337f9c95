"""SST-Merge Studio: `streamlit run app.py` (or `make app`)."""

import streamlit as st

from studio import house

st.set_page_config(page_title="SST-Merge Studio", page_icon=":material/merge:", layout="wide")
house.navigation().run()
