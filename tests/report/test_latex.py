"""What the report and the tables write for LaTeX shows what a user typed, and compiles."""

from __future__ import annotations

import re
import shutil
import subprocess

import pandas as pd
import pytest

from sstmerge_core.plots import export, tex
from sstmerge_core.report import latex
from sstmerge_core.report.document import Bullets, Report, Section, Table, numbered
from sstmerge_core.words import plain

HOSTILE = (
    r"100 % of A_5 & #2 ~ x^2 \ {a} $b$ \end{document}",
    "[1] * -0.5 -- ''quoted'' \"so\" `code` <b> |x| ?` !`",
    "日本語の実行 👩‍🔬 Привет łódź Ångström κ=0 µ é ő ﷺ",
    "* star\x07 \u202eright to left",
)
LETTERS = {r"\textbackslash{}": "\\", r"\textasciitilde{}": "~", r"\textasciicircum{}": "^", r"\`{}": "`"}
LETTERS |= {r"\textless{}": "<", r"\textgreater{}": ">", r"\textbar{}": "|", r"\symbol{34}": '"', "{}": ""}


def hostile_report() -> Report:
    cells = tuple((plain(text), "0.500 [-0.406, 0.529]", "< 0.001") for text in HOSTILE)
    head = ("Run", "Utility ↑", "p")
    few, many = Table(head, cells), Table(head, cells * 9, caption="Long.")
    wide = Table(("Run", *("Measure",) * 9), ((plain(HOSTILE[0]), *("**above** < 0.001 (runs)",) * 9),))
    sections = [
        Section(plain(text), (few, wide, Bullets(cells[2]), f"`{plain('a_b', code=True)}`")) for text in HOSTILE
    ]
    return Report("T", plain(HOSTILE[0]), tuple(numbered([*sections, Section("Long", (many,), level=3)])))


@pytest.mark.parametrize("text", HOSTILE[:2])
def test_every_sign_that_a_user_types_is_printed(text: str) -> None:
    printed = tex.text(text)
    for command, sign in LETTERS.items():
        printed = printed.replace(command, sign)
    assert re.sub(r"\\([&%$#_{}])", r"\1", printed.replace("$-$", "-")) == text


def test_a_letter_that_only_some_fonts_have_is_named_where_it_cannot_be_printed() -> None:
    assert tex.text("日 é κ ő 🔬\ud800") == (
        r"\sstchar{26085}{65E5} \'{e} $\kappa$ \H{o} \sstchar{128300}{1F52C}\sstchar{65533}{FFFD}"
    )


def test_a_document_is_ascii_with_every_brace_and_environment_closed() -> None:
    text = latex.document(hostile_report())
    assert text.isascii()
    body = text.partition(r"\makeatother")[2].replace(r"\sstend", "")
    bare = re.sub(r"\\[{}\\]", "", body)
    assert bare.count("{") == bare.count("}")
    environments = re.findall(r"(?<!\\)\\(begin|end)\{([a-z]+)\}", body)
    opened: list[str] = []
    for kind, name in environments:
        if kind == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert not opened and {"table", "tabular", "longtable", "itemize"} == {name for _, name in environments}
    assert not re.search(r"(\\\\|\\midrule|\\item)\s*[\[*](?!2pt)", body), "a bracket there would be an argument"


def test_a_table_of_alpha_curves_has_a_label_that_latex_can_refer_to() -> None:
    rows = pd.DataFrame([{"series_name": text, "alpha": 0.5, "utility": 0.25} for text in HOSTILE])
    text = export.latex(rows, caption=HOSTILE[0], label="tab:A_5 & {7}")
    assert text.isascii() and r"\label{tab:A-5-7-}" in text


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex (apt-get install texlive-latex-base)")
def test_pdflatex_compiles_the_document_alone_and_within_another(tmp_path) -> None:
    (tmp_path / "report.tex").write_text(latex.document(hostile_report()))
    curves = pd.DataFrame([{"series_name": text, "alpha": 0.5, "utility": 0.25} for text in HOSTILE])
    (tmp_path / "curves.tex").write_text(export.latex(curves, caption=HOSTILE[2], label="tab:c"))
    packages = r"\documentclass{article}\usepackage{array,booktabs,longtable}"
    parts = r"\begin{document}\tableofcontents\appendix\input{report}\input{curves}\end{document}"
    (tmp_path / "paper.tex").write_text(packages + parts)
    for name, least in (("report", 3), ("paper", 3), ("paper", 3)):  # the second time with its table of contents
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", f"{name}.tex"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=False)
        told = done.stdout.decode(errors="replace")
        assert done.returncode == 0, told[-2000:]
        pages = re.search(r"\((\d+) pages", told)
        assert pages and int(pages[1]) >= least
        wide = re.search(r"Overfull \\hbox \(\d{2,}", told)
        assert name != "report" or not wide, "a table or a text stands out of its column"
