from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from sstmerge_core import adapters, catalog, methods
from sstmerge_core.adapters.fingerprint import file_sha256
from sstmerge_core.builder import preflight, recipe_file
from sstmerge_core.builder.recipe_file import Output, RecipeFile, public_name, read_recipe
from sstmerge_core.cli import main
from sstmerge_core.errors import DataError, RecipeError
from sstmerge_core.recipe import Calibration, Held, Recipe, Source
from sstmerge_core.runs.card import model_card
from sstmerge_core.runs.execute import execute
from sstmerge_core.workspace import Workspace
from tests.there import there
from tests.tiny_models import make_adapter

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(autouse=True)
def own_workspace(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(tmp_path / "workspace"))
    return tmp_path / "workspace"


@pytest.fixture
def merge(tiny_base, tiny_pair, tmp_path):
    def call(*more: str, out: str = "out", method: str = "linear") -> int:
        inputs = ["--base", str(tiny_base), "--utility", str(tiny_pair[0]), "--safety", str(tiny_pair[1])]
        return main(["merge", *inputs, "--method", method, "--out", str(tmp_path / out), *more])

    return call


@pytest.fixture
def places(tiny_base, tiny_pair) -> list[str]:
    return ["--base", str(tiny_base), "--adapter", f"U={tiny_pair[0]}", f"S={tiny_pair[1]}"]


def changed(recipe: Path, **entries: object) -> Path:
    content = yaml.safe_load(recipe.read_text()) | entries
    path = recipe.parent.parent / "changed.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("linear", ["alpha=0.3"]),
        ("dare_linear", ["seed=7", "p=0.4"]),
        ("sst_gevp", ["alpha=1.5", "k=3"]),
        ("sst_signed", ["alpha=1.5", "patch=gevp"]),
        ("sst_learned", ["steps=1"]),
        ("sst_newton", ["passes=1"]),
    ],
)
def test_a_recipe_makes_the_same_bits_in_a_fresh_workspace(
    merge, tiny_base, tiny_pair, tmp_path, monkeypatch, capsys, method, settings
):
    assert merge("--set", *settings, "--dtype", "bfloat16", method=method) == 0
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(tmp_path / "elsewhere"))
    assert main(["adapters", "add", str(tiny_pair[0]), "--name", "renamed"]) == 0
    assert main(["adapters", "add", str(tiny_pair[1])]) == 0
    assert main(["adapters", "add-base", str(tiny_base)]) == 0
    assert main(["merge", str(tmp_path / "out" / "recipe.yaml"), "--out", str(tmp_path / "again")]) == 0
    assert "The same bits as the recipe's." in capsys.readouterr().out
    for name in (WEIGHTS, "recipe.yaml", "README.md"):
        assert file_sha256(tmp_path / "out" / name) == file_sha256(tmp_path / "again" / name), name
    # the inputs given by place instead of found in the catalogue
    given = ["--base", str(tiny_base), "--adapter", f"U={tiny_pair[0]}", f"S={tiny_pair[1]}"]
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(tmp_path / "third"))
    assert main(["merge", str(tmp_path / "out" / "recipe.yaml"), *given, "--out", str(tmp_path / "third-out")]) == 0
    assert file_sha256(tmp_path / "out" / WEIGHTS) == file_sha256(tmp_path / "third-out" / WEIGHTS)


def test_a_recipe_names_everything_that_made_the_adapter_and_no_place(merge, tiny_base, tiny_pair, tmp_path):
    assert merge("--k", "3", method="sst_gevp") == 0
    text = (tmp_path / "out" / "recipe.yaml").read_text()
    content = yaml.safe_load(text)
    assert content["adapters"] == [
        {"name": folder.name, "sha256": adapters.read(folder).sha256} for folder in tiny_pair
    ]
    assert content["base"]["sha256"] == adapters.base_fingerprint(tiny_base)
    assert content["method"] == "sst_gevp" and content["parameters"]["k"] == 3 and "rho" in content["parameters"]
    assert content["calibration"]["harm"]["name"] == "harmful" and content["calibration"]["n_harm"] > 0
    assert content["files"] == {WEIGHTS: file_sha256(tmp_path / "out" / WEIGHTS)}
    assert content["versions"]["torch"] == torch.__version__
    for file in (tmp_path / "out").iterdir():
        assert str(tmp_path).encode() not in file.read_bytes()
        assert str(tiny_base.parent).encode() not in file.read_bytes()


def test_an_input_with_another_hash_is_refused_by_name(merge, places, tiny_pair, tmp_path, capsys):
    assert merge() == 0
    swapped = [places[0], places[1], "--adapter", f"U={tiny_pair[1]}", f"S={tiny_pair[1]}"]
    capsys.readouterr()
    assert main(["merge", str(tmp_path / "out" / "recipe.yaml"), *swapped, "--out", str(tmp_path / "again")]) == 3
    error = capsys.readouterr().err
    assert str(tiny_pair[1]) in error and "its SHA-256 is" in error and "adapter U" in error
    assert not (tmp_path / "again").exists()


def test_another_base_and_other_data_are_refused_before_any_work(merge, places, tiny_base, tmp_path, capsys):
    assert merge("--k", "3", method="sst_gevp") == 0
    recipe = tmp_path / "out" / "recipe.yaml"
    other = tmp_path / "other-base"
    shutil.copytree(tiny_base, other)
    tensors = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(tensors | {"rms_norm_eps": 1e-3}))
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "p", "response": "r", "split": "fisher"}) + "\n")
    assert main(["merge", str(recipe), "--base", str(other), *places[2:], "--out", str(tmp_path / "again")]) == 4
    assert "the recipe's base model" in capsys.readouterr().err
    command = ["merge", str(recipe), *places, "--data", f"harmful={rows}", "--out", str(tmp_path / "again")]
    assert main(command) == 4
    assert f"{rows}: its SHA-256" in capsys.readouterr().err


def test_an_input_that_is_nowhere_is_named_with_the_way_to_give_it(merge, tmp_path, capsys):
    assert merge() == 0
    capsys.readouterr()
    assert main(["merge", str(tmp_path / "out" / "recipe.yaml"), "--out", str(tmp_path / "again")]) == 3
    error = capsys.readouterr().err
    assert "adapter U" in error and "--adapter S=DIR" in error and len(error.strip().splitlines()) == 2


def test_a_changed_recipe_makes_something_else_and_says_so(merge, places, tmp_path, capsys):
    assert merge() == 0
    recipe = changed(tmp_path / "out" / "recipe.yaml", parameters={"alpha": 0.9})
    assert main(["merge", str(recipe), *places, "--out", str(tmp_path / "again")]) == 0
    assert "Not the bits of the recipe's" in capsys.readouterr().out
    assert file_sha256(tmp_path / "out" / WEIGHTS) != file_sha256(tmp_path / "again" / WEIGHTS)


BROKEN = {
    "no YAML": ("a: [", "is not YAML"),
    "a list": ("- 1\n", "is not a recipe of format"),
    "another format": ("format: 9\n", "is not a recipe of format"),
    "code": ("!!python/object/apply:os.system ['true']\n", "is not YAML"),
    "a part missing": ("format: 1\nmethod: linear\nparameters: {}\n", "base: is missing"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_recipe_file_is_named_with_its_fault(tmp_path, capsys, case):
    text, message = BROKEN[case]
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    assert main(["merge", str(path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and str(path) in error and "Traceback" not in error


def test_a_recipe_with_an_unknown_entry_parameter_or_method_is_refused(merge, tmp_path):
    assert merge() == 0
    recipe = tmp_path / "out" / "recipe.yaml"
    for entries, message in (
        ({"colour": "red"}, "colour: is no field"),
        ({"parameters": {"alhpa": 1}}, "Did you mean alpha"),
        ({"method": "linaer"}, "Did you mean linear"),
        ({"output": {"dtype": "int8"}}, "cannot be written"),
        ({"output": {"sise": 1}}, "sise"),
    ):
        with pytest.raises(RecipeError, match=message):
            read_recipe(changed(recipe, **entries))


def test_options_that_contradict_a_recipe_file_are_refused_and_missing_ones_named(merge, tmp_path, capsys):
    assert merge() == 0
    recipe = str(tmp_path / "out" / "recipe.yaml")
    assert main(["merge", recipe, "--alpha", "0.1", "--method", "ties", "--out", str(tmp_path / "x")]) == 2
    error = capsys.readouterr().err
    assert "--alpha: cannot be given" in error and "--method: cannot be given" in error
    assert main(["merge", "--out", str(tmp_path / "x")]) == 2
    assert "--utility: is missing" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["linear", "ties", "sst_gevp"])
def test_a_smaller_rank_is_written_with_its_error(merge, tmp_path, capsys, method):
    assert merge(out="exact", method=method) == 0
    assert merge("--rank", "2", method=method) == 0
    said = capsys.readouterr().out
    exact, small = adapters.read(tmp_path / "exact").load(), adapters.read(tmp_path / "out").load()
    assert {factors.a.shape[0] for factors in small.values()} == {2}
    record = json.loads((tmp_path / "out" / "sstmerge.json").read_text())
    if method != "ties":  # whose exact result has a larger rank than the adapter
        lost = whole = 0.0
        for name, factors in exact.items():
            delta = factors.b.double() @ factors.a.double()
            best = torch.linalg.svdvals(delta)[2:].square().sum()
            found = (delta - small[name].b.double() @ small[name].a.double()).square().sum()
            assert float(found) == pytest.approx(float(best), rel=1e-3)
            lost, whole = lost + float(found), whole + float(delta.square().sum())
        assert record["errors"]["rank_error"] == pytest.approx((lost / whole) ** 0.5, rel=1e-3)
    assert f"{record['errors']['rank_error']:.2e}" in said
    assert f"{record['errors']['rank_error']:.2e}" in (tmp_path / "out" / "README.md").read_text()


def test_auto_writes_the_format_of_the_adapters(merge, tiny_base, tiny_pair, tmp_path):
    halves = []
    for folder in tiny_pair:
        half = tmp_path / "half" / folder.name
        shutil.copytree(folder, half)
        tensors = {name: tensor.bfloat16() for name, tensor in load_file(half / WEIGHTS).items()}
        __import__("safetensors.torch").torch.save_file(tensors, half / WEIGHTS)
        halves.append(half)
    inputs = ["--base", str(tiny_base), "--utility", str(halves[0]), "--safety", str(halves[1])]
    for method in ("linear", "sst_shield"):
        out = tmp_path / method
        assert main(["merge", *inputs, "--method", method, "--dtype", "auto", "--out", str(out)]) == 0
        assert {tensor.dtype for tensor in load_file(out / WEIGHTS).values()} == {torch.bfloat16}
        assert json.loads((out / "sstmerge.json").read_text())["output"]["dtype"] == "bfloat16"
    assert merge("--dtype", "auto") == 0
    assert {tensor.dtype for tensor in load_file(tmp_path / "out" / WEIGHTS).values()} == {torch.float32}


def test_a_dense_merge_is_the_base_with_the_adapter_in_it(merge, places, tiny_base, tmp_path, capsys):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    assert merge() == 0
    assert merge("--dense", out="model") == 0
    ids = torch.tensor([[2, 7, 9, 30, 41, 8]])
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_base), str(tmp_path / "out"))
    dense = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert torch.allclose(dense(ids).logits, adapted(ids).logits, atol=1e-5)
    front = yaml.safe_load((tmp_path / "model" / "README.md").read_text().split("---")[1])
    assert front["library_name"] == "transformers" and "peft" not in front["tags"]
    assert main(["merge", str(tmp_path / "model" / "recipe.yaml"), *places, "--out", str(tmp_path / "again")]) == 0
    assert "The same bits" in capsys.readouterr().out
    assert merge("--dense", "--rank", "2", out="ranked") == 2


def test_several_experts_are_merged_and_come_back_from_the_recipe(merge, places, tiny_base, tiny_pair, tmp_path):
    shutil.copytree(tiny_pair[0], tmp_path / "V")
    edited = json.loads((tmp_path / "V" / "adapter_config.json").read_text()) | {"lora_alpha": 3}
    (tmp_path / "V" / "adapter_config.json").write_text(json.dumps(edited))
    assert merge("--utility", str(tiny_pair[0]), str(tmp_path / "V")) == 0
    recipe = tmp_path / "out" / "recipe.yaml"
    assert [one["name"] for one in yaml.safe_load(recipe.read_text())["adapters"]] == ["U", "V", "S"]
    more = [f"V={tmp_path / 'V'}"]
    assert main(["merge", str(recipe), *places, *more, "--out", str(tmp_path / "again")]) == 0
    assert file_sha256(tmp_path / "out" / WEIGHTS) == file_sha256(tmp_path / "again" / WEIGHTS)


def test_a_finished_run_prints_the_recipe_of_its_adapter_and_the_card_gets_the_scores(
    own_workspace, tiny_base, tiny_pair, tmp_path, capsys
):
    workspace = Workspace(own_workspace).create()
    plan = preflight.plan(
        workspace,
        base=catalog.base_at(tiny_base),
        utility=catalog.entry(tiny_pair[0], name="U", role="utility", suite="facts"),
        safety=catalog.entry(tiny_pair[1], name="S", role="safety"),
        method="linear",
        parameters={"alpha": 0.25},
        options=preflight.Options(n=4),
    )
    recipe = there(plan.recipe)
    execute([recipe], workspace)
    folder = workspace.merged_adapter(recipe.run_id)
    record = json.loads((folder / "sstmerge.json").read_text())
    assert {"resistance harmful", "rouge_l facts"} <= set(record["scores"])
    assert {"ci_low", "n", "judge"} <= set(record["metrics"][0])
    card = (folder / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["base_model"] == "tiny-llama" and front["tags"][:3] == ["lora", "merge", "peft"]
    assert "| resistance | harmful |" in card and "| 4 | refusal_regex_v2 |" in card and "judge_cannot_tell" in card
    assert (
        "arxiv.org/abs/2203.05482" in card
        and "## Licence" in card
        and record["recipe"]["adapters"][0]["sha256"] in card
    )
    capsys.readouterr()
    assert main(["recipe", recipe.run_id]) == 0
    text = capsys.readouterr().out
    assert text == (folder / "recipe.yaml").read_text()
    assert main(["recipe", recipe.run_id, "--out", str(tmp_path / "r.yaml")]) == 0
    places = ["--base", str(tiny_base), "--adapter", f"U={tiny_pair[0]}", f"S={tiny_pair[1]}"]
    assert main(["merge", str(tmp_path / "r.yaml"), *places, "--out", str(tmp_path / "again")]) == 0
    assert file_sha256(tmp_path / "again" / WEIGHTS) == file_sha256(folder / WEIGHTS)
    assert read_recipe(tmp_path / "r.yaml").recipe.run_id == recipe.run_id
    # the measured adapter alone has a recipe too, but nothing to merge
    capsys.readouterr()
    assert main(["recipe", there(recipe.reference).run_id, "--out", str(tmp_path / "alone.yaml")]) == 0
    assert main(["merge", str(tmp_path / "alone.yaml"), "--out", str(tmp_path / "x")]) == 2
    assert "not a merge" in capsys.readouterr().err


@pytest.mark.parametrize("run_id", ["0123456789abcdef", "../catalog"])
def test_a_run_that_is_not_known_has_no_recipe(run_id, capsys):
    assert main(["recipe", run_id]) == 6
    assert "is not known here" in capsys.readouterr().err


def test_names_that_are_paths_lose_their_folders_and_hub_ids_stay():
    assert public_name("/home/me/models/llama") == "llama"
    assert public_name("./models/llama") == "llama"
    assert public_name("meta-llama/Llama-3.1-8B") == "meta-llama/Llama-3.1-8B"
    assert public_name("A5") == "A5"


def test_a_card_without_scores_has_no_table_and_a_given_licence_is_kept(merge, tmp_path):
    assert merge("--licence", "CC-BY-4.0, see the adapters") == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "## Scores" not in card and "CC-BY-4.0, see the adapters" in card
    known = read_recipe(tmp_path / "out" / "recipe.yaml")
    assert "--dtype bfloat16" in model_card(RecipeFile(known.recipe, Output(dtype="bfloat16")))


SLOW = """
import sys, time
from sstmerge_core.adapters import write
from sstmerge_core.cli import main

def slow(*arguments):
    print("written", flush=True)
    time.sleep(60)
write._read_back = slow
sys.exit(main(sys.argv[1:]))
"""


def test_a_polite_kill_in_the_middle_leaves_nothing(tiny_base, tiny_pair, tmp_path):
    inputs = ["--base", str(tiny_base), "--utility", str(tiny_pair[0]), "--safety", str(tiny_pair[1])]
    command = [sys.executable, "-c", SLOW, "merge", *inputs, "--method", "linear", "--out", str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert there(process.stdout).readline().strip() == "written"
    assert [name for name in os.listdir(tmp_path) if name.startswith(".out")]
    process.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130 and "Traceback" not in error and time.monotonic() - begun < 30
    assert not [name for name in os.listdir(tmp_path) if "out" in name]


def test_a_protected_folder_gives_one_line_and_no_traceback(merge, tmp_path, capsys, monkeypatch):
    from sstmerge_core.adapters import write

    def full(*arguments, **more):
        raise OSError(28, "No space left on device", "/disk")

    monkeypatch.setattr(write, "write_tensors", full)
    assert merge() == 4
    error = capsys.readouterr().err
    assert "/disk" in error and "is full" in error and "Traceback" not in error
    assert not [name for name in os.listdir(tmp_path) if "out" in name]


def test_the_card_shows_an_interval_without_upper_end_as_one(merge, tmp_path):
    assert merge() == 0
    known = read_recipe(tmp_path / "out" / "recipe.yaml")
    tax = {"metric": "safety_tax", "suite": "facts", "value": 0.567, "ci_low": 0.163, "ci_high": None, "n": 8}
    card = model_card(known, scores=[tax | {"judge": "refusal_regex", "status": "ok"}])
    assert "| safety_tax | facts | 0.567 (0.163–∞) | 8 | refusal_regex |" in card


# --- what a method learned after recipes had been recorded ---


def test_an_old_recipe_means_what_it_meant_and_keeps_its_id():
    """Safe LoRA came with the published C; a recipe that records no projection still means that one."""
    source = Source(name="x", path="", sha256="0" * 64)
    given: dict[str, Any] = {"base": source, "adapters": (source, source), "method": "safe_lora"}
    old = Recipe(**given, parameters={"threshold": 0.35})
    assert old.parameters == {"threshold": 0.35, "projection": "published"}
    explicit = Recipe(**given, parameters={"threshold": 0.35, "projection": "published"})
    today = Recipe(**given, parameters=methods.get("safe_lora").complete({}))
    assert old.run_id == explicit.run_id != today.run_id
    assert "projection=published" in old.label and "projection" not in today.label


def test_a_calibration_without_near_misses_is_written_as_it_was_before_there_were_any():
    source = Source(name="x", path="p", sha256="0" * 64)
    old = Calibration(harm=source, benign=source, n_harm=1, n_benign=1)
    assert not {"near", "n_near", "refused", "held"} & (set(old.model_dump()) | set(old.identity()))
    held = Held(harm=source, near=source, benign=source, n_harm=3, n_near=3, n_benign=3)
    near: dict[str, Any] = {"near": source, "n_near": 2, "refused": "1" * 64, "held": held}
    new = Calibration(harm=source, benign=source, n_harm=1, n_benign=1, **near)
    assert Calibration.model_validate(new.model_dump(mode="json")) == new
    assert new.identity()["near"] == "0" * 64 and new.identity()["refused"] == "1" * 64
    moved = source.model_copy(update={"path": "q", "name": "y"})
    elsewhere = new.model_copy(update={"near": moved, "held": held.model_copy(update={"near": moved})})
    assert elsewhere.identity() == new.identity() != old.identity()
    other = moved.model_copy(update={"sha256": "2" * 64})
    for changed in ({"near": other}, {"refused": "3" * 64}, {"held": held.model_copy(update={"harm": other})}):
        assert new.model_copy(update=changed).identity() != new.identity()


@pytest.mark.parametrize("method", methods.methods(), ids=lambda method: method.name)
def test_a_recipe_that_records_what_came_later_as_it_was_is_the_recipe_that_does_not(method):
    complete = method.complete({})
    before = {own.name: own.schema.before for own in method.parameters if own.schema.before is not None}
    without = {name: value for name, value in complete.items() if name not in before}
    assert method.recorded(without) == complete | before
    assert method.identity(method.recorded(without)) == method.identity(without) == without


# --- Safe LoRA along a pair of models ---


@pytest.fixture
def unaligned(tiny_base, tmp_path) -> Path:
    """The tiny base before something of rank one was added to every matrix."""
    folder = tmp_path / "unaligned"
    shutil.copytree(tiny_base, folder)
    generator = torch.Generator().manual_seed(3)
    tensors = load_file(folder / "model.safetensors")
    for name, weight in tensors.items():
        if weight.ndim == 2:
            left, right = (torch.randn(size, 1, generator=generator) for size in weight.shape)
            tensors[name] = weight - 0.01 * left @ right.T
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_safe_lora_projects_onto_what_alignment_changed(merge, tiny_base, tiny_pair, unaligned, tmp_path, capsys):
    assert merge("--unaligned", str(unaligned), "--set", "threshold=1", method="safe_lora") == 0
    assert "is nearly the base model" in capsys.readouterr().err
    after, before = (load_file(path / "model.safetensors") for path in (tiny_base, unaligned))
    written, utility = adapters.read(tmp_path / "out").load(), adapters.read(tiny_pair[0]).load()
    for name, own in written.items():
        v = (after[f"{name}.weight"] - before[f"{name}.weight"]).double()
        column = torch.linalg.svd(v)[0][:, :1]
        delta = utility[name].scaling * utility[name].b.double() @ utility[name].a.double()
        expected = column @ column.T @ delta
        found = own.scaling * own.b.double() @ own.a.double()
        assert float((found - expected).norm()) <= 1e-4 * float(expected.norm())


def test_a_recipe_with_a_pair_of_models_makes_the_same_bits(merge, places, unaligned, tmp_path, capsys):
    assert merge("--unaligned", str(unaligned), method="safemerge") == 0
    recipe = tmp_path / "out" / "recipe.yaml"
    assert yaml.safe_load(recipe.read_text())["unaligned"]["name"] == "unaligned"
    capsys.readouterr()
    assert main(["merge", str(recipe), *places, "--out", str(tmp_path / "again")]) == 4
    assert "--unaligned DIR" in capsys.readouterr().err
    again = ["--unaligned", str(unaligned), "--out", str(tmp_path / "again")]
    assert main(["merge", str(recipe), *places, *again]) == 0
    assert "The same bits as the recipe's." in capsys.readouterr().out


def test_a_pair_of_models_is_refused_where_it_is_of_no_use(merge, tiny_base, unaligned, capsys):
    assert merge("--unaligned", str(unaligned)) == 2
    assert "methods that use one: safe_lora, safemerge" in capsys.readouterr().err
    assert merge("--unaligned", str(tiny_base), method="safe_lora") == 4
    assert "is also given as the unaligned model" in capsys.readouterr().err


# --- several experts ---


@pytest.fixture
def experts(tiny_base, tiny_pair, tmp_path) -> list[Path]:
    return [tiny_pair[0], make_adapter(tiny_base, tmp_path / "U2", 5, r=2)]


def test_each_expert_s_own_samples_are_planned_where_a_fisher_of_each_is_wanted(tiny_base, tiny_pair, experts):
    base, safety = catalog.base_at(tiny_base), catalog.entry(tiny_pair[1])
    entries = [
        replace(catalog.entry(path), suite=suite)
        for path, suite in zip(experts, ("facts", "instructions"), strict=True)
    ]

    def planned(method: str, some=entries, **parameters: object) -> Calibration:
        found = preflight.merge_recipe(base, some, safety, method, parameters).calibration
        assert found is not None
        return found

    own = planned("fisher")
    assert own.expansion == "own" and own.benign.name == "facts"
    assert [source.name for source in own.further] == ["instructions"] and own.n_further[0] > 0
    assert not planned("fisher", expansion="utility").further and not planned("fisher", some=entries[:1]).further
    assert not planned("sst_gevp", expansion="own").further
    assert planned("sst_gevp", experts="sum").experts == "sum" and planned("sst_gevp").experts == "mean"
    assert planned("sst_gevp", some=entries[:1], experts="sum").experts == "mean"


def test_a_recipe_of_several_experts_makes_the_same_bits(tiny_base, tiny_pair, experts, places, tmp_path, capsys):
    inputs = ["--base", str(tiny_base), "--utility", *map(str, experts), "--safety", str(tiny_pair[1])]
    assert main(["merge", *inputs, "--method", "fisher", "--out", str(tmp_path / "out")]) == 0
    recipe = tmp_path / "out" / "recipe.yaml"
    assert len(yaml.safe_load(recipe.read_text())["calibration"]["further"]) == 1
    again = ["merge", str(recipe), *places, f"U2={experts[1]}", "--out", str(tmp_path / "again")]
    assert main(again) == 0
    assert "The same bits as the recipe's." in capsys.readouterr().out


def test_the_prompts_on_which_a_method_chooses_are_found_again_without_their_paths(
    tiny_base: Path, tiny_pair: tuple[Path, Path], tmp_path: Path
) -> None:
    workspace = Workspace(tmp_path / "w").create()
    catalog.add_base(workspace, tiny_base)
    sides: dict[str, Any] = {
        "utility": catalog.add(workspace, tiny_pair[0], "U", "utility", "facts"),
        "safety": catalog.add(workspace, tiny_pair[1], "S", "safety"),
    }
    given = {"unit": "percent", "budget": 5.0, "over_refusal": 0.2}
    base = catalog.bases(workspace)[-1]
    planned = there(preflight.plan(workspace, base=base, **sides, method="sst_budget", parameters=given).recipe)
    told = tmp_path / "recipe.yaml"
    told.write_text(recipe_file.RecipeFile(planned).to_yaml())
    read = recipe_file.read_recipe(told).recipe
    assert there(read.selection).source.path == there(read.selection_benign).source.path == ""
    here = recipe_file.locate(read, workspace)
    assert here.run_id == planned.run_id
    for name in ("selection", "selection_benign"):
        assert getattr(here, name) == getattr(planned, name)
    other = tmp_path / "rows.jsonl"
    other.write_text('{"prompt": "q", "response": "a", "split": "selection"}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl: its SHA-256 is .* near_miss"):
        recipe_file.locate(read, workspace, given={"near_miss": str(other)})
