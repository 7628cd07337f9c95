"""A file of prompts becomes a set: the file, its columns as they were found, what it is for, a look, and go."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import streamlit as st

from pages.parts import prompts_list
from sstmerge_core import access
from sstmerge_core.metrics import by_encoder, get
from sstmerge_core.suites import own
from sstmerge_core.suites.columns import Columns, told
from sstmerge_core.suites.declared import ROLE_METRICS
from sstmerge_core.suites.guess import Guess, guess_columns
from sstmerge_core.suites.rows import read_rows
from sstmerge_core.words import plain
from sstmerge_core.workspace import file_name, write_file
from studio import blocks, entrance, navigation, start, uploads

ENDINGS = ["csv", "tsv", "jsonl", "jsonlines", "ndjson", "json", "parquet", "yaml", "gz"]
LARGEST = 200 * 2**20
"""Bytes of an upload; a larger file is given by its path"""
FEW = 8
"""Rows of a split below which its figures say next to nothing"""


def form() -> None:
    """Every step below the one before; what is wrong is said in its place."""
    with blocks.failures():
        path = _file()
        if path is None:
            st.caption("CSV, TSV, JSONL, JSON, Parquet or YAML; chats and instruction sets are read too.")
            return
        guess = guess_columns(path)
        columns = _columns(path, guess)
        if columns is not None:
            _what_for(path, columns, as_found=_as_found(guess, columns))


def _as_found(guess: Guess, columns: Columns) -> bool:
    """Whether the rows are those found out, so that nothing of them may be lost; it is asked where something would."""
    if not guess.sure or guess.columns is None or columns.prompt != guess.columns.prompt:
        return False
    if not guess.beside:
        return True
    names = ", ".join(map(plain, guess.beside))
    return not st.checkbox(
        f"Leave out what is in {names}", key="prompts.leave_out", help="No part of a row takes these columns."
    )


def _file() -> Path | None:
    sent = st.file_uploader(
        "A file of prompts", type=ENDINGS, key="prompts.upload", label_visibility="collapsed", **entrance.guard("add")
    )
    if sent is not None:
        uploads.accept(sent, largest=LARGEST)
        data = sent.getvalue()
        name = file_name(sent.name, "prompts.csv")
        target = start.workspace().cache / "uploads" / hashlib.sha256(data).hexdigest()[:16] / name
        if not target.is_file():
            write_file(target, data)
        return target
    path = st.text_input(
        "Or its path on this machine", key="prompts.path", placeholder="/data/my-prompts.csv", width=380
    ).strip()
    return access.place(path) if path else None


def _columns(path: Path, guess: Guess) -> Columns | None:
    """What was found, to be corrected; None where no column of prompts was chosen yet."""
    found = guess.columns or Columns()
    facts = [guess.format, guess.encoding, {"\t": "tab", "": ""}.get(guess.delimiter, guess.delimiter)]
    st.caption(f"**{plain(path.name)}** · {' · '.join(plain(fact) for fact in facts if fact)}")
    if guess.problem:
        st.info(f"Which column is which? {plain(guess.problem.fault.capitalize())}.", icon=":material/table_chart:")
    place = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    if guess.sure and guess.shape in ("chat", "alpaca"):
        st.markdown(f"Read as {'chats' if guess.shape == 'chat' else 'instructions with inputs'}: `{told(found)}`")
        return found
    names = list(guess.names)

    def choose(label: str, field: str, *, needed: bool = False, about: str = "") -> str | None:
        known = getattr(found, field)
        index = names.index(known) if isinstance(known, str) and known in names else None
        options: list[str] = names if needed else ["", *names]
        return st.selectbox(
            label,
            options,
            index if needed or index is None else index + 1,
            key=f"prompts.{place}.{field}",
            format_func=lambda name: name or "none",
            width=150,
            help=about or None,
        )

    with st.container(horizontal=True, gap="small"):
        prompt = choose("Prompt", "prompt", needed=True)
        response = choose("Reference answer", "response", about="What a good answer is; a task needs it.")
        topic = choose("Topic", "topic", about="Rows of one topic stay in one split, and count as one in intervals.")
        split = choose("Split", "split", about="Where the file says so itself: fisher, selection, test, train.")
    if prompt is None:
        return None
    known: dict[str, Any] = {"prompt": prompt, "response": response or None, "topic": topic or None}
    return Columns(**known, split=split or None, id=found.id)


def _what_for(path: Path, columns: Columns, *, as_found: bool) -> None:
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        role = st.selectbox(
            "These prompts are",
            list(own.ROLES),
            index=2 if columns.response is not None else 0,
            key="prompts.role",
            format_func=own.ROLES.__getitem__,
            width=230,
        )
        metrics = ROLE_METRICS[role]
        metric = metrics[0]
        tokens = 48
        if len(metrics) > 1:
            metric = st.selectbox(
                "Measured by",
                list(metrics),
                key="prompts.metric",
                width=230,
                format_func=lambda name: f"{name}, by an encoder" if name in by_encoder() else name,
            )
            if metric in by_encoder():
                encoder = _encoder(metric)
                metric = f"{metric}:{encoder}" if encoder else metric
            tokens = st.number_input("Longest answer, tokens", 1, 4096, 48, key="prompts.tokens", width=150)
        name = st.text_input("Name", own.usable_name(path.name), key=f"prompts.name.{path.name}", width=180)
    shares = _shares(role, columns)
    suite = own.OwnSuite(
        name, role, metric=metric, columns=columns, as_found=as_found, shares=shares, max_new_tokens=int(tokens)
    )
    prepared = own.preview(start.workspace(), path, suite)
    st.caption(prompts_list.counted(prepared))
    few = [prompts_list.SPLIT_WORDS.get(split, split) for split, count in prompts_list.ordered(prepared) if count < FEW]
    if few:
        st.caption(f":orange[:material/warning: Few {' and '.join(few)} prompts: a rate of them has a wide interval.]")
    prompts_list.table(read_rows(prepared.path, limit=prompts_list.SHOWN))
    may = entrance.guard("add")
    if st.button(
        "Make the set", type="primary", icon=":material/add:", key="prompts.make", shortcut=navigation.MAIN, **may
    ):
        made = own.add(start.workspace(), path, suite)
        st.session_state["prompts:next"] = made.name
        st.toast(f"Made {made.name}. Merge and Sweep offer it under *Prompt sets*.")
        st.rerun()


def _encoder(metric: str) -> str:
    """Which encoder computes the metric; empty: its usual one. What is not here is told below, before any launch."""
    usual = get(metric).encoder
    assert usual is not None
    return st.text_input(
        "Encoder",
        key="prompts.encoder",
        placeholder=usual.model,
        help="A folder, or ORG/NAME@REVISION of the hub, whose files must be on this machine already"
        + (f"; #9 after it is the layer that is compared ({usual.layer} of the usual one)." if usual.layer else "."),
        width=300,
    ).strip()


def _shares(role: str, columns: Columns) -> dict[str, float]:
    """How rows are dealt; empty where the file's own split column says it."""
    known = own.SHARES[role]
    usual = ", ".join(f"{prompts_list.SPLIT_WORDS[split]} {share:.0%}" for split, share in known.items())
    ways = {
        "usual": f"{usual}, by {'topic' if columns.topic else 'prompt'}",
        "test": "all of them for testing",
    }
    if columns.split is not None:
        ways = {"column": "as the file's split column says", **ways}
    way = st.radio(
        "Splits",
        list(ways),
        key="prompts.splits",
        format_func=ways.__getitem__,
        horizontal=True,
        help="A prompt's split comes from a hash of it, so that it stays where it is when the file grows. Choose α and "
        "the method on selection, tell what test says; gradients of a task come from its Fisher prompts.",
    )
    return {"usual": dict(known), "test": {"test": 1.0}, "column": {}}[way]
