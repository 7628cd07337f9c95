"""Metrics that an encoder computes of answer and reference: BERTScore, and the similarity of sentence embeddings.

A suite may declare one as its own metric (`of_suite`): its score is then stored with each answer, as ``scored``. Of
other answers it is computed when it is asked for. Nothing is fetched: the encoder is a folder, or a name whose files
are in the hub's local cache, and its weights are read from safetensors. torch and bert-score load with the first text.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from sstmerge_core import documents, metrics
from sstmerge_core.adapters.fingerprint import file_state
from sstmerge_core.errors import DataError, Problem, RecipeError
from sstmerge_core.evaluate.judges_models import Checkpoint, find
from sstmerge_core.metrics import Metric, reasoning
from sstmerge_core.recipe import Suite
from sstmerge_core.workspace import given_path

BATCH = 16
"""Texts that an encoder sees at once"""
Texts = Sequence[tuple[str, str]]
"""(reference, answer)"""


@dataclass(frozen=True)
class Scorer:
    """One metric by one encoder."""

    metric: Metric
    checkpoint: Checkpoint
    layer: int | None
    device: str = "auto"

    @property
    def name(self) -> str:
        """What stands in the judge column of its rows: ``bert_score:microsoft/deberta-xlarge-mnli@…#40``."""
        layer = f"#{self.layer}" if self.layer is not None else ""
        return f"{self.checkpoint.judge_id(self.metric.computed_by)}{layer}"

    def scores(self, texts: Texts, progress: Callable[[int, int], None] = lambda done, total: None) -> list[float]:
        """Of every (reference, answer), in order. Raises DataError for an encoder or a layer that cannot be used."""
        # equal texts are scored once, and texts of like length together, so that little is padding
        # an empty text has no tokens to be alike: 0, as the package bert-score has it
        found = {pair: 0.0 for pair in texts if not all(map(str.strip, pair))}
        order = sorted(set(texts) - set(found), key=lambda pair: (-len(pair[0]) - len(pair[1]), pair))
        for start in range(0, len(order), BATCH):
            progress(start, len(order))
            batch = order[start : start + BATCH]
            found |= zip(batch, self._compute(batch), strict=True)
        progress(len(order), len(order))
        return [found[pair] for pair in texts]

    @cached_property
    def _compute(self) -> Callable[[Texts], list[float]]:
        make = {"bertscore": _bertscore, "semantic": _semantic}[self.metric.name]
        return make(self.checkpoint.folder, self.layer, self.device)


def scorer(text: str, device: str = "auto") -> Scorer:
    """A metric by an encoder: ``bertscore``, as declared, ``bertscore:FOLDER#9``, ``bertscore:ORG/NAME[@REVISION]#9``.

    A name on the hub is looked for in its local cache. Raises RecipeError for another metric, a layer that does not fit
    or without the package, DataError for a model that is not here.
    """
    name, model, layer = parted(text)
    metric = metrics.get(name)
    if metric.encoder is None:
        fix = f"Metrics that do: {', '.join(metrics.by_encoder())}."
        raise RecipeError(Problem(f"metric {name}", "takes no encoder", fix))
    if name == "bertscore" and (lacking := [one for one in ("bert_score", "matplotlib") if not _is_there(one)]):
        fix = 'Install it: pip install "sstmerge[bertscore]".'
        raise RecipeError(Problem("metric bertscore", f"the package {lacking[0]} is not installed", fix))
    if layer is not None and (layer < 1 or metric.encoder.layer is None):
        fix = "Leave it out." if metric.encoder.layer is None else "Layers count from 1."
        raise RecipeError(Problem(f"layer {layer}", f"is no layer of {name}", fix))
    if layer is None and not model:
        layer = metric.encoder.layer
    if layer is None and metric.encoder.layer is not None:
        known = _known_layer(model)
        if known is None:
            fix = f"Write {name}:MODEL#9; the package bert-score knows the layers of published encoders by their names."
            raise RecipeError(Problem(f"encoder {model}", "no layer is known for it", fix))
        layer = known
    model = model or metric.encoder.model
    found = Scorer(metric, _checkpoint(model, name, _state(model)), layer, device)
    layers = _settings(found.checkpoint.folder / "config.json").get("num_hidden_layers")
    if layer is not None and isinstance(layers, int) and layer > layers:
        fault = f"layer {layer}: it has {layers}"
        raise DataError(Problem(f"encoder {found.checkpoint.folder}", fault, "Name a layer that it has."))
    return found


def declared(text: str) -> dict[str, str]:
    """What a recipe's suite says of a metric named as `scorer` takes it: ``metric``, ``encoder`` and ``encoded``.

    Of a metric that no encoder computes ``metric`` alone. Raises what `scorer` raises.
    """
    if not is_metric(text):
        return {"metric": text}
    found = scorer(text)
    name, model, _ = parted(text)
    assert found.metric.encoder is not None
    layer = f"#{found.layer}" if found.layer is not None else ""
    return {"metric": name, "encoder": f"{model or found.metric.encoder.model}{layer}", "encoded": found.name}


def of_suite(suite: Suite, device: str = "auto") -> Scorer | None:
    """What scores the suite's answers; None where no encoder does.

    Raises what `scorer` raises, and DataError where the encoder is not the one that the recipe was made with.
    """
    if not is_metric(suite.metric):
        return None
    found = scorer(f"{suite.metric}:{suite.encoder}", device)
    if found.name != suite.encoded:
        fault = f"is {found.name}, not {suite.encoded}: it has changed since this run was planned"
        raise DataError(Problem(f"encoder {suite.encoder}", fault, "Launch the run again."))
    return found


def scored(scorer: Scorer, samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the ``samples`` event with what the encoder says of each answer, as ``scored``; those without a reference
    as they are.
    """
    asked = [row for row in samples if row.get("reference")]
    found = scorer.scores([(row["reference"], reasoning.answer(row["response"])) for row in asked])
    by_id = {row["prompt_id"]: value for row, value in zip(asked, found, strict=True)}
    known = {prompt: {"scored": value} for prompt, value in by_id.items()}
    return [{**row, **known.get(row["prompt_id"], {})} for row in samples]


@lru_cache(maxsize=16)
def _checkpoint(model: str, kind: str, _state: tuple[str, ...]) -> Checkpoint:
    """As `find`, whose digest of a folder takes seconds of a large encoder: a sweep's plan asks for it at each point"""
    return find(model, kind)


def _state(model: str) -> tuple[str, ...]:
    folder = given_path(model)
    return tuple(file_state(file) for file in sorted(folder.iterdir())) if model and folder.is_dir() else ()


def is_metric(text: str) -> bool:
    """Whether `text` names a metric that an encoder computes."""
    return text.partition(":")[0] in metrics.by_encoder()


def parted(text: str) -> tuple[str, str, int | None]:
    """``bertscore:ORG/NAME#9`` → metric, model and layer. Raises RecipeError for a layer that is no number."""
    name, _, rest = text.partition(":")
    model, mark, layer = rest.rpartition("#") if "#" in rest else (rest, "", "")
    if mark and not layer.isdecimal():
        raise RecipeError(Problem(f"encoder {rest}"[:80], f"{layer!r} is no layer", "Write MODEL#9."))
    return name, model, int(layer) if mark else None


def _is_there(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _known_layer(model: str) -> int | None:
    """The layer that the package bert-score chose for a published encoder, by its name on the hub."""
    from bert_score.utils import model2layers

    known: int | None = model2layers.get(model.partition("@")[0])
    return known


def _device(name: str) -> str:
    from sstmerge_core.models.device import best_device

    return best_device() if name == "auto" else name


class _Folder(str):
    """A path in which the package finds no names of models: "t5" is within /tmp/pytest5 too."""

    def __contains__(self, _: object) -> bool:
        return False


def _bertscore(folder: Path, layer: int | None, device: str) -> Callable[[Texts], list[float]]:
    from bert_score import BERTScorer

    where = f"encoder {folder}"
    try:
        made = BERTScorer(model_type=_Folder(folder), num_layers=layer, device=_device(device), batch_size=BATCH)
    except AssertionError as error:
        fix = "Name a layer that it has."
        raise DataError(Problem(where, f"layer {layer}: {' '.join(str(error).split())[:160]}", fix)) from None
    except (OSError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        fix = "Give an encoder that the package bert-score takes, such as BERT, RoBERTa or DeBERTa."
        raise DataError(Problem(where, f"cannot be loaded: {' '.join(str(error).split())[:160]}", fix)) from error
    # some tokenizers (DeBERTa's) name no length, and the package then asks for one beyond every number
    positions = getattr(made._model.config, "max_position_embeddings", 512)
    made._tokenizer.model_max_length = min(made._tokenizer.model_max_length, positions)

    def compute(texts: Texts) -> list[float]:
        _, _, f1 = made.score([answer for _, answer in texts], [reference for reference, _ in texts])
        return [float(one) for one in f1]

    return compute


def _semantic(folder: Path, _layer: int | None, device: str) -> Callable[[Texts], list[float]]:
    import torch
    from transformers import AutoModel, AutoTokenizer

    how: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **how)
        model = AutoModel.from_pretrained(folder, use_safetensors=True, **how).to(_device(device)).eval()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        fault = f"cannot be loaded: {' '.join(str(error).split())[:160]}"
        raise DataError(Problem(f"encoder {folder}", fault, "Give the folder of a sentence encoder.")) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    pooling = _settings(folder / "1_Pooling" / "config.json")
    first = bool(pooling.get("pooling_mode_cls_token"))
    longest = _settings(folder / "sentence_bert_config.json").get("max_seq_length")
    longest = min(filter(None, [longest, getattr(model.config, "max_position_embeddings", None), 512]))

    def embedded(texts: Sequence[str]) -> torch.Tensor:
        """One vector a text (n, width): the mean of its tokens' last hidden states, or the first one's."""
        told = tokenizer(list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt")
        told = {name: value.to(model.device) for name, value in told.items() if name != "token_type_ids"}
        with torch.inference_mode():
            hidden = model(**told).last_hidden_state.float()
        mask = told["attention_mask"].unsqueeze(-1).float()
        return hidden[:, 0] if first else (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)

    def compute(texts: Texts) -> list[float]:
        one, other = embedded([reference for reference, _ in texts]), embedded([answer for _, answer in texts])
        return torch.nn.functional.cosine_similarity(one, other).tolist()

    return compute


def _settings(file: Path) -> dict[str, Any]:
    try:
        found = documents.read_json(file)
    except documents.FormatError:
        return {}
    return found if isinstance(found, dict) else {}
