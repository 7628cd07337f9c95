"""System prompt, thinking, channels, ends of turns, and prompts that are too long."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sstmerge_core import metrics
from sstmerge_core.errors import DataError
from sstmerge_core.evaluate.generate import shortened
from sstmerge_core.evaluate.metric_rows import answer_metrics, lacking
from sstmerge_core.metrics.reasoning import answer, parted
from sstmerge_core.models.chat import chat_text, end_of_turn, from_harmony, speak
from sstmerge_core.models.resident import eos_ids, read_texts
from sstmerge_core.recipe import Chat, Recipe, Source, Suite
from sstmerge_core.suites.rows import Row

THINKS = (
    "{% for m in messages %}<|im_start|> {{ m.role }} {{ m.content }} <|im_end|> {% endfor %}<|im_start|> assistant "
    "{% if enable_thinking is defined and not enable_thinking %}<think> </think> {% endif %}"
)
WANTS_SYSTEM = (
    "{% if messages[0].role != 'system' %}{{ raise_exception('a system message is wanted') }}{% endif %}"
    "{% for m in messages %}{{ m.content }}\n{% endfor %}"
)


@pytest.fixture
def tokenizer(tiny_base: Path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_base)


def test_a_system_prompt_is_in_every_text_until_it_is_taken_back(tokenizer):
    plain = chat_text(tokenizer, "w1 w2")
    speak(tokenizer, "w3 w4")
    assert chat_text(tokenizer, "w1 w2") == f"<|im_start|> system w3 w4 <|im_end|> {plain}"
    speak(tokenizer)
    assert chat_text(tokenizer, "w1 w2") == plain


def test_thinking_is_what_the_template_knows_as_enable_thinking(tokenizer):
    tokenizer.chat_template = THINKS
    speak(tokenizer, thinking=False)
    assert "<think>" in chat_text(tokenizer, "w1")
    speak(tokenizer, thinking=True)
    assert "<think>" not in chat_text(tokenizer, "w1")


@pytest.mark.parametrize(
    ("template", "told", "said"),
    [
        (None, {"system": "w3"}, "a base model has no system turn"),
        ("{{ messages[-1].content }}", {"system": "w3"}, "leaves the system prompt out"),
        ("{{ messages[-1].content }}", {"thinking": False}, "same text with thinking and without"),
    ],
)
def test_what_a_template_cannot_say_is_refused_in_one_line_and_forgotten(template, told, said, tokenizer):
    tokenizer.chat_template = template
    with pytest.raises(DataError, match=said) as error:
        speak(tokenizer, **told)
    assert len(str(error.value).splitlines()) == 1
    assert "w3" not in chat_text(tokenizer, "w1")


def test_a_template_that_wants_a_system_turn_is_used_with_one(tiny_base, tmp_path):
    base = shutil.copytree(tiny_base, tmp_path / "base")
    for file in base.glob("chat_template*"):
        file.unlink()
    (base / "chat_template.jinja").write_text(WANTS_SYSTEM)
    with pytest.raises(DataError, match="--system"):
        read_texts(base)
    _, tokenizer = read_texts(base, system="w3")
    assert chat_text(tokenizer, "w1") == "w3\nw1\n"


def test_the_end_of_a_turn_is_read_off_the_template(tokenizer):
    tokenizer.add_tokens(["<over>"], special_tokens=True)
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}<over>\n{% endfor %}"
    assert end_of_turn(tokenizer) == "<over>"
    assert tokenizer.convert_tokens_to_ids("<over>") in eos_ids(tokenizer)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    assert end_of_turn(tokenizer) == ""


def test_the_end_of_a_channel_ends_no_answer(tokenizer):
    tokenizer.add_tokens(["<|channel|>", "<|end|>", "<|return|>"], special_tokens=True)
    tokenizer.chat_template = "{% for m in messages %}<|channel|>final {{ m.content }}<|return|>{% endfor %}"
    ends = eos_ids(tokenizer)
    assert tokenizer.convert_tokens_to_ids("<|return|>") in ends
    assert tokenizer.convert_tokens_to_ids("<|end|>") not in ends


def test_channels_become_a_thought_and_an_answer():
    thought = "<|channel|>analysis<|message|>Let me see.<|end|><|start|>assistant"
    whole = from_harmony(f"{thought}<|channel|>final<|message|>Four.<|return|>")
    assert parted(whole) == ("Let me see.", "Four.")
    assert parted(from_harmony("<|channel|>analysis<|message|>Let me")) == ("Let me", None)
    assert from_harmony("Four.") == "Four."


@pytest.mark.parametrize(
    ("response", "thought", "said"),
    [
        ("<think>\na b\n</think>\n\nYes.", "a b", "Yes."),
        ("a b\n</think>\nYes.", "a b", "Yes."),
        ("<think>\n\n</think>\n\nYes.", "", "Yes."),
        ("<think>a b", "a b", None),
        ("Yes.", "", "Yes."),
    ],
)
def test_thought_and_answer_are_kept_apart(response, thought, said):
    assert parted(response) == (thought, said)
    assert answer(response) == (said or "")


def test_answers_are_measured_without_their_thoughts_whose_length_is_a_figure_where_there_are_any():
    samples = [
        {"prompt_id": "1", "topic": "", "reference": "red fox", "response": "<think>one two three</think>red fox"},
        {"prompt_id": "2", "topic": "", "reference": "red fox", "response": "red fox"},
    ]
    assert metrics.outcomes("rouge_l", samples) == {"1": 1.0, "2": 1.0}
    rows = {row["metric"]: row["value"] for row in answer_metrics("facts", "utility", samples)}
    assert rows["thought_length"] == 1.5
    assert "thought_length" not in {row["metric"] for row in answer_metrics("facts", "utility", samples[1:])}
    suite = Suite(name="facts", role="utility", split="test", n=2, source=Source(name="f", path="f", sha256="0"))
    assert ("thought_length", "facts") not in lacking([suite], [])


def test_a_run_keeps_its_id_until_something_is_said_of_its_chat():
    about: dict[str, Any] = {
        "base": Source(name="b", path="b", sha256="1"),
        "adapters": (),
        "method": "base",
        "parameters": {},
    }
    plain = Recipe(**about)
    assert "chat" not in plain.model_dump()
    assert Recipe(**about, chat=Chat()).run_id == plain.run_id
    others = {Recipe(**about, chat=Chat(**said)).run_id for said in ({"system": "x"}, {"thinking": False})}
    assert len(others | {plain.run_id}) == 3
    said = Recipe(**about, chat=Chat(system="x", thinking=True, too_long="cut"))
    assert Recipe.model_validate(said.model_dump(mode="json")) == said


def test_a_prompt_that_is_too_long_loses_its_beginning_and_is_counted(tokenizer):
    model = SimpleNamespace(tokenizer=tokenizer, max_length=20)
    rows = [Row("a", "", " ".join(f"w{i}" for i in range(40)), ""), Row("b", "", "w1 w2", "")]
    found, cut = shortened(rows, model, 8)
    assert cut == 1 and found[1] == rows[1]
    assert rows[0].prompt.endswith(found[0].prompt) and found[0].prompt.endswith("w39")
    ids = tokenizer(chat_text(tokenizer, found[0].prompt), add_special_tokens=False)["input_ids"]
    assert len(ids) + 8 <= 20
    with pytest.raises(DataError, match="prompt a"):
        shortened(rows, SimpleNamespace(tokenizer=tokenizer, max_length=9), 8)
