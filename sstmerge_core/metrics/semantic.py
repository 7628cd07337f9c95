"""Similarity of sentence embeddings, from stored answers: `sstmerge score RUN --metric semantic`."""

from sstmerge_core.metrics.declare import Encoder, Metric

METRIC = Metric(
    "semantic",
    "Semantic similarity",
    "utility",
    higher_is_better=True,
    help="Cosine of the sentence embeddings of answer and reference answer: whether they say the same in other words.",
    formula=r"\frac1n\sum_i\cos\bigl(e(\text{answer}_i),e(\text{reference}_i)\bigr)",
    suites=("utility",),
    encoder=Encoder("sentence-transformers/all-MiniLM-L6-v2"),
    computed_by="sentence_embedding",
    interval="bootstrap",
    interval_words="Mean-pooled last hidden states (Reimers and Gurevych 2019, arXiv:1908.10084) of the encoder that "
    "the recipe or the row names. A suite may declare it; of other suites it is computed from stored answers when it "
    "is asked for.",
    bounded=False,
    headline=False,
)
PLACE = 11
