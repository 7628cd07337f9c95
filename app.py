"""SST-Merge Studio: `streamlit run app.py` (or `make app`)."""

import streamlit as st

st.set_page_config(page_title="SST-Merge Studio", page_icon=":material/merge:", layout="wide")

PAGES = [
    st.Page("pages/overview.py", title="Overview", icon=":material/home:", default=True),
    st.Page("pages/adapters.py", title="Adapters", icon=":material/extension:", url_path="adapters"),
    st.Page("pages/merge.py", title="Merge", icon=":material/merge:", url_path="merge"),
    st.Page("pages/sweep.py", title="Sweep", icon=":material/grid_on:", url_path="sweep"),
    st.Page("pages/pareto.py", title="Pareto", icon=":material/scatter_plot:", url_path="pareto"),
    st.Page("pages/alpha_curves.py", title="Alpha curves", icon=":material/show_chart:", url_path="alpha-curves"),
    st.Page("pages/run.py", title="Run", icon=":material/description:", url_path="run"),
    st.Page("pages/query.py", title="Query", icon=":material/database:", url_path="query"),
]

st.navigation(PAGES, position="top").run()
