"""A recipe carried out: merge, answers, verdicts, metrics; and what a run's events hold."""
