"""SQL on the Query page's path: what reads is answered rightly, what does anything else is refused and gains nothing.

Most run by the code of the sandbox's child, in one process for all, for a child each would take minutes;
those that use up time or memory, and a sample of every kind, go through `run_sql` as the page does. Got through is what
shows a file's content or the environment, changes a file, or reaches for the network.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sstmerge_core.errors import StoreError
from sstmerge_core.store import Owner, QueryError, run_sql, sandbox_child
from sstmerge_core.workspace import Workspace
from tests.corpus.case import EITHER, REFUSED, RIGHT, Case, Expected, GotThrough
from tests.store.conftest import write_run

SECRET = "S3CRET-0f-the-server"
PATIENCE = 0.7
"""Seconds that a statement without end gets"""

READ: dict[str, list[tuple[Any, ...]] | None] = {
    "SELECT 1": [(1,)],
    "SELECT 1;": [(1,)],
    "SELECT 1 -- why": [(1,)],
    "/* why */ SELECT 1 /* because */ ;": [(1,)],
    "SELECT '; DROP TABLE runs' AS x": [("; DROP TABLE runs",)],
    "SELECT '--' || '/*' AS x": [("--/*",)],
    "SELECT $$;$$ AS x": [(";",)],
    'SELECT 1 AS ";"': [(1,)],
    "SELECT count(*) FROM runs WHERE run_id = 'r1'": [(1,)],
    "FROM runs SELECT run_id WHERE run_id = 'r1'": [("r1",)],
    "WITH a AS (SELECT 2 AS x) SELECT x + 1 FROM a": [(3,)],
    "WITH RECURSIVE t(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM t WHERE i < 5) SELECT sum(i) FROM t": [(15,)],
    "VALUES (1), (2)": [(1,), (2,)],
    "SELECT * FROM range(3)": [(0,), (1,), (2,)],
    "SELECT sum(i) FROM generate_series(1, 4) t(i)": [(10,)],
    "SELECT list_sum([1, 2, 3])": [(6,)],
    "SELECT 'NaN'::DOUBLE IS NOT NULL": [(True,)],
    "SELECT '日本語' AS x": [("日本語",)],
    "SELECT '🦙\u202e' AS x": [("🦙\u202e",)],
    "SELECT\u00a01": [(1,)],
    "\ufeffSELECT 1": None,
    "SELECT regexp_replace('aaa', 'a', 'b')": [("baa",)],
    "SELECT 10000000000::HUGEINT * 10000000000 AS x": None,
    "SELECT '[1, {\"a\": 2}]'::JSON ->> '$[1].a'": None,
    "DESCRIBE runs": None,
    "SHOW TABLES": None,
    "SUMMARIZE metrics": None,
    "EXPLAIN SELECT * FROM runs": None,
    "SELECT * FROM (PIVOT runs ON method IN ('linear') USING count(*))": None,
    "SELECT run_id FROM runs ORDER BY ALL LIMIT 1 OFFSET 0": None,
    "SELECT count(*) FROM information_schema.tables": None,
    "SELECT current_database() IS NOT NULL": [(True,)],
}
"""Statement → its rows, None where they depend on the version"""


def _attacks(file: str, folder: str, snapshot: str, port: int) -> Iterator[str]:
    """Statements that must not be answered; `file` is one with a secret in it, `folder` one to write into."""
    web = f"http://127.0.0.1:{port}/x"
    out = f"{folder}/out"
    # files, by each function that reads one
    for function in (
        *("read_csv", "read_csv_auto", "sniff_csv", "read_json", "read_json_auto", "read_ndjson", "read_json_objects"),
        *(
            "read_ndjson_objects",
            "read_parquet",
            "parquet_scan",
            "parquet_metadata",
            "parquet_schema",
            "parquet_kv_metadata",
        ),
        *(
            "parquet_file_metadata",
            "read_text",
            "read_blob",
            "glob",
            "read_duckdb",
            "sqlite_scan",
            "postgres_scan",
            "mysql_scan",
        ),
        *(
            "iceberg_scan",
            "delta_scan",
            "st_read",
            "read_xlsx",
            "arrow_scan",
            "pandas_scan",
            "python_map_function",
            "seq_scan",
        ),
    ):
        yield f"SELECT * FROM {function}('{file}')"
        yield f"SELECT * FROM {function}(['{file}'])"
    for place in (
        file,
        "/etc/passwd",
        "/proc/self/environ",
        "/proc/self/mem",
        "/dev/stdin",
        "/dev/zero",
        f"{folder}/*",
    ):
        yield f"FROM '{place}'"
        yield f"SELECT * FROM read_text('{place}')"
    for address in (
        web,
        web.replace("http", "https"),
        "s3://a/b.parquet",
        "gs://a/b.csv",
        "hf://datasets/a/b/c.csv",
        "az://a/b",
    ):
        yield f"FROM '{address}'"
        yield f"SELECT * FROM read_csv('{address}')"
    yield from (
        f'FROM "{file}"',
        f"TABLE '{file}'",
        f"SELECT * FROM runs, '{file}'",
        f"SELECT (SELECT content FROM read_text('{file}'))",
        f"SELECT * FROM (SELECT * FROM (SELECT * FROM read_text('{file}')))",
        f"WITH x AS (FROM read_text('{file}')) FROM x",
        f"WITH x AS MATERIALIZED (FROM read_text('{file}')) FROM x",
        f"SELECT 1 UNION ALL SELECT content FROM read_text('{file}')",
        f"SELECT * FROM runs WHERE run_id IN (SELECT content FROM read_text('{file}'))",
        f"SELECT * FROM runs JOIN read_text('{file}') ON true",
        f"SELECT * FROM runs, LATERAL (SELECT * FROM read_text('{file}'))",
        f"EXPLAIN ANALYZE SELECT * FROM read_text('{file}')",
        f"DESCRIBE SELECT * FROM read_csv('{file}')",
        f"DESCRIBE FROM '{file}'",
        f"SUMMARIZE FROM read_csv('{file}')",
        f"SUMMARIZE '{file}'",
        f"PIVOT '{file}' ON a USING count(*)",
        f"FROM query('SELECT * FROM read_text(''{file}'')')",
        f"FROM query_table('{file}')",
        f"FROM query_table(['{file}'])",
        f"SELECT * FROM read_/**/text('{file}')",
        f"SELECT * FROM READ_TEXT('{file}')",
        f"SELECT * FROM \"read_text\"('{file}')",
        f"SELECT * FROM main.read_text('{file}')",
        f"SELECT * FROM system.main.read_text('{file}')",
        "SELECT * FROM read_text(getvariable('x'))",
        f"SELECT * FROM read_text(concat('{file}', ''))",
        "SELECT * FROM read_text(chr(47) || 'etc/passwd')",
        f"SELECT * FROM ｒead_text('{file}')",
        f"SELECT\u200b* FROM read_text('{file}')",
        f"SELECT * FROM read_text('{file}\x00')",
        f"SELECT * FROM read_text($${file}$$)",
        f"SELECT * FROM read_text(E'{file}')",
        f"SELECT * FROM read_csv('{file}', store_rejects=true)",
        f"SELECT * FROM read_csv(path := '{file}')",
    )
    # writing
    yield from (
        f"COPY runs TO '{out}'",
        f"COPY runs TO '{out}.parquet' (FORMAT parquet)",
        f"COPY (SELECT 1) TO '{out}' (FORMAT csv)",
        f"COPY (SELECT 1) TO '{out}' WITH (FORMAT json)",
        f"COPY runs TO '{out}' (PARTITION_BY run_id)",
        f"COPY runs FROM '{file}'",
        f"COPY runs TO '{snapshot}'",
        f"COPY (SELECT 1) TO '{snapshot}.tmp/x.csv'",
        "COPY FROM DATABASE snap TO memory",
        f"EXPORT DATABASE '{out}'",
        f"IMPORT DATABASE '{folder}'",
        f"EXPLAIN ANALYZE COPY runs TO '{out}'",
        f"WITH x AS (COPY runs TO '{out}') SELECT 1",
        f"SELECT * FROM (COPY runs TO '{out}')",
        f"SELECT write_log('x'), write_blob('{out}', 'x')",
        "INSERT INTO meta VALUES ('a', 'b')",
        "INSERT OR REPLACE INTO meta VALUES ('a', 'b')",
        "UPDATE runs SET pair = 'x'",
        "DELETE FROM runs",
        "TRUNCATE runs",
        "MERGE INTO meta USING (SELECT 1) ON true WHEN MATCHED THEN DELETE",
        "DROP TABLE runs",
        "DROP SCHEMA main CASCADE",
        "ALTER TABLE runs ADD COLUMN x INTEGER",
        "CREATE TABLE x AS SELECT 1",
        "CREATE TEMP TABLE x AS SELECT 1",
        "CREATE OR REPLACE VIEW leaderboard AS SELECT 1",
        "CREATE TEMP VIEW x AS SELECT 1",
        "CREATE MACRO x() AS 1",
        "CREATE FUNCTION x() AS TABLE SELECT 1",
        "CREATE SCHEMA x",
        "CREATE SEQUENCE x",
        "CREATE TYPE x AS ENUM ('a')",
        "CREATE INDEX x ON runs (run_id)",
        "CREATE TRIGGER x AFTER INSERT ON runs FOR EACH ROW SELECT 1",
        "COMMENT ON TABLE runs IS 'x'",
        "WITH x AS (INSERT INTO meta VALUES ('a', 'b') RETURNING *) SELECT * FROM x",
        "WITH x AS (UPDATE meta SET key = 'a' RETURNING *) SELECT * FROM x",
        "WITH x AS (DELETE FROM meta RETURNING *) SELECT * FROM x",
        "SELECT * FROM (DELETE FROM meta RETURNING *)",
        "EXPLAIN ANALYZE DELETE FROM meta",
        "EXPLAIN ANALYZE INSERT INTO meta VALUES ('a', 'b')",
        "SELECT nextval('x')",
        "CHECKPOINT",
        "FORCE CHECKPOINT",
        "VACUUM",
        "ANALYZE",
    )
    # other databases, extensions, secrets, settings, the process
    yield from (
        f"ATTACH '{out}.duckdb'",
        "ATTACH ':memory:' AS x",
        f"ATTACH '{snapshot}' AS x (READ_ONLY false)",
        f"ATTACH 'host=127.0.0.1 port={port}' AS x (TYPE postgres)",
        f"ATTACH '{web}' AS x",
        "ATTACH IF NOT EXISTS '/etc/passwd' AS x (TYPE sqlite)",
        "ATTACH OR REPLACE ':memory:' AS snap",
        "DETACH snap",
        "USE memory",
        "USE temp",
        "CONNECT 'x'",
        *(
            f"{verb} {name}"
            for verb in ("INSTALL", "FORCE INSTALL", "LOAD")
            for name in ("httpfs", "sqlite", "shellfs", f"'{file}'")
        ),
        "INSTALL x FROM community",
        f"INSTALL x FROM '{web}'",
        "UPDATE EXTENSIONS",
        "CREATE SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b')",
        "CREATE PERSISTENT SECRET s (TYPE http)",
        "DROP SECRET s",
        "FROM duckdb_secrets()",
        "FROM which_secret('s3://a', 's3')",
        *(
            f"SET {name} = {value}"
            for name, value in (
                ("enable_external_access", "true"),
                ("lock_configuration", "false"),
                ("threads", "64"),
                ("memory_limit", "'64GB'"),
                ("temp_directory", f"'{out}'"),
                ("home_directory", f"'{folder}'"),
                ("allow_unsigned_extensions", "true"),
                ("python_enable_replacements", "true"),
                ("allowed_directories", "['/']"),
                ("allowed_paths", "['/etc/passwd']"),
                ("autoload_known_extensions", "true"),
                ("log_query_path", f"'{out}'"),
                ("profile_output", f"'{out}'"),
                ("search_path", "'temp'"),
                ("VARIABLE x", "1"),
                ("enable_profiling", "'json'"),
            )
        ),
        "SET GLOBAL threads TO 64",
        "SET SESSION enable_profiling = 'json'",
        "RESET lock_configuration",
        "RESET enable_external_access",
        "PRAGMA database_list",
        "PRAGMA threads = 64",
        "PRAGMA enable_external_access = true",
        f"PRAGMA profiling_output = '{out}'",
        "PRAGMA enable_profiling",
        "PRAGMA import_database('/')",
        "PRAGMA force_checkpoint",
        "PRAGMA enable_logging",
        "PRAGMA version; PRAGMA user_agent",
        "CALL enable_logging()",
        f"CALL enable_logging(storage = 'file', storage_path = '{out}')",
        "CALL pragma_version()",
        "CALL start_ui()",
        "CALL start_ui_server()",
        "CALL load_aws_credentials()",
        "CALL dbgen(sf = 1)",
        "FROM force_checkpoint()",
        "SELECT getenv('HOME')",
        "SELECT getenv('PATH')",
        "SELECT http_get('http://127.0.0.1/')",
        "FROM request",
        "FROM sandbox_child",
        "SELECT * FROM os",
        "SELECT python_eval('1')",
        "SELECT system('id')",
        "SELECT shell('id')",
        ".shell id",
        ".read /etc/passwd",
        "\\! id",
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
        "DEALLOCATE p",
        "BEGIN TRANSACTION",
        "COMMIT",
        "ROLLBACK",
        "KILL 1",
    )
    # several statements, and ways out of the wrapped one
    yield from (
        "SELECT 1; SELECT 2",
        "SELECT 1; DROP TABLE runs",
        "SELECT 1;; DROP TABLE runs",
        "SELECT 1 -- \n; DROP TABLE runs",
        "SELECT 1 /* ; */; DROP TABLE runs",
        "SELECT 1; /* x */ DROP TABLE runs -- y",
        "SELECT 1) ; DROP TABLE runs; SELECT * FROM (SELECT 1",
        "SELECT 1) UNION ALL SELECT * FROM (SELECT 2",
        "SELECT 1) LIMIT 1; --",
        "SELECT 1\n) -- ",
        "SELECT 1 /*",
        "/* SELECT 1",
        "/* /* */ SELECT 1",
        "SELECT 'x",
        "SELECT $$x",
        "SELECT $a$x$b$",
        "SELECT 1;\x00DROP TABLE runs",
        "SELECT 1\uff1b DROP TABLE runs",
        "SELECT 1\u2028; DROP TABLE runs",
        "PIVOT runs ON method USING count(*)",
        "PIVOT runs ON method USING count(*); DROP TABLE runs",
        "",
        " ",
        ";",
        ";;;",
        "--",
        "/**/",
        "\x00",
        "SELECT \x00",
        "SELEC 1",
        "SELECT nope FROM runs",
        "SELECT * FROM nope",
        "SELECT nope()",
        "SELECT 1/0 FROM",
        "SELECT ?",
        "SELECT $1",
        "SELECT $x",
        "SELECT 'x'::INTEGER",
        "SELECT error('x')",
        "SELECT\ud800 1",
        "\ud800",
        "SELECT " + "(" * 10_000 + "1" + ")" * 10_000,
        "SELECT " + "[" * 10_000 + "]" * 10_000,
        "SELECT " + "-" * 1 + "+".join(["1"] * 60_000),
        "SELECT * FROM " + "(SELECT * FROM " * 2_000 + "runs" + ")" * 2_000,
        "SELECT " + "NOT " * 20_000 + "true",
        "SELECT 1 " + "UNION ALL SELECT 1 " * 5_000,
        "WITH " + ", ".join(f"a{n} AS (SELECT 1)" for n in range(3_000)) + " SELECT 2 FROM nope",
        "SELECT '" + "x" * 3_000_000,
        "SELECT 1 AS " + '"' + "x" * 3_000_000,
        "x" * 3_000_000,
        "(" * 100_000,
        "SELECT CASE " + "WHEN true THEN CASE " * 5_000,
    )


BOMBS: dict[str, Expected] = {
    "WITH RECURSIVE t(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM t) SELECT count(*) FROM t": REFUSED,
    "SELECT count(*) FROM range(10000000) a, range(10000000) b, range(10000000) c": REFUSED,
    "SELECT max(levenshtein(repeat('ab', 20000), repeat('ba', 20000) || i)) FROM range(100000) t(i)": REFUSED,
    "SELECT regexp_matches(repeat('a', 30000000), '(a|a)*b') FROM range(1000)": EITHER,
    "SELECT sum(sqrt(i) * sin(i)) FROM range(100000000000) t(i)": REFUSED,
}
"""What has no end in time"""
MEMORY: dict[str, Expected] = {
    "SELECT repeat('x', 40000000)": REFUSED,
    "SELECT length(repeat('x', 2000000000))": REFUSED,
    "SELECT range(2000000000)": REFUSED,
    "SELECT string_agg(repeat('x', 1000000), '') FROM range(10000)": REFUSED,
    "SELECT list(i) FROM range(500000000) t(i)": REFUSED,
    "SELECT format('{:>2000000000}', 'x')": REFUSED,
    "SELECT * FROM range(400) a, range(400) b, (SELECT repeat('x', 5000) AS y)": REFUSED,
    "SELECT " + ", ".join(f"{n} AS c{n}" for n in range(20_000)): EITHER,
    "SELECT regexp_extract(repeat('a', 1000), '((a{0,1000}){0,1000}){0,1000}')": EITHER,
    "SELECT regexp_matches('x', repeat('(', 1000000))": EITHER,
    "SELECT 10::HUGEINT ** 1000000": EITHER,
    "SELECT '" + "9" * 100_000 + "'::DOUBLE": EITHER,
    "SELECT json_extract('" + "[" * 50_000 + "', '$')": EITHER,
    "SELECT unnest(generate_series(TIMESTAMP '0001-01-01', TIMESTAMP '9999-01-01', INTERVAL 1 MICROSECOND))": EITHER,
}
"""What has no end in memory or in what comes back"""


class _Place:
    """A workspace with a published run, a secret beside it, and a port that nobody may call."""

    def __init__(self, scratch: Path) -> None:
        self.workspace = Workspace(scratch / "it's" / "workspace").create()
        write_run(self.workspace, "r1")
        with Owner.open(self.workspace) as owner:
            owner.ingest()
            owner.publish()
        (self.snapshot,) = self.workspace.snapshots.glob("*.duckdb")
        self.secret = scratch / "secret.csv"
        self.secret.write_text(f"a,b\n{SECRET},2\n")
        self.folder = scratch / "writable"
        self.folder.mkdir()
        self.listening = socket.socket()
        self.listening.bind(("127.0.0.1", 0))
        self.listening.listen()
        self.listening.setblocking(False)
        self._before = self._state()

    def _state(self) -> dict[str, int]:
        places = (self.workspace.root, self.folder)
        return {str(path): path.stat().st_size for place in places for path in place.rglob("*")}

    def check(self, said: str) -> None:
        """Raises GotThrough where anything was gained."""
        if SECRET in said or "root:x:0" in said:
            raise GotThrough("a file's content is in the answer")
        if self._state() != self._before:
            raise GotThrough("a file was written")
        try:
            self.listening.accept()
        except BlockingIOError:
            return
        raise GotThrough("it called over the network")


def cases(scratch: Path) -> list[Case]:
    place = _Place(scratch)
    sandbox = _Sandbox(place)
    port = place.listening.getsockname()[1]
    quoted = str(place.snapshot).replace("'", "''")
    attacks = list(dict.fromkeys(_attacks(str(place.secret), str(place.folder), quoted, port)))
    found = [Case(f"reads: {_named(sql)}", RIGHT, _reads(sandbox.run, sql, rows)) for sql, rows in READ.items()]
    found += [Case(f"attack: {_named(sql)}", REFUSED, _reads(sandbox.run, sql, None)) for sql in attacks]
    found += [Case(f"memory: {_named(sql)}", how, _reads(sandbox.alone, sql, None)) for sql, how in MEMORY.items()]
    found += [Case(f"time: {_named(sql)}", how, _reads(sandbox.alone, sql, None)) for sql, how in BOMBS.items()]
    # each twentieth attack as the page runs it
    return found + [Case(f"page: {_named(sql)}", REFUSED, _reads(sandbox.alone, sql, None)) for sql in attacks[::50]]


def _named(sql: str) -> str:
    return repr(sql if len(sql) < 90 else f"{sql[:40]} … {sql[-30:]} ({len(sql):,})")


def _reads(
    run: Callable[[str], list[tuple[Any, ...]]], sql: str, rows: list[tuple[Any, ...]] | None
) -> Callable[[Path], bool]:
    return lambda folder: (found := run(sql)) is not None and (rows is None or found == rows)


class _Sandbox:
    """`run_sql`'s child, once for all statements: this process takes on its limits when the first one comes."""

    def __init__(self, place: _Place) -> None:
        self._place, self._limited = place, False

    def run(self, sql: str) -> list[tuple[Any, ...]]:
        import duckdb

        try:
            json.dumps({"sql": sql}).encode()  # as it is handed to the child
            answer = sandbox_child.run(duckdb, str(self._place.snapshot), sql, 100)
        except (sandbox_child.Rejected, MemoryError, duckdb.OutOfMemoryException) as error:
            self._place.check(str(error))
            reason = str(error) or sandbox_child.TOO_MUCH_MEMORY
            raise QueryError(reason, sql, *getattr(error, "place", (None, None))) from None
        self._place.check(json.dumps(answer))
        return [tuple(row) for row in answer["rows"]]

    def alone(self, sql: str) -> list[tuple[Any, ...]]:
        begun = time.monotonic()
        try:
            found = run_sql(self._place.workspace, sql, limit=200_000, timeout=2 if sql in MEMORY else PATIENCE)
        except StoreError as error:
            self._place.check(str(error))
            raise
        finally:
            if time.monotonic() - begun > 5:
                raise GotThrough(f"it went on for {time.monotonic() - begun:.1f} s")
        self._place.check(str(found.rows[:100]))
        return found.rows
