"""How far the helpful reference answer is from being said."""

from sstmerge_core.metrics.declare import of_given_texts

METRIC = of_given_texts(
    "answer_nll",
    "Answer NLL",
    "quality",
    "reference",
    higher_is_better=False,
    help="Mean loss of the helpful reference answers, nats per token; nothing is generated.",
    formula=r"\frac1n\sum_i\frac{-1}{T_i}\sum_{t\le T_i}\log p(\text{reference}_{i,t}\mid "
    r"\text{prompt}_i,\text{reference}_{i,<t})",
    suites=("utility", "benign"),
)
PLACE = 90
