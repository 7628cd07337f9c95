from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sstmerge_core import adapters
from sstmerge_core.adapters.fingerprint import file_sha256
from sstmerge_core.adapters.safetensors_header import read_header, same_values
from sstmerge_core.errors import AdapterError
from sstmerge_core.workspace import Workspace
from tests.tiny_models import make_adapter


@pytest.fixture
def copy(tiny_pair, tmp_path) -> Path:
    shutil.copytree(tiny_pair[0], tmp_path / "U")
    return tmp_path / "U"


def edit(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def reweigh(folder: Path, change) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def test_a_good_pair_has_no_problem_and_says_what_it_is(tiny_base, tiny_pair):
    report = adapters.check_pair(tiny_base, *tiny_pair)
    assert report.compatible
    assert "rsLoRA" in report.facts["safety scaling"]
    assert report.facts["shared modules"] == "6 of 14"
    assert any("leaves 8 modules alone" in str(warning) for warning in report.warnings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "biases"),
        ({"modules_to_save": ["lm_head"]}, "fully trained modules"),
        ({"peft_type": "IA3"}, "not LORA"),
        ({"r": 0}, "rank must be at least 1"),
    ],
)
def test_what_cannot_be_merged_is_refused_by_name(copy, changes, message):
    edit(copy, **changes)
    with pytest.raises(AdapterError, match=message):
        adapters.read(copy)


def test_every_problem_is_reported_at_once(copy):
    edit(copy, use_dora=True, bias="all", modules_to_save=["lm_head"])
    with pytest.raises(AdapterError) as caught:
        adapters.read(copy)
    assert len(caught.value.problems) == 3


def test_a_truncated_file_is_named_as_truncated(copy):
    path = copy / "adapter_model.safetensors"
    data = path.read_bytes()
    for length in (len(data) - 100, 300, 4, 0):
        path.write_bytes(data[:length])
        with pytest.raises(AdapterError, match="truncated") as caught:
            adapters.read(copy)
        assert "adapter_model.safetensors" in str(caught.value)


FLOATS = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e5m2]


@pytest.mark.parametrize(
    ("dtype", "value"),
    [(dtype, value) for dtype in FLOATS for value in (float("nan"), float("inf"))]
    + [(torch.float8_e4m3fn, float("nan"))],  # which has no infinity
)
def test_values_that_are_not_finite_are_found_in_every_dtype(copy, dtype, value):
    def poison(tensors):
        for key in tensors:
            tensors[key] = tensors[key].to(dtype)
        tensors[sorted(tensors)[3]].view(-1)[-1] = value

    reweigh(copy, lambda tensors: [tensors.update({k: v.to(dtype)}) for k, v in list(tensors.items())])
    adapters.read(copy)
    reweigh(copy, poison)
    with pytest.raises(AdapterError, match="NaN or infinity"):
        adapters.read(copy)


@pytest.mark.parametrize("dtype", FLOATS[1:4])
def test_the_same_numbers_in_another_format_are_the_same_up_to_its_rounding(dtype, tmp_path):
    values = torch.randn(300, 7, generator=torch.Generator().manual_seed(0))
    values[:3] = torch.tensor([0.0, -0.0, 1e-7, 0.5, -3.0, 7e-6, 1000.0])
    other = values.clone()
    other[299, 6] *= 1.01
    kept = {"plain": values, "rounded": values.to(dtype, copy=True)}
    kept |= {"other": other, "other_rounded": other.to(dtype, copy=True)}
    save_file(kept | {"turned": values.T.contiguous(), "whole": values.int()}, tmp_path / "f")
    header = read_header(tmp_path / "f")

    def same(first, second):
        return same_values(tmp_path / "f", header[first], tmp_path / "f", header[second])

    assert same("plain", "plain") and same("plain", "rounded") and same("rounded", "plain")
    assert not same("plain", "other") and not same("plain", "other_rounded") and not same("other_rounded", "rounded")
    assert not same("plain", "turned") and not same("plain", "whole")


@pytest.mark.parametrize("offsets", [[-8, 0], [8, 0], [0, 1 << 40]])
def test_a_header_that_points_outside_the_file_is_damaged(offsets, tmp_path):
    header = json.dumps({"t": {"dtype": "F32", "shape": [2], "data_offsets": offsets}}).encode()
    (tmp_path / "f").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(ValueError, match="damaged|truncated"):
        read_header(tmp_path / "f")


def test_a_missing_half_of_a_pair_of_factors_is_found(copy):
    reweigh(copy, lambda tensors: tensors.pop(sorted(tensors)[0]))
    with pytest.raises(AdapterError, match="has only lora_B"):
        adapters.read(copy)


def test_missing_folders_and_files_are_named(copy, tmp_path):
    with pytest.raises(AdapterError, match="no such folder"):
        adapters.read(tmp_path / "nowhere")
    (copy / "adapter_model.safetensors").rename(copy / "adapter_model.bin")
    with pytest.raises(AdapterError, match="pickle"):
        adapters.read(copy)


def test_an_adapter_that_names_another_base_and_fits_is_a_warning(tiny_base, tiny_pair, copy):
    edit(copy, base_model_name_or_path="someone/other-model")
    report = adapters.check_pair(tiny_base, copy, tiny_pair[1])
    assert report.compatible
    assert any("names the base someone/other-model" in str(warning) for warning in report.warnings)


def test_modules_of_other_shape_are_refused(tiny_base, tiny_pair, copy):
    def widen(tensors):
        key = next(key for key in sorted(tensors) if "lora_A" in key)
        tensors[key] = torch.cat([tensors[key], tensors[key]], dim=1)

    reweigh(copy, widen)
    report = adapters.check_pair(tiny_base, copy, tiny_pair[1])
    assert any("another shape than the base" in str(problem) for problem in report.problems)


def test_check_pair_reports_both_adapters_and_the_base_at_once(tmp_path, copy):
    edit(copy, use_dora=True)
    report = adapters.check_pair(tmp_path / "no-base", copy, tmp_path / "no-adapter")
    assert len(report.problems) == 3


def test_the_fingerprint_is_of_the_content_and_not_of_the_place(copy, tiny_pair):
    assert adapters.read(copy).sha256 == adapters.read(tiny_pair[0]).sha256
    edit(copy, lora_alpha=99)
    assert adapters.read(copy).sha256 != adapters.read(tiny_pair[0]).sha256


def test_a_remembered_hash_notices_a_changed_file(tmp_path):
    workspace, file = Workspace(tmp_path / "w"), tmp_path / "f"
    file.write_text("one")
    first = file_sha256(file, workspace)
    assert file_sha256(file, workspace) == first
    file.write_text("two2")
    assert file_sha256(file, workspace) == file_sha256(file) != first


def test_reading_headers_imports_no_torch(tiny_base, tiny_pair):
    import subprocess
    import sys

    code = (
        "import sys; from sstmerge_core import adapters, methods, merge, recipe;"
        f"assert adapters.check_pair({str(tiny_base)!r}, {str(tiny_pair[0])!r}, {str(tiny_pair[1])!r}).compatible;"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_rank_pattern_adapter_is_read_with_its_ranks(tiny_base, tmp_path):
    folder = make_adapter(tiny_base, tmp_path / "P", 5, rank_pattern={"q_proj": 2})
    ranks = {name.rsplit(".", 1)[-1]: module.rank for name, module in adapters.read(folder).modules.items()}
    assert ranks["q_proj"] == 2 and ranks["v_proj"] == 4
