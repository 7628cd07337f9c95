"""Tables of a report are numbered with captions, fronts stand in a matrix, and LaTeX holds the same."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from sstmerge_core.analysis import fronts
from sstmerge_core.cli import main
from sstmerge_core.report import comparisons, html, latex
from sstmerge_core.report.document import Bullets, Report, Section, Table, markdown, numbered

WIDE = Table(("Run", "p"), tuple((f"[A_5 & 50 %](run?run=r{n})", "< 0.001") for n in range(40)), caption="Long.")
SECTIONS = (
    Section("First", ("**Bold** and `code_x` of [a run](run?run=1), α ≥ 1.", WIDE)),
    Section("Second?", (Table(("Run", "R ↑"), (("a", "0.1"),), caption="Short."), Bullets(("one", "two"))), level=3),
)
REPORT = Report("T", "About 95 %.", tuple(numbered(SECTIONS)))


def test_tables_are_numbered_through_and_say_what_they_are_of():
    text = markdown(REPORT)
    assert "**Table 1.** First. Long." in text and "**Table 2.** Second. Short." in text
    assert "<strong>Table 2.</strong> Second. Short." in html.page(REPORT)


def test_latex_has_every_table_with_caption_and_label_and_nothing_that_latex_would_read_otherwise():
    text = latex.document(REPORT)
    assert text.count(r"\caption{") == text.count(r"\label{tab:sst-") == 2
    assert r"\caption{First. Long.}\label{tab:sst-1}" in text and r"\section{First}\label{sec:sst-1}" in text
    assert r"A\_5 \& 50 \% & \textless{}~0.001 \\" in text, "a link is the text that it shows"
    assert r"\textbf{Bold} and \texttt{code\_x} of a run, $\alpha$ $\geq$ 1." in text
    assert r"R $\uparrow$" in text and r"\item two" in text and r"About 95 \%." in text
    for name in ("longtable", "table", "tabular", "itemize"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 1
    plain = re.sub(r"\\[{}]", "", text)
    assert plain.count("{") == plain.count("}"), "every brace is closed"
    body = re.sub(r"%.*", "", text.partition("\n\n")[2].replace(r"\%", ""))
    assert not re.search(r"(?<!\\)[#~^](?![a-z])|[αΔ↑↓≥≤∞]", body.replace("~", ""))


@pytest.mark.parametrize(
    ("few", "answer", "covers"), [(False, "yes", True), (False, "yes", False), (True, "not shown", True)]
)
def test_two_fronts_stand_in_a_matrix_from_either_side(few, answer, covers):
    row = {"first": "linear", "second": "ties", "difference": 0.1, "low": 0.05, "covers": covers, "p_holm": 0.01}
    row |= {"answer": fronts.FEW if few else answer, "runs_answer": answer, "runs_p_holm": 0.2}
    table = comparisons.front_matrix(pd.DataFrame([row]), ["linear", "ties"], {"linear": "Linear", "ties": "TIES"})
    assert table.head == ("Front of", "1", "2") and [line[0] for line in table.rows] == ["1. Linear", "2. TIES"]
    first, second = table.rows[0][2], table.rows[1][1]
    if few:
        assert first == second == "open 0.200" and "open: not told apart" in table.caption
    else:
        assert (first, second) == (("**above** 0.010", "below 0.010") if covers else ("**more** 0.010", "less 0.010"))
        assert "p < 0.05 after Holm" in table.caption
    assert table.rows[0][1] == table.rows[1][2] == ""


def test_the_command_line_writes_the_appendix(tmp_path, monkeypatch):
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(tmp_path / "w"))
    out = tmp_path / "appendix.tex"
    assert main(["report", "--source", "reported", "--pair", "A5_A7", "--out", str(out)]) == 0
    text = out.read_text()
    assert text.count(r"\begin{tabular}") + text.count(r"\begin{longtable}") == text.count(r"\label{tab:sst-") > 3
