"""Chat templates as people have them: used as they are meant, or refused in one line before any work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sstmerge_core.errors import DataError
from sstmerge_core.models.chat import chat_text, check_template, conversation_text
from sstmerge_core.models.resident import ResidentModel, read_texts

TURN = "{% for m in messages %}<|im_start|> {{ m.role }} {{ m.content }} <|im_end|> {% endfor %}"
PARTS = (
    "{% for m in messages %}{{ m.role }} : {% for c in m.content %}{% if c['type'] == 'text' %}{{ c['text'] }}"
    "{% endif %}{% endfor %} {% endfor %}{% if add_generation_prompt %}assistant : {% endif %}"
)
EITHER = (
    "{% for m in messages %}{% if m.content is string %}S {{ m.content }}{% else %}P {{ m.content[0].text }}"
    "{% endif %}{% endfor %}"
)


def with_template(base: Path, folder: Path, template: object) -> Path:
    """A copy of the base whose tokenizer has this template; None: none."""
    shutil.copytree(base, folder)
    for path in folder.glob("chat_template*"):
        path.unlink()
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings.pop("chat_template", None)
    path.write_text(json.dumps(settings | ({"chat_template": template} if template else {})))
    return folder


BROKEN = {
    "system turn wanted": (
        "{% if messages[0]['role'] != 'system' %}{{ raise_exception('Conversation must start with a system message') }}"
        "{% endif %}" + TURN,
        "without a system turn",
    ),
    "refuses everything": ("{{ raise_exception('Not\nfor you') }}", "refuses the conversation"),
    "loop not closed": ("{% for m in messages %}{{ m.content }}", "cannot be parsed, line 1"),
    "unknown tag": ("{% blah %}", "cannot be parsed"),
    "expression not closed": ("{{ messages[0].content", "cannot be parsed"),
    "undefined function": ("{{ strftime_soon('%d') }}" + TURN, "refuses the conversation"),
    "wrong type": ("{{ 1 + messages }}", "fails"),
    "missing attribute": ("{{ messages[0].content.no.such }}", "refuses the conversation"),
    "division by zero": ("{{ 1 / 0 }}", "fails"),
    "endless recursion": ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "fails"),
    "unsafe": ("{{ messages.__class__.__mro__ }}" + TURN * 0 + "{{ ''.__class__.__bases__[0].__subclasses__() }}", ""),
    "prompt lost": ("<|im_start|> user <|im_end|>", "leaves the prompt out"),
    "only the role": ("{% for m in messages %}{{ m.role }}{% endfor %}", "leaves the prompt out"),
    "only the system turn": (
        "{% for m in messages if m.role == 'system' %}{{ m.content }}{% endfor %}",
        "leaves the prompt out",
    ),
    "named without a default": (
        [{"name": "tool_use", "template": TURN}, {"name": "rag", "template": TURN}],
        "only named templates (rag, tool_use)",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_template_that_cannot_be_used_is_refused_in_one_line_when_the_model_is_loaded(kind, tiny_base, tmp_path):
    template, said = BROKEN[kind]
    folder = with_template(tiny_base, tmp_path / "base", template)
    with pytest.raises(DataError) as caught:
        ResidentModel.load(folder, device="cpu")
    (problem,) = caught.value.problems
    assert said in problem.fault and problem.fix and str(folder) in problem.where
    assert "\n" not in str(problem) and len(str(problem)) < 500


USABLE = {
    "none": (None, "w1 w2\n"),
    "text": (TURN, "<|im_start|> user w1 w2 <|im_end|> "),
    "parts": (PARTS, "user : w1 w2 assistant : "),
    "either": (EITHER, "S w1 w2"),
    "trimmed": (TURN.replace("m.content", "m.content | trim"), "<|im_start|> user w1 w2 <|im_end|> "),
    "as JSON": ("{{ messages | tojson }}", "w1 w2"),
    "named with a default": (
        [{"name": "default", "template": TURN}, {"name": "rag", "template": "RAG"}],
        "<|im_start|> user w1 w2 <|im_end|> ",
    ),
    "with generation marks": (
        TURN.replace("{{ m.content }}", "{% generation %}{{ m.content }}{% endgeneration %}"),
        "w1",
    ),
    "says what a missing system turn is": (
        "{{ system | default('You are kind.') }}" + TURN,
        "You are kind.<|im_start|>",
    ),
}


@pytest.mark.parametrize("kind", USABLE)
def test_a_template_that_can_be_used_has_the_prompt_in_its_text(kind, tiny_base, tmp_path):
    template, expected = USABLE[kind]
    _, tokenizer = read_texts(with_template(tiny_base, tmp_path / "base", template))
    check_template(tokenizer)
    assert expected in chat_text(tokenizer, "w1 w2")
    quotes = 'say "w1" & <w2>\n  w3'
    assert chat_text(tokenizer, quotes)


def test_a_template_that_is_changed_is_looked_at_again(tiny_base, tmp_path):
    _, tokenizer = read_texts(with_template(tiny_base, tmp_path / "base", PARTS))
    assert chat_text(tokenizer, "w1") == "user : w1 assistant : "
    tokenizer.chat_template = TURN
    assert chat_text(tokenizer, "w1") == "<|im_start|> user w1 <|im_end|> "


def test_a_word_of_the_template_is_not_taken_for_the_prompt(tiny_base, tmp_path):
    _, tokenizer = read_texts(with_template(tiny_base, tmp_path / "base", PARTS))
    assert chat_text(tokenizer, "user") == "user : user assistant : "


def test_a_conversation_that_a_template_refuses_is_one_line(tiny_base, tmp_path):
    alternating = (
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Roles must alternate') }}{% endif %}{{ m.content }} {% endfor %}"
    )
    _, tokenizer = read_texts(with_template(tiny_base, tmp_path / "base", alternating))
    twice = [{"role": "user", "content": "w1"}, {"role": "user", "content": "w2"}]
    with pytest.raises(DataError, match=r"refuses the conversation \(Roles must alternate\)"):
        conversation_text(tokenizer, twice)
    between = [twice[0], {"role": "assistant", "content": "w3"}, twice[1]]
    assert conversation_text(tokenizer, between) == "w1 w3 w2 "


def test_training_refuses_such_a_template_too(tiny_base, tmp_path):
    from sstmerge_core.train import TrainingSettings, train

    folder = with_template(tiny_base, tmp_path / "base", BROKEN["prompt lost"][0])
    with pytest.raises(DataError, match="leaves the prompt out"):
        train(folder, [("w1", "w2")], tmp_path / "out", TrainingSettings(epochs=1), device="cpu")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "without", "said"),
    [
        ({}, "token*", "holds no tokenizer"),
        ({"model_type": "xyz", "auto_map": {"AutoConfig": "configuration_x.XConfig"}}, "", "code of its own"),
        ({"vocab_size": "many"}, "", "cannot be loaded"),
        ({"model_type": "no-such-type"}, "", "cannot be loaded"),
    ],
)
def test_what_keeps_a_base_from_being_loaded_is_one_line(changes, without, said, tiny_base, tmp_path):
    folder = shutil.copytree(tiny_base, tmp_path / "base")
    for path in folder.glob(without) if without else ():
        path.unlink()
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(DataError) as caught:
        ResidentModel.load(folder, device="cpu")
    (problem,) = caught.value.problems
    assert said in problem.fault and problem.fix and str(folder) in problem.where and "\n" not in str(problem)
