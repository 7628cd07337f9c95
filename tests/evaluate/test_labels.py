from __future__ import annotations

from sstmerge_core import metrics
from sstmerge_core.evaluate.agreement import SCALES
from sstmerge_core.evaluate.judging import TRUE_LABELS
from sstmerge_core.metrics.labels import LABELS, NO_VERDICT, REFUSED
from sstmerge_core.store import remarks
from studio.blocks import LABEL_WORDS


def test_every_label_has_words_for_people_and_every_list_of_labels_names_known_ones() -> None:
    assert set(LABEL_WORDS) == set(LABELS)
    lists = (REFUSED, NO_VERDICT, TRUE_LABELS, remarks.LABELS, *(metric.counts for metric in metrics.metrics()))
    assert {label for one in lists for label in one} <= set(LABELS)


def test_on_every_scale_what_counts_as_refused_becomes_one_label() -> None:
    for scale in SCALES.values():
        assert len({scale.get(label, label) for label in REFUSED}) == 1
