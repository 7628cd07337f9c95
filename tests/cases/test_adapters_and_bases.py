"""Every adapter folder and base of the collected cases, and their relatives: right, or refused in one line everywhere.

By Python, by the command line and as the pages do it (`catalog.entry` of Adapters, `preflight.plan` of Merge). That the
numbers of what is right are PEFT's is held by tests/adapters.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sstmerge_core import adapters, catalog
from sstmerge_core.adapters.base_weights import base_weights
from sstmerge_core.builder import preflight
from sstmerge_core.cli import main
from sstmerge_core.errors import AdapterError, DataError
from sstmerge_core.workspace import Workspace

WEIGHTS, CONFIG, PREFIX = "adapter_model.safetensors", "adapter_config.json", "base_model.model."
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
Change = Callable[[Path], object]


def keys(change: Callable[[str], str]) -> Change:
    def rename(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        save_file({change(key): one for key, one in tensors.items()}, folder / WEIGHTS, metadata={"format": "pt"})

    return rename


def more(**tensors: torch.Tensor) -> Change:
    """With tensors beside the factors; ``__`` in a name stands for a dot."""

    def add(folder: Path) -> None:
        named = {name.replace("__", "."): one for name, one in tensors.items()}
        save_file(load_file(folder / WEIGHTS) | named, folder / WEIGHTS, metadata={"format": "pt"})

    return add


def settings(**changes: object) -> Change:
    def change(folder: Path) -> None:
        path = folder / CONFIG
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def text(content: str | bytes) -> Change:
    return lambda folder: (folder / CONFIG).write_bytes(content if isinstance(content, bytes) else content.encode())


def weights_called(name: str) -> Change:
    return lambda folder: (folder / WEIGHTS).rename(folder / name)


def within(*names: str) -> Change:
    """The folder holds adapters in folders of these names, and none itself."""

    def move(folder: Path) -> None:
        kept = shutil.copytree(folder, folder.with_name("kept"))
        shutil.rmtree(folder)
        for name in names:
            shutil.copytree(kept, folder / name)

    return move


def only(name: str, content: bytes = b"x") -> Change:
    """A folder that holds nothing but this file."""

    def leave(folder: Path) -> None:
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / name).write_bytes(content)

    return leave


def _without(*names: str) -> Change:
    return lambda folder: (folder / CONFIG).write_text(
        json.dumps({key: one for key, one in json.loads((folder / CONFIG).read_text()).items() if key not in names})
    )


def _as_old_peft(folder: Path) -> None:
    kept = ("peft_type", "r", "lora_alpha", "target_modules", "base_model_name_or_path", "bias", "task_type")
    found = {key: one for key, one in json.loads((folder / CONFIG).read_text()).items() if key in kept}
    (folder / CONFIG).write_text(json.dumps(found | {"fan_in_fan_out": False, "enable_lora": None}))


def _empty(folder: Path) -> None:
    save_file({key: torch.empty(0) for key in load_file(folder / WEIGHTS)}, folder / WEIGHTS)


def _pickled(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "adapter_model.bin")
    (folder / WEIGHTS).unlink()


def _in_format(name: str, dtype: torch.dtype) -> Change:
    """The factors of one side in another format."""

    def convert(folder: Path) -> None:
        found = load_file(folder / WEIGHTS)
        save_file({key: one.to(dtype) if name in key else one for key, one in found.items()}, folder / WEIGHTS)

    return convert


LAYERS = ("layers.0.", "layers.1.")
ATTENTION = ("self_attn.", "mlp.")


def inside(part: str, places: tuple[str, ...] = LAYERS) -> Change:
    def change(key: str) -> str:
        for place in places:
            key = key.replace(place, f"{place}{part}.")
        return key

    return keys(change)


RIGHT: dict[str, Change] = {
    # the scripts' own
    "u_orig_mod": keys(lambda key: key.replace(PREFIX, f"{PREFIX}_orig_mod.")),
    "u_fsdp": inside("_fsdp_wrapped_module"),
    "u_default": keys(lambda key: key.replace(".weight", ".default.weight")),
    "u_noprefix": keys(lambda key: key.removeprefix(PREFIX)),
    "u_future": settings(new_fancy_config={"a": 1}, another=None),
    "u_old": _as_old_peft,
    "u_bnb": settings(base_model_name_or_path="unsloth/tiny-llama-bnb-4bit"),
    "u_cache": settings(base_model_name_or_path="/home/me/.cache/huggingface/hub/models--o--tiny-llama/snapshots/92"),
    "u_trail": settings(base_model_name_or_path="/data/models/tiny-llama/"),
    "u_nullbase": settings(base_model_name_or_path=None),
    # relatives
    "compiled modules": inside("_orig_mod", ATTENTION),
    "checkpointed modules": inside("_checkpoint_wrapped_module", ATTENTION),
    "Fabric of DDP": keys(lambda key: f"_forward_module.module.{key}"),
    "a base on Windows": settings(base_model_name_or_path="C:\\Users\\me\\models\\tiny-llama\\"),
    "a base at a revision": settings(base_model_name_or_path="org/tiny-llama@main"),
    "a base's address": settings(base_model_name_or_path="https://huggingface.co/org/tiny-llama/tree/main"),
    "a base that is a list": settings(base_model_name_or_path=["tiny-llama"]),
    "A in bfloat16, B in float32": _in_format("lora_A", torch.bfloat16),
    "another task": settings(task_type="SEQ_CLS"),
    "no task": settings(task_type=None),
    "targets by a broken pattern": settings(target_modules="*q_proj("),
    "an index and a copy of a record beside it": lambda folder: (folder / "README.md").write_text("# model"),
    "settings with a byte order mark": lambda folder: text(b"\xef\xbb\xbf" + (folder / CONFIG).read_bytes())(folder),
    "no module to save": settings(modules_to_save=[]),
    "an initialisation that leaves the base": settings(init_lora_weights="eva"),
}

REFUSED: dict[str, tuple[Change, str, str]] = {
    # the scripts' own
    "u_kohya": (
        keys(lambda key: f"lora_te_{key.removeprefix(PREFIX).replace('.', '_')}.lora_down.weight"),
        "names in kohya's format",
        "adapters convert",
    ),
    "u_nopeft": (_without("peft_type"), "peft_type is None", '"peft_type": "LORA"'),
    "trainer_out": (
        within("checkpoint-100", "checkpoint-20"),
        "only checkpoints: checkpoint-20, checkpoint-100",
        "checkpoint-100",
    ),
    "u_bin": (_pickled, "adapter_model.bin is a pickle", "adapters convert"),
    "u_zero3": (_empty, "have empty factors", "again"),
    "u_40bytes": (lambda folder: save_file({}, folder / WEIGHTS), "holds no LoRA factors", "PEFT"),
    "u_lfs": (lambda folder: (folder / WEIGHTS).write_text(LFS), "is a Git-LFS pointer", "git lfs pull"),
    "u_mts": (settings(modules_to_save=["lm_head", "embed_tokens"]), "fully trained modules", "adapters convert"),
    "u_dora": (settings(use_dora=True), "is a DoRA adapter", "adapters convert"),
    "u_tti": (settings(trainable_token_indices=[1, 2]), "single token embeddings", "adapters convert"),
    "u_lorabias": (settings(lora_bias=True), "adds a bias to lora_B", "lora_bias=False"),
    # relatives: names
    "TRL's wrapper": (keys(lambda key: f"pretrained_model.{key}"), "pretrained_model.base_model.model", "Rename"),
    "an attribute called model": (keys(lambda key: f"model.{key}"), "not known here, model.base_model", "Rename"),
    "PEFT in PEFT": (keys(lambda key: f"base_model.model.{key}"), "not known here, base_model.model", "Rename"),
    "a hook in a layer": (inside("_hf_hook", ATTENTION), "are not in the base, the first is", "Choose the base"),
    "a value head": (more(v_head__summary__weight=torch.ones(1, 32)), "a head for scores", "language model alone"),
    "a class head": (more(base_model__model__score__weight=torch.ones(2, 32)), "a head for scores", "language model"),
    "trained norms": (more(base_model__model__model__norm__weight=torch.ones(32)), "holds norms", "target_modules"),
    "buffers": (
        more(base_model__model__model__layers__0__self_attn__rotary_emb__inv_freq=torch.ones(4)),
        "buffers of the base",
        "save_pretrained",
    ),
    "an α beside a module": (
        more(base_model__model__model__layers__0__self_attn__q_proj__alpha=torch.ones(())),
        "an α beside each module",
        "settings",
    ),
    # relatives: files
    "shards": (weights_called("adapter_model-00001-of-00002.safetensors"), "is one of 1 shards", "one file"),
    "a download that stopped": (weights_called(f"{WEIGHTS}.crdownload"), "was not finished", "Download it again"),
    "a download's copy": (weights_called("adapter_model (1).safetensors"), "adapter_model (1).safetensors", WEIGHTS),
    "a checkpoint of Lightning": (weights_called("last.ckpt"), "last.ckpt is there", "save_pretrained"),
    "weights without settings": (lambda folder: (folder / CONFIG).unlink(), "the weights are there", "rank and α"),
    "a folder in a folder": (within("run/final"), "only folders of adapters: run/final", "run/final"),
    "epochs": (within("epoch-1"), "only folders of adapters: epoch-1", "epoch-1"),
    "an archive": (only("adapter.tar.gz"), "is packed", "Unpack it"),
    "NeMo": (only("a.nemo"), "a checkpoint of NeMo", "converter"),
    "a distributed checkpoint": (only("__0_0.distcp"), "a distributed checkpoint", "save_pretrained"),
    "DeepSpeed": (only("zero_to_fp32.py"), "a checkpoint of DeepSpeed", "zero_to_fp32.py"),
    "nothing": (only(".gitattributes"), "the file is missing", "Give the folder"),
    # relatives: settings
    "rank 0": (settings(r=0), "r is 0", "Export"),
    "a rank as text": (settings(r="4"), 'r is "4"', "Export"),
    "α of NaN": (lambda folder: settings(lora_alpha=float("nan"))(folder), "lora_alpha is nan", "Export"),
    "LoRA in small letters": (settings(peft_type="lora"), "peft_type is lora", '"peft_type": "LORA"'),
    "the enum's name": (settings(peft_type="PeftType.LORA"), "peft_type is PeftType.LORA", '"peft_type": "LORA"'),
    "JSON of Python": (text("{'peft_type': 'LORA'}"), "is not valid JSON", "Export"),
    "JSON with a comma too many": (text('{"peft_type": "LORA",}'), "is not valid JSON", "Export"),
    "settings in UTF-16": (text('{"peft_type": "LORA"}'.encode("utf-16")), "is not valid JSON", "Export"),
    "LoftQ": (settings(init_lora_weights="loftq"), "initialised by loftq", "plain LoRA"),
    "an activated LoRA": (settings(alora_invocation_tokens=[1]), "aLoRA", "alora_invocation_tokens"),
    "all biases": (settings(bias="all"), "trains biases", "bias='none'"),
    "prompt tuning": (settings(peft_type="PROMPT_TUNING"), "prompt vectors", "LoRA"),
    # relatives: numbers
    "whole numbers": (_in_format("lora_A", torch.int8), "not floating point", "again"),
    "the sides swapped": (
        keys(lambda key: key.replace("lora_A", "lora_X").replace("lora_B", "lora_A").replace("lora_X", "lora_B")),
        "",
        "",
    ),
    "a base with more layers": (keys(lambda key: key.replace("layers.1.", "layers.7.")), "not in the base", "Choose"),
    "fused projections": (keys(lambda key: key.replace("q_proj", "qkv_proj")), "not in the base", "Choose"),
    "a resized vocabulary": (
        more(base_model__model__model__embed_tokens__weight=torch.ones(103, 32)),
        "carries whole weights of model.embed_tokens",
        "vocabulary",
    ),
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(tmp_path_factory.mktemp("cases")).create()


@pytest.fixture
def given(tiny_pair, tmp_path) -> Path:
    return shutil.copytree(tiny_pair[0], tmp_path / "U")


def launched(base: Path, utility: Path, safety: Path, workspace: Workspace) -> tuple[str, ...]:
    """What keeps the pages from launching a merge, empty where nothing does."""
    try:
        one = catalog.entry(utility, workspace, name="U", role="utility")
        two = catalog.entry(safety, workspace, name="S", role="safety")
    except AdapterError as error:
        return tuple(map(str, error.problems))
    on = catalog.base_at(base, workspace)
    planned = preflight.plan(
        workspace, base=on, utility=one, safety=two, method="linear", parameters={}, evaluate=False
    )
    return () if planned.recipe else tuple(map(str, planned.problems))


@pytest.mark.parametrize("case", RIGHT)
def test_what_people_have_is_read_as_it_is_meant(
    case, given, tiny_base, tiny_pair, workspace, monkeypatch, capsys
) -> None:
    RIGHT[case](given)
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(workspace.root))
    report = adapters.check_many(tiny_base, {"utility": given, "safety": tiny_pair[1]})
    assert report.compatible, report.problems
    own, wanted = adapters.read(given).load(), adapters.read(tiny_pair[0]).load()
    assert set(own) == set(wanted)
    close = 0.0 if "bfloat16" not in case else 1e-2
    for name, factors in own.items():
        torch.testing.assert_close(
            factors.scaling * factors.b @ factors.a,
            wanted[name].scaling * wanted[name].b @ wanted[name].a,
            rtol=close,
            atol=close,
        )
    assert main(["adapters", "check", str(given), "--base", str(tiny_base)]) == 0
    assert "They fit together." in capsys.readouterr().out
    assert launched(tiny_base, given, tiny_pair[1], workspace) == ()


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_merged_is_refused_in_one_line_everywhere(
    case, given, tiny_base, tiny_pair, workspace, monkeypatch, capsys
) -> None:
    change, fault, fix = REFUSED[case]
    change(given)
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(workspace.root))
    report = adapters.check_many(tiny_base, {"utility": given, "safety": tiny_pair[1]})
    assert report.problems
    told = str(report.problems[0])
    assert fault in told and fix in report.problems[0].fix and report.problems[0].fix
    assert str(given) in told and "\n" not in told and len(told) < 700
    assert main(["adapters", "check", str(given), "--base", str(tiny_base)]) == 3
    said = capsys.readouterr()
    assert told.partition(" adapter ")[2] in said.err + said.out and "Traceback" not in said.err + said.out
    page = launched(tiny_base, given, tiny_pair[1], workspace)
    assert page and any(told.removeprefix("utility adapter ") in line for line in page)


def _other_file(base: Path) -> None:
    """A second copy of the weights beside the ones that transformers loads, with other numbers."""
    doubled = {key: 2 * one for key, one in load_file(base / "model.safetensors").items()}
    save_file(doubled, base / "zz_old_model.safetensors", metadata={"format": "pt"})


def _index(base: Path, *, lost: bool) -> None:
    names = list(load_file(base / "model.safetensors"))
    (base / "model.safetensors").rename(base / "model-00001-of-00002.safetensors")
    second = "model-00002-of-00002.safetensors" if lost else "model-00001-of-00002.safetensors"
    where = {name: second if "layers.1" in name else "model-00001-of-00002.safetensors" for name in names}
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))


def test_the_weights_of_a_base_are_those_that_transformers_loads(tiny_base, tmp_path) -> None:
    for number, change in enumerate((_other_file, _older)):
        base = shutil.copytree(tiny_base, tmp_path / str(number))
        change(base)
        module = "model.layers.1.mlp.up_proj"
        assert torch.equal(base_weights(base)(module), base_weights(tiny_base)(module))


def _older(base: Path) -> None:
    """An index, and what an older download left beside its files."""
    _index(base, lost=False)
    doubled = {key: 2 * one for key, one in load_file(base / "model-00001-of-00002.safetensors").items()}
    save_file(doubled, base / "model-00009-of-00009.safetensors", metadata={"format": "pt"})


def _indexed_by(base: Path, text: str) -> None:
    _index(base, lost=True)
    (base / "model.safetensors.index.json").write_text(text)


def _deeper(base: Path) -> None:
    (base / "m").mkdir()
    (base / "config.json").rename(base / "m" / "config.json")


BASES: dict[str, tuple[Change, str, str]] = {
    "a shard that is missing": (lambda base: _index(base, lost=True), "1 of the 2 files", "Download"),
    "an index of nothing": (
        lambda base: _indexed_by(base, "{}"),
        "is no index of weight files",
        "again",
    ),
    "an index that leads out": (
        lambda base: _indexed_by(base, '{"weight_map": {"a": "../b.safetensors"}}'),
        "is no index of weight files",
        "again",
    ),
    "t_bin": (
        lambda base: (base / "model.safetensors").rename(base / "pytorch_model.bin"),
        "holds no safetensors weights",
        "safetensors",
    ),
    "a download that stopped": (
        lambda base: (base / "model.safetensors").rename(base / "model.safetensors.incomplete"),
        "holds no safetensors weights",
        "safetensors",
    ),
    "a pointer": (lambda base: (base / "model.safetensors").write_text(LFS), "Git-LFS pointer", "git lfs pull"),
    "a model in a folder": (
        _deeper,
        "holds no model of its own, only m",
        "/m",
    ),
}


@pytest.mark.parametrize("case", BASES)
def test_a_base_that_is_not_whole_is_refused_in_one_line(case, tiny_base, tiny_pair, tmp_path, capsys, workspace):
    change, fault, fix = BASES[case]
    base = shutil.copytree(tiny_base, tmp_path / "base")
    change(base)
    (problem,) = adapters.check_many(base, {"utility": tiny_pair[0]}).problems
    assert fault in problem.fault and fix in problem.fix and str(base) in problem.where and "\n" not in str(problem)
    assert main(["adapters", "check", str(tiny_pair[0]), "--base", str(base)]) == 4
    assert str(problem) in capsys.readouterr().err
    with pytest.raises(DataError) as caught:
        catalog.base_at(base, workspace)
    assert str(caught.value.problems[0]) == str(problem)


def test_a_file_in_place_of_a_folder_is_said_to_be_one(tiny_base, tiny_pair, tmp_path) -> None:
    (problem,) = adapters.check_many(tiny_base / "model.safetensors", {"utility": tiny_pair[0]}).problems
    assert "is a file, not the folder of a base model" in problem.fault and str(tiny_base) in problem.fix
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(AdapterError, match=r"is a file, not the folder.*Unpack it"):
        adapters.read(tmp_path / "a.zip")


def test_another_task_than_writing_text_is_a_warning(given, tiny_base, tiny_pair) -> None:
    settings(task_type="SEQ_CLS")(given)
    report = adapters.check_many(tiny_base, {"utility": given, "safety": tiny_pair[1]})
    assert any("the task SEQ_CLS" in warning.fault for warning in report.warnings)
