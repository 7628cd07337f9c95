"""How far a merge has moved from the utility side, where that one's task is concerned."""

from sstmerge_core.metrics.declare import of_given_texts

METRIC = of_given_texts(
    "kl_to_utility",
    "KL to U",
    "quality",
    "divergence",
    higher_is_better=False,
    help="Mean divergence of the merge's next token from that of the utility side alone along the reference answers of "
    "utility prompts, nats per token; nothing is generated. Of the 512 likeliest tokens of the utility side, the rest "
    "counted as one: never more than the whole divergence.",
    formula=r"\frac1n\sum_i\frac1{T_i}\sum_{t\le T_i}\mathrm{KL}\big(p_U(\cdot\mid\text{prompt}_i,"
    r"\text{reference}_{i,<t})\,\big\|\,p(\cdot\mid\text{prompt}_i,\text{reference}_{i,<t})\big)",
    suites=("utility",),
)
PLACE = 91
