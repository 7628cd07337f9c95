"""How long a run's answers are, which is what its generation costs."""

from sstmerge_core.metrics.declare import Metric

METRIC = Metric(
    "tokens",
    "Tokens per answer",
    "cost",
    higher_is_better=False,
    help="Mean number of tokens of an answer, over all prompts; what generating costs.",
    formula=r"\frac{1}{n}\sum_{i=1}^{n}\text{tokens}(\text{answer}_i)",
    of_run="(SELECT avg(s.n_tokens) FROM samples s WHERE s.run_id = r.run_id)",
    bounded=False,
)
PLACE = 202
