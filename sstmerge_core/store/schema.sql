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
    -- The recipe's first suite of each role, and what the utility suite declares: which figures the leaderboard shows.
    comparable VARCHAR,  -- of what it was measured on and how, the judge aside: equal, and runs may be ranked together
    setting VARCHAR,     -- of what was merged and how: the same on selection and on test prompts
    harmful_suite VARCHAR, benign_suite VARCHAR, utility_suite VARCHAR, utility_metric VARCHAR,
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
    asked VARCHAR,  -- what the model saw in place of the prompt, under an attack
    scored DOUBLE,  -- by the encoder of the suite's metric, where an encoder computes it
    PRIMARY KEY (run_id, suite, prompt_id)
);

CREATE TABLE verdicts (
    run_id VARCHAR, suite VARCHAR, prompt_id VARCHAR, judge VARCHAR, label VARCHAR, score DOUBLE, raw VARCHAR,
    t TIMESTAMP,  -- of labels by hand (judge hand:NAME), whose label is NULL where the reader took it back
    PRIMARY KEY (run_id, suite, prompt_id, judge)
);

-- kind: tag, whose key is the text in lower case; note; or name, which a run has one of.
CREATE TABLE annotations (
    run_id VARCHAR, kind VARCHAR, key VARCHAR, text VARCHAR, "user" VARCHAR, t TIMESTAMP, removed BOOLEAN,
    PRIMARY KEY (run_id, kind, key)
);
CREATE VIEW tags AS
SELECT run_id, text AS tag, "user", t FROM annotations WHERE kind = 'tag' AND NOT removed;
CREATE VIEW notes AS
SELECT run_id, key AS note_id, text AS note, "user", t FROM annotations WHERE kind = 'note' AND NOT removed;
CREATE VIEW names AS
SELECT run_id, text AS name, "user", t FROM annotations WHERE kind = 'name' AND NOT removed;

-- seq: where its line begins in the file.
CREATE TABLE audit (
    seq BIGINT PRIMARY KEY, t TIMESTAMP, "user" VARCHAR, action VARCHAR, subject VARCHAR, about VARCHAR,
    role VARCHAR, origin VARCHAR
);

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

-- The owner renews a run's row in the transaction that changes the run or its metrics: with 100,000 runs, ranking their
-- metrics takes longer than a page may.
CREATE TABLE leaderboard AS FROM leaderboard_of([]::VARCHAR[]);
ALTER TABLE leaderboard ADD PRIMARY KEY (run_id);

-- Not dominated on (resistance, utility) within a pair, a source, and what was measured alike; equal points are both kept.
CREATE VIEW front AS
WITH points AS (
    SELECT *,
        max(utility) OVER (
            PARTITION BY pair, source, utility_suite, utility_metric, split, comparable, judge ORDER BY resistance DESC
            RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW EXCLUDE GROUP
        ) AS best_of_safer,
        max(utility) OVER (PARTITION BY pair, source, utility_suite, utility_metric, split, comparable, judge, resistance) AS best_of_equal
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
