from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from sstmerge_core import adapters
from sstmerge_core import train as training
from sstmerge_core.errors import Cancelled, DataError, JobError, RecipeError
from sstmerge_core.train import TrainingSettings, checkpoint, train, training_data, training_record
from tests.processes import died
from tests.tiny_models import build_base

ROOT = Path(__file__).resolve().parents[2]
ROWS = [(f"w{i} w{i + 1} w{i % 7}", f"w{3 * i % 90} w{i % 11}") for i in range(18)]
HELD_OUT = [(f"w{i} w{i + 1} w{i % 7}", f"w{3 * i % 90} w{i % 11}") for i in range(40, 46)]
SETTINGS = TrainingSettings(epochs=4, batch_size=4, patience=2)


class Killed(BaseException):
    """Stands for SIGKILL within this process: nothing may handle it."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with dropout, so that a resumed training needs the random state too."""
    return build_base("gpt2", tmp_path_factory.mktemp("base") / "gpt2")


@pytest.fixture(scope="module")
def uninterrupted(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "A"
    train(base, ROWS, out, SETTINGS, validation=HELD_OUT)
    return out


def weights(folder: Path) -> str:
    return hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()


def dying(step: int) -> Callable[[int, int, float], None]:
    """A progress that ends the training the first time `step` is done."""

    def progress(done: int, steps: int, loss: float) -> None:
        if done == step:
            raise Killed

    return progress


def resumed_over(base: Path, out: Path, deaths: range) -> None:
    for step in deaths:
        with pytest.raises(Killed):
            train(base, ROWS, out, SETTINGS, validation=HELD_OUT, progress=dying(step))
        assert not out.exists()
    train(base, ROWS, out, SETTINGS, validation=HELD_OUT)


def test_a_training_ended_after_every_step_gives_the_bits_of_one_that_was_not(
    base: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    steps = training_record(uninterrupted)["steps"]
    seen: list[int] = []
    step_of = training.Trainer.step

    def noted(self: training.Trainer, step: int) -> float:
        seen.append(step)
        return step_of(self, step)

    monkeypatch.setattr(training.Trainer, "step", noted)
    resumed_over(base, tmp_path / "A", range(3, steps + 1, 5))
    assert seen == list(range(steps)), "a step was done twice, or the checkpoint was not used"
    assert weights(tmp_path / "A") == weights(uninterrupted)
    whole, pieces = (training_record(folder) for folder in (uninterrupted, tmp_path / "A"))
    assert {**whole, "seconds": 0} == {**pieces, "seconds": 0}
    assert [path.name for path in tmp_path.iterdir()] == ["A"], "the checkpoint is still there"


def test_a_training_killed_between_checkpoints_goes_back_to_the_end_of_the_epoch(
    base: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    resumed_over(base, tmp_path / "A", range(3, 9, 5))
    assert weights(tmp_path / "A") == weights(uninterrupted)


def test_a_process_killed_with_minus_nine_while_it_writes_goes_on_to_the_same_bits(
    base: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    code = f"""
import os, signal, sys
from pathlib import Path
from sstmerge_core import train
from sstmerge_core.train import checkpoint
real, writes = os.replace, []
def replace(source, target):
    if str(target).endswith("state.safetensors"):
        writes.append(target)
        if len(writes) == 2:  # the second checkpoint is written and not yet in its place
            os.kill(os.getpid(), signal.SIGKILL)
    real(source, target)
checkpoint.os.replace = replace
settings = train.TrainingSettings.model_validate_json({SETTINGS.model_dump_json()!r})
train.train(Path({str(base)!r}), {ROWS!r}, Path({str(tmp_path / "A")!r}), settings, validation={HELD_OUT!r})
"""
    assert died(code) == -signal.SIGKILL
    place = checkpoint.folder(tmp_path / "A")
    assert {path.name for path in place.iterdir()} >= {"state.safetensors", "state.safetensors.partial"}
    steps: list[int] = []
    train(
        base,
        ROWS,
        tmp_path / "A",
        SETTINGS,
        validation=HELD_OUT,
        progress=lambda step, *_: steps.append(step),
    )
    assert steps[0] == 5, "it did not go on after the first epoch"
    assert weights(tmp_path / "A") == weights(uninterrupted)
    assert [path.name for path in tmp_path.iterdir()] == ["A"]


def test_a_cancelled_training_keeps_its_step_and_shows_its_curve(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "A"
    asked = iter([False, False, True])
    with pytest.raises(Cancelled):
        train(base, ROWS, out, SETTINGS, validation=HELD_OUT, should_cancel=lambda: next(asked))
    curve = checkpoint.read_curve(out)
    assert curve is not None and len(curve["loss"]) == 3 and curve["steps"] == 18 and not out.exists()
    steps: list[int] = []
    train(base, ROWS, out, SETTINGS, validation=HELD_OUT, progress=lambda step, *_: steps.append(step))
    assert steps[:2] == [3, 4] and checkpoint.read_curve(out) is None


def test_a_checkpoint_of_other_rows_or_settings_is_not_taken(base: Path, uninterrupted: Path, tmp_path: Path) -> None:
    out = tmp_path / "A"
    with pytest.raises(Killed):
        changed = SETTINGS.model_copy(update={"seed": 7})
        train(base, ROWS, out, changed, validation=HELD_OUT, progress=dying(6))
    with pytest.raises(Killed):
        train(base, [*ROWS[1:], ("w1", "w2")], out, SETTINGS, validation=HELD_OUT, progress=dying(6))
    train(base, ROWS, out, SETTINGS, validation=HELD_OUT)
    assert weights(out) == weights(uninterrupted)


def test_an_unreadable_checkpoint_means_a_training_from_the_start(
    base: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "A"
    with pytest.raises(Killed):
        train(base, ROWS, out, SETTINGS, validation=HELD_OUT, progress=dying(6))
    state = checkpoint.folder(out) / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-100])
    train(base, ROWS, out, SETTINGS, validation=HELD_OUT)
    assert weights(out) == weights(uninterrupted)


def test_training_stops_after_the_patience_and_keeps_the_best_epochs_weights(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([3.0, 2.0, 2.5, 2.25, 1.0])
    monkeypatch.setattr(training.Trainer, "validation_loss", lambda self: next(losses))
    settings = TrainingSettings(epochs=6, batch_size=6, patience=2)
    train(base, ROWS, tmp_path / "stopped", settings, validation=HELD_OUT)
    found = training_record(tmp_path / "stopped")
    assert [one["loss"] for one in found["validation"]] == [3.0, 2.0, 2.5, 2.25]
    assert [one["step"] for one in found["validation"]] == [3, 6, 9, 12]
    assert len(found["loss"]) == 12 and found["steps"] == 18

    kept: list[dict] = []
    note_best = training.Trainer.note_best

    def noted(self: training.Trainer) -> None:
        note_best(self)
        kept.append(dict(self._best))

    monkeypatch.setattr(training.Trainer, "note_best", noted)
    losses = iter([3.0, 2.0, 2.5, 2.25])
    train(base, ROWS, tmp_path / "again", settings, validation=HELD_OUT)
    assert len(kept) == 2 and weights(tmp_path / "again") == weights(tmp_path / "stopped")
    from safetensors.torch import load_file

    written = load_file(tmp_path / "again" / "adapter_model.safetensors")
    name = next(name for name in kept[1] if "lora_B" in name)
    assert written[name.replace(".default", "")].equal(kept[1][name].bfloat16())
    assert not kept[0][name].equal(kept[1][name])


def test_validation_alone_changes_no_weight(base: Path, tmp_path: Path) -> None:
    settings = TrainingSettings(epochs=2, batch_size=4)
    train(base, ROWS, tmp_path / "plain", settings)
    train(base, ROWS, tmp_path / "measured", settings, validation=HELD_OUT)
    assert weights(tmp_path / "plain") == weights(tmp_path / "measured")
    assert "validation" not in training_record(tmp_path / "plain")
    assert len(training_record(tmp_path / "measured")["validation"]) == 2


def test_the_validation_loss_is_that_of_the_rows_alone(tiny_base: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from sstmerge_core.models.supervised import collate, encode, sample_losses

    model = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    with torch.no_grad():
        single = [float(sample_losses(model, collate([encode(tokenizer, *pair, 256)], 1))[0]) for pair in HELD_OUT]
    settings = TrainingSettings(epochs=1, batch_size=18, learning_rate=1e-12)
    train(tiny_base, ROWS, tmp_path / "A", settings, validation=HELD_OUT)
    (measured,) = training_record(tmp_path / "A")["validation"]
    tolerance = 0.02 if training_record(tmp_path / "A")["arithmetic"] != "float32" else 1e-4
    assert measured["loss"] == pytest.approx(sum(single) / len(single), abs=tolerance) and measured["epoch"] == 1


def test_the_trained_folder_is_an_adapter_with_its_curve(base: Path, uninterrupted: Path) -> None:
    assert adapters.read(uninterrupted).rank == 8
    found = training_record(uninterrupted)
    assert len(found["loss"]) == found["steps"] == 18 and found["validation_rows"] == 6 and found["rows"] == 18


def test_settings_without_early_stopping_keep_the_form_they_had(base: Path) -> None:
    assert "patience" not in TrainingSettings().model_dump(mode="json")
    assert SETTINGS.model_dump()["patience"] == 2
    assert TrainingSettings.model_validate(SETTINGS.model_dump()) == SETTINGS


def test_two_processes_do_not_train_into_one_folder(base: Path, tmp_path: Path) -> None:
    with checkpoint.held(tmp_path / "A"), pytest.raises(JobError, match="another process"):
        train(base, ROWS, tmp_path / "A", SETTINGS, validation=HELD_OUT)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"r": 0}, RecipeError, "setting r: is 0. Give at least 1."),
        ({"learning_rate": float("nan")}, RecipeError, "learning_rate"),
        ({"epochs": 0.01}, RecipeError, "not one of 18 rows"),
        ({"warmup": 2.0}, RecipeError, "share from 0 to 1"),
        ({"patience": 1}, DataError, "no validation rows to stop by"),
    ],
)
def test_what_cannot_be_trained_is_said_before_anything_is_loaded(
    tmp_path: Path, changes: dict, error: type, said: str
) -> None:
    with pytest.raises(error, match=said):
        train(tmp_path / "no base", ROWS, tmp_path / "A", TrainingSettings(**changes))


def test_a_diverging_training_is_said_with_its_learning_rate(base: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"learning rate 1e\+30.*step \d+.*lower"):
        train(base, ROWS, tmp_path / "A", TrainingSettings(epochs=3, batch_size=4, learning_rate=1e30, warmup=0))
    assert not (tmp_path / "A").exists()


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_share_is_held_out_by_prompt_and_does_not_move_when_rows_are_added(tmp_path: Path) -> None:
    rows = [{"id": str(i), "prompt": f"Question {i}", "response": f"Answer {i}"} for i in range(200)]
    few = training_data.read([write_rows(tmp_path / "few.jsonl", rows[:100])], share=0.2)
    many = training_data.read([write_rows(tmp_path / "many.jsonl", rows)], share=0.2)
    assert 10 <= len(few.validation) <= 30 and len(few.rows) + len(few.validation) == 100
    assert few.validation == [pair for pair in many.validation if int(pair[0].split()[1]) < 100]
    twice = [*rows[:50], *({"id": f"b{i}", "prompt": f"question  {i}", "response": "Other"} for i in range(50))]
    both = training_data.read([write_rows(tmp_path / "twice.jsonl", twice)], share=0.2)
    learnt, held = ({" ".join(p.casefold().split()) for p, _ in side} for side in (both.rows, both.validation))
    assert learnt and held and not learnt & held


def test_a_split_can_be_held_out_and_its_prompts_are_not_learnt(tmp_path: Path) -> None:
    rows = [
        {"id": "1", "prompt": "a", "response": "x", "split": "train"},
        {"id": "2", "prompt": "B", "response": "y", "split": "train"},
        {"id": "3", "prompt": "b", "response": "z", "split": "selection"},
    ]
    file = write_rows(tmp_path / "rows.jsonl", rows)
    found = training_data.read([file], "train", validation_split="selection")
    assert found.rows == [("a", "x")] and found.validation == [("b", "z")]
    assert training_data.splits([file]) == ["train", "selection"]


def test_a_csv_is_read_and_each_fault_is_named_once(tmp_path: Path) -> None:
    good = tmp_path / "good.csv"
    good.write_text('prompt,response\n"Say, hello",Hello\nBye,"Good\nbye"\n')
    assert training_data.read([good]).rows == [("Say, hello", "Hello"), ("Bye", "Good\nbye")]
    columns = tmp_path / "columns.csv"
    columns.write_text("question,answer\n" + "a,b\n" * 50)
    with pytest.raises(DataError, match="no column prompt and no column response; its columns: question, answer") as e:
        training_data.read([columns])
    assert len(e.value.problems) == 1
    empty = tmp_path / "empty.csv"
    empty.write_text("prompt,response\n" + "".join(f"a{i},\n" for i in range(12)))
    with pytest.raises(DataError, match="no response to learn") as e:
        training_data.read([empty])
    assert len(e.value.problems) == 11 and "2 more rows" in str(e.value.problems[-1])
    with pytest.raises(DataError, match="none of the 2 rows is held out"):
        training_data.read([good], share=0.0001)


def test_the_command_trains_with_held_out_rows_and_stops_early(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from sstmerge_core.cli import main

    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(tmp_path / "workspace"))
    rows = [{"id": i, "prompt": f"w{i} w{i + 1}", "response": f"w{i % 9}"} for i in range(40)]
    file, out = write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "A"
    options = ["--base", str(tiny_base), "--data", str(file), "--out", str(out), "--role", "utility", "--device", "cpu"]
    options += ["--suite", "facts", "--batch-size", "8", "--epochs", "2", "--patience", "1", "--validation", "0.25"]
    assert main(["train", *options]) == 0
    found = training_record(out)
    assert found["rows"] + found["validation_rows"] == 40 and found["patience"] == 1
    assert json.loads((out / "sstmerge.json").read_text())["suite"] == "facts"
    steps = found["steps"]
    assert f"step {steps}/{steps}" in capsys.readouterr().err
    file.write_text('{"prompt": "a"}\n')
    assert main(["train", *options]) == 4 and "no column response" in capsys.readouterr().err
