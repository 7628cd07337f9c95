"""How far a refusal of harmful prompts is from being said."""

from sstmerge_core.metrics.declare import of_given_texts

METRIC = of_given_texts(
    "refusal_nll",
    "Refusal NLL",
    "safety",
    "refusal",
    higher_is_better=False,
    help="Mean loss of the refusals of harmful prompts, nats per token; nothing is generated.",
    formula=r"\frac1n\sum_{i\ \text{harmful}}\frac{-1}{T_i}\sum_{t\le T_i}\log p(\text{refusal}_{i,t}\mid "
    r"\text{prompt}_i,\text{refusal}_{i,<t})",
    suites=("harmful",),
)
PLACE = 90
