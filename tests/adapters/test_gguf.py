"""llama.cpp's converter is called as it wants to be called; where it is missing or fails, that is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sstmerge_core.adapters import gguf
from sstmerge_core.cli import main
from sstmerge_core.errors import AdapterError

STAND_IN = """import json, sys
out = sys.argv[sys.argv.index("--outfile") + 1]
if "q8_0" in sys.argv:
    sys.exit("INFO: reading\\nthis model is not supported")
open(out, "w").write(json.dumps(sys.argv[1:]))
"""


@pytest.fixture
def llama(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a converter that writes down how it was called."""
    folder = tmp_path / "llama.cpp"
    folder.mkdir()
    (folder / gguf.SCRIPT).write_text(STAND_IN)
    monkeypatch.setenv(gguf.FOLDER, str(folder))
    return folder


def test_the_command_line_has_the_converter_write_one_file(llama, tiny_base, tiny_pair, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(tmp_path / "w"))
    out = tmp_path / "made" / "lora.gguf"
    assert main(["adapters", "gguf", str(tiny_pair[0]), "--base", str(tiny_base), "--out", str(out)]) == 0
    called = json.loads(out.read_text())
    assert called == ["--base", str(tiny_base), "--outfile", str(out), "--outtype", "f16", str(tiny_pair[0])]
    assert str(out) in capsys.readouterr().out
    with pytest.raises(AdapterError, match="there already"):
        gguf.convert(tiny_pair[0], tiny_base, out)


def test_what_the_converter_says_last_is_told_and_nothing_is_left(llama, tiny_base, tiny_pair, tmp_path):
    with pytest.raises(AdapterError, match="this model is not supported"):
        gguf.convert(tiny_pair[0], tiny_base, tmp_path / "lora.gguf", "q8_0")
    assert not (tmp_path / "lora.gguf").exists()


def test_without_the_converter_it_says_where_it_comes_from(tiny_base, tiny_pair, tmp_path, monkeypatch):
    monkeypatch.setenv(gguf.FOLDER, str(tmp_path))
    with pytest.raises(AdapterError, match=r"llama\.cpp"):
        gguf.convert(tiny_pair[0], tiny_base, tmp_path / "lora.gguf")
