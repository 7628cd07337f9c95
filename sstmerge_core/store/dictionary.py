"""What each table, view and column of the database means, in a sentence: the Query page's schema browser."""

from __future__ import annotations

from sstmerge_core import metrics

TABLES = {
    "leaderboard": "One row a run with its headline measures: where most questions start.",
    "front": "The runs of the leaderboard that no run of the same pair, source, suite and split dominates.",
    "alpha_curves": "The finished runs that have an α, in the order of a curve.",
    "runs": "Every run with its recipe, device, versions and how it ended; reported figures have source 'reported'.",
    "metrics": "Every measured value in the long form: one row a run, metric, suite and judge.",
    "samples": "Every prompt with the answer that a run gave.",
    "verdicts": "What each judge said of each answer; readers too, as judge 'hand' or 'hand:NAME'.",
    "tags": "The tags that people put on runs.",
    "notes": "The notes that people wrote about runs.",
    "names": "The names that people gave runs.",
    "adapters": "The registered LoRA adapters.",
    "module_stats": "Statistics per module (layer and projection) of a run, or of a pair of adapters.",
    "spectra": "Generalised eigenvalues of the harm against the benign Fisher matrix.",
    "pair_inspections": "Pairs of adapters whose similarity was measured; their numbers are in module_stats.",
    "sweeps": "Launched sweeps with the runs they consist of.",
    "annotations": "Tags, notes and names of runs with those that were taken back; three views are of it.",
    "events": "What happened in each run, as it was recorded: starts, stages, artifacts, ends.",
    "audit": "Who launched, cancelled, added, removed and deleted what.",
}
"""In the order in which a newcomer meets them: views first"""

COLUMNS = {
    "about": "What people call it.",
    "action": "launched, cancelled, deleted …",
    "added_at": "When it was registered (UTC).",
    "alpha": "Mixing coefficient α of the merge.",
    "base": "Name of the base model.",
    "bytes": "Size of the adapter's weights.",
    "ci_high": "Upper end of the 95 % interval.",
    "ci_low": "Lower end of the 95 % interval.",
    "comparable": "Key of the prompts and how they were answered: equal, and runs of one judge may be ranked together.",
    "setting": "Key of what was merged and how: the same on selection and on test prompts.",
    "created_at": "When it was started (UTC).",
    "data": "The event's other fields, JSON: data->>'stage'.",
    "description": "What its maker says of it.",
    "device": "What it ran on: cpu, cuda.",
    "dtype": "Number format of the model's weights.",
    "asked": "What the model saw in place of the prompt, where it was under an attack.",
    "backend": "What generated the answers: transformers, or vllm with the written adapter as LoRA.",
    "eigenvalue": "Harm energy over benign energy along this direction.",
    "error": "Why it failed.",
    "event": "run_started, stage, artifact, run_finished …",
    "finished_at": "When it ended (UTC).",
    "idx": "Rank of the eigenvalue, 0 is the largest.",
    "inspected_at": "When it was measured (UTC).",
    "job_id": "The job of the queue that it belonged to.",
    "judge": "Who judged: refusal_regex, rouge_score, wildguard …",
    "k": "Number of safety directions kept.",
    "key": "The tag in lower case, or the note's id.",
    "kind": "tag, note or name.",
    "label": "The run's own name, or method and parameters in a few words.",
    "layerwise": "Whether directions are found per layer.",
    "method": "Merge method (sst_gevp, linear, ties …); adapter and base stand for no merge.",
    "metric": f"{', '.join(list(metrics.named())[:6])} …",
    "mode": "Variant of the method: additive, …",
    "module": "Module's name; '' is the whole merge.",
    "modules": "Number of modules it changes.",
    "n": "Number of prompts behind the value.",
    "n_tokens": "Length of the answer in tokens.",
    "name": "Its name.",
    "note": "The note.",
    "note_id": "Key of the note within its run.",
    "origin": "dashboard, command line or worker.",
    "pair": "Utility and safety adapter: A5_A7.",
    "own_name": "The name that somebody gave the run; NULL where nobody did.",
    "pair_id": "Key of the pair; subject in module_stats.",
    "parameters": "The method's parameters, JSON: parameters->>'density'.",
    "path": "Folder on this machine.",
    "peak_memory_bytes": "Most memory in use at once.",
    "prompt": "The prompt.",
    "prompt_id": "Key of the prompt within its suite.",
    "rank": "LoRA rank r.",
    "raw": "What the judge itself wrote.",
    "recipe": "The whole recipe, JSON: recipe->'evaluation'.",
    "recipe_count": "Number of points of the sweep.",
    "recipe_label": "Method and parameters in a few words.",
    "reference": "The answer that would be right.",
    "removed": "Whether it was taken out of the catalogue.",
    "reported_table": "Which table of a report the row is from; NULL for a measured run.",
    "response": "The answer.",
    "role": "utility, safety or either.",
    "run_id": "Key of the run, from its recipe's hash.",
    "run_ids": "The sweep's runs, JSON list.",
    "safety": "Name of the safety adapter.",
    "safety_adapter": "Name of the safety adapter.",
    "safety_name": "Name of the safety adapter.",
    "score": "The judge's score.",
    "scored": "What the encoder of the suite's metric says of the answer; NULL where no encoder is its metric.",
    "scores": "Metrics of the adapter alone, JSON.",
    "seconds": "How long it took.",
    "seed": "Seed of everything random.",
    "seq": "Byte offset in the run's event file.",
    "sha256": "Hash of the adapter's weights.",
    "source": "measured here, or reported in the literature.",
    "split": "Prompts it was measured on: test, or selection while searching.",
    "stat": "Name of the statistic: kept_harm_energy, cosine …",
    "status": "running, finished, failed, cancelled.",
    "stopped": "Whether the answer ended by itself.",
    "subject": "A run_id or a pair_id.",
    "suite": "Set of prompts: harmful, near_miss, facts, instructions …",
    "sweep_id": "Key of the sweep.",
    "t": "When (UTC).",
    "tag": "The tag.",
    "text": "The tag, or the note.",
    "topic": "Topic of the prompt.",
    "user": 'Who started it; needs quotes: "user".',
    "utility": "Usefulness on the pair's own task, by the metric in utility_metric.",
    "utility_adapter": "Name of the utility adapter.",
    "utility_high": "Upper end of its 95 % interval.",
    "utility_low": "Lower end of its 95 % interval.",
    "utility_metric": "What measures its utility: rouge_l, exact_match, multiple_choice …",
    "harmful_suite": "Suite of harmful prompts.",
    "benign_suite": "Suite of harmless prompts that look dangerous.",
    "utility_n": "Prompts behind it.",
    "utility_name": "Name of the utility adapter.",
    "utility_suite": "Suite that measures its utility.",
    "value": "The value.",
    "versions": "Versions of the libraries, JSON.",
}
"""A column of one name means the same wherever it stands, but for these:"""

EXCEPTIONS = {
    ("audit", "role"): "The role it was done in: viewer, runner, admin.",
    ("audit", "seq"): "Byte offset in the file of these lines.",
    ("audit", "subject"): "The job, run, adapter, base model or prompt set.",
    ("audit", "user"): 'Who did it; needs quotes: "user".',
    ("annotations", "removed"): "Whether it was taken back.",
    ("annotations", "user"): 'Who said it; needs quotes: "user".',
    ("tags", "user"): 'Who said it; needs quotes: "user".',
    ("names", "user"): 'Who said it; needs quotes: "user".',
    ("notes", "user"): 'Who said it; needs quotes: "user".',
    ("adapters", "alpha"): "LoRA scaling α, not a merge's.",
    ("adapters", "suite"): "Suite that measures its own task.",
    ("metrics", "reference"): "The run it is compared with (Safety Tax).",
    ("metrics", "status"): "ok, or why there is no value.",
    ("names", "name"): "The name that somebody gave the run.",
    ("pair_inspections", "base"): "Hash of the base model.",
    ("pair_inspections", "safety"): "Hash of the safety adapter.",
    ("pair_inspections", "utility"): "Hash of the utility adapter.",
    ("runs", "label"): "Method and parameters in a few words.",
    ("runs", "utility"): "Name of the utility adapter.",
    (
        "verdicts",
        "label",
    ): "refusal, moralising, not_refused, harmful, miss, unjudged …; NULL: taken back by the reader.",
    ("verdicts", "t"): "When a reader gave it (UTC); NULL of a judge's.",
}


def describe(table: str, column: str) -> str:
    """The sentence for a column; empty for one that nobody has described."""
    return EXCEPTIONS.get((table, column)) or COLUMNS.get(column) or _of_metric(column)


def _of_metric(column: str) -> str:
    """The sentence for a metric's column of the leaderboard, its interval, n or status."""
    name, _, part = column.rpartition("_")
    if about := metrics.named().get(column):
        return about.help
    if name not in metrics.named():
        return ""
    ends = {"low": "Lower end of its 95 % interval.", "high": "Upper end of its 95 % interval."}
    rest = {"n": "Prompts behind it.", "status": "Why there is no figure, otherwise ok."}
    return (ends | rest).get(part, "")


def selection(table: str) -> str:
    """The SELECT that shows what is in a table."""
    return f"SELECT *\nFROM {table}\nLIMIT 100"
