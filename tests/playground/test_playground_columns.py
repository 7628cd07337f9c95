"""What a column is made of: weights of adapters that give the method's merge at every α."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sstmerge_core import adapters, catalog
from sstmerge_core.adapters import write_adapter
from sstmerge_core.errors import AdapterError, DataError
from sstmerge_core.merge import merge
from sstmerge_core.playground import columns, conversation
from sstmerge_core.playground.conversation import Answer, Conversation, Turn
from sstmerge_core.recipe import Recipe
from sstmerge_core.workspace import Workspace
from tests.there import there


@pytest.fixture
def pair(workspace: Workspace, tiny_pair: tuple[Path, Path]) -> list[catalog.Entry]:
    return [catalog.add(workspace, path, name=name) for path, name in zip(tiny_pair, ("U", "S"), strict=True)]


def test_a_run_gives_its_method_at_any_alpha_from_the_adapter_it_wrote(workspace, tiny_base, pair) -> None:
    factors = [adapters.read(entry.path).load() for entry in pair]
    recipe = _recipe(tiny_base, pair, "sst_datafree", alpha=1.5)
    written, _ = merge(factors, "sst_datafree", recipe.parameters).factors()
    write_adapter(written, workspace.merged_adapter("r1"), base_name="tiny-llama", dtype="float32")
    column = columns.of_run(workspace, "r1", recipe, "U_S · SST α=1.5 k=2", _known(pair))
    assert column.title == "U_S · SST k=2", "the slider says α"
    assert there(column.slider).default == 1.5 and column.weights(1.5) == [("run r1", column.adapters[1][1], 1.0)]
    for alpha in (0.0, 0.6, 2.4):
        expected = merge(factors, "sst_datafree", recipe.parameters | {"alpha": alpha})
        parts = [(adapters.read(path).load(), weight) for _, path, weight in column.weights(alpha)]
        for name, module in expected.modules.items():
            found = sum(w * one[name].scaling * one[name].b @ one[name].a for one, w in parts if name in one)
            torch.testing.assert_close(found, module.delta(), rtol=1e-4, atol=1e-4)


def test_a_weighted_sum_needs_no_adapter_of_its_own(workspace, tiny_base, pair) -> None:
    column = columns.of_run(workspace, "r2", _recipe(tiny_base, pair, "linear", alpha=0.3), "run", _known(pair))
    assert [(name, weight) for name, _, weight in column.weights(0.25)] == [("U", 0.75), ("S", 0.25)]
    assert [(name, weight) for name, _, weight in column.weights(None)] == [("U", 0.7), ("S", 0.3)]


@pytest.mark.parametrize("method", ["ties", "slerp", "alignguard"])
def test_a_method_that_is_not_linear_in_alpha_has_no_slider(workspace, tiny_base, pair, method: str) -> None:
    folder = workspace.merged_adapter("r3")
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"")
    column = columns.of_run(workspace, "r3", _recipe(tiny_base, pair, method), "run", _known(pair))
    assert column.slider is None and [weight for _, _, weight in column.weights(None)] == [1.0]


def test_a_run_without_its_adapter_says_what_to_do(workspace, tiny_base, pair) -> None:
    with pytest.raises(AdapterError, match="sstmerge recipe r4"):
        columns.of_run(workspace, "r4", _recipe(tiny_base, pair, "ties"), "run", _known(pair))


def test_a_conversation_comes_back_from_disk_as_it_was(workspace: Workspace) -> None:
    talk = conversation.new()
    talk.turns.append(Turn("hi", 32, answers={"base": Answer("Base", None, "hello", 1, 0.5, "model")}))
    conversation.save(workspace, talk)
    assert conversation.load(workspace, talk.id) == talk
    conversation.delete(workspace, talk.id)
    assert conversation.load(workspace, talk.id) is None


def test_an_id_out_of_a_link_cannot_leave_the_folder(workspace: Workspace) -> None:
    (workspace.root / "secret.json").write_text('{"turns": []}')
    assert conversation.load(workspace, "../../secret") is None


def test_a_damaged_conversation_is_named(workspace: Workspace) -> None:
    path = workspace.playground / "conversations" / "0123456789ab.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"turns": [{"prompt": 1}]}')
    with pytest.raises(DataError, match="0123456789ab.json"):
        conversation.load(workspace, "0123456789ab")


def test_failed_answers_are_no_part_of_what_a_column_said() -> None:
    answers = [Answer("A", None, "half", ended="failed"), Answer("A", None, "whole", ended="model")]
    talk = Conversation("0" * 12, [Turn(f"p{n}", 8, answers={"a": answer}) for n, answer in enumerate(answers)])
    assert [message["content"] for message in talk.history("a", 2)] == ["p1", "whole"]


def _recipe(base: Path, pair: list[catalog.Entry], method: str, **parameters: float) -> Recipe:
    from sstmerge_core import methods

    source = catalog.base_at(base).source
    complete = methods.get(method).complete(parameters)
    return Recipe(base=source, adapters=tuple(one.source for one in pair), method=method, parameters=complete)


def _known(pair: list[catalog.Entry]) -> dict[str, tuple[str, Path]]:
    return {entry.sha256: (entry.name, entry.path) for entry in pair}
