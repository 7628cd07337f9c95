"""Device, number format and length in the forms of Merge and Sweep, and in their links."""

from __future__ import annotations

import pytest

from sstmerge_core.models import device
from tests.pages.conftest import Open


@pytest.fixture(autouse=True)
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.pick.devices", lambda: ["cpu", "cuda:0"])
    monkeypatch.setattr("studio.pick.memory_of", lambda name: device.Memory(1 << 20, 2 << 20))


def test_a_link_chooses_what_to_compute_on_and_the_estimate_is_held_against_that_device(
    open_page: Open, full_workspace
) -> None:
    app = open_page(full_workspace, "merge", device="cuda:0", dtype="float16", length="128")
    assert not app.exception
    assert app.selectbox("merge.device").value == "cuda:0" and app.selectbox("merge.dtype").value == "float16"
    assert app.number_input("merge.length").value == 128 and app.selectbox("merge.applied").value == "auto"
    said = [caption.value for caption in app.caption]
    assert any("MB of 2.1 MB of memory are free on cuda:0 now" in text for text in said), said


def test_what_is_not_said_is_left_to_the_device_and_a_wrong_word_is_told(open_page: Open, full_workspace) -> None:
    app = open_page(full_workspace, "sweep", dtype="int8")
    assert not app.exception
    assert app.selectbox("sweep.dtype").value == "auto" and app.number_input("sweep.length").value is None
    assert any("dtype=int8 in the link" in message.value for message in app.warning)
