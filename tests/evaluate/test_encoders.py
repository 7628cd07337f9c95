"""BERTScore and the similarity of sentence embeddings, by a tiny random encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sstmerge_core.errors import DataError, JobError, RecipeError
from sstmerge_core.evaluate import encoders
from sstmerge_core.evaluate.judges_measured import stored_judges
from sstmerge_core.recipe import Recipe, record
from sstmerge_core.runs.outcome import outcome
from sstmerge_core.runs.rescore import score_by_encoder
from sstmerge_core.workspace import Workspace

TEXTS = [("w1 w2 w3", "w1 w2 w4"), ("w5 w6", "w5 w6"), ("w1 w2 w3", "w9"), ("w3", ""), ("w1 " * 60, "w2 w3")]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of three layers and 32 positions, whose tokenizer names no length, as DeBERTa's."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("t5-encoder")  # no T5 for all that its name says
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    words = [*special.values(), *[f"w{number}" for number in range(20)]]
    core = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [(name, words.index(name)) for name in ("[CLS]", "[SEP]")]
    core.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    PreTrainedTokenizerFast(tokenizer_object=core, **special).save_pretrained(folder)
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = BertConfig(vocab_size=len(words), max_position_embeddings=32, intermediate_size=48, **sizes)
    BertModel(config).save_pretrained(folder)
    return folder


def test_bertscore_is_that_of_the_package(encoder: Path, tmp_path: Path) -> None:
    import shutil

    from bert_score import score

    found = encoders.scorer(f"bertscore:{encoder}#2", "cpu").scores(TEXTS)
    assert found[1] == pytest.approx(1.0, abs=1e-6) and found[3] == 0.0
    plain = tmp_path / "encoder"
    shutil.copytree(encoder, plain)
    settings = json.loads((plain / "tokenizer_config.json").read_text())
    (plain / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": 32}))
    rest = [pair for pair in TEXTS if pair[1]]
    _, _, f1 = score([answer for _, answer in rest], [one for one, _ in rest], model_type=str(plain), num_layers=2)
    assert [found[TEXTS.index(pair)] for pair in rest] == pytest.approx(f1.tolist(), abs=1e-6)
    other = encoders.scorer(f"bertscore:{encoder}#3", "cpu")
    assert other.scores(TEXTS[:1]) != pytest.approx(found[:1])
    assert other.name.startswith(f"bert_score:{encoder.name}@") and other.name.endswith("#3")


def test_semantic_similarity_is_the_cosine_of_mean_pooled_states(encoder: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    found = encoders.scorer(f"semantic:{encoder}", "cpu").scores(TEXTS)
    tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder).eval()

    def alone(text: str) -> torch.Tensor:
        with torch.inference_mode():
            return (
                model(**tokenizer(text, return_tensors="pt", truncation=True, max_length=32))
                .last_hidden_state[0]
                .mean(0)
            )

    for (reference, answer), value in zip(TEXTS, found, strict=True):
        expected = torch.cosine_similarity(alone(reference), alone(answer), dim=0).item() if answer else 0.0
        assert value == pytest.approx(expected, abs=1e-5)


def test_what_cannot_be_used_is_told_with_the_way_to_get_it(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="hf download microsoft/deberta-xlarge-mnli"):
        encoders.scorer("bertscore")
    with pytest.raises(RecipeError, match="no layer is known"):
        encoders.scorer(f"bertscore:{encoder}")
    with pytest.raises(DataError, match="layer 9"):
        encoders.scorer(f"bertscore:{encoder}#9", "cpu").scores(TEXTS)
    for wrong, words in (("#x", "no layer"), ("#0", "no layer of bertscore")):
        with pytest.raises(RecipeError, match=words):
            encoders.scorer(f"bertscore:{encoder}{wrong}")
    with pytest.raises(RecipeError, match="no layer of semantic"):
        encoders.scorer(f"semantic:{encoder}#2")
    with pytest.raises(RecipeError, match="takes no encoder"):
        encoders.scorer("rouge_l")
    monkeypatch.setattr(encoders, "_is_there", lambda package: package != "bert_score")
    with pytest.raises(
        RecipeError, match=r"bert_score is not installed. Install it: pip install \"sstmerge\[bertscore\]\""
    ):
        encoders.scorer(f"bertscore:{encoder}#2")


def test_stored_answers_are_scored_once_and_the_runs_own_utility_stays(
    encoder: Path, without_rouge: tuple[Workspace, str]
) -> None:
    workspace, run_id = without_rouge
    past = record.read(workspace.run(run_id))
    recipe = Recipe.model_validate(past.recipe)
    before = outcome(workspace, recipe)
    told: list[tuple[int, int]] = []
    scorer = encoders.scorer(f"semantic:{encoder}", "cpu")
    rows = score_by_encoder(workspace, run_id, scorer, lambda done, total: told.append((done, total)))
    (suite,) = {row["suite"] for row in rows}
    answers = [row for row in past.samples[suite] if row["reference"]]
    assert rows[0]["n"] == len(answers) and rows[0]["judge"] == scorer.name and rows[0]["metric"] == "semantic"
    assert rows[0]["ci_low"] < rows[0]["value"] < rows[0]["ci_high"]
    assert told[-1][0] == told[-1][1]
    lines = (workspace.run(run_id) / "events.jsonl").read_bytes()
    assert score_by_encoder(workspace, run_id, scorer) == rows
    assert (workspace.run(run_id) / "events.jsonl").read_bytes() == lines
    assert outcome(workspace, recipe) == before
    assert stored_judges([scorer.name, "refusal_regex_v2"]) == ["refusal_regex_v2"]


def test_a_run_that_is_not_here_is_refused(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="there is no such run"):
        score_by_encoder(Workspace(tmp_path).create(), "no", encoders.scorer(f"semantic:{encoder}", "cpu"))
