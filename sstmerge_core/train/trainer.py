"""The model under training: one step, the validation loss, everything that a checkpoint needs."""

from __future__ import annotations

import importlib.metadata
import json
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sstmerge_core.adapters import RECORD
from sstmerge_core.models.device import fast_bfloat16
from sstmerge_core.train.training_data import Pair
from sstmerge_core.workspace import new_folder, write_json

if TYPE_CHECKING:
    import torch

    from sstmerge_core.train.settings import TrainingSettings

_MOMENTS = ("exp_avg", "exp_avg_sq")


class Trainer:
    """The base with a new LoRA adapter on every linear module, AdamW and the batches. Importing this needs no torch."""

    def __init__(
        self, base: Path, rows: Sequence[Pair], validation: Sequence[Pair], settings: TrainingSettings, device: str
    ):
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import AutoConfig, AutoTokenizer

        from sstmerge_core.adapters.skeleton import LOCAL, model_class
        from sstmerge_core.models.chat import check_template
        from sstmerge_core.models.decoding import within_positions
        from sstmerge_core.models.supervised import encode

        torch.manual_seed(settings.seed)
        self._tokenizer = AutoTokenizer.from_pretrained(base)
        check_template(self._tokenizer)
        kind = model_class(AutoConfig.from_pretrained(base, **LOCAL))
        base_model: Any = kind.from_pretrained(base, dtype=torch.float32, use_safetensors=True)
        config = LoraConfig(
            r=settings.r,
            lora_alpha=settings.lora_alpha,
            lora_dropout=0.0,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        self._model: Any = get_peft_model(base_model.to(device), config)
        self._model.train()
        self._trainable = {name: one for name, one in self._model.named_parameters() if one.requires_grad}
        self._optimizer = torch.optim.AdamW(list(self._trainable.values()), lr=settings.learning_rate, weight_decay=0.0)
        self._best: dict[str, torch.Tensor] = {}
        self._settings, self._device = settings, torch.device(device)
        self._autocast = device != "cpu" or fast_bfloat16()
        longest = within_positions(base_model, settings.max_length)
        self._rows, self._validation = (
            [encode(self._tokenizer, prompt, response, longest) for prompt, response in pairs]
            for pairs in (rows, validation)
        )
        self._order = _order(len(rows), settings)

    @property
    def arithmetic(self) -> str:
        return "bfloat16 autocast" if self._autocast else "float32"

    @property
    def machine(self) -> str:
        """What else the bits depend on."""
        return f"{self.arithmetic} {self._device.type} torch {importlib.metadata.version('torch')}"

    def epoch(self, step: int) -> float:
        """Epochs that are done after `step` steps."""
        return min(step * self._settings.batch_size, len(self._order)) / len(self._rows)

    def step(self, step: int) -> float:
        """Learn the batch after `step` steps; its loss before that."""
        import torch

        settings, size = self._settings, self._settings.batch_size
        for group in self._optimizer.param_groups:
            rate = _schedule(step, settings.steps(len(self._rows)), settings.warmup)
            group["lr"] = settings.learning_rate * rate
        loss = self._losses([self._rows[index] for index in self._order[step * size : (step + 1) * size]]).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(self._trainable.values()), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    def validation_loss(self) -> float:
        """Mean over the validation rows of each row's loss, nats per response token."""
        import torch

        self._model.eval()
        with torch.no_grad():
            starts = range(0, len(self._validation), self._settings.batch_size)
            losses = [self._losses(self._validation[at : at + self._settings.batch_size]) for at in starts]
        self._model.train()
        return float(torch.cat(losses).double().mean())

    def note_best(self) -> None:
        """Remember these weights: they are written, unless better ones are noted."""
        self._best = {name: parameter.detach().clone() for name, parameter in self._trainable.items()}

    def tensors(self) -> dict[str, torch.Tensor]:
        """All that the next step depends on, by name. The random state matters where the base has dropout."""
        import torch

        found = {"random": torch.get_rng_state()}
        if self._device.type == "cuda":
            found["random.cuda"] = torch.cuda.get_rng_state(self._device)
        for name, parameter in self._trainable.items():
            found[f"weight.{name}"] = parameter.detach()
            found |= {f"{moment}.{name}": self._optimizer.state[parameter][moment] for moment in _MOMENTS}
        return found | {f"best.{name}": values for name, values in self._best.items()}

    def restore(self, kept: Mapping[str, torch.Tensor], step: int) -> None:
        """Put back what `tensors` gave after `step` steps."""
        import torch

        torch.set_rng_state(kept["random"])
        if "random.cuda" in kept:
            torch.cuda.set_rng_state(kept["random.cuda"], self._device)
        with torch.no_grad():
            for name, parameter in self._trainable.items():
                parameter.copy_(kept[f"weight.{name}"])
                moments = {moment: kept[f"{moment}.{name}"].to(parameter.device) for moment in _MOMENTS}
                self._optimizer.state[parameter] = {"step": torch.tensor(float(step)), **moments}
        self._best = {name.removeprefix("best."): kept[name] for name in kept if name.startswith("best.")}

    def write(self, out: Path, base_name: str, record: dict[str, Any]) -> None:
        """Write the adapter with its record: the best weights noted, else the last."""
        import torch

        with torch.no_grad():
            for name, values in self._best.items():
                self._trainable[name].copy_(values)
        self._model.peft_config["default"].base_model_name_or_path = base_name
        with new_folder(out) as temporary:
            # bfloat16 on disk: half the size; what is measured later is what was saved. PEFT would ask the hub whether
            # the vocabulary was changed if it were not told that no embedding was trained.
            model = self._model.to(torch.bfloat16)
            model.save_pretrained(str(temporary), safe_serialization=True, save_embedding_layers=False)
            (temporary / "README.md").unlink(missing_ok=True)
            _tidy_config(temporary / "adapter_config.json")
            write_json(temporary / RECORD, record)

    def _losses(self, encoded: Sequence[tuple[list[int], int]]) -> torch.Tensor:
        """Of each row of a batch."""
        import torch

        from sstmerge_core.models.supervised import collate, sample_losses

        pad_id = self._tokenizer.pad_token_id
        batch = collate(encoded, self._tokenizer.eos_token_id if pad_id is None else pad_id)
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._autocast):
            return sample_losses(self._model, batch.to(self._device))[0]


def _order(count: int, settings: TrainingSettings) -> list[int]:
    """Row indices in training order: a fresh shuffle per epoch."""
    generator = random.Random(settings.seed)
    order: list[int] = []
    while len(order) < settings.epochs * count:
        epoch = list(range(count))
        generator.shuffle(epoch)
        order += epoch
    return order[: round(settings.epochs * count)]


def _schedule(step: int, steps: int, warmup: float) -> float:
    """Linear warm-up, then cosine to zero."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def _tidy_config(path: Path) -> None:
    """Sort the target modules: PEFT writes a set in random order, which would change the file at every run."""
    config = json.loads(path.read_text())
    if isinstance(config.get("target_modules"), list):
        config["target_modules"].sort()
    write_json(path, config)
