"""The process that runs one user query; started by `sandbox.run_sql` with `python -I`, imports nothing of ours.

Reads one JSON request from stdin, writes one JSON answer to stdout: ``{"columns", "types", "rows", "truncated"}`` or
``{"error"}``. Its limits are set before the query is looked at; the parent kills it when time is up.
"""

import json
import re
import resource
import sys
from decimal import Decimal

ADDRESS_SPACE = 2 << 30
ANSWER_BYTES = 32 << 20
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
    "lock_configuration": "true",
}
TOO_MUCH_MEMORY = "The query needs more memory than a query may take."
CLOSING = re.compile(r";\s*(--[^\n]*\s*|/\*.*?\*/\s*)*$", re.DOTALL)
"""The end of a statement with the comments behind it."""


class Rejected(Exception):
    pass


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
        text = json.dumps({"error": str(error)})
    except (MemoryError, duckdb.OutOfMemoryException):
        text = json.dumps({"error": TOO_MUCH_MEMORY})
    except duckdb.Error as error:
        text = json.dumps({"error": plain(error)})
    sys.stdout.write(text)


def limit_resources(seconds: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def run(duckdb, database: str, sql: str, limit: int) -> dict:
    connection = duckdb.connect(database, read_only=True, config=CONFIG)
    query = statement(duckdb, sql, limit + 1)
    cursor = connection.execute(query)
    zoned = [name for name, kind, *_ in cursor.description if "WITH TIME ZONE" in str(kind)]
    if zoned:  # fetching these needs pytz
        casts = ", ".join(f'"{name}"::VARCHAR AS "{name}"' for name in (name.replace('"', '""') for name in zoned))
        cursor = connection.execute(f"SELECT * REPLACE ({casts}) FROM ({query})")
    columns = [column[0] for column in cursor.description]
    types = [str(column[1]) for column in cursor.description]
    rows = [[value(cell) for cell in row] for row in cursor.fetchmany(limit + 1)]
    return {"columns": columns, "types": types, "rows": rows[:limit], "truncated": len(rows) > limit}


def statement(duckdb, sql: str, limit: int) -> str:
    """The one statement of `sql`, wrapped. Wrapping matters: `WITH x AS (INSERT …) SELECT` counts as a SELECT."""
    kind, text = single(duckdb, sql)
    if kind == "EXPLAIN":
        return text
    if kind == "MULTI":
        raise Rejected("PIVOT needs its values spelt out: SELECT * FROM (PIVOT … ON column IN ('a', 'b') USING …).")
    if kind != "SELECT":
        raise Rejected(f"Only SELECT is allowed here, not {kind}. DESCRIBE, SHOW, SUMMARIZE and EXPLAIN work too.")
    # The second candidate drops a comment behind the semicolon; the first one comes first because what looks like
    # such a comment can be the end of a string.
    for candidate in (text.rstrip("; \n\t"), CLOSING.sub("", text)):
        wrapped = f"SELECT * FROM (\n{candidate}\n) LIMIT {limit}"
        try:
            if single(duckdb, wrapped)[0] == "SELECT":
                return wrapped
        except (duckdb.Error, Rejected):
            continue
    raise Rejected("Only a plain SELECT is allowed here: it must also work as a subquery.")


def single(duckdb, sql: str) -> tuple:
    statements = duckdb.extract_statements(sql)
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


def plain(error: Exception) -> str:
    """DuckDB's own reason, without the excerpt of a text that the user did not write."""
    text = str(error).split("\nLINE ")[0].split("\n\nLINE ")[0].strip()
    return text or type(error).__name__


if __name__ == "__main__":
    main()
