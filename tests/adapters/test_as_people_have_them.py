"""Adapters as people have them: names of other trainers and wrappers, folders without one, files that are damaged."""

from __future__ import annotations

import json
import re
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sstmerge_core import adapters, catalog
from sstmerge_core.adapters import names, places
from sstmerge_core.cli import main
from sstmerge_core.errors import AdapterError, DataError
from sstmerge_core.workspace import Workspace
from tests.there import there

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
PREFIX = "base_model.model."


@pytest.fixture
def copy(tiny_pair, tmp_path) -> Path:
    shutil.copytree(tiny_pair[0], tmp_path / "U")
    return tmp_path / "U"


def edit(folder: Path, **changes: object) -> None:
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rename(folder: Path, change) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file({change(key): tensor for key, tensor in tensors.items()}, folder / WEIGHTS, metadata={"format": "pt"})


def in_layers(part: str):
    return lambda key: key.replace("layers.0.", f"layers.0.{part}.").replace("layers.1.", f"layers.1.{part}.")


KNOWN = {
    "compiled inside": lambda key: key.replace(PREFIX, f"{PREFIX}_orig_mod."),
    "compiled outside": lambda key: f"_orig_mod.{key}",
    "compiled by layer": in_layers("_orig_mod"),
    "DDP": lambda key: f"module.{key}",
    "DDP inside": lambda key: key.replace(PREFIX, f"{PREFIX}module."),
    "DDP of a compiled model": lambda key: f"module._orig_mod.{key}",
    "DeepSpeed twice": lambda key: f"module.module.{key}",
    "FSDP": lambda key: f"_fsdp_wrapped_module.{in_layers('_fsdp_wrapped_module')(key)}",
    "FSDP with checkpoints": in_layers("_fsdp_wrapped_module._checkpoint_wrapped_module"),
    "Fabric": lambda key: f"_forward_module.{key}",
    "named adapter": lambda key: key.replace(".weight", ".my_adapter.weight"),
    "default adapter": lambda key: key.replace(".weight", ".default.weight"),
    "without PEFT's prefix": lambda key: key.removeprefix(PREFIX),
    "of the bare body": lambda key: key.replace(f"{PREFIX}model.", PREFIX),
    "of the bare body, without prefix": lambda key: key.removeprefix(f"{PREFIX}model."),
}


@pytest.mark.parametrize("kind", KNOWN)
def test_names_that_wrappers_leave_are_read_as_peft_writes_them(kind, copy, tiny_base, tiny_pair):
    rename(copy, KNOWN[kind])
    found, expected = adapters.read(copy), adapters.read(tiny_pair[0])
    assert set(found.modules) == set(expected.modules)
    for name, factors in found.load().items():
        other = expected.load()[name]
        assert torch.equal(factors.a, other.a) and torch.equal(factors.b, other.b)
        assert factors.scaling == other.scaling
    assert adapters.check_pair(tiny_base, copy, tiny_pair[1]).compatible


@pytest.mark.parametrize("extra", ["foo", "foo.bar", "actor", "_orig_module", "pretrained_model", "student"])
def test_any_other_prefix_is_refused_by_the_key(extra, copy, tiny_base, tiny_pair):
    rename(copy, lambda key: key.replace(PREFIX, f"{PREFIX}{extra}."))
    (problem,) = adapters.check_pair(tiny_base, copy, tiny_pair[1]).problems
    assert f"not known here, {extra}, the first is {extra}.model.layers.0" in problem.fault
    assert "Rename" in problem.fix


@pytest.mark.parametrize(
    ("change", "named", "fix"),
    [
        (lambda key: key.replace(".lora_A.", ".lora_Q."), "names that are not known here", "rename"),
        (lambda key: f"lora_te_{key.replace('.', '_')}.lora_down.weight", "kohya", "adapters convert"),
        (lambda key: f"lora_unet_{key.replace('.', '_')}.lora_down.weight", "image model in kohya", "language"),
        (lambda key: re.sub("lora_.", f"lora.{'down' if 'lora_A' in key else 'up'}", key), "diffusers", "language"),
        (lambda key: key.replace(PREFIX, "unet."), "image model", "language"),
        (lambda key: key.replace(".lora_A.weight", ".lora_a").replace(".lora_B.weight", ".lora_b"), "MLX", "convert"),
        (lambda key: key.replace("lora_A", "lora_a").replace("lora_B", "lora_b"), "torchtune", "PEFT"),
        (lambda key: key.replace(".weight", ""), "loralib", "PEFT"),
        (
            lambda key: key.replace(f"{PREFIX}model.layers", "blk").replace(".lora_", ".weight.lora_").lower(),
            "llama.cpp",
            "PEFT folder",
        ),
        (lambda key: key.replace("lora_A.weight", "hada_w1_a"), "LoHa", "adapters convert"),
        (lambda key: key.replace("lora_A.weight", "lokr_w1"), "LoKr", "adapters convert"),
        (lambda key: key.replace("lora_A.weight", "oft_R"), "OFT", "adapters convert"),
        (lambda key: key.replace("lora_A.weight", "_flat_param"), "FSDP", "full_state_dict"),
    ],
)
def test_names_of_other_trainers_are_told_with_the_way_out(change, named, fix, copy):
    rename(copy, change)
    with pytest.raises(AdapterError) as caught:
        adapters.read(copy)
    (problem,) = caught.value.problems
    assert named in str(problem) and fix in problem.fix and "\n" not in str(problem)


def test_two_adapters_in_one_file_are_named(copy):
    tensors = load_file(copy / WEIGHTS)
    both = {key.replace(".weight", f".{name}.weight"): one.clone() for key, one in tensors.items() for name in "ab"}
    save_file(both, copy / WEIGHTS)
    with pytest.raises(AdapterError, match=r"holds 2 adapters: a, b\. Save them apart"):
        adapters.read(copy)


def test_two_names_of_one_factor_are_refused(copy):
    tensors = load_file(copy / WEIGHTS)
    save_file(tensors | {f"module.{key}": tensor + 1 for key, tensor in tensors.items()}, copy / WEIGHTS)
    with pytest.raises(AdapterError, match="two tensors are one factor"):
        adapters.read(copy)


def test_a_part_is_taken_away_only_where_it_is_a_wrapper():
    assert there(names.understand("base_model.model.model.module.q.lora_A.weight")).module == "model.module.q"
    assert there(names.understand("base_model.model.my_orig_mod.q.lora_A.weight")).module == "my_orig_mod.q"


# what a base may be called


@pytest.mark.parametrize(
    "named",
    [
        "org/tiny-llama",
        "/data/models/tiny-llama/",
        "C:\\models\\Tiny-Llama\\",
        "/home/me/hub/models--org--tiny-llama/snapshots/9213176726f574b556790deb65791e0c5aa438b6",
        "",
        None,
        {"odd": 1},
    ],
)
def test_a_name_of_the_same_base_is_no_doubt(named, copy, tiny_base, tiny_pair):
    edit(copy, base_model_name_or_path=named)
    report = adapters.check_many(tiny_base, {"utility": copy})
    assert report.compatible and not any("names the base" in str(one) for one in report.warnings)


@pytest.mark.parametrize("named", ["unsloth/tiny-llama-bnb-4bit", "someone/renamed", "x\ny [](javascript:1)"])
def test_another_name_is_a_warning_where_every_shape_fits_and_the_reason_where_not(named, copy, tiny_base):
    edit(copy, base_model_name_or_path=named)
    report = adapters.check_many(tiny_base, {"utility": copy})
    assert report.compatible
    (warning,) = [one for one in report.warnings if "names the base" in str(one)]
    assert "every shape fits" in warning.fault and "\n" not in str(warning)
    tensors = load_file(copy / WEIGHTS)
    wide = {key: torch.cat([one, one], dim=1) if "lora_A" in key else one for key, one in tensors.items()}
    save_file(wide, copy / WEIGHTS)
    (problem,) = adapters.check_many(tiny_base, {"utility": copy}).problems
    assert "another shape" in problem.fault and named.split("\n")[0] in problem.fix


def in_cache(folder: Path, root: Path, repository: str) -> Path:
    """A copy of the folder where the hub's client keeps repositories."""
    home = root / f"models--{repository.replace('/', '--')}"
    commit = "9213176726f574b556790deb65791e0c5aa438b6"
    shutil.copytree(folder, home / "snapshots" / commit)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit)
    return home / "snapshots" / commit


def test_a_base_and_an_adapter_in_the_hub_cache_have_their_repositorys_name(tiny_base, tiny_pair, tmp_path):
    workspace = Workspace(tmp_path / "ws").create()
    base = in_cache(tiny_base, tmp_path, "org/my--odd-llama")
    assert adapters.read_base(base).name == "org/my--odd-llama"
    assert catalog.add_base(workspace, base).name == "my--odd-llama"
    lora = in_cache(tiny_pair[0], tmp_path, "me/my-lora")
    assert catalog.add(workspace, lora).name == "my-lora"


@pytest.mark.parametrize("part", [".", "snapshots"])
def test_the_folder_of_a_repository_in_the_cache_stands_for_its_snapshot(part, tiny_base, tiny_pair, tmp_path):
    snapshot = in_cache(tiny_pair[0], tmp_path, "me/my-lora")
    assert adapters.read(snapshot.parents[1] / part).path == snapshot
    base = in_cache(tiny_base, tmp_path, "org/llama")
    assert adapters.read_base(base.parents[1] / part).path == base
    (base.parents[1] / "refs" / "main").unlink()
    assert adapters.read_base(base.parents[1]).path == base


# folders that are no adapter


def test_a_folder_of_checkpoints_names_them_and_offers_the_newest(tiny_pair, tmp_path):
    for step in (9, 10, 100):
        shutil.copytree(tiny_pair[0], tmp_path / "out" / f"checkpoint-{step}")
    with pytest.raises(AdapterError) as caught:
        adapters.read(tmp_path / "out")
    (problem,) = caught.value.problems
    assert "checkpoint-9, checkpoint-10, checkpoint-100" in problem.fault
    assert str(tmp_path / "out" / "checkpoint-100") in problem.fix


def test_what_a_folder_is_that_is_no_adapter_is_said(tiny_base, tiny_pair, tmp_path):
    def refusal(folder) -> str:
        with pytest.raises(AdapterError) as caught:
            adapters.read(folder)
        (problem,) = caught.value.problems
        assert problem.fix and "\n" not in str(problem)
        return str(problem)

    assert "is a whole model" in refusal(tiny_base)
    shutil.copytree(tiny_base, tmp_path / "full" / "checkpoint-5")
    assert "checkpoints of whole models" in refusal(tmp_path / "full")
    shutil.copytree(tiny_pair[0], tmp_path / "outer" / "my_adapter")
    assert str(tmp_path / "outer" / "my_adapter") in refusal(tmp_path / "outer")
    assert f"Give its folder, {tiny_pair[0]}" in refusal(Path(tiny_pair[0]) / WEIGHTS)
    for name, said in (
        ("pytorch_lora_weights.safetensors", "diffusers"),
        ("lora.gguf", "llama.cpp"),
        ("adapters.safetensors", "MLX"),
        ("style.safetensors", "kohya"),
        ("readme.md", "no PEFT adapter"),
    ):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_bytes(b"x")
        assert said in refusal(folder)


def test_an_adapter_given_as_the_base_is_told_apart(tiny_pair):
    with pytest.raises(DataError, match="is an adapter, not a base model"):
        adapters.read_base(tiny_pair[0])


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab\nsize 12345\n"


@pytest.mark.parametrize(
    ("text", "said", "fix"), [(LFS, "Git-LFS pointer", "git lfs pull"), ("<!DOCTYPE html><p>", "web page", "again")]
)
def test_a_file_in_place_of_the_real_one_is_said_to_be_one(text, said, fix, copy, tiny_base, tmp_path):
    base = shutil.copytree(tiny_base, tmp_path / "base")
    for path, read in (
        (copy / WEIGHTS, lambda: adapters.read(copy)),
        (copy / CONFIG, lambda: adapters.read(copy)),
        (base / "model.safetensors", lambda: adapters.read_base(base)),
        (base / "config.json", lambda: adapters.read_base(base)),
    ):
        before = path.read_bytes()
        path.write_text(text)
        with pytest.raises((AdapterError, DataError)) as caught:
            read()
        (problem,) = caught.value.problems
        assert said in problem.fault and fix in problem.fix and problem.where == str(path)
        path.write_bytes(before)


# damaged and hostile files


def reheaded(folder: Path, change) -> None:
    """The weights file with another header or data; `change` gets both and returns them, or the whole file."""
    path = folder / WEIGHTS
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    found = change(json.loads(whole[8 : 8 + length]), whole[8 + length :])
    if isinstance(found, bytes):
        path.write_bytes(found)
        return
    header, data = found
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def entry(**changes):
    def change(header, data):
        header[sorted(set(header) - {"__metadata__"})[0]].update(changes)
        return header, data

    return change


def overlapping(header, data):
    shapes: dict = {}
    for name in sorted(set(header) - {"__metadata__"}):
        shapes.setdefault(str(header[name]["shape"]), []).append(name)
    one, other = next(same for same in shapes.values() if len(same) > 1)[:2]
    header[other]["data_offsets"] = header[one]["data_offsets"]
    return header, data


def shifted(header, data):
    for name in set(header) - {"__metadata__"}:
        header[name]["data_offsets"] = [place + 8 for place in header[name]["data_offsets"]]
    return header, bytes(8) + data


def twice(header, data):
    name = sorted(set(header) - {"__metadata__"})[0]
    return (json.dumps(header)[:-1] + "," + json.dumps({name: header[name]})[1:]).encode(), data


HEADERS = {
    "bytes after the last tensor": lambda h, d: (h, d + bytes(16)),
    "one byte after the last tensor": lambda h, d: (h, d + b"x"),
    "overlapping": overlapping,
    "a gap in front": shifted,
    "UTF-16": lambda h, d: (json.dumps(h).encode("utf-16"), d),
    "UTF-32": lambda h, d: (json.dumps(h).encode("utf-32"), d),
    "byte order mark": lambda h, d: (json.dumps(h).encode("utf-8-sig"), d),
    "metadata a list": lambda h, d: (h | {"__metadata__": [1]}, d),
    "metadata a text": lambda h, d: (h | {"__metadata__": "pt"}, d),
    "metadata with numbers": lambda h, d: (h | {"__metadata__": {"a": 1}}, d),
    "metadata nested": lambda h, d: (h | {"__metadata__": {"a": {"b": "c"}}}, d),
    "dtype a list": entry(dtype=["F32"]),
    "dtype a mapping": entry(dtype={"F32": 1}),
    "dtype null": entry(dtype=None),
    "dtype unknown": entry(dtype="F33"),
    "float offsets": entry(data_offsets=[0.0, 512.0]),
    "text offsets": entry(data_offsets=["0", "512"]),
    "negative offsets": entry(data_offsets=[-512, 0]),
    "offsets beyond all": entry(data_offsets=[0, 10**400]),
    "three offsets": entry(data_offsets=[0, 1, 2]),
    "reversed offsets": entry(data_offsets=[512, 0]),
    "shape of 2**70": entry(shape=[2**70, 1]),
    "shape whose product wraps around": entry(shape=[2**32, 2**32, 2**32]),
    "negative shape": entry(shape=[-4, -32]),
    "float shape": entry(shape=[4.0, 32.0]),
    "boolean shape": entry(shape=[True, 128]),
    "text shape": entry(shape="abc"),
    "no shape": entry(shape=None),
    "entry a list": lambda h, d: (h | {sorted(h)[-1]: [1, 2]}, d),
    "deep nesting": lambda h, d: (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, d),
    "deep lists": lambda h, d: (b"[" * 100_000, d),
    "a name twice": twice,
    "lone surrogate": lambda h, d: (json.dumps(h | {"\ud800": h[sorted(h)[-1]]}).encode(), d),
    "a list": lambda h, d: (b"[1, 2]", d),
    "a number": lambda h, d: (b"4711", d),
    "header longer than the file": lambda h, d: struct.pack("<Q", 2**60) + b"{}",
    "header larger than allowed": lambda h, d: struct.pack("<Q", 40_000_000) + b"{}" + bytes(41_000_000),
    "nothing": lambda h, d: b"",
    "four bytes": lambda h, d: b"abcd",
    "cut short": lambda h, d: (h, d[:-100]),
    "a pickle": lambda h, d: b"PK\x03\x04" + bytes(100),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_damaged_weights_file_is_refused_in_one_line(kind, copy):
    reheaded(copy, HEADERS[kind])
    with pytest.raises(AdapterError) as caught:
        adapters.read(copy)
    (problem,) = caught.value.problems
    assert problem.where == str(copy / WEIGHTS) and problem.fix
    assert "\n" not in str(problem) and len(str(problem)) < 500
    str(problem).encode()


def test_a_header_that_safetensors_reads_is_no_damage(copy, tiny_pair):
    reheaded(copy, lambda header, data: (json.dumps(header | {"__metadata__": None}).encode() + b"   ", data))
    assert adapters.read(copy).modules == adapters.read(tiny_pair[0]).modules


DEEP = "[" * 100_000 + "]" * 100_000
CONFIGS: dict[str, dict[str, Any]] = {
    "alpha of 1e308": {"lora_alpha": 1e308},
    "alpha of 10**400": {"lora_alpha": 10**400},
    "alpha of -10**400": {"lora_alpha": -(10**400)},
    "alpha infinite": {"lora_alpha": float("inf")},
    "alpha not a number": {"lora_alpha": float("nan")},
    "alpha a text": {"lora_alpha": "16"},
    "alpha by pattern of 1e308": {"alpha_pattern": {"q_proj": -1e308}},
    "rank of 10**400": {"r": 10**400},
    "rank by pattern of 10**400": {"rank_pattern": {"q_proj": 10**400}},
    "patterns a list": {"rank_pattern": ["q_proj"]},
    "rslora a text": {"use_rslora": "no"},
    "type a list": {"peft_type": ["LORA"]},
    "type a mapping": {"peft_type": {"LORA": 1}},
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_odd_settings_are_refused_in_one_line(kind, copy):
    edit(copy, **CONFIGS[kind])
    with pytest.raises(AdapterError) as caught:
        adapters.read(copy)
    (problem,) = caught.value.problems
    assert problem.where == str(copy / CONFIG) and problem.fix and len(str(problem)) < 500


@pytest.mark.parametrize(
    "data",
    [
        f'{{"peft_type": "LORA", "x": {DEEP}}}'.encode(),
        ("{" + '"a":{' * 50_000 + "}" * 50_001).encode(),
        b"[]",
        b"",
        b'{"peft_type": "LORA", "base_model_name_or_path": "a\\ud800b"}',
        b'{"peft_type": "LORA", "r": ' + b"1" * 5000 + b"}",
        '{"peft_type": "LORA"}'.encode("utf-16"),
        b"\xff\xfe\x00",
        b" " * 17_000_000,
    ],
    ids=["deep list", "deep mapping", "list", "empty", "surrogate", "digits", "UTF-16", "bytes", "large"],
)
def test_settings_that_are_no_settings_are_refused_in_one_line(data, copy):
    (copy / CONFIG).write_bytes(data)
    with pytest.raises(AdapterError) as caught:
        adapters.read(copy)
    (problem,) = caught.value.problems
    assert problem.where == str(copy / CONFIG) and len(str(problem)) < 500


def test_a_byte_order_mark_and_a_strange_record_are_no_obstacle(copy, tiny_pair, tmp_path):
    (copy / CONFIG).write_bytes((copy / CONFIG).read_text().encode("utf-8-sig"))
    assert adapters.read(copy).modules == adapters.read(tiny_pair[0]).modules
    for record in (DEEP, "[]", "\udcff", '{"name": "\\ud800"}', '{"name": 3}'):
        (copy / "sstmerge.json").write_text(record, errors="surrogateescape")
        assert catalog.entry(copy).name == "U"


def test_odd_settings_of_a_base_are_no_traceback(tiny_base, tmp_path):
    base = shutil.copytree(tiny_base, tmp_path / "base")
    settings = json.loads((base / "config.json").read_text())
    odd = {"vocab_size": "many", "architectures": {"a": 1}, "_name_or_path": 3}
    (base / "config.json").write_text(json.dumps(settings | odd))
    found = adapters.read_base(base)
    assert (found.name, found.architecture, found.vocabulary) == ("base", "unknown", 0)
    (base / "config.json").write_text(DEEP)
    with pytest.raises(DataError, match="within each other"):
        adapters.read_base(base)


@pytest.mark.parametrize("factor", [1e20, 1e38])
def test_an_update_too_large_to_compute_with_is_refused(factor, copy):
    tensors = load_file(copy / WEIGHTS)
    save_file({key: one * factor if "lora_B" in key else one for key, one in tensors.items()}, copy / WEIGHTS)
    with pytest.raises(AdapterError, match=r"update too large to compute with|NaN or infinity"):
        adapters.read(copy)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_largest_number_of_a_tensor_is_found_in_every_format(dtype, tmp_path):
    from sstmerge_core.adapters.safetensors_header import magnitude, read_header

    tensors = {"a": torch.tensor([0.5, -3.25, 2.0], dtype=dtype), "b": torch.tensor([1.0, float("nan")], dtype=dtype)}
    tensors |= {"c": torch.tensor([-float("inf")], dtype=dtype), "d": torch.zeros(3, dtype=dtype)}
    save_file(tensors, tmp_path / "x.safetensors")
    header = read_header(tmp_path / "x.safetensors")
    found = {name: magnitude(tmp_path / "x.safetensors", header[name]) for name in tensors}
    assert found == {"a": 3.25, "b": float("inf"), "c": float("inf"), "d": 0.0}


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_the_largest_number_of_an_eight_bit_tensor_is_found(dtype, tmp_path):
    from sstmerge_core.adapters.safetensors_header import magnitude, read_header

    every = torch.arange(256, dtype=torch.uint8).view(dtype)
    for place, value in enumerate(every.float().tolist()):
        save_file({"a": every[place : place + 1].clone()}, tmp_path / "x.safetensors")
        expected = abs(value) if abs(value) < float("inf") else float("inf")
        assert magnitude(tmp_path / "x.safetensors", read_header(tmp_path / "x.safetensors")["a"]) == expected


# by the command line


@pytest.mark.parametrize(
    "spoil",
    [
        lambda copy: edit(copy, lora_alpha=10**400),
        lambda copy: edit(copy, rank_pattern={"((a|[a-z_.0-9])+)+\\1!": 4}),
        lambda copy: (copy / CONFIG).write_text(DEEP),
        lambda copy: reheaded(copy, HEADERS["bytes after the last tensor"]),
        lambda copy: (copy / WEIGHTS).write_text(LFS),
        lambda copy: rename(copy, lambda key: key.replace(".lora_A.", ".lora_Q.")),
        lambda copy: edit(copy, peft_type="LOKR"),
    ],
)
def test_adding_checking_and_merging_refuse_in_one_and_the_same_line(
    spoil, copy, tiny_base, tiny_pair, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(tmp_path / "ws"))
    spoil(copy)
    trio = ["--base", str(tiny_base), "--utility", str(copy), "--safety", str(tiny_pair[1])]
    lines = []
    for command in (
        ["adapters", "add", str(copy)],
        ["adapters", "check", *trio],
        ["merge", *trio, "--method", "linear", "--out", str(tmp_path / "out")],
    ):
        assert main(command) == 3
        lines.append(capsys.readouterr().err.strip())
    assert len(set(lines)) == 1 and "\n" not in lines[0] and str(copy) in lines[0]
    assert not (tmp_path / "out").exists()


def test_short_names_of_models():
    assert places.short_name("org/Name/") == "name" == places.short_name("x\\Name")
    assert places.without_precision("unsloth/Llama-3-8B-Instruct-bnb-4bit") == "llama-3-8b-instruct"
    assert places.without_precision("unsloth/Qwen3-8B-unsloth-bnb-4bit") == "qwen3-8b"
    assert places.without_precision("org/Qwen2-7B-Instruct-GPTQ-Int4") == "qwen2-7b-instruct"


def test_a_single_folder_is_checked_alone_or_on_a_base(copy, tiny_base, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(tmp_path / "ws"))
    assert main(["adapters", "check", str(copy)]) == 0 and "U: rank" in capsys.readouterr().out
    assert main(["adapters", "check", str(copy), "--base", str(tiny_base)]) == 0
    assert "They fit together." in capsys.readouterr().out
    rename(copy, lambda key: key.replace(PREFIX, f"{PREFIX}foo."))
    assert main(["adapters", "check", str(copy), "--base", str(tiny_base)]) == 3
    assert "foo.model.layers.0" in capsys.readouterr().err
    assert main(["adapters", "check"]) == 2


def test_an_adapters_own_template_is_noted_where_it_is_another_one(copy, tiny_base):
    def noted() -> bool:
        report = adapters.check_many(tiny_base, {"utility": copy})
        assert report.compatible
        return any("chat template of its own" in str(warning) for warning in report.warnings)

    assert not noted()
    own = (tiny_base / "chat_template.jinja").read_text()
    (copy / "chat_template.jinja").write_text(own)
    assert not noted()
    (copy / "chat_template.jinja").write_text(own + "!")
    assert noted()
    (copy / "chat_template.jinja").unlink()
    (copy / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    assert noted()


def test_a_base_with_another_template_is_another_base_wherever_the_template_is_kept(tiny_base, tmp_path):
    base = shutil.copytree(tiny_base, tmp_path / "base")
    assert adapters.base_fingerprint(base) == adapters.base_fingerprint(tiny_base)
    template = (base / "chat_template.jinja").read_text()
    (base / "chat_template.jinja").unlink()
    path = base / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    found = {adapters.base_fingerprint(base)}
    for one in (template, template + " ", [{"name": "default", "template": template}]):
        path.write_text(json.dumps(settings | {"chat_template": one}))
        found.add(adapters.base_fingerprint(base))
    assert len(found) == 4
