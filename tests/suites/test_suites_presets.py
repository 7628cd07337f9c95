from __future__ import annotations

import argparse
import importlib.util
import math
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from sstmerge_core.builder import presets
from sstmerge_core.cli import inputs, shelf
from sstmerge_core.errors import DataError, RecipeError
from sstmerge_core.suites import declared
from sstmerge_core.train import TrainingSettings
from sstmerge_core.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]


def train_options(**changes: object) -> argparse.Namespace:
    names = ("preset", "rank", "epochs", "learning_rate", "batch_size", "seed", "max_length", "patience")
    known = dict.fromkeys((*names, "split", "validation", "validation_split"))
    return argparse.Namespace(**(known | changes))


def test_a_presets_steps_become_epochs_of_the_rows_at_hand() -> None:
    paper = presets.training("pre_post_paper")
    for rows in (100, 1234, 100_000):
        settings = paper.for_rows(rows)
        assert math.ceil(round(settings.epochs * rows) / settings.batch_size) == 500
    assert (paper.settings.r, paper.settings.lora_alpha, paper.settings.learning_rate) == (8, 16, 1e-4)


def test_options_go_before_the_preset_and_the_preset_before_the_defaults() -> None:
    assert shelf._settings(train_options(), 10) == TrainingSettings()
    assert shelf._settings(train_options(rank=4), 10) == TrainingSettings(r=4, lora_alpha=8)
    settings = shelf._settings(train_options(preset="report_2026_01", epochs=1.5, seed=7), 10)
    assert (settings.r, settings.lora_alpha, settings.batch_size) == (32, 64, 128)
    assert (settings.epochs, settings.seed, settings.learning_rate, settings.patience) == (1.5, 7, 2e-4, 3)


def test_what_a_source_leaves_open_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    shelf._settings(train_options(preset="pre_post_paper"), 10)
    assert "warmup is not stated there: 0.05" in capsys.readouterr().err
    with pytest.raises(RecipeError, match="Did you mean pre_post_paper"):
        presets.training("pre_post_papers")


def test_every_preset_names_its_source_and_every_model_the_way_to_it() -> None:
    for training in presets.trainings().values():
        assert training.source
        assert not set(training.unstated) & training.settings.model_fields_set
    for model in presets.models().values():
        assert model.source and model.template.count("{prompt}") == 1 and model.huggingface in model.get
        assert ("accept the licence" in model.get) == model.gated


def test_a_wrong_preset_file_names_the_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "training.yaml").write_text(yaml.safe_dump({"x": {"title": "X", "settings": {"rank": 3}}}))
    monkeypatch.setattr(presets, "FOLDER", tmp_path)
    with pytest.raises(DataError) as error:
        presets._read("training.yaml", TypeAdapter(dict[str, presets.TrainingPreset]))
    assert {problem.where.split(": ")[1] for problem in error.value.problems} == {"x.settings.rank", "x.source"}


def test_a_base_model_that_is_not_here_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="hf download google/gemma-2b-it .* add-base"):
        inputs.base("gemma-2b", Workspace(tmp_path).create())


def test_training_takes_a_suites_training_rows_alone(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path).create()
    data = shelf._training_data(train_options(data=["facts"]), workspace)
    assert len(data.rows) == 720 and not data.validation
    file = declared.SHIPPED.parent / "demo" / "facts.jsonl"
    assert len(shelf._training_data(train_options(data=[str(file)], split="test"), workspace).rows) == 100


def test_a_preset_that_stops_early_holds_rows_out(tmp_path: Path) -> None:
    data = shelf._training_data(train_options(data=["facts"], preset="report_2026_01"), Workspace(tmp_path).create())
    assert 0 < len(data.validation) < 144 and len(data.rows) + len(data.validation) == 720


def test_the_page_of_suites_is_what_the_declarations_say() -> None:
    spec = importlib.util.spec_from_file_location("suites_page", ROOT / "docs" / "suites.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "suites.md").read_text(encoding="utf-8") == module.page(), "run `make docs`"
