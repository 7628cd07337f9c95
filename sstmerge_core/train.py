"""LoRA training on prompt–response rows: how the demo's adapters were made, and how users make their own."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from sstmerge_core.adapters import RECORD
from sstmerge_core.device import fast_bfloat16, share_the_machine
from sstmerge_core.errors import DataError, Problem
from sstmerge_core.workspace import new_folder, write_json


class TrainingSettings(BaseModel):
    """Everything that, with the data and the base, decides the trained adapter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    r: int = 8
    lora_alpha: int = 16
    learning_rate: float = 1e-3
    epochs: float = 4
    batch_size: int = 16
    warmup: float = 0.05
    """Share of the steps over which the learning rate rises; it then falls along a cosine to zero."""
    max_length: int = 256
    seed: int = 42


def train(
    base: Path,
    rows: Sequence[tuple[str, str]],
    out: Path,
    settings: TrainingSettings,
    *,
    base_name: str = "",
    record: dict[str, Any] | None = None,
    device: str = "cpu",
    progress: Callable[[int, int, float], None] = lambda step, steps, loss: None,
) -> list[float]:
    """Train a LoRA adapter on every linear module and write it to the folder `out`.

    `rows` are (prompt, response). Returns the loss of each step in nats per response token. AdamW; bfloat16 autocast
    where the hardware multiplies it, otherwise float32. The same settings, rows, base and machine give one adapter.
    Raises DataError for an empty data set. Nothing is left in `out` unless training ends.
    """
    if not rows:
        fix = "Give a file with prompt and response columns."
        raise DataError(Problem(str(out), "there are no training rows", fix))
    share_the_machine()
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from sstmerge_core.supervised import collate, encode, sample_losses

    torch.manual_seed(settings.seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    base_model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, use_safetensors=True)
    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    model: Any = get_peft_model(base_model.to(device), config)
    model.train()
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=settings.learning_rate, weight_decay=0.0)

    autocast = device != "cpu" or fast_bfloat16()
    encoded = [encode(tokenizer, prompt, response, settings.max_length) for prompt, response in rows]
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    order = _order(len(rows), settings)
    steps = math.ceil(len(order) / settings.batch_size)
    started = time.time()
    losses = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * _schedule(step, steps, settings.warmup)
        chosen = order[step * settings.batch_size : (step + 1) * settings.batch_size]
        batch = collate([encoded[index] for index in chosen], pad_id).to(device)
        with torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=autocast):
            loss = sample_losses(model, batch)[0].mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        progress(step + 1, steps, losses[-1])

    model.peft_config["default"].base_model_name_or_path = base_name or str(base)
    with new_folder(out) as temporary:
        # bfloat16 on disk: half the size; what is measured later is what was saved
        model.to(torch.bfloat16).save_pretrained(str(temporary), safe_serialization=True)
        (temporary / "README.md").unlink(missing_ok=True)
        _tidy_config(temporary / "adapter_config.json")
        training = settings.model_dump() | {
            "rows": len(rows),
            "steps": steps,
            "arithmetic": "bfloat16 autocast" if autocast else "float32",
            "seconds": round(time.time() - started, 1),
            "loss": [round(loss, 4) for loss in losses],
        }
        write_json(temporary / RECORD, (record or {}) | {"training": training})
    return losses


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
