"""BERTScore (Zhang et al. 2020), by the package bert-score: `sstmerge score RUN --metric bertscore`."""

from sstmerge_core.metrics.declare import Encoder, Metric

METRIC = Metric(
    "bertscore",
    "BERTScore F1",
    "utility",
    higher_is_better=True,
    help="BERTScore F1 of the answers against the reference answers: how alike their tokens are in an encoder's eyes.",
    formula=r"\frac1n\sum_i\frac{2P_iR_i}{P_i+R_i},\quad P=\frac{1}{|\hat x|}\sum_{\hat x_j}\max_{x_k}"
    r"\mathbf x_k^\top\hat{\mathbf x}_j,\ R=\frac{1}{|x|}\sum_{x_k}\max_{\hat x_j}\mathbf x_k^\top\hat{\mathbf x}_j",
    suites=("utility",),
    encoder=Encoder("microsoft/deberta-xlarge-mnli", 40),
    computed_by="bert_score",
    interval="bootstrap",
    interval_words="By the package bert-score (Zhang et al. 2020, arXiv:1904.09675), without idf weights and without "
    "rescaling, by the encoder and layer that the recipe or the row names. A suite may declare it; of other suites it "
    "is computed from stored answers when it is asked for.",
    headline=False,
)
PLACE = 10
