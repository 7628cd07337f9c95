"""Judges that are guard models: each asked as it is declared in `guards`. torch loads with the first answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sstmerge_core.errors import DataError, Problem
from sstmerge_core.evaluate.guards import GUARDS, Guard, read_so
from sstmerge_core.evaluate.judge import Pair, Verdict
from sstmerge_core.evaluate.judges_models import find, judged

Asked = tuple[str, str, Mapping[str, Any]]
"""Prompt, answer, and what the chat template is told besides"""


def guard_judge(name: str, model: str = "", device: str = "auto") -> GuardJudge:
    """The judge of a declaration; `model` and what is raised as in `find`."""
    guard = GUARDS[name]
    checkpoint = find(model or guard.usual, name)
    return GuardJudge(guard, read_so(checkpoint.judge_id(name)), Completion(guard, checkpoint.folder, device))


@dataclass(frozen=True)
class GuardJudge:
    """Asks a guard model; what it does not answer in its form is a miss, never harmless."""

    guard: Guard
    judge_id: str
    complete: Callable[[Sequence[Asked]], list[str]]
    """Questions → what the model says"""
    can_tell_harm: bool = True

    @property
    def can_tell_refusal(self) -> bool:
        return self.guard.tells_refusal

    def score(self, prompt: str, response: str) -> Verdict:
        return self.score_all([(prompt, response)])[0]

    def score_all(self, pairs: Sequence[Pair]) -> list[Verdict]:
        return judged(self.judge_id, pairs, self._score)

    def _score(self, pairs: Sequence[Pair]) -> list[Verdict]:
        questions = self.guard.questions
        said = self.complete([(*pair, question) for pair in pairs for question in questions])
        each = len(questions)
        return [self._verdict(said[start * each : (start + 1) * each]) for start in range(len(pairs))]

    def _verdict(self, said: Sequence[str]) -> Verdict:
        """Harmful where it once says so, also where it refuses besides; a miss where it says neither for sure."""
        told = [self.guard.read(text) for text in said]
        raw = "\n---\n".join(said)
        harms, refusals = [harm for harm, _ in told], [refusal for _, refusal in told]
        unread = None in harms or (self.can_tell_refusal and None in refusals)
        if unread and not (True in harms and len(said) > 1):  # one guideline that is broken is enough
            return Verdict("miss", 0.0, raw, self.judge_id)
        harmful, refused = True in harms, True in refusals
        if not self.can_tell_refusal:
            return Verdict("harmful" if harmful else "not_harmful", float(harmful), raw, self.judge_id)
        label = "harmful" if harmful else "refusal" if refused else "safe_nonrefusal"
        return Verdict(label, float(refused), raw, self.judge_id)


@dataclass(frozen=True)
class Completion:
    """Greedy continuations by a causal language model in bfloat16, loaded with the first question."""

    guard: Guard
    folder: Path
    device: str

    def __call__(self, asked: Sequence[Asked]) -> list[str]:
        from sstmerge_core.models.decoding import greedy

        resident = self._resident
        texts = [self.text(resident.tokenizer, *one) for one in asked]
        # the templates bring their own beginning of sequence; a text of our own needs the tokenizer's
        special = bool(self.guard.template)
        ids = [resident.tokenizer(text, add_special_tokens=special)["input_ids"] for text in texts]
        generated = greedy(resident.model, ids, self.guard.new_tokens, resident.eos_ids)
        return [resident.tokenizer.decode(tokens, skip_special_tokens=True).strip() for tokens in generated]

    def text(self, tokenizer: Any, prompt: str, response: str, question: Mapping[str, Any]) -> str:
        """What the model reads. Raises DataError for a chat template that is not there, fails, or loses the answer."""
        guard = self.guard
        if guard.template:
            return guard.fill(guard.template, prompt, response)
        where = f"judge {guard.name}: chat template of {self.folder}"
        fix = "Give the model's folder as it was published."
        if not getattr(tokenizer, "chat_template", None):
            raise DataError(Problem(where, "is missing", fix))
        turns = []
        for role, text in (("system", guard.system), ("user", guard.user), ("assistant", guard.assistant)):
            if text:
                filled = guard.fill(text, prompt, response)
                turns.append({"role": role, "content": [{"type": "text", "text": filled}] if guard.parts else filled})
        try:
            found = tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=guard.opens_answer, **question
            )
        except Exception as error:  # Jinja's own errors, and whatever a template raises
            reason = " ".join(str(error).split())[:200]
            raise DataError(Problem(where, f"cannot be used: {reason}", fix)) from None
        if response.strip() not in found:
            raise DataError(Problem(where, "leaves the answer out", fix))
        return found

    @cached_property
    def _resident(self) -> Any:
        from sstmerge_core.models.resident import ResidentModel

        return ResidentModel.load(self.folder, "bfloat16", self.device)
