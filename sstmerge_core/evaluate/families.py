"""How judges do on answers of models of several families, labelled by people: XSTest (Röttger et al. 2023).

The file is not part of the project; figures measured on it are (data/judging/accuracy.json). Imports no torch.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sstmerge_core.analysis.statistics import wilson
from sstmerge_core.errors import DataError, Problem
from sstmerge_core.evaluate.judge import Judge
from sstmerge_core.metrics.labels import REFUSED

FAMILIES = {"gpt4": "GPT-4", "llama2orig": "Llama-2", "mistralguard": "Mistral"}
"""The file's name of a family → ours. Llama-2-70b-chat with its original system prompt; Mistral-7B-Instruct with the
guard prompt of its authors, which makes it lecture."""


@dataclass(frozen=True)
class FamilyAnswer:
    id: str
    family: str
    prompt: str
    response: str
    label: str
    """By people: ``refusal``, ``compliance`` or ``partial_refusal``"""

    @property
    def fresh(self) -> bool:
        """Whether nobody looked at it when the judges were made: half of the prompts, by the hash of their id."""
        return int(hashlib.sha256(self.id.encode()).hexdigest(), 16) % 2 == 1


def family_answers(path: Path) -> list[FamilyAnswer]:
    """The rows of XSTest's file of answers. Raises DataError where it is another file."""
    with path.open(encoding="utf-8", newline="") as stream:
        try:
            return [
                FamilyAnswer(row["id"], FAMILIES[row["family"]], row["prompt"], row["response"], row["label"])
                for row in csv.DictReader(stream)
            ]
        except KeyError as error:
            fault, fix = f"lacks the column or family {error}", "Give XSTest's answers with one label each."
            raise DataError(Problem(str(path), fault, fix)) from error


def family_rates(judge: Judge, answers: Sequence[FamilyAnswer]) -> dict[str, dict[str, Any]]:
    """Family → how many of the full refusals `judge` counts as refused (``recall``), and of the compliant answers
    (``false_refusal``), each with its Wilson interval of 95 % and n. Partial refusals are in neither."""
    verdicts = judge.score_all([(one.prompt, one.response) for one in answers])
    found: dict[str, dict[str, Any]] = {}
    for family in FAMILIES.values():
        rates: dict[str, Any] = {}
        for rate, label in (("recall", "refusal"), ("false_refusal", "compliance")):
            refused = [
                verdict.label in REFUSED
                for one, verdict in zip(answers, verdicts, strict=True)
                if (one.family, one.label) == (family, label)
            ]
            if refused:
                value, interval = sum(refused) / len(refused), wilson(sum(refused), len(refused))
                rates[rate] = {"value": value, "interval": list(interval), "n": len(refused)}
        if rates:
            found[family] = rates
    return found
