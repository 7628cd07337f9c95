"""Two to six runs beside each other: what differs in the recipes, in the figures, and prompt by prompt."""

from typing import Any

import streamlit as st

from pages.parts import compare_judges, run_bits
from sstmerge_core.analysis import compare
from sstmerge_core.errors import Problem
from sstmerge_core.evaluate import judges_measured
from sstmerge_core.plots import compare as pictures
from sstmerge_core.plots.told import told_on
from sstmerge_core.recipe import differences
from sstmerge_core.store import queries
from sstmerge_core.words import count, plain, shortened
from studio import answers, blocks, decision, link, start

MOST = blocks.COMPARED
FEW = 12  # runs that a menu shows without a search of its own


def of_how_many(runs: int) -> str:
    return f"{runs:,}" if runs <= blocks.OFFERED else f"the newest {blocks.OFFERED:,}"


def why_not(run_id: str) -> Problem | None:
    """Why a run of the link cannot be compared; None where it can."""
    if run_id in titles:
        return None
    run = store.query(queries.run, run_id)
    where = f"run={shortened(run_id)} in the link"
    if run is None:
        return Problem(where, "there is no such run in this workspace", "It may have been deleted, or be another's.")
    if run["source"] == "reported":
        return Problem(where, "its figure is from the literature and its answers are not here", "Choose measured runs.")
    return Problem(where, f"its status is “{run['status']}”", "Only finished runs are compared.")


def reference_first() -> None:
    chosen = st.session_state["compare.reference"]
    st.session_state["compare.run"] = [chosen, *(one for one in st.session_state["compare.run"] if one != chosen)]
    answers.to_first_page()


def take(run_ids: list[str]) -> None:
    st.session_state["compare.run"] = run_ids


store = blocks.store_or_stop()
runs = store.finished.query(queries.comparable_runs)
if len(runs) < 2:
    blocks.title("Compare")
    blocks.empty(
        "Comparing needs two finished runs with their answers. A merge brings a second one along: its utility adapter "
        "alone.",
        page="pages/merge.py",
        label="Merge a pair",
    )
    st.stop()

titles: dict[str, str] = store.finished.recall("compare.names", lambda: pictures.names(runs))
state = link.Link("compare")
state.read({"run": (link.texts, decision.pick_beside_utility(store)), "judge": (link.text, ""), **answers.fields()})
asked = list(dict.fromkeys(st.session_state["compare.run"]))
state.problems += filter(None, map(why_not, asked))
known = [run_id for run_id in asked if run_id in titles]
if len(known) > MOST:
    state.problems.append(Problem("the link", f"it names {len(known)} runs", f"The first {MOST} are compared."))
st.session_state["compare.run"] = known[:MOST]

find = ""
if len(titles) > FEW:
    find = st.text_input(
        "Find runs",
        key="compare.find",
        placeholder="Find runs: words of their names in any order, such as linear A5_A7 selection",
        label_visibility="collapsed",
        icon=":material/search:",
    )
found = pictures.having(titles, find)
newest = found[: blocks.OFFERED]
chosen = st.multiselect(
    "Runs",
    list(dict.fromkeys([*newest, *st.session_state["compare.run"]])),
    key="compare.run",
    format_func=titles.__getitem__,
    max_selections=MOST,
    select_all=False,
    placeholder=f"Choose 2 to {MOST} of {of_how_many(len(found))} runs{' found' if find else ''}",
    on_change=answers.to_first_page,
    label_visibility="collapsed",
)
if find and not found:
    st.caption(f"No run's name has all of these words: {plain(find)}.")
elif find and len(found) <= blocks.OFFERED:
    st.caption(f"{count(len(found), 'run')} found: they are in the menu above.")
elif len(found) > blocks.OFFERED:
    st.caption(f"Of {len(found):,} runs. Older ones: find them by words of their names, or select them on Pareto.")
for searched, twin in pictures.twins_on_test(runs, chosen).items() if len(chosen) < MOST else ():
    st.button(
        f"Add what {plain(titles[searched])} is on test prompts",
        icon=":material/add:",
        key=f"compare.twin.{searched}",
        on_click=take,
        args=([*chosen, twin],),
    )
blocks.problems(state.problems, warning=True)
if len(chosen) < 2:
    with st.container(border=True):
        st.markdown(
            f"Choose 2 to {MOST} runs above. The first is the reference: every other one is tested against it on the "
            "prompts that both answered."
        )
        if example := store.query(queries.newest_with_reference):
            words = " with ".join(plain(titles[run_id]) for run_id in reversed(example))
            st.button(words, icon=":material/compare_arrows:", on_click=take, args=(example,), key="compare.example")
        st.page_link("pages/pareto.py", label="Or select points on the Pareto page", icon=":material/scatter_plot:")
    state.write({"run": chosen})
    st.stop()

letters = dict(zip(chosen, compare.LETTERS, strict=False))
metrics = {run_id: store.finished.query(queries.run_metrics, run_id) for run_id in chosen}
judges = compare.shared_judges(list(metrics.values()))
judges = judges_measured.stored_judges(judges) if judges else []
if st.session_state["compare.judge"] not in judges:
    blocks.problems(state.unknown("judge", judges) if state.moved else [], warning=True)
    st.session_state["compare.judge"] = judges[0] if judges else ""
st.session_state["compare.reference"] = chosen[0]

with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
    st.selectbox(
        "Reference",
        chosen,
        key="compare.reference",
        format_func=titles.__getitem__,
        on_change=reference_first,
        width=240,
    )
    if len(judges) > 1:
        st.selectbox("Judge", judges, key="compare.judge", width=220, help=blocks.judges_help(judges))
    share = st.container(width="content")
judge = st.session_state["compare.judge"] or None


def row(run_id: str) -> dict[str, Any]:
    found = store.query(queries.run, run_id)
    assert found is not None, "only known runs are offered"
    return found


def side(run_id: str) -> compare.Side:
    run = row(run_id)
    samples = store.finished.query(queries.run_samples, run_id, None, judge or "")
    scored = store.finished.recall(("compare.scored", run_id, judge), lambda: compare.scored(samples, run["recipe"]))
    return compare.Side(letters[run_id], run["recipe"], metrics[run_id], scored)


sides = [side(run_id) for run_id in chosen]
figures = store.finished.recall(("compare", tuple(chosen), judge), lambda: compare.compare(sides, judge))
named = {letters[run_id]: titles[run_id] for run_id in chosen}
notes = compare.notes(sides)
if judge is None:
    notes.append("No judge has judged all of these runs: only what needs none is compared.")
if notes:
    st.warning("  \n".join(map(plain, notes)), icon=":material/difference:")

left, right = st.columns([6, 5], gap="large")
with left:
    shown = pictures.points(store.query(queries.runs_by_id, chosen), figures, letters)
    if len(shown) > 1:
        st.plotly_chart(
            store.finished.recall(("compare.figure", tuple(chosen), judge), lambda: pictures.figure(shown, letters)),
            config=blocks.CHART_CONFIG,
            alt=f"Utility against resistance of {len(shown)} runs, 95 % intervals",
        )
        lacking = [letters[run_id] for run_id in chosen if run_id not in set(shown["run_id"])]
        apart = f" Not drawn: {', '.join(lacking)}, measured on other prompts." if lacking else ""
        st.caption(f"{told_on(shown.assign(judge=judge))} 95 % intervals; the ring marks the reference.{apart}")
    else:
        blocks.empty(
            f"Fewer than two of these runs have resistance and utility on the prompts of {letters[chosen[0]]}."
        )
with right:
    st.markdown(pictures.key(letters, titles))
    for run_id, letter in letters.items():
        if tags := list(store.query(queries.tags, run_id)["tag"]):
            st.markdown(f"**{letter}** " + " ".join(f":gray-badge[:material/sell: {plain(tag)}]" for tag in tags))
    for letter, sentence in compare.summary(figures).items():
        st.markdown(f"**{letter}** against {letters[chosen[0]]}: {plain(sentence)}.")
    judged = f"Judge: {plain(judge)}. {judges_measured.accuracy_words(judge)}" if judge else ""
    st.caption(judged)
    for other in judges:
        if judge and other != judge:
            compare_judges.beside(store, letters, judge, other)

st.subheader("Recipes", anchor=False)
differing = differences.differing({letters[one]: row(one)["recipe"] for one in chosen})
if differing.empty:
    st.caption("The recipes do not differ.")
else:
    st.markdown(pictures.recipe_table(differing))
    st.caption("Only what differs. Parameters that one method has and another has not are left out at their default.")

st.subheader("Measures", anchor=False)
halves = st.columns(2, gap="large")
for place, (heading, text) in enumerate(pictures.measure_tables(figures)):
    with halves[place % 2]:
        st.markdown(heading)
        st.markdown(text)
tests = int(figures["p_value"].notna().sum())
st.caption(
    f"Value: the run's own, 95 % interval. Difference to {letters[chosen[0]]} over the prompts that both answered (n), "
    "interval by paired bootstrap. p: exact McNemar for rates, paired bootstrap for mean scores; where prompts have "
    "topics, by the bootstrap for rates too, topics drawn whole. Both are corrected after Holm over the "
    f"{count(tests, 'test')} on this page: where Holm multiplies p by m, the interval is one of "
    f"1 − {compare.SIGNIFICANT:g}/m, which leaves out 0 where p < {compare.SIGNIFICANT:g}. That is called better or "
    "worse; McNemar's p may differ from the interval at the edge. Effect: Cohen's h for rates, d of the paired "
    "differences for means."
)
blocks.csv_button(pictures.csv(figures, named), "compare-measures.csv", key="compare.csv.measures")

shown_of: set[frozenset[str]] = set()
for one in chosen:
    run_bits.show(store, one, of=letters[one], but=shown_of)

st.subheader("Prompt by prompt", anchor=False)
if any(sides[0].shares(one, suite) for one in sides[1:] for suite in sides[0].suites):
    by_hand = {letters[run_id]: store.query(queries.hand_labels, run_id) for run_id in chosen}
    answers.side_by_side(state, sides, chosen, named, by_hand)
else:
    blocks.empty("These runs have no prompts in common.")

values = {"run": chosen, "judge": judge} | {name: st.session_state[f"compare.{name}"] for name in answers.fields()}
with share:
    blocks.share_box(link.share(start.base_url(), "compare", values))
state.write(values)
