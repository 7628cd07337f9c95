"""The model of the Playground: a base that is never written to, and a low-rank change of it for every row of a batch.

All columns of a question go through the base together, one row each, so the base's weights are read once a token
however many columns there are; each row gets its own ΔW on the way.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sstmerge_core import adapters
from sstmerge_core.adapters.whole import with_whole
from sstmerge_core.errors import AdapterError, DataError, Problem, SSTMergeError
from sstmerge_core.models.beside import inner
from sstmerge_core.models.chat import conversation_text
from sstmerge_core.models.decoding import steps
from sstmerge_core.models.experts import Listener, is_expert, listening
from sstmerge_core.models.modules import takes_a_side_path
from sstmerge_core.models.resident import ResidentModel
from sstmerge_core.playground.protocol import Asked, Event, Question, failure
from sstmerge_core.workspace import Workspace

if TYPE_CHECKING:
    import torch

    from sstmerge_core.adapters import Factors

ADAPTERS_KEPT = 12
"""Adapters in memory at most, beyond those that are in use"""


@dataclass(frozen=True)
class Patch:
    """ΔW of every row of a batch: y += ((x Aᵀ) ⊙ c) Bᵀ per module, which never forms a ΔW of shape (out, in)."""

    modules: dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
    """A (R, in), B (out, R) of all adapters one after another, and c (rows, R): the weight of each rank in each row"""

    @classmethod
    def of(cls, factors: Sequence[Mapping[str, Factors]], weights: torch.Tensor, dtype: torch.dtype) -> Patch:
        """The rows' weighted sums Σ wᵢ ΔWᵢ; `weights` is (rows, adapters)."""
        import torch

        modules = {}
        for name in sorted(set().union(*factors)):
            present = [(index, adapter[name]) for index, adapter in enumerate(factors) if name in adapter]
            a = torch.cat([factor.a for _, factor in present], dim=0)
            b = torch.cat([factor.b for _, factor in present], dim=1)
            ranks = torch.cat(
                [(weights[:, index] * factor.scaling)[:, None].expand(-1, len(factor.a)) for index, factor in present],
                dim=1,
            )
            modules[name] = a.to(dtype), b.to(dtype), ranks.to(a.device, dtype)
        return cls(modules)

    def rows(self, kept: Sequence[int]) -> Patch:
        """The patch of these rows alone."""
        return Patch({name: (a, b, ranks[list(kept)]) for name, (a, b, ranks) in self.modules.items()})

    @contextlib.contextmanager
    def applied(self, modules: Mapping[str, Any]) -> Iterator[None]:
        """Within the block the model computes with this patch; `modules` are the base's, by name."""
        experts = {name: _added_to_expert(*parts) for name, parts in self.modules.items() if is_expert(name)}
        layers = {name.rsplit(".", 2)[0]: modules[name].experts for name in experts}
        for name in self.modules:
            if name not in experts and not takes_a_side_path(modules[name]):
                fault = f"is of class {type(modules[name]).__name__}, beside which no adapter can work"
                raise AdapterError(Problem(name, fault, "Merge the adapter, and talk to the merged model."))
        with contextlib.ExitStack() as hooks:
            hooks.enter_context(listening(layers.__getitem__, experts))
            for name, parts in self.modules.items():
                if name not in experts:
                    hooks.enter_context(modules[name].register_forward_hook(_added(*parts)))
            yield


def _added_to_expert(a: torch.Tensor, b: torch.Tensor, ranks: torch.Tensor) -> Listener:
    """As `_added`, for the matrix of an expert, which sees some tokens of some rows."""

    def listen(x: torch.Tensor, y: torch.Tensor, tokens: torch.Tensor, total: int) -> torch.Tensor:
        rows = tokens // (total // len(ranks))
        return y + ((x @ a.T) * ranks[rows]) @ b.T

    return listen


def _added(a: torch.Tensor, b: torch.Tensor, ranks: torch.Tensor) -> Callable[..., torch.Tensor]:
    def hook(module: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        x = inputs[0]
        if len(x) != len(ranks):
            fault = f"a {type(module).__name__} of this architecture sees the columns mixed"
            raise AdapterError(Problem("base model", fault, "Ask one column at a time."))
        return output + (inner(module, x, a.T) * ranks[:, None]) @ b.T

    return hook


class ChatModel:
    """What the model process holds: one base, and the factors of the adapters asked for last."""

    def __init__(self, workspace: Workspace, device: str = "auto"):
        self.workspace = workspace
        self.device = device
        self._resident: ResidentModel | None = None
        self._loaded: tuple[str, str] | None = None
        """Fingerprint of the base in memory, and its number format"""
        self._base_path = ""
        self._factors: dict[tuple[str, str], dict[str, Factors]] = {}
        """By folder and fingerprint, the one used last at the end"""
        self._names: dict[str, str] = {}
        """What the questions called the folders"""

    @property
    def base(self) -> str:
        return Path(self._base_path).name if self._resident else ""

    @property
    def adapters(self) -> list[str]:
        return [self._names[folder] for folder, _ in self._factors]

    def answers(self, question: Question) -> Iterator[list[Event]]:
        """Answer `question`; yields the events of one step at a time. Raises SSTMergeError where no column can be.

        A column whose adapter does not fit fails alone.
        """
        if self._must_load(question):
            yield [{"event": "loading", "what": Path(question.base).name}]
            self._load(question)
        resident = self._resident
        assert resident is not None
        yield [{"event": "started"}]
        prompts, used, failed = self._prepare(question, resident)
        yield failed
        if not prompts:
            return
        patch = _patch([question.columns[index] for index in prompts], used, resident)
        rows = [_Row(index, resident) for index in prompts]
        choose = _chooser(question, resident.device)
        generated = steps(resident.model, list(prompts.values()), resident.eos_ids, choose, share_beginning=False)
        alive = list(range(len(rows)))
        begun = time.monotonic()
        for _ in range(question.max_new_tokens):
            with patch.applied(resident.modules):
                step = next(generated)
            events = [rows[row].add(token) for row, token in step]
            kept = [place for place, (_, token) in enumerate(step) if token not in resident.eos_ids]
            events += [
                rows[row].done("model", time.monotonic() - begun) for row, token in step if token in resident.eos_ids
            ]
            alive = [alive[place] for place in kept]
            yield [event for event in events if event]
            if not alive:
                return
            if len(kept) < len(step):
                patch = patch.rows(kept)
        yield [rows[row].done("limit", time.monotonic() - begun) for row in alive]

    def _must_load(self, question: Question) -> bool:
        return self._loaded != (self._fingerprint(question.base), question.dtype)

    def _fingerprint(self, base: str) -> str:
        adapters.read_base(base)  # says what is wrong with the folder
        return adapters.base_fingerprint(Path(base), self.workspace)

    def _load(self, question: Question) -> None:
        self._resident = self._loaded = None
        self._factors.clear()
        self._resident = ResidentModel.load(question.base, question.dtype, self.device, movable=False)
        self._loaded = (self._fingerprint(question.base), question.dtype)
        self._base_path = question.base

    def _prepare(
        self, question: Question, resident: ResidentModel
    ) -> tuple[dict[int, list[int]], dict[str, dict[str, Factors]], list[Event]]:
        """Token ids of each column that can be asked, the factors by folder, and a failure for the other columns."""
        prompts: dict[int, list[int]] = {}
        used: dict[str, dict[str, Factors]] = {}
        failed: list[Event] = []
        for index, column in enumerate(question.columns):
            try:
                found = {folder: used.get(folder) or self._adapter(name, folder) for name, folder, _ in column.adapters}
                prompts[index] = _token_ids(column, resident, question.max_new_tokens)
                used |= found
            except SSTMergeError as error:
                failed.append(failure(error, index))
        for key in list(self._factors)[: -max(ADAPTERS_KEPT, len(used))]:
            del self._factors[key]
        return prompts, used, failed

    def _adapter(self, name: str, folder: str) -> dict[str, Factors]:
        """An adapter's factors, from memory or checked against the base and loaded. Raises AdapterError.

        What it has trained whole is a ΔW of full rank, see `adapters.whole`.
        """
        adapter = adapters.read(folder, saved=True)
        key = (folder, adapter.fingerprint(self.workspace))
        found = self._factors.pop(key, None)
        if found is None:
            report = adapters.check_many(self._base_path, {name: folder}, modules_to_save="dense")
            if report.problems:
                raise AdapterError(report.problems)
            assert self._resident is not None
            found = with_whole(adapter, Path(self._base_path)).load(str(self._resident.device))
        self._factors[key] = found
        self._names[folder] = name
        return found


def _patch(columns: Sequence[Asked], used: Mapping[str, Mapping[str, Factors]], resident: ResidentModel) -> Patch:
    """One row a column; `used`: factors by folder."""
    import torch

    places = {folder: place for place, folder in enumerate(used)}
    weights = torch.zeros(len(columns), len(used))
    for row, column in enumerate(columns):
        for _, folder, weight in column.adapters:
            weights[row, places[folder]] += weight
    return Patch.of(list(used.values()), weights.to(resident.device), resident.model.dtype)


class _Row:
    """One column's answer as it grows."""

    def __init__(self, column: int, resident: ResidentModel):
        self._column = column
        self._resident = resident
        self._tokens: list[int] = []
        self._sent = ""

    def add(self, token: int) -> Event | None:
        """The answer with one token more; None where nothing new can be read yet."""
        if token in self._resident.eos_ids:
            return None
        self._tokens.append(token)
        text = self._text()
        if text == self._sent or text.endswith("\ufffd"):  # half of a character
            return None
        self._sent = text
        return {"event": "text", "column": self._column, "text": text, "tokens": len(self._tokens)}

    def done(self, ended: str, seconds: float) -> Event:
        about = {"text": self._text(), "tokens": len(self._tokens), "seconds": seconds, "ended": ended}
        return {"event": "done", "column": self._column} | about

    def _text(self) -> str:
        return self._resident.tokenizer.decode(self._tokens, skip_special_tokens=True).strip()


def _token_ids(column: Asked, resident: ResidentModel, max_new_tokens: int) -> list[int]:
    text = conversation_text(resident.tokenizer, column.messages)
    ids = resident.tokenizer(text, add_special_tokens=False)["input_ids"]
    longest = resident.max_length
    if longest and len(ids) + max_new_tokens > longest:
        fault = f"has {len(ids)} tokens; with {max_new_tokens} new ones that is more than the model's {longest}"
        raise DataError(Problem("conversation", fault, "Clear it, or allow fewer new tokens."))
    return ids


def _chooser(question: Question, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Samples at the question's temperature; None: greedy."""
    if question.temperature <= 0:
        return None
    import torch

    generator = torch.Generator(device).manual_seed(question.seed)

    def choose(logits: torch.Tensor) -> torch.Tensor:
        probabilities = (logits.float() / question.temperature).softmax(-1)
        return torch.multinomial(probabilities, 1, generator=generator).squeeze(1)

    return choose
