"""Chat with the base model, adapters and merges side by side."""

import streamlit as st

from pages.parts import playground_chat, playground_columns
from sstmerge_core.errors import Problem
from sstmerge_core.playground import answering
from sstmerge_core.words import shortened
from studio import blocks, link, pick, start

store = blocks.store_or_stop()
shelf = pick.Shelf()
bases = {name: base for name, base in shelf.bases.items() if base.ready}
if not bases:
    blocks.title("Playground")
    blocks.empty(
        "Chat with the base model, its adapters and their merges side by side. The base model is not prepared on this "
        "machine yet: run `sstmerge demo --prepare`, or add one of your own.",
        page="pages/adapters.py",
        label="Add a base model",
    )
    st.stop()

state = link.Link("playground")
state.read({"base": (link.one_of(list(bases)), next(iter(bases)))})
base = bases[st.session_state["playground.base"]]
state.read(playground_columns.fields(shelf, base.name))
offer = playground_columns.Offer(store, shelf, base.name)
said = st.session_state["playground.chat"]
talk = None
with blocks.failures():
    talk = answering.current(start.workspace(), said)
if said and talk is None:
    fault = "there is no such conversation here"
    state.problems.append(Problem(f"chat={shortened(said)} in the link", fault, "It was cleared."))
    st.session_state["playground.chat"] = ""

keys = playground_columns.choose(state, offer)
with st.container(horizontal=True, gap="small"):
    playground_columns.add_live(shelf, len(keys) == playground_columns.columns.MOST)
    playground_columns.settings()
    playground_columns.process(base)
    share = st.container(width="content")
    if len(bases) > 1:
        st.selectbox("Base model", list(bases), key="playground.base", label_visibility="collapsed", width=260)
alphas = playground_columns.alphas(state, keys, offer)
blocks.problems(state.problems, warning=True)

if not keys:
    blocks.empty("Choose up to four columns above: the base model, an adapter, a finished run. Or add a live merge.")
    state.write({"base": st.session_state["playground.base"], "column": []})
    st.stop()

begun = bool(talk) or playground_chat.something_is_asked()
chosen = playground_columns.heads(keys, offer, base, alphas, brief=begun)
with blocks.failures():
    talk = playground_chat.answer_what_is_asked(talk, chosen, base)
if talk and talk.turns:
    playground_chat.turns(talk, chosen)
    playground_chat.about_verdicts()
else:
    st.markdown("Ask all columns the same thing: write below, or try one of these.")
    playground_chat.suggestions("playground.first")
playground_chat.bar(talk, chosen, bool(talk and answering.running(start.workspace(), talk.id)))

values = {name: st.session_state[f"playground.{name}"] for name in ("base", "tokens", "temperature", "dtype", "chat")}
values |= {"column": keys, "alpha": [f"{one.alpha:g}" for one in chosen.values() if one.alpha is not None]}
with share:
    blocks.share_box(link.share(start.base_url(), "playground", values))
state.write(values)
