"""The process that runs one user query; started by `sandbox.run_sql` with `python -I`, imports nothing of ours.

Reads one JSON request from stdin, writes one JSON answer to stdout: ``{"columns", "types", "rows", "truncated"}`` or
``{"error", "line", "column"}``: the place in the SQL, counted from 1, null where DuckDB names none. Its limits are set
before the query is looked at; the parent kills it when time is up.
"""

import json
import re
import resource
import sys
from decimal import Decimal

ADDRESS_SPACE = 2 << 30
ANSWER_BYTES = 32 << 20
LONGEST = 50_000  # characters of a query
CONFIG = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",
    "threads": "1",
    "memory_limit": "512MB",
    "max_temp_directory_size": "0B",
    "temp_directory": "",  # not only its size: COPY could write into it
    "errors_as_json": "true",  # with the place as a number instead of an excerpt of the wrapped text
    "lock_configuration": "true",
}
TOO_MUCH_MEMORY = "The query needs more memory than a query may take."
CLOSING = re.compile(r";\s*(--[^\n]*\s*|/\*.*?\*/\s*)*$", re.DOTALL)
"""The end of a statement with the comments behind it."""


class Rejected(Exception):
    """Its message is the reason in words. `place`: line and column in the SQL, each from 1, where they are known."""

    def __init__(self, reason: str, place: tuple | None = None):
        super().__init__(reason)
        self.place = place or (None, None)


def main() -> None:
    request = json.load(sys.stdin)
    import duckdb

    limit_resources(int(request["seconds"]) + 1)
    try:
        answer = run(duckdb, request["database"], request["sql"], request["limit"])
        text = json.dumps(answer)
        if len(text) > ANSWER_BYTES:
            raise Rejected("The result is larger than 32 MiB. Select fewer columns or rows.")
    except Rejected as error:
        text = json.dumps({"error": str(error), "line": error.place[0], "column": error.place[1]})
    except (MemoryError, duckdb.OutOfMemoryException):
        text = json.dumps({"error": TOO_MUCH_MEMORY})
    sys.stdout.write(text)


def limit_resources(seconds: int) -> None:
    if sys.platform != "darwin":  # whose kernel refuses this limit
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def run(duckdb, database: str, sql: str, limit: int) -> dict:
    """The query's columns and first `limit` rows. Raises Rejected with the reason and its place in `sql`."""
    if len(sql) > LONGEST:  # thousands of UNIONs take gigabytes to plan
        raise Rejected(f"The query is longer than {LONGEST:,} characters.")
    if any("\ud800" <= letter <= "\udfff" for letter in sql):
        raise Rejected("The query has half a character in it (a lone surrogate). Write it whole.")
    connection = duckdb.connect(database, read_only=True, config=CONFIG)
    text, query = sql, sql
    try:
        text, query = statement(duckdb, connection, sql, limit + 1)
        return fetched(connection, query, limit)
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        reason, position = told(error)
        # `text` stands in the wrapped query as it stands in what the user wrote
        shift = sql.encode().find(text.encode()) - query.encode().find(text.encode())
        raise Rejected(reason, None if position is None else place(sql, position + shift)) from None


def fetched(connection, query: str, limit: int) -> dict:
    cursor = connection.execute(query)
    zoned = [name for name, kind, *_ in cursor.description if "WITH TIME ZONE" in str(kind)]
    if zoned:  # fetching these needs pytz
        casts = ", ".join(f'"{name}"::VARCHAR AS "{name}"' for name in (name.replace('"', '""') for name in zoned))
        cursor = connection.execute(f"SELECT * REPLACE ({casts}) FROM ({query})")
    columns = [column[0] for column in cursor.description]
    types = [str(column[1]) for column in cursor.description]
    rows = [[value(cell) for cell in row] for row in cursor.fetchmany(limit + 1)]
    return {"columns": columns, "types": types, "rows": rows[:limit], "truncated": len(rows) > limit}


def statement(duckdb, connection, sql: str, limit: int) -> tuple:
    """The one statement of `sql` as it was written, and wrapped.

    Wrapping matters: `WITH x AS (INSERT …) SELECT` counts as a SELECT.
    """
    kind, text = single(connection, sql)
    if kind == "EXPLAIN":
        return text, text
    if kind == "MULTI":
        raise Rejected("PIVOT needs its values spelt out: SELECT * FROM (PIVOT … ON column IN ('a', 'b') USING …).")
    if kind != "SELECT":
        raise Rejected(f"Only SELECT is allowed here, not {kind}. DESCRIBE, SHOW, SUMMARIZE and EXPLAIN work too.")
    # The second candidate drops a comment behind the semicolon; the first one comes first because what looks like
    # such a comment can be the end of a string.
    for candidate in (text.rstrip("; \n\t"), CLOSING.sub("", text)):
        wrapped = f"SELECT * FROM (\n{candidate}\n) LIMIT {limit}"
        try:
            if single(connection, wrapped)[0] == "SELECT":
                return candidate, wrapped
        except (duckdb.Error, Rejected):
            continue
    raise Rejected("Only a plain SELECT is allowed here: it must also work as a subquery.")


def single(connection, sql: str) -> tuple:
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise Rejected("The query is empty." if not statements else "Only one statement at a time.")
    try:
        kind = statements[0].type.name
    except ValueError:  # DuckDB 2.0 has statements, such as CONNECT, that its Python client has no name for
        kind = "this statement"
    return kind, statements[0].query.strip()


def value(cell):
    """A cell as JSON: numbers, text and truth as they are, nested values within, the rest as text."""
    if cell is None or isinstance(cell, (bool, int, float, str)):
        return cell
    if isinstance(cell, (list, tuple)):
        return [value(item) for item in cell]
    if isinstance(cell, dict):
        return {str(key): value(item) for key, item in cell.items()}
    if isinstance(cell, Decimal):
        return float(cell)
    return cell.isoformat() if hasattr(cell, "isoformat") else str(cell)


def told(error: Exception) -> tuple:
    """DuckDB's own reason, and the byte of the query that it speaks of (None where it names none)."""
    _, brace, rest = str(error).partition("{")
    try:
        fields = json.loads(brace + rest)
        reason = fields["exception_message"]
    except (ValueError, KeyError, TypeError):
        return str(error).strip() or type(error).__name__, None
    return reason, int(fields["position"]) if str(fields.get("position", "")).isdigit() else None


def place(sql: str, byte: int) -> tuple | None:
    """Line and column of a byte of `sql`, each from 1."""
    whole = sql.encode()
    if not 0 <= byte <= len(whole):
        return None
    before = whole[:byte].decode(errors="ignore")
    return before.count("\n") + 1, len(before) - before.rfind("\n")


if __name__ == "__main__":
    main()
