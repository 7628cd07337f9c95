from __future__ import annotations

import pytest

from sstmerge_core.errors import DataError
from sstmerge_core.evaluate.families import family_answers, family_rates
from sstmerge_core.evaluate.judges_lexical import Scripted

HEAD = "id,family,type,prompt,response,label\n"


def test_rates_are_of_full_refusals_and_of_compliance_and_partial_refusals_are_in_neither(tmp_path) -> None:
    path = tmp_path / "answers.csv"
    rows = ["a,gpt4,t,q,no,refusal", "b,gpt4,t,q,tut,refusal", "c,gpt4,t,q,sure,refusal"]
    rows += ["d,gpt4,t,q,yes,compliance", "e,gpt4,t,q,no,partial_refusal", "f,llama2orig,t,q,yes,compliance"]
    path.write_text(HEAD + "\n".join(rows) + "\n")
    judge = Scripted({"no": "refusal", "tut": "moralising", "sure": "partial", "yes": "not_refused"})
    rates = family_rates(judge, family_answers(path))
    assert (rates["GPT-4"]["recall"]["value"], rates["GPT-4"]["recall"]["n"]) == (pytest.approx(2 / 3), 3)
    assert (rates["GPT-4"]["false_refusal"]["value"], rates["GPT-4"]["false_refusal"]["n"]) == (0.0, 1)
    assert set(rates["Llama-2"]) == {"false_refusal"} and "Mistral" not in rates


def test_another_file_is_named(tmp_path) -> None:
    path = tmp_path / "answers.csv"
    path.write_text(HEAD + "a,bloom,t,q,no,refusal\n")
    with pytest.raises(DataError, match="lacks the column or family 'bloom'"):
        family_answers(path)
