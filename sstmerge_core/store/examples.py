"""A dozen queries that teach the schema: each a question that a team asks, and each about another part of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Example:
    title: str
    teaches: str
    """Which tables, and which piece of SQL."""
    sql: str
    view: Mapping[str, str] = field(default_factory=dict)
    """How its result is best seen, in the words of the Query page's link; empty: a table."""


def _chart(kind: str, x: str, y: str, colour: str = "") -> Mapping[str, str]:
    return {"view": "chart", "kind": kind, "x": x, "y": y, "colour": colour}


EXAMPLES = (
    Example(
        "Leaderboard",
        "The view leaderboard has one row a run: filter it, sort it.",
        """SELECT label, pair, resistance, utility, over_refusal, resistance_n AS n, run_id
FROM leaderboard
WHERE source = 'measured' AND status = 'finished'
ORDER BY resistance + utility DESC
LIMIT 20""",
    ),
    Example(
        "The front of every pair",
        "The view front: merges that no other merge of the pair beats on both measures.",
        """SELECT pair, method, label, resistance, utility, over_refusal, run_id
FROM front
WHERE source = 'measured' AND method NOT IN ('base', 'adapter')
ORDER BY pair, resistance""",
        _chart("scatter", "resistance", "utility", "method"),
    ),
    Example(
        "Safety along α",
        "The view alpha_curves; QUALIFY keeps the series with several points, a subquery picks the pair with most.",
        """SELECT pair, concat_ws(' k=', method, k) AS series, alpha, resistance, utility, over_refusal, run_id
FROM alpha_curves
WHERE source = 'measured' AND pair = (
    SELECT pair FROM alpha_curves WHERE source = 'measured'
    GROUP BY pair ORDER BY count(DISTINCT alpha) DESC, pair LIMIT 1
)
QUALIFY count(DISTINCT alpha) OVER (PARTITION BY series) > 1
ORDER BY series, alpha""",
        _chart("line", "alpha", "resistance", "series"),
    ),
    Example(
        "Best α per method",
        "GROUP BY ALL with arg_max: which α gave the largest sum.",
        """SELECT pair, method, arg_max(alpha, resistance + utility) AS best_alpha,
       max(resistance + utility) AS best_sum, count(*) AS runs
FROM leaderboard
WHERE source = 'measured' AND alpha IS NOT NULL
GROUP BY ALL
ORDER BY pair, best_sum DESC""",
    ),
    Example(
        "Surely safer than averaging",
        "The table metrics is long (a row a metric, suite and judge) and has the 95 % intervals: these do not overlap.",
        """WITH safety AS (
    SELECT r.pair, r.split, r.method, r.label, m.suite, m.value, m.ci_low, m.ci_high, m.n, r.run_id
    FROM metrics m JOIN runs r USING (run_id)
    WHERE m.metric = 'resistance' AND r.source = 'measured'
)
SELECT s.pair, s.label, s.value AS resistance, s.ci_low AS resistance_low, s.ci_high AS resistance_high,
       max(a.ci_high) AS averaging_high, s.n, s.run_id
FROM safety s JOIN safety a USING (pair, split, suite)
WHERE a.method = 'average' AND s.method <> 'average'
GROUP BY ALL
HAVING resistance_low > averaging_high
ORDER BY s.pair, resistance DESC""",
    ),
    Example(
        "Harmless prompts that get refused",
        "samples holds the answers, verdicts what a judge said of them; they join by run, suite and prompt.",
        """SELECT s.prompt, count(*) AS refused,
       (SELECT count(DISTINCT run_id) FROM samples WHERE suite = 'near_miss') AS runs
FROM samples s JOIN verdicts v USING (run_id, suite, prompt_id)
WHERE s.suite = 'near_miss' AND v.judge = 'refusal_regex_v2' AND v.label = 'refusal'
GROUP BY s.prompt
ORDER BY refused DESC
LIMIT 20""",
    ),
    Example(
        "Where A refused and B did not",
        "Answers of two methods side by side: the same prompts joined twice.",
        """WITH answer AS (
    SELECT r.pair, r.method, r.label AS run, s.prompt_id, s.prompt, s.response, v.label AS verdict
    FROM samples s JOIN verdicts v USING (run_id, suite, prompt_id) JOIN runs r USING (run_id)
    WHERE s.suite = 'harmful' AND v.judge = 'refusal_regex_v2'
)
SELECT a.prompt, a.run AS refused_by, a.response AS refusal, b.run AS answered_by, b.response AS answer
FROM answer a JOIN answer b USING (pair, prompt_id)
WHERE a.method = 'sst_gevp' AND a.verdict = 'refusal' AND b.method = 'linear' AND b.verdict = 'not_refused'
LIMIT 50""",
    ),
    Example(
        "Refusals by topic",
        "count(*) FILTER counts what fulfils a condition: the share of refusals per topic, weakest first.",
        """SELECT s.topic, round(count(*) FILTER (v.label = 'refusal') / count(*), 3) AS refused, count(*) AS answers
FROM samples s JOIN verdicts v USING (run_id, suite, prompt_id) JOIN runs r USING (run_id)
WHERE s.suite = 'harmful' AND v.judge = 'refusal_regex_v2' AND r.method NOT IN ('base', 'adapter')
GROUP BY s.topic
ORDER BY refused""",
        _chart("bar", "topic", "refused"),
    ),
    Example(
        "Safety energy kept in each layer",
        "module_stats has a row a module and statistic; regexp_extract takes the layer out of the module's name.",
        """SELECT regexp_extract(s.module, 'layers\\.(\\d+)\\.', 1)::INTEGER AS layer, r.method,
       round(avg(s.value), 4) AS kept_harm_energy
FROM module_stats s JOIN runs r ON r.run_id = s.subject
WHERE s.stat = 'kept_harm_energy' AND s.module <> '' AND r.method IN ('sst_gevp', 'sst_shield')
GROUP BY ALL
ORDER BY r.method, layer""",
        _chart("line", "layer", "kept_harm_energy", "method"),
    ),
    Example(
        "Spectra",
        "The eigenvalues of the whole merge (module ''): how many directions carry harm rather than usefulness.",
        """SELECT r.pair, s.idx + 1 AS direction, round(avg(s.eigenvalue), 3) AS eigenvalue, count(*) AS runs
FROM spectra s JOIN runs r USING (run_id)
WHERE s.module = ''
GROUP BY ALL
ORDER BY r.pair, direction""",
        _chart("line", "direction", "eigenvalue", "pair"),
    ),
    Example(
        "Where the time goes",
        "events keeps what happened, with its details as JSON: ->> takes a field out as text.",
        """SELECT r.method, split_part(e.data->>'stage', ':', 1) AS stage,
       round(avg((e.data->>'seconds')::DOUBLE), 2) AS mean_seconds, count(*) AS times
FROM events e JOIN runs r USING (run_id)
WHERE e.event = 'stage' AND e.data->>'status' = 'done'
GROUP BY ALL
ORDER BY r.method, stage""",
        _chart("stacked bar", "method", "mean_seconds", "stage"),
    ),
    Example(
        "Measured against reported",
        "Figures of the literature sit in the same tables: source tells them apart.",
        """SELECT pair, method, source, round(avg(resistance), 3) AS resistance, round(avg(utility), 3) AS utility,
       count(*) AS runs
FROM leaderboard
WHERE coalesce(reported_table, 'detail') = 'detail'
GROUP BY ALL
ORDER BY pair, method, source""",
    ),
)
