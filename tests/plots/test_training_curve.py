from __future__ import annotations

from sstmerge_core.plots import training

VALIDATION = [{"epoch": 1.0, "step": 10, "loss": 1.5}, {"epoch": 2.0, "step": 20, "loss": 1.75}]


def test_a_short_training_is_drawn_as_it_was_and_a_long_one_also_as_its_mean() -> None:
    short = training.figure({"steps": 40, "loss": [3.0, 2.0]})
    assert [list(trace.y) for trace in short.data] == [[3.0, 2.0]] and short.layout.xaxis.range[1] >= 40
    losses = [float(step % 2) for step in range(200)]
    single, mean = training.figure({"steps": 200, "loss": losses}).data
    assert list(single.y) == losses
    assert list(mean.y)[:3] == [0.0, 0.5, 1 / 3] and all(value == 0.5 for value in list(mean.y)[9:])


def test_one_step_is_visible() -> None:
    (trace,) = training.figure({"steps": 40, "loss": [3.0]}).data
    assert trace.mode == "markers"


def test_the_kept_epoch_is_marked_only_where_training_may_stop_early() -> None:
    curve = {"steps": 40, "loss": [2.0] * 20, "validation": VALIDATION}
    assert "kept" not in [trace.name for trace in training.figure(curve).data]
    kept = training.figure(curve | {"patience": 1}).data[-1]
    assert kept.name == "kept" and list(kept.x) == [10] and list(kept.y) == [1.5]


def test_a_training_is_summed_up_in_one_line() -> None:
    curve = {"steps": 40, "loss": [2.0] * 19 + [1.0], "validation": VALIDATION, "patience": 1}
    expected = "20 of 40 steps · training loss 2.00 → 1.00 · lowest validation loss 1.50 at epoch 1"
    assert training.summary(curve) == f"{expected} · those weights are kept"
    assert training.summary({"steps": 2, "loss": []}) == "0 of 2 steps"
