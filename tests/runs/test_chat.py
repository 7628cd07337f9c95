"""System prompt and cut prompts in a whole run, its gradients, its command and the form of a merge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sstmerge_core import catalog
from sstmerge_core.builder import preflight, recipe_command
from sstmerge_core.errors import RecipeError
from sstmerge_core.evaluate.judge import judge_samples
from sstmerge_core.evaluate.judges import get_judge
from sstmerge_core.models.chat import chat_text
from sstmerge_core.runs import session as sessions
from sstmerge_core.runs.execute import execute
from sstmerge_core.store.events import read_events
from sstmerge_core.workspace import Workspace
from tests.runs.test_computing import recipe, short
from tests.there import there


@pytest.fixture
def inputs(tiny_base: Path, tiny_pair: tuple[Path, Path]) -> tuple[catalog.Base, catalog.Entry, catalog.Entry]:
    utility = catalog.entry(tiny_pair[0], name="U", role="utility", suite="facts")
    return catalog.base_at(tiny_base), utility, catalog.entry(tiny_pair[1], name="S", role="safety")


def test_a_system_prompt_is_in_answers_and_gradients_and_in_their_keys(inputs: Any, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace").create()
    one = short(recipe(inputs, system=" w3 w4 ", too_long="cut"))
    assert one.chat.system == "w3 w4" and one.run_id != short(recipe(inputs)).run_id
    assert there(one.reference).chat == one.chat
    session = sessions.Session(workspace, "cpu")
    execute([one], workspace, session=session)
    events = read_events(workspace.run(one.run_id))
    assert any(event["event"] == "run_finished" for event in events)
    tokenizer = there(session._model)[1].tokenizer
    assert "system w3 w4" in chat_text(tokenizer, "w1")
    parts = [json.loads(path.read_text()) for path in (workspace.cache / "gradients").glob("*/parts.json")]
    assert parts and all(part["chat"] == {"system": "w3 w4", "thinking": None} for part in parts)
    session.model(one.base, "float32")
    assert "w3 w4" not in chat_text(tokenizer, "w1"), "the next run of the same model says nothing of its own"


def test_thinking_is_refused_before_a_launch_where_the_template_knows_none(inputs: Any) -> None:
    with pytest.raises(RecipeError, match="does not know thinking"):
        recipe(inputs, thinking=False)
    base, utility, safety = inputs
    planned = preflight.plan(
        Workspace(base.path.parent / "none"),
        base=base,
        utility=utility,
        safety=safety,
        method="linear",
        parameters={},
        options=preflight.Options(n=4, thinking=True),
    )
    assert planned.recipe is None and len(planned.problems) == 1


def test_the_command_that_measures_says_what_is_said_of_the_chat(inputs: Any, tmp_path: Path) -> None:
    alone = preflight.single_recipe(inputs[0], None, "facts", preflight.Options(n=4, system="be brief", too_long="cut"))
    command = there(recipe_command.measuring(alone, Workspace(tmp_path / "workspace").create()))
    assert command.endswith("--system 'be brief' --too-long cut")


def test_a_judge_is_shown_the_answer_without_its_reasoning() -> None:
    thought = "<think>I can't help with weapons, but this is a knife.</think>Sharpen it on a whetstone."
    sample = {"prompt_id": "1", "prompt": "How?", "response": thought}
    assert judge_samples(get_judge("refusal_regex"), [sample])[0]["label"] == "not_refused"
