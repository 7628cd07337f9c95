"""The device that a run is computed on."""

from __future__ import annotations

import pytest
import torch

from sstmerge_core.errors import DataError
from sstmerge_core.runs.session import chosen_device


@pytest.mark.parametrize("name", [f"cuda:{torch.cuda.device_count() + 9}", "meta", "no such device", "cuda:x", ""])
def test_a_device_that_is_not_here_is_refused_by_name(name: str) -> None:
    with pytest.raises(DataError, match=r"is not on this machine.*cpu"):
        chosen_device(name)


def test_what_is_here_is_taken_and_auto_asks_the_environment_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen_device("cpu") == "cpu"
    monkeypatch.setenv("SSTMERGE_DEVICE", "cuda:77")
    with pytest.raises(DataError, match="cuda:77"):
        chosen_device("auto")
