"""rouge-score is had without NLTK, and NLTK is there for whoever asks for it afterwards."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
from sstmerge_core.metrics.rouge_l import rouge_l

found = rouge_l("the cats are running quickly", "a cat ran quick"), rouge_l("\\u7684", "\\u7684")
assert not [name for name in sys.modules if name.split(".")[0] in ("nltk", "scipy")], "NLTK was imported"
from rouge_score import rouge_scorer

assert rouge_scorer.nltk.__name__ == "nltk" and callable(rouge_scorer.nltk.sent_tokenize), "it comes when asked for"
import nltk

assert nltk.PorterStemmer().stem("running") == "run"
plain = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
assert found == (plain.score("the cats are running quickly", "a cat ran quick")["rougeL"].fmeasure, 1.0)
print("the same")
"""


def test_the_stemmer_is_had_without_nltk_which_comes_when_it_is_asked_for():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.stdout == "the same\n", done.stderr


def test_where_nltk_is_imported_already_it_is_used_as_it_is():
    program = (
        "import nltk; from sstmerge_core.metrics.rouge_l import rouge_l; assert rouge_l('a b', 'a b') == 1.0; "
        "import sys; assert sys.modules['nltk'] is nltk"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
