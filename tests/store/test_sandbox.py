from __future__ import annotations

import datetime
import io
import time

import pyarrow.parquet
import pytest

from sstmerge_core.errors import StoreError
from sstmerge_core.store import Owner, QueryError, run_sql
from sstmerge_core.workspace import Workspace
from tests.store.conftest import write_run


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("w") / "it's").create()
    write_run(workspace, "r1")
    with Owner.open(workspace) as owner:
        owner.ingest()
        owner.publish()
    (workspace.root / "secret.csv").write_text("a,b\n1,2\n")
    return workspace


GOOD = [
    "SELECT count(*) FROM runs",
    "WITH a AS (SELECT 1 AS x) SELECT * FROM a",
    "FROM leaderboard SELECT pair, resistance ORDER BY resistance DESC",
    "FROM runs",
    "DESCRIBE runs",
    "SHOW TABLES",
    "SUMMARIZE metrics",
    "EXPLAIN SELECT * FROM runs",
    "VALUES (1), (2)",
    "SELECT 1; -- done",
    "SELECT '; -- not the end'",
    "/* why */ SELECT 1 -- because",
    "SELECT * FROM (PIVOT runs ON method IN ('linear', 'ties') USING count(*) GROUP BY pair)",
]


@pytest.mark.parametrize("sql", GOOD)
def test_reading_works(published, sql):
    assert run_sql(published, sql, limit=5).rows


FILE = "{root}/secret.csv"
OUT = "{root}/out"
ATTACKS = [
    # reading files and the network
    f"SELECT * FROM read_csv('{FILE}')",
    f"SELECT * FROM read_text('{FILE}')",
    f"SELECT * FROM read_blob('{FILE}')",
    "SELECT * FROM glob('{root}/*')",
    f"FROM sniff_csv('{FILE}')",
    f"FROM '{FILE}'",
    "FROM 'https://example.org/x.csv'",
    # writing files
    f"COPY runs TO '{OUT}'",
    f"COPY (SELECT 1) TO '{OUT}'",
    f"EXPORT DATABASE '{OUT}'",
    "COPY runs TO '{snapshot}.tmp/x.csv'",
    f"EXPLAIN ANALYZE COPY runs TO '{OUT}'",
    f"WITH x AS (COPY runs TO '{OUT}') SELECT 1",
    # other databases, extensions, secrets
    f"ATTACH '{OUT}.duckdb'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "CONNECT 'x'",
    "CREATE SECRET s (TYPE s3)",
    "SELECT * FROM duckdb_secrets()",
    # changing data
    "INSERT INTO meta VALUES ('a', 'b')",
    "UPDATE runs SET pair = 'x'",
    "DELETE FROM runs",
    "DROP TABLE runs",
    "WITH x AS (INSERT INTO meta VALUES ('a', 'b') RETURNING *) SELECT * FROM x",
    "WITH x AS (DELETE FROM meta RETURNING *) SELECT * FROM x",
    "EXPLAIN ANALYZE INSERT INTO meta VALUES ('a', 'b')",
    "FROM query('DROP TABLE runs')",
    # settings
    "SET threads = 4",
    "SET enable_external_access = true",
    "RESET lock_configuration",
    "PRAGMA threads = 4",
    "CALL enable_logging()",
    # what no setting blocks
    "PRAGMA database_list",
    "CREATE TEMP TABLE t AS SELECT 1",
    "SET VARIABLE a = 1",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "CHECKPOINT",
    "BEGIN TRANSACTION READ ONLY",
    "VACUUM",
    "USE memory",
    # Python and the environment
    "FROM request",
    "SELECT getenv('HOME')",
    # more than one statement, and leaving the wrapper
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP TABLE runs",
    "SELECT 1) ; DROP TABLE runs; SELECT * FROM (SELECT 1",
    "SELECT 1) UNION ALL SELECT * FROM (SELECT 2",
]


@pytest.mark.parametrize("sql", ATTACKS)
def test_an_attack_is_refused_and_leaves_nothing(published, sql):
    (snapshot,) = published.snapshots.iterdir()
    root = str(published.root).replace("'", "''")
    sql = sql.replace("{root}", root).replace("{snapshot}", str(snapshot).replace("'", "''"))
    before, content = sorted(published.root.rglob("*")), snapshot.read_bytes()
    with pytest.raises(StoreError) as refused:
        run_sql(published, sql)
    assert refused.value.problems[0].fault
    assert "unterminated" not in str(refused.value), "the attack itself must be well formed"
    assert sorted(published.root.rglob("*")) == before and snapshot.read_bytes() == content


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELEC 1", 'syntax error at or near "SELEC"'),
        ("SELECT nope FROM runs", 'Referenced column "nope" not found'),
        ("SELECT * FROM rums", "Table with name rums does not exist"),
        ("", "The query is empty"),
        ("-- nothing", "The query is empty"),
        ("DROP TABLE runs", "Only SELECT is allowed here, not DROP"),
        ("SELECT 1; SELECT 2", "Only one statement at a time"),
        ("PIVOT runs ON method USING count(*)", "PIVOT needs its values spelt out"),
        ("SELECT repeat('x', 40000000)", "larger than 32 MiB"),
        ("SELECT length(repeat('x', 2000000000))", "needs more memory"),
    ],
)
def test_the_reason_is_told_plainly(published, sql, reason):
    with pytest.raises(StoreError) as refused:
        run_sql(published, sql)
    assert reason in str(refused.value) and "LINE" not in str(refused.value)


@pytest.mark.parametrize(
    ("sql", "line", "column"),
    [
        ("SELEC 1", 1, 1),
        ("SELECT label,\n  nope\nFROM runs", 2, 3),
        ("-- Größe\nSELECT 'ö', 'ö', nope FROM runs", 2, 18),
        ("  /* why */\n\n  SELECT * FROM rums; -- done", 3, 17),
        ("EXPLAIN SELECT nope FROM runs", 1, 16),
        ("SELECT 'x'::INTEGER", 1, 11),
        ("SELECT 1; SELECT 2 FROM", 1, 20),
        ("DROP TABLE runs", None, None),
        ("", None, None),
    ],
)
def test_an_error_names_its_place_in_the_sql_as_it_was_written(published, sql, line, column):
    with pytest.raises(QueryError) as refused:
        run_sql(published, sql)
    error = refused.value
    assert (error.line, error.column) == (line, column)
    if line is not None:
        written, mark = error.excerpt.split("\n")
        assert written == sql.split("\n")[line - 1] and mark == " " * (column - 1) + "^"
        assert f"query, line {line}, column {column}: " in str(error)


def test_the_excerpt_of_a_long_line_stays_short_and_marks_the_right_word(published):
    sql = "SELECT " + ", ".join(f"{number} AS c{number}" for number in range(200)) + ", nope, 1 AS last FROM runs"
    with pytest.raises(QueryError) as refused:
        run_sql(published, sql)
    written, mark = refused.value.excerpt.split("\n")
    assert len(written) < 130 and written[mark.index("^") :].startswith("nope, 1 AS last")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT max(levenshtein(repeat('ab', 20000), repeat('ba', 20000) || i)) FROM range(100000) t(i)",
        "WITH RECURSIVE t(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM t) SELECT count(*) FROM t",
    ],
)
# The first one ignores DuckDB's own interrupt for most of a minute.
def test_a_query_that_does_not_end_is_killed_in_time(published, sql):
    start = time.monotonic()
    with pytest.raises(StoreError, match="took longer than 1 s"):
        run_sql(published, sql, timeout=1)
    assert time.monotonic() - start < 3


def test_rows_beyond_the_limit_are_cut_and_said_to_be(published):
    result = run_sql(published, "SELECT i FROM range(10) t(i) ORDER BY i DESC", limit=3)
    assert result.rows == [(9,), (8,), (7,)] and result.truncated
    assert not run_sql(published, "SELECT 1", limit=1).truncated


def test_every_type_arrives_as_something_a_table_can_show(published):
    result = run_sql(
        published,
        "SELECT 1.5::DECIMAL(4,2) AS d, now() AS z, TIMESTAMP '2026-01-02 03:04:05' AS t, [1, 2] AS l,"
        " {'a': NULL} AS s, 'x'::BLOB AS b, 170141183460469231731687303715884105727::HUGEINT AS h,"
        " 'nan'::DOUBLE AS n, NULL AS nothing",
    )
    row = dict(zip(result.columns, result.rows[0], strict=True))
    assert (row["d"], row["l"], row["s"], row["nothing"]) == (1.5, [1, 2], {"a": None}, None)
    assert row["t"] == datetime.datetime(2026, 1, 2, 3, 4, 5) and row["h"] == 2**127 - 1
    assert isinstance(row["z"], str) and result.frame().shape == (1, 9)


def test_whole_numbers_stay_whole_beside_null(published):
    frame = run_sql(published, "SELECT * FROM (VALUES (20, 0.5), (NULL, NULL)) t(k, alpha)").frame()
    assert frame.to_csv(index=False) == "k,alpha\n20,0.5\n,\n"


def test_parquet_holds_exactly_the_rows_with_their_types(published):
    result = run_sql(
        published,
        "SELECT * FROM (VALUES (20, TIMESTAMP '2026-01-02', [1.5], {'a': 1}, 'x', 2::HUGEINT),"
        " (NULL, NULL, NULL, NULL, NULL, 170141183460469231731687303715884105727)) t(k, t, l, s, x, h)",
    )
    back = pyarrow.parquet.read_table(io.BytesIO(result.parquet()))
    assert back.column("k").to_pylist() == [20, None] and str(back.schema.field("k").type) == "int64"
    assert back.column("t").to_pylist()[0] == datetime.datetime(2026, 1, 2)
    assert back.column("l").to_pylist() == [[1.5], None] and back.column("s").to_pylist() == ['{"a": 1}', None]
    assert back.column("h").to_pylist() == ["2", str(2**127 - 1)]


def test_an_empty_result_is_a_parquet_file_too(published):
    result = run_sql(published, "SELECT run_id, alpha FROM runs WHERE false")
    assert pyarrow.parquet.read_table(io.BytesIO(result.parquet())).column_names == ["run_id", "alpha"]


def test_without_a_snapshot_the_answer_says_so(tmp_path):
    with pytest.raises(StoreError, match="nothing has been published yet"):
        run_sql(Workspace(tmp_path).create(), "SELECT 1")


def test_a_limit_below_one_is_refused(published):
    with pytest.raises(StoreError, match="at least one row"):
        run_sql(published, "SELECT 1", limit=0)
