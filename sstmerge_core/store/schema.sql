-- The database is derived: everything here is made again from the event files (`sstmerge db rebuild`).
-- Times are UTC TIMESTAMP (TIMESTAMPTZ needs pytz in Python).

CREATE TABLE meta (key VARCHAR PRIMARY KEY, value VARCHAR);

-- How far each event file has been read; written in the same transaction as the rows it gave.
CREATE TABLE ingested (path VARCHAR PRIMARY KEY, "offset" BIGINT NOT NULL);

CREATE TABLE adapters (
    sha256 VARCHAR PRIMARY KEY, name VARCHAR, path VARCHAR, role VARCHAR, suite VARCHAR, base VARCHAR,
    rank INTEGER, alpha DOUBLE, modules INTEGER, bytes BIGINT, description VARCHAR, scores JSON,
    added_at TIMESTAMP, removed BOOLEAN
);

CREATE TABLE runs (
    run_id VARCHAR PRIMARY KEY, source VARCHAR, pair VARCHAR, base VARCHAR, utility VARCHAR, safety VARCHAR,
    method VARCHAR, label VARCHAR, alpha DOUBLE, k INTEGER, layerwise BOOLEAN, mode VARCHAR, seed BIGINT,
    parameters JSON, recipe JSON,
    utility_suite VARCHAR,  -- the recipe's first utility suite: which ROUGE-L the leaderboard shows
    split VARCHAR,          -- of the recipe's suites: test, or selection where a search looks
    status VARCHAR,         -- running, finished, failed, cancelled; "lost" is known to the queue only
    created_at TIMESTAMP, finished_at TIMESTAMP, seconds DOUBLE, peak_memory_bytes BIGINT,
    device VARCHAR, dtype VARCHAR, backend VARCHAR, versions JSON, error VARCHAR, "user" VARCHAR, job_id VARCHAR
);

CREATE TABLE metrics (
    run_id VARCHAR, metric VARCHAR, suite VARCHAR, judge VARCHAR,
    value DOUBLE, ci_low DOUBLE, ci_high DOUBLE, n INTEGER, status VARCHAR, reference VARCHAR,
    PRIMARY KEY (run_id, metric, suite, judge)
);

CREATE TABLE samples (
    run_id VARCHAR, suite VARCHAR, prompt_id VARCHAR,
    topic VARCHAR, prompt VARCHAR, response VARCHAR, reference VARCHAR, n_tokens INTEGER, stopped BOOLEAN,
    PRIMARY KEY (run_id, suite, prompt_id)
);

CREATE TABLE verdicts (
    run_id VARCHAR, suite VARCHAR, prompt_id VARCHAR, judge VARCHAR, label VARCHAR, score DOUBLE, raw VARCHAR,
    t TIMESTAMP,  -- of labels by hand (judge hand:NAME), whose label is NULL where the reader took it back
    PRIMARY KEY (run_id, suite, prompt_id, judge)
);

-- kind: tag, whose key is the text in lower case; or note.
CREATE TABLE annotations (
    run_id VARCHAR, kind VARCHAR, key VARCHAR, text VARCHAR, "user" VARCHAR, t TIMESTAMP, removed BOOLEAN,
    PRIMARY KEY (run_id, kind, key)
);
CREATE VIEW tags AS
SELECT run_id, text AS tag, "user", t FROM annotations WHERE kind = 'tag' AND NOT removed;
CREATE VIEW notes AS
SELECT run_id, key AS note_id, text AS note, "user", t FROM annotations WHERE kind = 'note' AND NOT removed;

CREATE TABLE spectra (
    run_id VARCHAR, module VARCHAR, idx INTEGER, eigenvalue DOUBLE, PRIMARY KEY (run_id, module, idx)
);

-- subject: a run_id or a pair_id. module '' is the pooled value.
CREATE TABLE module_stats (
    subject VARCHAR, module VARCHAR, stat VARCHAR, value DOUBLE, PRIMARY KEY (subject, module, stat)
);

CREATE TABLE pair_inspections (
    pair_id VARCHAR PRIMARY KEY, base VARCHAR, utility VARCHAR, safety VARCHAR,
    utility_name VARCHAR, safety_name VARCHAR, inspected_at TIMESTAMP
);

CREATE TABLE sweeps (
    sweep_id VARCHAR PRIMARY KEY, name VARCHAR, "user" VARCHAR, recipe_count INTEGER, run_ids JSON, created_at TIMESTAMP
);

-- seq: the byte offset of the line in its file, so that reading a line twice gives the same key.
CREATE TABLE events (
    run_id VARCHAR, seq BIGINT, t TIMESTAMP, event VARCHAR, data JSON, PRIMARY KEY (run_id, seq)
);

-- One row for each run of `ids`. Where a metric exists for several suites or judges, the run's own suite and
-- refusal_regex come first; an ASR with a value comes before one without.
CREATE MACRO leaderboard_of(ids) AS TABLE
WITH chosen AS (
    SELECT * FROM runs WHERE run_id IN (SELECT unnest(ids))
), preferred AS (
    SELECT m.*,
        CASE
            WHEN metric IN ('resistance', 'asr') THEN 'harmful'
            WHEN metric = 'over_refusal' THEN 'near_miss'
            WHEN metric = 'degenerate' THEN 'all'
            ELSE coalesce(r.utility_suite, '')
        END AS own_suite
    FROM metrics m JOIN chosen r USING (run_id)
), ranked AS (
    SELECT *, row_number() OVER (
        PARTITION BY run_id, metric
        ORDER BY metric = 'asr' AND value IS NULL, suite <> own_suite, judge <> 'refusal_regex', suite, judge
    ) AS place
    FROM preferred
), best AS (
    SELECT run_id,
        any_value(value) FILTER (metric = 'resistance') AS resistance,
        any_value(ci_low) FILTER (metric = 'resistance') AS resistance_low,
        any_value(ci_high) FILTER (metric = 'resistance') AS resistance_high,
        any_value(n) FILTER (metric = 'resistance') AS resistance_n,
        any_value(value) FILTER (metric = 'rouge_l') AS rouge_l,
        any_value(value) FILTER (metric = 'task_performance') AS task_performance,
        any_value(ci_low) FILTER (metric = 'rouge_l') AS utility_low,
        any_value(ci_high) FILTER (metric = 'rouge_l') AS utility_high,
        any_value(n) FILTER (metric = 'rouge_l') AS utility_n,
        any_value(suite) FILTER (metric IN ('rouge_l', 'task_performance')) AS utility_suite,
        any_value(metric) FILTER (metric IN ('rouge_l', 'task_performance')) AS utility_metric,
        any_value(value) FILTER (metric = 'over_refusal') AS over_refusal,
        any_value(ci_low) FILTER (metric = 'over_refusal') AS over_refusal_low,
        any_value(ci_high) FILTER (metric = 'over_refusal') AS over_refusal_high,
        any_value(n) FILTER (metric = 'over_refusal') AS over_refusal_n,
        any_value(value) FILTER (metric = 'degenerate') AS degenerate,
        any_value(n) FILTER (metric = 'degenerate') AS degenerate_n,
        any_value(value) FILTER (metric = 'asr') AS asr,
        any_value(status) FILTER (metric = 'asr') AS asr_status,
        any_value(value) FILTER (metric = 'safety_tax') AS safety_tax,
        any_value(status) FILTER (metric = 'safety_tax') AS safety_tax_status,
        any_value(value) FILTER (metric = 'composite') AS composite,
        any_value(value) FILTER (metric = 'pareto_distance') AS pareto_distance,
        coalesce(any_value(judge) FILTER (metric = 'resistance'), any_value(judge) FILTER (metric = 'asr')) AS judge
    FROM ranked WHERE place = 1 GROUP BY run_id
)
SELECT r.run_id, r.source, r.pair, r.utility AS utility_adapter, r.safety AS safety_adapter,
    r.method, r.label, r.alpha, r.k, r.layerwise, r.mode, r.seed, r.split, r.status,
    b.resistance, b.resistance_low, b.resistance_high, b.resistance_n,
    coalesce(b.rouge_l, b.task_performance) AS utility, b.utility_low, b.utility_high, b.utility_n,
    coalesce(b.utility_suite, r.utility_suite) AS utility_suite, b.utility_metric,
    b.over_refusal, b.over_refusal_low, b.over_refusal_high, b.over_refusal_n,
    b.degenerate, b.degenerate_n, b.asr, b.asr_status,
    b.safety_tax, b.safety_tax_status, b.composite, b.pareto_distance, b.judge,
    -- Which table of a report the row is from; NULL for a measured run. One report repeats rows (top10) and has a second
    -- table that disagrees with its first (alpha_dependence): fronts and curves take its main table only.
    CASE WHEN r.source = 'reported' THEN json_extract_string(r.parameters, '$.table') END AS reported_table,
    r.dtype, r.backend, r.device, r.seconds, r."user", r.job_id, r.created_at, r.finished_at
FROM chosen r LEFT JOIN best b USING (run_id);

-- The owner renews a run's row in the transaction that changes the run or its metrics: with 100,000 runs, ranking their
-- metrics takes longer than a page may.
CREATE TABLE leaderboard AS FROM leaderboard_of([]::VARCHAR[]);
ALTER TABLE leaderboard ADD PRIMARY KEY (run_id);

-- Not dominated on (resistance, utility) within a pair, a source, a utility suite and a split; equal points are both
-- kept.
CREATE VIEW front AS
WITH points AS (
    SELECT *,
        max(utility) OVER (
            PARTITION BY pair, source, utility_suite, split ORDER BY resistance DESC
            RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW EXCLUDE GROUP
        ) AS best_of_safer,
        max(utility) OVER (PARTITION BY pair, source, utility_suite, split, resistance) AS best_of_equal
    FROM leaderboard
    WHERE status = 'finished' AND resistance IS NOT NULL AND utility IS NOT NULL
        AND coalesce(reported_table, 'detail') = 'detail'
)
SELECT * EXCLUDE (best_of_safer, best_of_equal) FROM points
WHERE (best_of_safer IS NULL OR best_of_safer < utility) AND best_of_equal <= utility
ORDER BY pair, source, resistance;

CREATE VIEW alpha_curves AS
SELECT * FROM leaderboard
WHERE status = 'finished' AND alpha IS NOT NULL AND coalesce(reported_table, 'detail') = 'detail'
ORDER BY pair, source, method, k, layerwise, reported_table, alpha;
