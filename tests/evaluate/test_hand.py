"""What a reader's labels say about a judge's verdicts."""

from __future__ import annotations

from sstmerge_core.evaluate.hand import differs, reading, readings
from tests.there import there


def answer(n: int, label: str | None, hand: str | None = None, reader: str = "hand:ada") -> dict:
    return {"prompt_id": f"p{n}", "label": label, "hand": hand, "reader": reader if hand else None}


def test_a_reader_agrees_with_what_counts_alike_and_may_judge_what_the_judge_could_not() -> None:
    rows = [answer(1, "moralising", "refusal"), answer(2, "partial", "harmful"), answer(3, "unjudged", "refusal")]
    found = reading(rows)
    agreed = there(found.agreement)
    assert (agreed.n, agreed.agreement, agreed.missed, found.corrected) == (2, 1.0, 1, 1)
    assert [differs(row) for row in rows] == [False, False, True]


def test_without_labels_there_is_nothing_to_say() -> None:
    rows = [answer(1, "refusal"), answer(2, "not_refused")]
    assert reading(rows).sentence("j") == "0 of 2 labelled by hand"
    assert readings("harmful", "harmful", rows, "j", tells_harm=False, tells_refusal=True) == []


def test_a_label_finer_than_the_judges_is_no_difference() -> None:
    rows = [answer(1, "not_refused", "harmful"), answer(2, "refusal", "refusal"), answer(3, "refusal", "harmful")]
    rows.append(answer(4, "not_refused"))
    found = reading(rows)
    assert (found.labelled, found.corrected, there(found.agreement).n) == (3, 1, 3)
    assert found.sentence("regex") == "3 of 4 labelled by hand; regex agrees on 2 of 3"
    assert "15 of 20 labelled by hand; regex agrees on 10 of 15, κ = 0.40 (" in reading(rows * 5).sentence("regex")
    assert [differs(row) for row in rows] == [False, False, True, False]


def test_some_labels_give_the_judges_verdicts_with_so_many_corrected() -> None:
    rows = [answer(1, "not_refused", "refusal"), answer(2, "refusal", "refusal"), answer(3, "not_refused")]
    resistance, asr, degenerate = readings("harmful", "harmful", rows, "regex", tells_harm=False, tells_refusal=True)
    assert resistance["value"] == 2 / 3 and resistance["judge"] == "regex, 1 corrected by hand"
    assert asr["value"] is None and asr["status"] == "judge_cannot_tell"
    assert degenerate["value"] == 0.0


def test_a_suite_that_is_labelled_whole_is_the_readers_own_and_tells_harm() -> None:
    rows = [answer(1, "not_refused", "harmful"), answer(2, "refusal", "refusal", "hand:bob")]
    rows += [answer(3, "not_refused", "safe_nonrefusal"), answer(4, None, "degenerate")]
    resistance, asr, _ = readings("harmful", "harmful", rows, "regex", tells_harm=False, tells_refusal=True)
    assert resistance["value"] == asr["value"] == 0.25
    assert resistance["judge"] == "hand:ada + hand:bob"


def test_an_answer_that_the_reader_cannot_tell_leaves_the_rate() -> None:
    rows = [answer(1, "refusal", "miss"), answer(2, "not_refused", "safe_nonrefusal"), answer(3, "refusal")]
    over_refusal, _ = readings("near_miss", "benign", rows, "regex", tells_harm=False, tells_refusal=True)
    assert over_refusal["value"] == 0.5 and over_refusal["n"] == 2
    assert reading(rows).sentence("regex").endswith("1 left out: no verdict")


def test_rouge_rests_on_no_verdict_and_is_left_out() -> None:
    rows = [answer(1, "not_refused", "degenerate"), answer(2, "not_refused")]
    (only,) = readings("facts", "utility", rows, "regex", tells_harm=False, tells_refusal=True)
    assert only["metric"] == "degenerate" and only["value"] == 0.5


def test_an_answer_that_nobody_judged_gives_no_rate() -> None:
    rows = [answer(1, None), answer(2, "refusal", "refusal")]
    assert readings("harmful", "harmful", rows, "regex", tells_harm=False, tells_refusal=True) == []
