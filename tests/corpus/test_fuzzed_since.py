"""The parsers that came after `test_fuzzed.py`: the right result or a typed error, within 5 s and 500 MB."""

from __future__ import annotations

import io
import json
import sqlite3
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sstmerge_core import access, cli, jobs
from sstmerge_core.builder import grid
from sstmerge_core.content import remote
from sstmerge_core.errors import DataError
from sstmerge_core.evaluate import judges_endpoint
from sstmerge_core.evaluate.guards import GUARDS
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.report import latex
from sstmerge_core.store import Owner, events, remarks
from sstmerge_core.suites import attacks, chats, columns
from sstmerge_core.upkeep import backup, limits
from sstmerge_core.workspace import Workspace
from tests.corpus.bounds import bounded
from tests.corpus.documents_of_people import DEEP
from tests.corpus.test_fuzzed import TEXTS, VALUES, in_words, mutated

FUZZ = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
DEEPEST = max(DEEP.values(), key=len) if DEEP else "[" * 5_000


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(tmp_path_factory.mktemp("w")).create()


EVENTS: dict[str, dict[str, Any]] = {
    "run_started": {
        **{"run_id": "r", "source": "measured", "pair": "A_B", "base": {"name": "b"}, "utility": "A", "safety": "B"},
        **{"method": "linear", "label": "l", "alpha": 0.5, "parameters": {"alpha": 0.5}, "recipe": {"evaluation": {}}},
        **{"device": "cpu", "dtype": "float32", "versions": {}, "user": "ada", "job_id": "j"},
    },
    "run_finished": {"seconds": 1.0, "peak_memory_bytes": 5},
    "samples": {"suite": "s", "batch": 0, "rows": [{"prompt_id": "p", "topic": "t", "prompt": "q", "response": "a"}]},
    "verdicts": {"suite": "s", "judge": "j", "rows": [{"prompt_id": "p", "label": "refusal", "refused": True}]},
    "metrics": {"rows": [{"metric": "resistance", "suite": "s", "value": 0.5, "n": 4, "judge": "j", "status": "ok"}]},
    "spectrum": {"module": "m", "eigenvalues": [1.0, 0.5]},
    "module_stats": {"rows": [{"module": "m", "norm_u": 1.0}]},
    "artifact": {"name": "adapter", "path": "x", "bytes": 5, "sha256": "a" * 64},
    "pair_inspected": {"utility": "A", "safety": "B", "cosine": 0.1},
    "adapter_added": {"name": "A", "path": "/a", "sha256": "c" * 64, "role": "utility", "rank": 4},
    "labelled": {"judge": "hand", "rows": [{"suite": "s", "prompt_id": "p", "label": "refusal"}], "user": "ada"},
    "tagged": {"tag": "t", "removed": False, "user": "ada"},
    "named": {"name": "n", "user": "ada"},
    "noted": {"note_id": "i", "text": "t", "user": "ada"},
}


@pytest.fixture(scope="module")
def owner(workspace: Workspace) -> Iterator[Owner]:
    with Owner.open(workspace) as owner:
        yield owner


@FUZZ
@given(st.sampled_from(sorted(EVENTS)).flatmap(lambda name: st.tuples(st.just(name), mutated(EVENTS[name]))))
def test_any_event_whose_checksum_is_right_is_taken_in_and_stops_nothing(
    workspace: Workspace, owner: Owner, event: tuple[str, dict[str, Any]]
) -> None:
    """An imported workspace may have any."""
    name, fields = event
    folder = workspace.run("fuzzed")
    folder.mkdir(exist_ok=True)
    with bounded():
        line = events.encode({"event": name, "t": 1.0, **fields})
        with open(folder / events.FILE_NAME, "ab") as file:
            file.write(line)
        assert owner.ingest() == 1
        with closing(owner.cursor()) as cursor:
            cursor.execute("SELECT count(*) FROM leaderboard").fetchone()


@FUZZ
@given(st.sampled_from(sorted(EVENTS)), st.integers(0, 10_000), st.integers(1, 255), st.booleans())
def test_a_line_with_a_flipped_bit_is_never_read_as_something_else(name: str, at: int, bits: int, cut: bool) -> None:
    whole = {"event": name, "t": 1.0, **EVENTS[name]}
    line = bytearray(events.encode(whole).rstrip(b"\n"))
    line[at % len(line)] ^= bits
    found = events.decode(bytes(line[: at % len(line)] if cut else line) + b"\n")
    # where the sum's own name is hit it counts as a field of the event
    assert found is None or whole.items() <= found.items()


MANIFEST = {
    **{"format": remote.FORMAT, "kind": "adapter", "sha256": "a" * 64, "name": "A", "run_id": "", "stored_at": 1.0},
    "files": {"adapter_config.json": {"bytes": 5, "sha256": "b" * 64}},
}


@FUZZ
@given(mutated(MANIFEST).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=40))
@example(DEEPEST.encode())
@example(b'{"format": 1, "files": {"a": {"bytes": Infinity, "sha256": "x"}}}')
@example(json.dumps(MANIFEST | {"files": {"../x": MANIFEST["files"]["adapter_config.json"]}}).encode())  # type: ignore[index]
def test_any_manifest_of_a_store_names_files_of_one_folder_or_is_none(text: bytes) -> None:
    with in_words():
        for name, (size, _) in remote._read(text, "store").files.items():
            assert Path(name).name == name and size >= 0


@FUZZ
@given(TEXTS | st.sampled_from(["s3://", "s3:///", "file://", "nope://x", "http://[", "memory://x", "::", "s3://a\0b"]))
def test_any_address_of_a_store(workspace: Workspace, address: str) -> None:
    if address.strip().startswith(("s3://a", "http", "gs:")):
        return  # somebody else's machine
    with in_words():
        list(remote.ContentStore(address or "x").manifests())


TURNS = [{"role": "user", "content": "q"}, {"from": "gpt", "value": [{"type": "text", "text": "a"}]}]


@FUZZ
@given(mutated(TURNS), st.booleans())
def test_any_conversation(value: Any, as_text: bool) -> None:
    with bounded():
        try:
            found = chats.turns(json.dumps(value) if as_text else value)
        except chats.RowFault as fault:
            assert str(fault) and fault.fix
        else:
            assert found is None or all(isinstance(part, str) for turn in found for part in turn)


COLUMNS = st.lists(
    st.sampled_from(
        ["prompt", "response", "split", "turns", "encoding", "delimiter", "=", ":=", ",", "a.b", "{a}", "{"]
    )
    | TEXTS,
    max_size=8,
).map("".join)


@FUZZ
@given(COLUMNS, mutated({"a": {"b": ["c"]}, "prompt": "q"}))
@example("prompt=" + "a." * 5_000, {"a": 1})
@example("prompt=" + "{" * 5_000, {"a": 1})
def test_any_mapping_of_columns(text: str, record: Any) -> None:
    with in_words():
        found = columns.parse(text)
        assert columns.parse(columns.told(found)) == found or "," in text or "=" in text
        try:
            assert isinstance(columns.part(record, found, "prompt"), str)
        except chats.RowFault as fault:
            assert str(fault)


@FUZZ
@given(TEXTS | st.sampled_from([f"harmful+{name}" for name in attacks.names()] + ["a+" * 500, "+", "++"]))
def test_any_name_of_an_attack(name: str) -> None:
    with in_words():
        attacks.parted(name)
    with in_words():
        attacks.get(name)
    with in_words():
        asked = attacks.get(name.removeprefix("harmful+")).asks("w1 \0 {w2} ß")
        assert all(isinstance(turn, str) for turn in asked.turns)


@FUZZ
@given(st.text(st.characters(codec=None), max_size=60))
@example(r"\input{/etc/passwd} \write18{rm} $x$ % # _ { } ~ ^ &")
def test_any_text_is_text_in_latex(text: str) -> None:
    with bounded():
        told = latex.inline(text)
        for command in ("input", "write18", "include", "catcode", "def", "immediate"):
            assert f"\\{command}" not in told
        told = told.replace("\\{", "").replace("\\}", "")
        assert told.count("{") == told.count("}")


@pytest.mark.parametrize("name", ["linear", "\ud800", "x" * 10_000, "%0a", "../../x", "<script>", "a\0b"])
def test_any_name_of_a_run_is_kept_as_text_or_refused(workspace: Workspace, owner: Owner, name: str) -> None:
    folder = workspace.run("named")
    folder.mkdir(exist_ok=True)
    (folder / events.FILE_NAME).write_bytes(events.encode({"event": "run_started", "t": 1.0, **EVENTS["run_started"]}))
    for write in (remarks.rename, remarks.tag, remarks.note):
        with in_words():
            write(workspace, "named", name, user=name)
    assert owner.ingest() >= 0


class _Answer(io.BytesIO):
    def __enter__(self) -> _Answer:
        return self


COMPLETION = {
    "choices": [{"message": {"content": "<answer>2</answer>"}}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 1},
}


@FUZZ
@given(mutated(COMPLETION).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=40))
@example(DEEPEST.encode())
@example(json.dumps(COMPLETION | {"usage": {"prompt_tokens": 10**400, "completion_tokens": -1}}).encode())
@example(b'{"choices": [{"message": {"content": "\\ud800 2"}}]}')
def test_any_answer_of_an_endpoint_is_an_answer_or_a_miss(tmp_path: Path, data: bytes) -> None:
    guard = GUARDS[judges_endpoint.DEFAULT_RUBRIC]
    cache = tmp_path / "answers.sqlite"
    client = judges_endpoint.Client(guard, "m", "http://localhost:9/v1", "", prices=(1.0, 2.0), cache=cache)
    client.sleep = lambda seconds: None
    opener = mock.Mock(open=lambda request, timeout: _Answer(data))
    with mock.patch("urllib.request.build_opener", return_value=opener), in_words():
        (said,) = client([("q", "a", {})])
        said.encode()  # what half a character is in cannot be stored
        assert client.usage.tokens_in >= 0


JOB_COLUMNS = ("run_ids", "answers", "devices", "spec")


@FUZZ
@given(st.sampled_from(JOB_COLUMNS), VALUES.map(json.dumps) | TEXTS | st.sampled_from([DEEPEST, "null", "[1, {}]"]))
def test_any_text_in_a_row_of_the_queue(workspace: Workspace, column: str, text: str) -> None:
    queue = Queue(workspace)
    if queue.job("j") is None:
        queue.add("j", kind="merge", name="n", user="", device="cpu", spec={"recipes": []}, run_ids=[])
    with closing(sqlite3.connect(workspace.queue)) as connection, connection:
        connection.execute(f"UPDATE jobs SET {column} = ?", [text.encode("utf-8", "replace").decode()])
    with in_words():
        (job,) = jobs.jobs(workspace)
        assert all(isinstance(one, str) for one in (*job.run_ids, *job.devices))
    with in_words():
        assert isinstance(queue.spec("j"), dict)


TOML = (
    TEXTS
    | st.sampled_from(["a = " + "[" * 5_000, "a = " + "9" * 5_000, "jobs = 1e999", 'cache = "%s GB"' % ("9" * 400)])
    | st.sampled_from(["[people]\n", "default = ", '"ada@example.org" = "admin"', "runs = ", "5", '"5 GB"']).flatmap(
        lambda first: TEXTS.map(lambda text: first + text)
    )
)


@FUZZ
@given(TOML)
def test_any_file_of_roles_or_limits_is_read_or_refused_and_nobody_is_let_in(workspace: Workspace, text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    for path, read in ((access.roles_file(workspace), access.read_roles), (limits.file(workspace), limits.read)):
        path.write_bytes(data)
        with in_words():
            found: Any = read(workspace)
            if isinstance(found, access.Roles):
                assert found.of("eve@example.org") in ("viewer", access.NOBODY)
        path.unlink()


@pytest.mark.parametrize(
    ("named", "claimed", "same"),
    [
        ("rob@strasse.example", "rob@straße.example", False),
        ("mike@example.org", "mi\u212ae@example.org", False),
        ("ada@example.org", " ADA@Example.org ", True),
        ("ada@example.org", "ada@example.org\u200b", False),
    ],
)
def test_an_address_that_only_looks_like_one_that_is_named_is_another(named: str, claimed: str, same: bool) -> None:
    roles = access.read_roles(Workspace(Path("/nowhere")), {"people": {named: "admin"}})
    assert (roles.of(claimed) == "admin") == same


@FUZZ
@given(st.lists(st.sampled_from(["1", "0.1", ":", ",", "-", "e", "9" * 400, "nan", "inf", " ", "0", "."]), max_size=9))
def test_any_list_of_numbers(parts: list[str]) -> None:
    with in_words():
        found = grid.numbers("".join(parts), where="α")
        assert len(found) <= 100_000


def _archive(change: Callable[[zipfile.ZipFile], None], **manifest: Any) -> bytes:
    told = {"format": 1, "root": "/w", "made_at": 1.0, "version": "1", "files": {}} | manifest
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(backup.MANIFEST, json.dumps(told))
        change(archive)
    return data.getvalue()


def _link(archive: zipfile.ZipFile) -> None:
    info = zipfile.ZipInfo("runs/r/events.jsonl")
    info.external_attr = 0o120777 << 16
    archive.writestr(info, "/etc/passwd")


ARCHIVES: dict[str, Callable[[], bytes]] = {
    "slip": partial(_archive, lambda archive: archive.writestr("../x", "1"), files={"../x": [1, "a" * 64]}),
    "link": partial(_archive, _link, files={"runs/r/events.jsonl": [11, "a" * 64]}),
    "bomb": partial(
        _archive, lambda archive: archive.writestr("runs/b", b"\0" * (300 << 20)), files={"runs/b": [10, "a" * 64]}
    ),
    "a list of millions": partial(_archive, lambda archive: None, files={"x": [10**18, "a" * 64]}),
    "deep": partial(_archive, lambda archive: None, made_at=[[[[1]]]]),
    "sizes of infinity": partial(
        _archive, lambda archive: archive.writestr("runs/b", "1"), files={"runs/b": [float("inf"), ""]}
    ),
    "an absolute name": partial(
        _archive, lambda archive: archive.writestr("/etc/x", "1"), files={"/etc/x": [1, "a" * 64]}
    ),
    "no list": lambda: b"PK\x05\x06" + b"\0" * 18,
    "cut": lambda: _archive(lambda archive: archive.writestr("runs/b", "1"))[:-10],
}
"""Made where they are asked for: one unpacks to 300 MB"""


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_hostile_backup_leaves_nothing_anywhere(tmp_path: Path, name: str) -> None:
    file, target = tmp_path / "b.zip", tmp_path / "in" / "target"
    file.write_bytes(ARCHIVES[name]())
    with bounded(), pytest.raises(DataError):
        backup.restore(file, target)
    assert not target.exists() and {path.name for path in tmp_path.iterdir()} <= {"b.zip", "in"}
    assert not list((tmp_path / "in").glob("*")) if (tmp_path / "in").exists() else True


@FUZZ
@given(st.integers(0, 400), st.integers(1, 255), st.booleans())
def test_a_backup_with_any_byte_changed_is_the_same_or_refused(tmp_path: Path, at: int, bits: int, cut: bool) -> None:
    import hashlib

    said = b'{"event": "x", "t": 1}\n'
    files = {"runs/r/events.jsonl": [len(said), hashlib.sha256(said).hexdigest()]}
    data = bytearray(_archive(lambda archive: archive.writestr("runs/r/events.jsonl", said), files=files))
    data[at % len(data)] ^= bits
    (tmp_path / "b.zip").write_bytes(data[: at % len(data)] if cut else data)
    with in_words():
        assert backup.check(tmp_path / "b.zip").files.keys() == files.keys()


COMMANDS = (
    *(["runs", "name", "../x", "n"], ["runs", "delete", "\0"], ["jobs", "cancel", "x\ud800"], ["query", ""]),
    *(["query", "SELECT" * 50_000], ["merge", "--recipe", "/dev/zero"], ["restore", "/dev/zero", "--into", "x"]),
    *(
        ["import", "/dev/zero"],
        ["import", "/dev/null"],
        ["backup", "/dev/null/x"],
        ["store", "list", "--store", "nope://x"],
    ),
    *(["adapters", "add", "/dev/zero"], ["screen", "--pair", "../.."]),
    *(["pick", "--pair", ""], ["experiment", "search", "--recipe", "/dev/zero"], ["tidy", "--older-than", "nan"]),
    *(["push", "nobody", "a/b", "--dry-run"]),
    ["audit", "--limit", "-1"],
)


@pytest.mark.parametrize(
    "command", COMMANDS, ids=lambda command: " ".join(command)[:30].encode("ascii", "replace").decode()
)
def test_a_command_of_nonsense_ends_in_words(
    workspace: Workspace, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(workspace.root))
    with bounded():
        try:
            status = cli.main(command)
        except SystemExit as stop:
            status = stop.code  # type: ignore[assignment]
    told = capsys.readouterr()
    assert status not in (0, None) or told.out
    assert "Traceback" not in told.err
