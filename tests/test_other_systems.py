"""What only Linux has is asked for with a guard: the same works where it is missing, as on macOS."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
import threading
from pathlib import Path

import psutil  # before this system calls itself another: it picks its parts when it is imported
import pytest

from sstmerge_core.adapters import fingerprint
from sstmerge_core.evaluate import code_child
from sstmerge_core.jobs import process
from sstmerge_core.jobs.process import Process
from sstmerge_core.models import device
from sstmerge_core.playground import protocol, server
from sstmerge_core.store import sandbox_child


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A system without /proc, `posix_fadvise` and glibc, that calls itself macOS on a chip of Apple's."""
    monkeypatch.setattr(process, "PROC", tmp_path / "no-proc")
    monkeypatch.setattr(protocol, "OPEN_FOLDERS", tmp_path / "no-proc/self/fd")
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")


def test_a_file_is_hashed_without_advice_to_the_kernel(elsewhere: None, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert fingerprint._hash(tmp_path / "file") == known


def test_a_process_is_known_by_its_start_and_a_dead_one_is_gone(elsewhere: None) -> None:
    child = subprocess.Popen([sys.executable, "-Sc", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    try:
        found = Process.of(child.pid)
        assert found.alive() and Process.of(child.pid) == found
        assert psutil.pid_exists(child.pid) and not Process(child.pid, found.started + 1, found.host).alive(), (
            "the pid was used again"
        )
        found.signal_group(9)
        assert found.wait(5), "a zombie that nobody has reaped is no living process"
    finally:
        child.kill()
        child.wait()
    assert not found.alive()
    with pytest.raises(OSError):
        Process.of(child.pid)


def test_a_socket_in_a_deep_folder_is_bound_and_reached(elsewhere: None, tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    path = deep / "model.sock"
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as caller:
        with protocol.address(path) as address:
            assert len(address) <= protocol.LONGEST_ADDRESS
            listening.bind(address)
        listening.listen(1)
        answering = threading.Thread(target=lambda: listening.accept()[0].sendall(b"here"))
        answering.start()
        with protocol.address(path) as address:
            caller.connect(address)
        assert path.is_socket() and caller.recv(4) == b"here"
        answering.join(5)


def test_memory_is_told_without_proc_and_a_peak_is_in_bytes_either_way(
    elsewhere: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 0 < device.free_memory("cpu") <= device.total_memory("cpu") and server._resident_bytes() > 1_000_000
    on_mac = device.peak_memory("cpu")
    monkeypatch.setattr(sys, "platform", "linux")
    assert device.peak_memory("cpu") == 1024 * on_mac  # this is Linux, which counts KiB
    monkeypatch.setitem(sys.modules, "resource", None)
    assert device.peak_memory("cpu") == 0, "nobody tells"


def test_sandboxes_leave_out_the_one_limit_that_the_kernel_refuses(
    elsewhere: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    for child in (sandbox_child, code_child):
        asked: list[int] = []
        monkeypatch.setattr(resource, "setrlimit", lambda which, limits, asked=asked: asked.append(which))
        child.limit_resources(1)
        assert resource.RLIMIT_AS not in asked and resource.RLIMIT_CPU in asked and resource.RLIMIT_FSIZE in asked


def test_devices_name_mps_on_a_mac_and_respect_which_gpus_are_visible(
    elsewhere: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert device.devices() == ["cpu", "mps"]
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(device, "_torch_is_for_cpus", lambda: False)
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter([Path("/dev/nvidia0"), Path("/dev/nvidia1")]))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert device.devices() == ["cpu", "cuda:0", "cuda:1"]
    for visible, count in (("1", 1), ("", 0), ("-1", 0), ("0,1", 2)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert len(device.devices()) == 1 + count
    monkeypatch.setattr(device, "_torch_is_for_cpus", lambda: True)
    assert device.devices() == ["cpu"], "what torch cannot use is not offered"


def test_a_gpus_memory_is_asked_of_its_own_tool_and_unknown_without_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\ncase "$1" in --id=3) echo "20000, 24564";; *) exit 9;; esac\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    device._memory_of_gpu.cache_clear()
    assert device.memory_of("cuda:1") == device.Memory(20000 << 20, 24564 << 20)
    assert device.memory_of("cuda:0") is None
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    device._memory_of_gpu.cache_clear()
    assert device.memory_of("cuda:1") is None
    device._memory_of_gpu.cache_clear()
    found = device.memory_of("mps")
    assert found is not None and found.total == device.total_memory("cpu")
