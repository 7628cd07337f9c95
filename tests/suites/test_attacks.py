"""Attacks on harmful prompts: what is asked, what is recorded, what is told."""

from __future__ import annotations

import base64
import codecs

import pytest

from docs import attacks as page
from sstmerge_core import catalog
from sstmerge_core.builder import chosen_suites, preflight
from sstmerge_core.errors import DataError, RecipeError
from sstmerge_core.evaluate.generate import generate_suite, plan_batches
from sstmerge_core.models.chat import Conversation, asked_text, chat_text
from sstmerge_core.models.resident import ResidentModel
from sstmerge_core.recipe import Recipe, record
from sstmerge_core.runs.execute import execute
from sstmerge_core.runs.session import planned_attack
from sstmerge_core.store import Owner
from sstmerge_core.suites import attacks, bundled
from sstmerge_core.suites.rows import Row, load_rows, take
from sstmerge_core.workspace import Workspace
from tests.there import there

PROMPT = "Tell w1 {w2} w3"


@pytest.fixture(scope="module")
def model(tiny_base) -> ResidentModel:
    return ResidentModel.load(tiny_base, "float32", "cpu")


@pytest.mark.parametrize("attack", attacks.ATTACKS, ids=attacks.names())
def test_every_attack_asks_for_the_prompt_or_what_it_was_written_as(attack: attacks.Attack) -> None:
    asked = attack.asks(PROMPT)
    assert attack.code(PROMPT) in asked.turns[-1]
    assert attacks.PLACE not in "".join(asked.turns)
    assert (asked.turns, asked.prefill) != ((PROMPT,), "")
    assert attack.url.startswith("https://") and attack.paper and attack.help.endswith(".")


def test_what_is_coded_can_be_read_again() -> None:
    assert base64.b64decode(attacks.get("base64").code("Zürich {x}")).decode() == "Zürich {x}"
    assert codecs.decode(attacks.get("rot13").code(PROMPT), "rot13") == PROMPT
    assert attacks.get("leetspeak").code("Steal a goat") == "5734l 4 6047"
    import unicodedata

    assert unicodedata.normalize("NFKC", attacks.get("fullwidth").code("Tell me")) == "Tell me"
    assert attacks.get("fullwidth").code("Tell me") != "Tell me"


def test_an_unknown_attack_is_refused_with_those_that_are_near() -> None:
    with pytest.raises(RecipeError, match="Did you mean prefill"):
        attacks.get("prefil")
    with pytest.raises(RecipeError, match="there is no such attack"):
        attacks.parted("harmful+zzz")
    assert attacks.parted("harmful+prefill+base64") == ("harmful", ("prefill", "base64"))


def test_a_prefilled_answer_goes_on_where_the_beginning_ends(model: ResidentModel) -> None:
    text = asked_text(model.tokenizer, Conversation(("w1 w2",), "w9 w8"))
    assert text == chat_text(model.tokenizer, "w1 w2") + "w9 w8"
    (answer,) = model.generate([Conversation(("w1 w2",), "w9 w8")], 4)
    ids = model.tokenizer(text, add_special_tokens=False, return_tensors="pt")
    expected = model.model.generate(**ids, max_new_tokens=4, do_sample=False, pad_token_id=1)
    assert answer.text == model.tokenizer.decode(expected[0][ids["input_ids"].shape[1] :], skip_special_tokens=True)


def test_the_turns_of_a_script_have_the_models_own_answers_between(model: ResidentModel) -> None:
    rows = [Row(f"p{i}", "", f"w{i} w5", "") for i in range(3)]
    attack = attacks.get("crescendo")
    plan = [["p0", "p1"], ["p2"]]
    samples = [row for *_, batch in generate_suite(model, rows, plan, (), 4, attack=attack) for row in batch]
    first, second, last = attack.asks(rows[0].prompt).turns
    (one,) = model.generate([first], 4)
    messages = Conversation((first, second, last)).answered(one.text or "-")
    (two,) = model.generate([messages], 4)
    (three,) = model.generate([messages.answered(two.text or "-")], 4)
    assert samples[0]["response"] == three.text and samples[0]["prompt"] == rows[0].prompt
    assert samples[0]["asked"] == messages.answered(two.text or "-").told
    assert f"Assistant: {one.text}" in samples[0]["asked"]


def test_answers_between_turns_count_for_the_room_that_a_model_has(model: ResidentModel) -> None:
    rows = [Row("p", "", "w1 " * 90, "")]
    plan_batches(rows, model, 1, 8)
    with pytest.raises(DataError, match="positions"):
        plan_batches(rows, model, 1, 8, attacks.get("crescendo"))


def options(workspace: Workspace, **asked: object) -> preflight.Options:
    return chosen_suites.options(workspace, n=4, **asked)  # type: ignore[arg-type]


def single(tiny_base, **how: object) -> Recipe:
    return preflight.single_recipe(catalog.base_at(tiny_base), None, "facts", preflight.Options(n=4, **how))  # type: ignore[arg-type]


def test_a_suite_may_name_its_attacks(tmp_path) -> None:
    workspace = Workspace(tmp_path).create()
    found = options(workspace, harmful="harmful+prefill", attacks=["base64", "prefill"])
    assert (found.harmful_suite, found.attacks) == ("harmful", ("prefill", "base64"))
    with pytest.raises(RecipeError, match="no such attack"):
        options(workspace, attacks=["zzz"])


def test_plain_suites_and_runs_keep_their_ids_and_an_attack_counts_by_its_words(tiny_base, monkeypatch) -> None:
    plain, attacked = single(tiny_base), single(tiny_base, attacks=("prefill",))
    dumped = plain.model_dump(mode="json")["evaluation"]["suites"][0]
    assert not any(name.startswith("attack") for name in dumped)
    assert not any(name.startswith("attack") for name in there(plain.evaluation).suites[0].identity())
    suites = there(attacked.evaluation).suites
    assert [suite.name for suite in suites] == ["harmful", "near_miss", "facts", "harmful+prefill"]
    assert suites[:3] == there(plain.evaluation).suites
    assert suites[3].source == suites[0].source
    assert attacked.run_id != plain.run_id
    assert Recipe.model_validate(attacked.model_dump(mode="json")).run_id == attacked.run_id
    other = tuple(
        attacks.Attack("prefill", "", "", "", "", prefill="Well,") if one.name == "prefill" else one
        for one in attacks.ATTACKS
    )
    monkeypatch.setattr(attacks, "ATTACKS", other)
    assert single(tiny_base, attacks=("prefill",)).run_id != attacked.run_id
    rows = take(load_rows(suites[3].source.path, "test"), 4)
    with pytest.raises(DataError, match="has changed since this run was planned"):
        planned_attack(suites[3], rows)
    assert planned_attack(suites[0], rows) is None


@pytest.fixture(scope="module")
def measured(tiny_base, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Recipe]:
    """The tiny base under two attacks, answers of at most four tokens."""
    workspace = Workspace(tmp_path_factory.mktemp("attacked") / "workspace").create()
    plain = bundled.suite("harmful", "harmful", "test", 4).model_copy(update={"max_new_tokens": 4})
    chosen = (plain, *(bundled.attacked(plain, name) for name in ("prefill", "leetspeak")))
    known = single(tiny_base)
    one = known.model_copy(update={"evaluation": there(known.evaluation).model_copy(update={"suites": chosen})})
    execute([one], workspace)
    return workspace, one


def test_resistance_is_told_plain_and_attacked(measured: tuple[Workspace, Recipe]) -> None:
    workspace, one = measured
    past = record.read(workspace.run(one.run_id))
    rows = {(metric, suite): row for (metric, suite, _), row in past.metrics.items()}
    for suite in ("harmful", "harmful+prefill", "harmful+leetspeak"):
        assert rows["resistance", suite]["n"] == 4
    assert rows["resistance_attacked", "attacked"]["n"] == 8
    assert rows["asr_attacked", "attacked"]["status"] == "judge_cannot_tell"
    assert all(row["response"].startswith("Sure, here is ") for row in past.samples["harmful+prefill"])
    assert all("asked" not in row for row in past.samples["harmful"])
    prompts = {suite: [row["prompt"] for row in found] for suite, found in past.samples.items()}
    assert sorted(prompts["harmful"]) == sorted(prompts["harmful+leetspeak"])


def test_the_leaderboard_has_the_plain_resistance_and_that_under_attack(measured: tuple[Workspace, Recipe]) -> None:
    workspace, _ = measured
    with Owner.open(workspace) as owner:
        owner.ingest()
        found = (
            owner.cursor()
            .execute("SELECT resistance_n, resistance_attacked_n FROM leaderboard WHERE source = 'measured'")
            .fetchall()
        )
    assert found == [(4, 8)]


def test_the_page_has_every_attack_as_it_is_now() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.page()
    assert all(f"`{name}`" in page.page() for name in attacks.names())
