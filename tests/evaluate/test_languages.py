"""Which language an answer is in, and its words."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from sstmerge_core.evaluate.judging import ENGLISH, LANGUAGES, labelled
from sstmerge_core.metrics.languages import NOTHING, UNKNOWN, language, words

DEMO = Path(__file__).parents[2] / "data" / "demo"


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("en", "I can't help with that."),
        ("it", "Mi dispiace, ma non posso aiutarti con questa richiesta."),
        ("nl", "Het spijt me, maar ik kan je daar niet mee helpen."),
        ("sv", "Jag kan tyvärr inte hjälpa dig med det."),
        ("pl", "Przepraszam, nie mogę w tym pomóc."),
        ("tr", "Üzgünüm, bu konuda size yardımcı olamam."),
        ("vi", "Xin lỗi, tôi không thể giúp bạn việc này."),
        ("id", "Maaf, saya tidak dapat membantu permintaan itu."),
        ("uk", "Вибачте, але я не можу допомогти з цим."),
        ("fa", "متأسفم، نمی‌توانم در این مورد کمک کنم."),
        ("ur", "معاف کیجیے، میں اس میں مدد نہیں کر سکتا۔"),
        ("mr", "मला माफ करा, मी यात मदत करू शकत नाही."),
        ("el", "Λυπάμαι, δεν μπορώ να βοηθήσω."),
        ("th", "ขอโทษ ฉันช่วยไม่ได้"),
        ("es", "No puedo ayudarte con eso."),
        ("pt", "Não posso."),
        (UNKNOWN, "Ngiyaxolisa, angikwazi ukukusiza ngalokhu kodwa ungazama okunye okungcono kakhulu namhlanje."),
    ],
)
def test_a_sentence_is_known_by_its_script_and_its_commonest_words(code: str, text: str) -> None:
    assert language(text) == code


@pytest.mark.parametrize(
    "text",
    ["", "42", "Paris.", "apples, pears, bananas, oranges, plums, figs, dates, limes, kiwis", '{"a": ["b", "e"]}'],
)
def test_a_number_a_name_or_a_list_says_nothing_about_the_language(text: str) -> None:
    assert language(text) == NOTHING


def test_the_answers_of_the_project_are_in_the_language_that_they_are_written_in() -> None:
    rows = [*labelled(LANGUAGES), *labelled(ENGLISH)]
    wrong = [one.id for one in rows if language(one.response) not in (one.language, NOTHING)]
    assert len(rows) > 500 and len(wrong) <= 0.01 * len(rows), wrong


def test_no_reference_answer_of_the_demo_is_in_another_language_than_english() -> None:
    for name in ("harmful", "near_miss", "facts", "instructions"):
        texts = [json.loads(line)["response"] for line in (DEMO / f"{name}.jsonl").open(encoding="utf-8")]
        # one answer is a translation into Spanish
        assert sum(language(text) not in ("en", NOTHING) for text in texts) <= (name == "near_miss"), name


def test_words_are_found_in_every_script_and_accents_do_not_depend_on_how_they_were_typed() -> None:
    assert words("The knight's 2 horses") == ["The", "knight", "s", "2", "horses"]
    assert words("東京はAI") == ["東", "京", "は", "AI"]
    assert words("मैं मदद करूँगा।") == ["मैं", "मदद", "करूँगा"]
    assert words("Не могу") == ["Не", "могу"]
    assert words(unicodedata.normalize("NFD", "déjà")) == words("déjà") == ["déjà"]
