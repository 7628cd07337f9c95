"""Query functions: a DuckDB cursor in, a DataFrame out. With schema.sql, the only SQL of the project.

Every function takes `con`, a cursor of `Owner` or `Snapshot`. Times are UTC without a zone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sstmerge_core.metrics.comparable import evaluation_key
from sstmerge_core.metrics.labels import DEFAULT_JUDGE

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

    Connection = duckdb.DuckDBPyConnection

MAIN_TABLES = ("detail", "paper")
"""Reported tables shown by default; the others repeat the main table or disagree with it."""


def leaderboard(
    con: Connection,
    *,
    pairs: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    sources: Sequence[str] | None = None,
    statuses: Sequence[str] | None = ("finished",),
    reported_tables: Sequence[str] | None = MAIN_TABLES,
) -> pd.DataFrame:
    """One row a run, newest first, reported figures last; None stands for no restriction."""
    where, values = _where({"pair": pairs, "method": methods, "source": sources, "status": statuses})
    if reported_tables is not None:
        where += " AND (reported_table IS NULL OR list_contains(?, reported_table))"
        values.append(list(reported_tables))
    sql = f"SELECT * FROM leaderboard WHERE {where} ORDER BY created_at DESC NULLS LAST, run_id"
    return _frame(con, sql, values)


def front(con: Connection, *, pairs: Sequence[str] | None = None, sources: Sequence[str] | None = None) -> pd.DataFrame:
    """The runs that none of the same pair, source, task, metric and split dominates on (resistance, utility)."""
    where, values = _where({"pair": pairs, "source": sources})
    return con.execute(f"SELECT * FROM front WHERE {where} ORDER BY pair, source, resistance, run_id", values).df()


def references(con: Connection, pair: str) -> pd.DataFrame:
    """The base model and the pair's two adapters alone: leaderboard rows with the utility of the *pair's* own suite."""
    found = con.execute(
        """
        WITH own AS (
            SELECT DISTINCT r.source, r.base, r.utility, r.safety, r.utility_suite, r.utility_metric, r.split
            FROM runs r
            WHERE r.pair = ? AND r.method NOT IN ('base', 'adapter')
        )
        SELECT DISTINCT l.* REPLACE (
            m.value AS utility, m.ci_low AS utility_low, m.ci_high AS utility_high, m.n AS utility_n,
            m.suite AS utility_suite, m.metric AS utility_metric
        ), r.recipe
        FROM own JOIN runs r ON r.source = own.source AND r.base IS NOT DISTINCT FROM own.base
            AND r.split IS NOT DISTINCT FROM own.split
            AND (r.method = 'base' OR r.method = 'adapter' AND r.pair IN (own.utility, own.safety))
        JOIN leaderboard l USING (run_id)
        JOIN metrics m ON m.run_id = r.run_id AND m.metric = own.utility_metric AND m.suite = own.utility_suite
            AND NOT contains(m.judge, ':')  -- what other encoders said of the stored answers, when asked
        WHERE r.status = 'finished' ORDER BY l.source, l.pair
        """,
        [pair],
    ).df()
    # the base and S may have answered other pairs' tasks as well: what counts here is this pair's
    keys = [
        evaluation_key(recipe, "*", suite)
        for recipe, suite in zip(found["recipe"], found["utility_suite"], strict=True)
    ]
    return found.drop(columns="recipe").assign(comparable=keys)


def pair_runs(con: Connection, pair: str, *, sources: Sequence[str] | None = None) -> pd.DataFrame:
    """The finished runs of a pair with its base model and single adapters: everything that one picture shows."""
    import pandas as pd

    alone = references(con, pair)
    if sources is not None:
        alone = alone[alone["source"].isin(sources)]
    merged = leaderboard(con, pairs=[pair], sources=sources)
    parts = [part for part in (merged, alone) if len(part)] or [merged]
    return pd.concat(parts, ignore_index=True).drop_duplicates("run_id", ignore_index=True)


def alpha_curves(
    con: Connection,
    pair: str,
    methods: Sequence[str] | None = None,
    sources: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Finished runs of a pair with an α, ordered by method, k and α; `prompts`: how many of its first suite."""
    where, values = _where({"pair": [pair], "method": methods, "source": sources})
    order = "source, method, k, layerwise, alpha, created_at, run_id"
    prompts = "SELECT (r.recipe->>'$.evaluation.suites[0].n')::INTEGER FROM runs r WHERE r.run_id = c.run_id"
    sql = f"SELECT *, ({prompts}) AS prompts FROM alpha_curves c WHERE {where} ORDER BY {order}"
    return _frame(con, sql, values)


def without_alpha(con: Connection, pair: str, *, but: Sequence[str] = ()) -> int:
    """How many finished measured runs of a pair have no α, those of the methods `but` left out."""
    sql = """
        SELECT count(*) FROM runs WHERE pair = ? AND source = 'measured' AND status = 'finished' AND alpha IS NULL
            AND NOT list_contains(?, method)
    """
    row = con.execute(sql, [pair, list(but)]).fetchone()
    return int(row[0]) if row else 0


def run(con: Connection, run_id: str) -> dict[str, Any] | None:
    """A run's row with `parameters`, `recipe` and `versions` as dicts, and its `artifacts` (as recorded, a list).

    `own_name` is the name that somebody gave it, `named_by` who that was; None where nobody did.
    """
    sql = """
        SELECT r.*, n.name AS own_name, n."user" AS named_by FROM runs r LEFT JOIN names n USING (run_id)
        WHERE r.run_id = ?
    """
    cursor = con.execute(sql, [run_id])
    columns = [column[0] for column in cursor.description]
    row = cursor.fetchone()
    if row is None:
        return None
    found = dict(zip(columns, row, strict=True))
    found |= {column: json.loads(found[column] or "{}") for column in ("parameters", "recipe", "versions")}
    artifacts = "SELECT data FROM events WHERE run_id = ? AND event = 'artifact' ORDER BY seq"
    # A resumed run may record an artifact again: the last one of a name counts.
    named = {item.get("name"): item for item in (json.loads(d) for (d,) in con.execute(artifacts, [run_id]).fetchall())}
    return found | {"artifacts": list(named.values())}


def leaderboard_row(con: Connection, run_id: str) -> dict[str, Any] | None:
    """One run's row of the leaderboard, whatever its status; None where there is no such run."""
    rows = con.execute("SELECT * FROM leaderboard WHERE run_id = ?", [run_id]).df()
    return None if rows.empty else rows.iloc[0].to_dict()


def runs_by_id(con: Connection, run_ids: Sequence[str]) -> pd.DataFrame:
    """Leaderboard rows of those of `run_ids` that have finished, in the order of α within a method."""
    sql = "SELECT * FROM leaderboard WHERE status = 'finished' AND list_contains(?, run_id) ORDER BY method, k, alpha"
    return con.execute(sql, [list(run_ids)]).df()


def same_setting(con: Connection, run_id: str) -> pd.DataFrame:
    """``run_id`` and ``recipe`` of the finished runs that merged the same in the same way as this one, newest first."""
    sql = """
        SELECT run_id, recipe FROM runs
        WHERE source = 'measured' AND (status = 'finished' OR run_id = ?)
            AND setting = (SELECT setting FROM runs WHERE run_id = ?)
        ORDER BY created_at DESC, run_id
    """
    return con.execute(sql, [run_id, run_id]).df()


def comparable_runs(con: Connection) -> pd.DataFrame:
    """The finished measured runs, newest first, with what a name of theirs needs and no other figure than `n`."""
    sql = """
        SELECT run_id, r.pair, r.method, l.label, l.own_name, r.utility_suite, r.utility_metric,
            r.split, r.status, r.source, r.setting, r.seed, r.dtype, r.created_at,
            coalesce(l.resistance_n, l.utility_n) AS n
        FROM runs r LEFT JOIN leaderboard l USING (run_id)
        WHERE r.source = 'measured' AND r.status = 'finished' ORDER BY r.created_at DESC, run_id
    """
    return con.execute(sql).df()


def newest_with_reference(con: Connection) -> list[str]:
    """The run that the newest finished merge was measured against, and that merge; empty where there is none."""
    sql = """
        SELECT m.reference, r.run_id FROM runs r JOIN metrics m USING (run_id) JOIN runs f ON f.run_id = m.reference
        WHERE r.source = 'measured' AND r.status = 'finished' AND f.status = 'finished'
        ORDER BY r.created_at DESC, r.run_id LIMIT 1
    """
    return list(con.execute(sql).fetchone() or ())


def run_metrics(con: Connection, run_id: str) -> pd.DataFrame:
    """A run's rows of the metrics table, with `reference_name`: what the run is called that it is compared with."""
    sql = """
        SELECT m.*,
            CASE WHEN f.method = 'adapter' AND f.own_name IS NULL THEN f.pair || ' alone' ELSE f.label END
                AS reference_name
        FROM metrics m LEFT JOIN leaderboard f ON f.run_id = m.reference
        WHERE m.run_id = ? ORDER BY metric, suite, judge
    """
    return con.execute(sql, [run_id]).df()


def run_samples(con: Connection, run_id: str, suite: str | None = None, judge: str = DEFAULT_JUDGE) -> pd.DataFrame:
    """Every prompt and answer of a run with the judge's `label`, `score` and `raw` (NULL where it gave none)."""
    return con.execute(
        """
        SELECT s.suite, s.prompt_id, s.topic, s.prompt, s.response, s.reference, s.n_tokens, s.stopped, s.asked,
            s.scored, v.judge, v.label, v.score, v.raw
        FROM samples s LEFT JOIN verdicts v
            ON v.run_id = s.run_id AND v.suite = s.suite AND v.prompt_id = s.prompt_id AND v.judge = ?
        WHERE s.run_id = ? AND (?::VARCHAR IS NULL OR s.suite = ?)
        ORDER BY s.suite, s.prompt_id
        """,
        [judge, run_id, suite, suite],
    ).df()


def answered(con: Connection, run_id: str) -> int:
    """How many answers of a run are stored."""
    return (con.execute("SELECT count(*) FROM samples WHERE run_id = ?", [run_id]).fetchone() or (0,))[0]


def hand_labels(con: Connection, run_id: str) -> pd.DataFrame:
    """The last label by hand of each answer of a run, whoever gave it: columns suite, prompt_id, hand, reader, t."""
    return con.execute(
        """
        SELECT suite, prompt_id, label AS hand, judge AS reader, t FROM verdicts
        WHERE run_id = ? AND (judge = 'hand' OR starts_with(judge, 'hand:')) AND label IS NOT NULL
        QUALIFY row_number() OVER (PARTITION BY suite, prompt_id ORDER BY t DESC, judge) = 1
        ORDER BY suite, prompt_id
        """,
        [run_id],
    ).df()


def tags(con: Connection, run_id: str | None = None) -> pd.DataFrame:
    """The tags of one run, or of all: columns run_id, tag, user, t, in the order in which they were put on."""
    sql = """SELECT run_id, tag, "user", t FROM tags WHERE ?::VARCHAR IS NULL OR run_id = ? ORDER BY t, tag"""
    return con.execute(sql, [run_id, run_id]).df()


def tag_names(con: Connection) -> list[str]:
    """Every tag that a run has, the most frequent first; upper and lower case are one tag."""
    sql = "SELECT any_value(tag) FROM tags GROUP BY lower(tag) ORDER BY count(*) DESC, 1"
    return [tag for (tag,) in con.execute(sql).fetchall()]


def notes(con: Connection, run_id: str) -> pd.DataFrame:
    """The notes about a run, the newest first: columns note_id, note, user, t."""
    sql = 'SELECT note_id, note, "user", t FROM notes WHERE run_id = ? ORDER BY t DESC, note_id'
    return con.execute(sql, [run_id]).df()


def measured_against(con: Connection, run_id: str) -> list[str]:
    """The runs whose Safety Tax has this run as its reference."""
    sql = "SELECT DISTINCT run_id FROM metrics WHERE reference = ? ORDER BY run_id"
    return [other for (other,) in con.execute(sql, [run_id]).fetchall()]


def sweeps_of(con: Connection, run_id: str) -> list[str]:
    """Names of the sweeps that a run is a point of, the newest first."""
    sql = "SELECT name FROM sweeps WHERE list_contains(run_ids::VARCHAR[], ?) ORDER BY created_at DESC, sweep_id"
    return [name for (name,) in con.execute(sql, [run_id]).fetchall()]


def run_stages(con: Connection, run_id: str) -> pd.DataFrame:
    """What a run did and how long it took: columns t, event, stage, status, seconds, units, note."""
    return con.execute(
        """
        SELECT t, event, data->>'stage' AS stage, data->>'status' AS status, (data->>'seconds')::DOUBLE AS seconds,
            (data->>'units')::DOUBLE AS units, data->>'note' AS note
        FROM events WHERE run_id = ? AND event <> 'plan' ORDER BY seq
        """,
        [run_id],
    ).df()


def unreadable_lines(con: Connection, run_id: str | None = None) -> int:
    """How many lines of a run's event file, or of all, were damaged and tell nothing any more."""
    sql = "SELECT count(*) FROM events WHERE event = 'unreadable_line' AND coalesce(run_id = ?, true)"
    return int((con.execute(sql, [run_id]).fetchone() or (0,))[0])


def spectrum(con: Connection, run_id: str) -> pd.DataFrame:
    """Generalised eigenvalues: columns module ('' is the pooled problem), idx, eigenvalue."""
    sql = "SELECT module, idx, eigenvalue FROM spectra WHERE run_id = ? ORDER BY module, idx"
    return con.execute(sql, [run_id]).df()


def module_stats(con: Connection, subject: str) -> pd.DataFrame:
    """Statistics per module of a run or a pair: columns module ('' is pooled), stat, value."""
    sql = "SELECT module, stat, value FROM module_stats WHERE subject = ? ORDER BY module, stat"
    return con.execute(sql, [subject]).df()


def report_runs(
    con: Connection,
    *,
    pairs: Sequence[str] | None = None,
    sources: Sequence[str] | None = None,
    run_ids: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Finished runs of every split and every reported table: leaderboard columns with `base`, `parameters`, `recipe`
    (the last two JSON text) and the interval of the Safety Tax.
    """
    where, values = _where({"l.pair": pairs, "l.source": sources, "l.run_id": run_ids})
    sql = f"""
        SELECT l.*, r.base, r.parameters, r.recipe, m.ci_low AS safety_tax_low, m.ci_high AS safety_tax_high
        FROM leaderboard l JOIN runs r USING (run_id)
        LEFT JOIN metrics m ON m.run_id = l.run_id AND m.metric = 'safety_tax' AND m.suite = l.utility_suite
            AND m.judge = l.judge
        WHERE l.status = 'finished' AND {where} ORDER BY l.pair, l.source, l.method, l.k, l.layerwise, l.alpha, l.run_id
    """
    return con.execute(sql, values).df()


def answers(con: Connection, run_ids: Sequence[str], judge: str) -> pd.DataFrame:
    """Every answer of `run_ids`: run_id, suite, prompt_id, topic, response, reference, scored and label."""
    # both sides are cut down first: joining every verdict takes three times as long
    sql = """
        WITH asked AS (FROM samples WHERE run_id IN (SELECT unnest($runs))),
            judged AS (FROM verdicts WHERE judge = $judge AND run_id IN (SELECT unnest($runs)))
        SELECT run_id, suite, prompt_id, topic, response, reference, scored, label
        FROM asked LEFT JOIN judged USING (run_id, suite, prompt_id) ORDER BY run_id, suite, prompt_id
    """
    return con.execute(sql, {"runs": list(run_ids), "judge": judge}).df()


def both_judged(con: Connection, run_ids: Sequence[str], first: str, second: str) -> pd.DataFrame:
    """Answers that two judges judged: run_id, suite, prompt_id, topic, prompt, response, labels `first`, `second`."""
    sql = """
        WITH one AS (FROM verdicts WHERE judge = $first AND run_id IN (SELECT unnest($runs)) AND label IS NOT NULL),
            two AS (FROM verdicts WHERE judge = $second AND run_id IN (SELECT unnest($runs)) AND label IS NOT NULL),
            asked AS (FROM samples WHERE run_id IN (SELECT unnest($runs)))
        SELECT run_id, suite, prompt_id, asked.topic, asked.prompt, asked.response, one.label AS first,
            two.label AS second
        FROM asked JOIN one USING (run_id, suite, prompt_id) JOIN two USING (run_id, suite, prompt_id)
        ORDER BY run_id, suite, prompt_id
    """
    return con.execute(sql, {"runs": list(run_ids), "first": first, "second": second}).df()


def judges_of(con: Connection, run_ids: Sequence[str]) -> list[str]:
    """Who has judged answers of any of `run_ids`, by name; readers by hand left out."""
    sql = """
        SELECT DISTINCT judge FROM verdicts
        WHERE run_id IN (SELECT unnest(?)) AND judge <> 'hand' AND NOT starts_with(judge, 'hand:') ORDER BY judge
    """
    return [str(row[0]) for row in con.execute(sql, [list(run_ids)]).fetchall()]


def inspected_pair(con: Connection, *, base: str, utility: str, safety: str) -> str | None:
    """The `pair_id` of the newest inspection of these three (by SHA-256), None where there is none."""
    sql = """
        SELECT pair_id FROM pair_inspections WHERE base = ? AND utility = ? AND safety = ?
        ORDER BY inspected_at DESC LIMIT 1
    """
    row = con.execute(sql, [base, utility, safety]).fetchone()
    return row[0] if row else None


def recent_runs(con: Connection, limit: int = 10) -> pd.DataFrame:
    """The measured runs started last, whatever became of them."""
    sql = "SELECT * FROM leaderboard WHERE source = 'measured' ORDER BY created_at DESC, run_id LIMIT ?"
    return con.execute(sql, [limit]).df()


def counts(con: Connection) -> dict[str, int]:
    """How many runs (measured), finished runs, adapters, samples and reported rows there are."""
    sql = """
        SELECT count(*) FILTER (source = 'measured') AS runs,
            count(*) FILTER (source = 'measured' AND status = 'finished') AS finished,
            (SELECT count(*) FROM adapters WHERE NOT removed) AS adapters,
            (SELECT count(*) FROM samples) AS samples,
            count(*) FILTER (source = 'reported') AS reported
        FROM runs
    """
    cursor = con.execute(sql)
    names = [column[0] for column in cursor.description]
    return dict(zip(names, cursor.fetchone() or (), strict=True))


def adapters(con: Connection) -> pd.DataFrame:
    """Registered adapters by name; `scores` is JSON text."""
    return con.execute("SELECT * EXCLUDE (removed) FROM adapters WHERE NOT removed ORDER BY name, sha256").df()


def failed_runs(con: Connection, run_ids: Sequence[str]) -> pd.DataFrame:
    """Those of `run_ids` that failed and have not been started again since: run_id, label, error."""
    sql = """
        SELECT r.run_id, l.label, r.error FROM runs r JOIN leaderboard l USING (run_id)
        WHERE r.status = 'failed' AND list_contains(?, r.run_id) ORDER BY l.label
    """
    return con.execute(sql, [list(run_ids)]).df()


def runs_merged_from(con: Connection, sha256: str) -> pd.DataFrame:
    """The finished merges whose recipe names this adapter, newest first: leaderboard rows."""
    sql = """
        SELECT l.* FROM leaderboard l JOIN runs r USING (run_id)
        WHERE r.status = 'finished' AND r.method NOT IN ('base', 'adapter')
            AND list_contains(json_extract_string(r.recipe, '$.adapters[*].sha256'), ?)
        ORDER BY l.created_at DESC NULLS LAST, l.run_id
    """
    return con.execute(sql, [sha256]).df()


def peak_memory(con: Connection, base: str, device: str, dtype: str = "float32") -> dict[str, float]:
    """method → the most bytes that a finished run of it took at its peak, with this base in this format there."""
    sql = """
        SELECT method, max(peak_memory_bytes) FROM runs
        WHERE source = 'measured' AND status = 'finished' AND peak_memory_bytes > 0 AND base = ? AND device = ?
            AND coalesce(dtype, 'float32') = ?
        GROUP BY method
    """
    return {method: float(peak) for method, peak in con.execute(sql, [base, device, dtype]).fetchall()}


def pairs(con: Connection) -> list[str]:
    """Pairs that have runs: measured ones first, then by name."""
    sql = "SELECT pair FROM runs WHERE pair IS NOT NULL GROUP BY pair ORDER BY bool_and(source = 'reported'), pair"
    return [pair for (pair,) in con.execute(sql).fetchall()]


def merge_pairs(con: Connection) -> list[str]:
    """Pairs with finished merges, the one with most measured ones first; single adapters and bases are no pair."""
    sql = """
        SELECT pair FROM runs
        WHERE pair IS NOT NULL AND status = 'finished' AND method NOT IN ('base', 'adapter', 'fine_tuned')
        GROUP BY pair ORDER BY count(*) FILTER (source = 'measured') DESC, count(*) DESC, pair
    """
    return [pair for (pair,) in con.execute(sql).fetchall()]


def pairs_on_test(con: Connection, source: str | None = None) -> list[str]:
    """Pairs with finished runs on test prompts, or with figures of a report's main table."""
    sql = """
        SELECT DISTINCT pair FROM leaderboard
        WHERE pair IS NOT NULL AND status = 'finished' AND coalesce(split, 'test') = 'test'
            AND coalesce(reported_table, 'detail') = 'detail' AND (?::VARCHAR IS NULL OR source = ?)
        ORDER BY pair
    """
    return [pair for (pair,) in con.execute(sql, [source, source]).fetchall()]


def merges_of(con: Connection, pair: str, source: str) -> int:
    """How many finished merges a pair has from one source."""
    sql = """
        SELECT count(*) FROM runs WHERE pair = ? AND source = ? AND status = 'finished'
            AND method NOT IN ('base', 'adapter', 'fine_tuned')
    """
    return int((con.execute(sql, [pair, source]).fetchone() or (0,))[0])


def alpha_pairs(con: Connection) -> list[str]:
    """Pairs that have an α curve, the one with most measured points first."""
    sql = """
        SELECT pair FROM alpha_curves GROUP BY pair
        ORDER BY count(*) FILTER (source = 'measured') DESC, count(*) DESC, pair
    """
    return [pair for (pair,) in con.execute(sql).fetchall()]


def sweeps(con: Connection) -> pd.DataFrame:
    """Sweeps, newest first, with how many of their runs have finished; `run_ids` is a list."""
    return con.execute(
        """
        SELECT s.sweep_id, s.name, s."user", s.recipe_count, s.run_ids::VARCHAR[] AS run_ids, s.created_at,
            count(r.run_id) FILTER (r.status = 'finished') AS finished
        FROM sweeps s LEFT JOIN runs r ON list_contains(s.run_ids::VARCHAR[], r.run_id)
        GROUP BY ALL ORDER BY s.created_at DESC, s.sweep_id
        """
    ).df()


def schema(con: Connection) -> pd.DataFrame:
    """Tables and views with their columns, for the Query page: columns table, column, type."""
    return con.execute(
        """
        SELECT table_name AS "table", column_name AS "column", data_type AS "type" FROM information_schema.columns
        WHERE table_catalog = current_database() AND table_schema = 'main' AND table_name NOT IN ('meta', 'ingested')
        ORDER BY table_name, ordinal_position
        """
    ).df()


def _frame(con: Connection, sql: str, values: Sequence[Any]) -> pd.DataFrame:
    """The answer by way of Arrow, which takes thousands of rows with text a third of the time."""
    import pandas as pd
    import pyarrow as pa

    kinds = {pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    return con.sql(sql, params=list(values)).to_arrow_table().to_pandas(types_mapper=kinds.get)


def _where(filters: dict[str, Sequence[str] | None]) -> tuple[str, list[Any]]:
    used = {column: list(values) for column, values in filters.items() if values is not None}
    return " AND ".join(["true", *(f"list_contains(?, {column})" for column in used)]), list(used.values())
