"""A base model that stays in memory and takes one merge after another.

ΔW is added to the weights in place, and what they were is read again from the checkpoint's files, or it works beside
them as two thin factors. Either way the base is in memory once.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sstmerge_core.adapters.names import canonical
from sstmerge_core.adapters.skeleton import LOCAL, called, model_class
from sstmerge_core.errors import AdapterError, DataError, Problem, RecipeError
from sstmerge_core.models import placement
from sstmerge_core.models.beside import Beside, Pair
from sstmerge_core.models.bits import loading, method, problem
from sstmerge_core.models.chat import (
    Conversation,
    asked_text,
    chat_text,
    check_template,
    end_of_turn,
    from_harmony,
    is_harmony,
    speak,
    template_kind,
)
from sstmerge_core.models.checkpoint import Checkpoint
from sstmerge_core.models.decoding import Tell, greedy, positions
from sstmerge_core.models.device import (
    DTYPES,
    best_device,
    free_memory,
    give_memory_back,
    is_out_of_memory,
    total_memory,
)
from sstmerge_core.models.modules import ExpertMatrix, matrices, takes_a_side_path

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<|eot|>")
"""Tokens that end an assistant's turn, though some tokenizers do not name them as end of sequence."""


@dataclass(frozen=True)
class Answer:
    text: str
    n_tokens: int
    """Tokens generated, the end-of-sequence token not counted."""
    stopped: bool
    """Whether the model ended by itself rather than at the token limit."""


class Answering(Protocol):
    """What answers prompts: a model with a merge applied, by whatever backend."""

    tokenizer: Any

    @property
    def max_length(self) -> int | None:
        """Tokens of prompt and answer together that it takes; None: not known."""
        ...

    def room(self, tokens: int) -> int:
        """How many answers of `tokens` (prompt and answer) it takes at once."""
        ...

    def generate(
        self, prompts: Sequence[str | Conversation], max_new_tokens: int, tell: Tell | None = None
    ) -> list[Answer]:
        """Greedy answers in order; of a conversation to its next turn."""
        ...


def chat_ids(tokenizer: Any, prompt: str | Conversation) -> list[int]:
    """Token ids of `asked_text`."""
    return tokenizer(asked_text(tokenizer, prompt), add_special_tokens=False)["input_ids"]


def to_answer(tokenizer: Any, eos_ids: Collection[int], tokens: Sequence[int]) -> Answer:
    """Generated tokens as an answer; the end-of-sequence token, where it came, is not part of it."""
    stopped = bool(tokens) and tokens[-1] in eos_ids
    kept = tokens[:-1] if stopped else tokens
    if is_harmony(tokenizer):
        return Answer(from_harmony(tokenizer.decode(kept, skip_special_tokens=False)).strip(), len(kept), stopped)
    return Answer(tokenizer.decode(kept, skip_special_tokens=True).strip(), len(kept), stopped)


@dataclass
class ResidentModel:
    """A causal language model whose linear and embedding weights can be moved and put back exactly."""

    model: Any
    tokenizer: Any
    eos_ids: frozenset[int]
    modules: dict[str, Any]
    """What can be moved, by the name that adapters agree on: ``Linear``, ``Embedding``, GPT-2's ``Conv1D``, experts"""
    _precision: torch.dtype
    """In which the base weights are kept: that of the checkpoint."""
    _tied: dict[str, torch.nn.Parameter] = field(default_factory=dict)
    """The weight of modules that share it with another; it is never written to, a moved one gets a weight of its own"""
    _checkpoint: Checkpoint | None = None
    """Where the base weights are read again; None, and modules that it does not have: they are kept in `_base`"""
    _base: dict[str, torch.Tensor] = field(default_factory=dict)
    _moved: set[str] = field(default_factory=set)
    _beside: Beside | None = None

    @classmethod
    def load(
        cls,
        base_path: Path | str,
        dtype: str = "float32",
        device: str = "auto",
        *,
        movable: bool = True,
        bits: int | None = None,
        system: str = "",
        thinking: bool | None = None,
        saved: Mapping[str, Callable[[], torch.Tensor]] | None = None,
    ) -> ResidentModel:
        """Load a local folder with safetensors weights; never pickle, never code from the folder, never the network.

        `dtype` is one of `DTYPES`; `device` is ``cpu``, ``cuda``, ``cuda:1`` or ``auto`` (CUDA where there is one).
        Without `movable` there may be no `set_delta`, and a narrower `dtype` than the checkpoint's saves its memory.
        With `bits`, 8 or 4, linear weights are quantised as they are loaded (`models.bits`); a ΔW then works beside
        them, and `dtype` is without effect. `system` and `thinking` are what `chat.speak` is told.
        `saved` are fully trained tensors by their name (``lm_head.weight``): they stand in the place of the base's, in
        its format, and are the base from then on; tied embeddings come apart as they do in PEFT.
        Raises RecipeError for an unusable dtype or device, DataError for a folder that cannot be used.
        """
        import torch

        if dtype not in DTYPES:
            raise RecipeError(Problem(f"dtype {dtype}", "is not supported", f"Use one of {', '.join(DTYPES)}."))
        place = _device(device)
        spread = {} if bits else placement.loading(str(place), getattr(torch, dtype))
        model, tokenizer = _load(Path(base_path), system, thinking, bits, place, spread)
        if saved:
            if spread or getattr(model.config, "quantization_config", None) is not None:
                fault = "is quantised or spread over devices, so that no trained module can be put into it"
                raise DataError(Problem(str(base_path), fault, "Convert the adapter to a LoRA, or use one device."))
            _put_in(model, saved, str(base_path))
        ends = eos_ids(tokenizer, model.config, model.generation_config)
        if getattr(model.config, "quantization_config", None) is not None:  # neither cast nor moved nor written to
            model.eval().requires_grad_(False)
            return cls(model, tokenizer, ends, matrices(model), model.dtype)
        target = getattr(torch, dtype)
        resident = cls(model, tokenizer, ends, matrices(model), model.config.dtype if spread else model.dtype)
        if movable:
            resident._checkpoint = Checkpoint.of(Path(base_path), resident.modules, resident._precision)
        checkpoint = resident._checkpoint
        if spread:
            placement.check(str(base_path), model)
            model.eval().requires_grad_(False)
        elif checkpoint is not None and torch.promote_types(resident._precision, target) != target:
            # the cast below loses bits of the base; keep what the files do not have, that of tied weights once
            kept: dict[int, torch.Tensor] = {}
            for name, module in resident.modules.items():
                weight = module.weight
                if not checkpoint.confirm(name, weight):
                    if id(weight) not in kept:
                        kept[id(weight)] = weight.detach().to(place, copy=True)
                    resident._base[name] = kept[id(weight)]
        if not spread:
            model.to(device=place, dtype=target).eval().requires_grad_(False)
        resident._tied = _tied_weights(resident.modules)
        head = model.get_output_embeddings()
        if head is not None and place.type == "cpu" and target != torch.float32:
            head.register_forward_pre_hook(_gapless)
        return resident

    @property
    def device(self) -> torch.device:
        return self.model.get_input_embeddings().weight.device

    @property
    def dtype(self) -> str:
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def quantised(self) -> bool:
        """Whether linear weights are in 8 or 4 bits, so that a ΔW can only work beside them."""
        return getattr(getattr(self.model, "config", None), "quantization_config", None) is not None

    @property
    def template_kind(self) -> str:
        return template_kind(self.tokenizer)

    @property
    def max_length(self) -> int | None:
        """Tokens of prompt and answer together that it has positions for; None where it does not say."""
        return positions(self.model)

    def set_delta(
        self,
        deltas: Mapping[str, Callable[[], torch.Tensor]] | None,
        beside: Mapping[str, Callable[[], Pair]] | None = None,
    ) -> None:
        """Put W_base + ΔW, summed in float32, into the modules named in `deltas`; every other one is the base again.

        Each value returns ΔW of shape (out, in), on any device; it is called once, one module at a time. For a token
        embedding that is (width, vocabulary). Tied embeddings move apart: ΔW of one leaves the other as it is. None
        restores the base bit for bit, ties included. `beside` gives A (r, in) and B (out, r) of modules whose weights
        stay the base's while BAx is added to what they answer, see `Beside`; a module whose code does not pass through
        it as a module is moved instead. Raises AdapterError for unknown modules and wrong shapes; the model is the base
        then.
        """
        import torch

        moved, aside = dict(deltas or {}), dict(beside or {})
        self._drop_beside()
        if unknown := [name for name in (*moved, *aside) if name not in self.modules]:
            self._restore(self._moved)
            fix = f"Use an adapter of this base; its modules are named like {next(iter(self.modules), 'none')}."
            kind = self._kind_of(unknown[0])
            fault = f"the base has no linear module or embedding for {len(unknown)} modules of the adapters{kind}"
            raise AdapterError(Problem(unknown[0], fault, fix))
        # not inference_mode: a weight made in it could take no part in the Fisher pass
        for name in [name for name in aside if not takes_a_side_path(self.modules[name])]:
            moved[name] = partial(_product, aside.pop(name))
        with torch.no_grad():
            try:
                self._restore(self._moved - set(moved))
                if aside:
                    self._beside = Beside(self.modules, aside)
                    moved |= {name: partial(_product, aside[name]) for name in self._not_passed(aside)}
                for name, make in moved.items():
                    self._move(name, make)
            except BaseException:
                self._drop_beside()
                self._restore(self._moved)
                raise

    def _move(self, name: str, make: Callable[[], torch.Tensor]) -> None:
        import torch

        module = self.modules[name]
        weight = module.weight
        if not weight.dtype.is_floating_point:
            fix = "Give the base's float checkpoint, or a merge that is low-rank."
            raise AdapterError(Problem(name, "is quantised, so that nothing can be added to its weight", fix))
        if placement.is_away(module):
            fix = f"Apply a low-rank merge beside the weights, or give a GPU of {placement.SHARES} more."
            raise AdapterError(
                Problem(name, "lies outside of the GPU, so that nothing can be added to its weight", fix)
            )
        delta = make().to(device=weight.device, dtype=torch.float32)
        if _is_transposed(module, tuple(delta.shape)):
            delta = delta.T
        if delta.shape != weight.shape:
            fault = f"ΔW has shape {tuple(delta.shape)}, the base weight {tuple(weight.shape)}"
            raise AdapterError(Problem(name, fault, "Use an adapter of this base model."))
        base = self._base_weight(name)
        self._moved.add(name)
        if name in self._tied and weight is self._tied[name]:
            module.weight = weight = torch.nn.Parameter(torch.empty_like(weight), requires_grad=False)
        weight.copy_(torch.add(base.to(weight.device), delta))  # in float32, the format of ΔW

    def _not_passed(self, aside: Mapping[str, Callable[[], Pair]]) -> list[str]:
        """Those modules beside which nothing happens when the model is called; their factors are taken off again.

        Some architectures read a module's weight instead of calling it, and a silent hook would be a silent no-op.
        """
        import torch

        assert self._beside is not None
        self.model(torch.zeros(1, 2, dtype=torch.long, device=self.device), use_cache=False)
        missed = [name for name in aside if name not in self._beside.called]
        if missed:
            self._beside.remove()
            self._beside = Beside(self.modules, {name: own for name, own in aside.items() if name not in missed})
        return missed

    def _drop_beside(self) -> None:
        if self._beside is not None:
            self._beside.remove()
            self._beside = None

    def _kind_of(self, name: str) -> str:
        """For a message, the class of a module that cannot be moved; empty where there is no such module."""
        parts, modules = name.split("."), called(self.model)
        for length in range(len(parts), 1, -1):
            if (found := modules.get(".".join(parts[:length]))) is None:
                continue
            return f"; {'.'.join(parts[:length])} is of class {type(found).__name__}"
        return ""

    def room(self, tokens: int) -> int:
        """How many answers of `tokens` (prompt and answer) at once take at most half of the memory, at least 1.

        Of the device's memory less the weights, so that a batch plan, and with it the bits of the answers, is the same
        whoever else is at work there; halved, as often as it must be, where half of what is free now is less. Counted
        per token: keys and values of every layer, and one layer's activations; per answer the logits of one position.
        """
        config = self.model.config.get_text_config()
        heads = config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        cached = 2 * config.num_hidden_layers * (getattr(config, "num_key_value_heads", None) or heads) * width
        active = 8 * config.hidden_size + 2 * (getattr(config, "intermediate_size", None) or 4 * config.hidden_size)
        size = self.model.get_input_embeddings().weight.element_size()
        one = size * (tokens * (cached + active) + 2 * config.vocab_size)
        here = [parameter for parameter in self.model.parameters() if parameter.device == self.device]
        weights = sum(parameter.numel() * parameter.element_size() for parameter in here)
        found = (total_memory(str(self.device)) - weights) // 2 // one
        free = free_memory(str(self.device)) // 2 // one
        while found > max(1, free):
            found //= 2
        return max(1, found)

    def chat(self, prompt: str) -> str:
        """The text the model sees for `prompt`; see `chat_text`."""
        return chat_text(self.tokenizer, prompt)

    def generate(
        self, prompts: Sequence[str | Conversation], max_new_tokens: int, tell: Tell | None = None
    ) -> list[Answer]:
        """Greedy answers to one batch of prompts, in order. Halves the batch when memory runs out, and logs that."""
        return self._answers([chat_ids(self.tokenizer, prompt) for prompt in prompts], max_new_tokens, tell)

    def _answers(self, ids: list[list[int]], max_new_tokens: int, tell: Tell | None) -> list[Answer]:
        try:
            generated = greedy(self.model, ids, max_new_tokens, self.eos_ids, tell)
        except RuntimeError as error:
            if len(ids) < 2 or not is_out_of_memory(error):
                raise
            log.warning("Out of memory with %d prompts at once; going on with %d.", len(ids), len(ids) // 2)
        else:
            return [to_answer(self.tokenizer, self.eos_ids, tokens) for tokens in generated]
        give_memory_back()  # outside the except block: the error's traceback holds the tensors
        half = len(ids) // 2
        first = self._answers(ids[:half], max_new_tokens, tell)
        rest = None if tell is None else lambda ended, tokens: tell(half + ended, tokens)
        return first + self._answers(ids[half:], max_new_tokens, rest)

    def _base_weight(self, name: str) -> torch.Tensor:
        """The base weight of a module in the checkpoint's precision, wherever it is had from."""
        if name in self._base:
            return self._base[name]
        if self._in_files(name):
            assert self._checkpoint is not None
            return self._checkpoint.read(name)
        if name in self._tied:
            return self._tied[name]
        self._base[name] = self.modules[name].weight.detach().to(self._precision, copy=True)
        return self._base[name]

    def _in_files(self, name: str) -> bool:
        """Whether the checkpoint's files hold the base weight; first asked before the module is moved."""
        weight = self._tied.get(name, self.modules[name].weight)
        return self._checkpoint is not None and self._checkpoint.confirm(name, weight)

    def _restore(self, names: set[str]) -> None:
        import torch

        with torch.no_grad():
            for name in names:
                if name in self._tied:
                    self.modules[name].weight = self._tied[name]
                else:
                    self.modules[name].weight.copy_(self._base_weight(name))
        self._moved = self._moved - names


def _gapless(layer: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """What goes into the output embedding, without the tokens that were cut out of it.

    Given a slice, torch's CPU product of 16-bit numbers copies the layer's weight once for every sample: 4 GB for eight
    prompts at Llama 3's vocabulary (measured), and 0.5 GB for one, whose slice counts as contiguous though its strides
    are the whole's. In float32 it does not, and bits stay what they always were.
    """
    import torch

    x = inputs[0].contiguous()
    if isinstance(x, torch.Tensor) and x.dim() > 2:  # flat and back: dimensions of size 1 get strides as if made anew
        x = x.flatten(0, -2).unflatten(0, x.shape[:-1])
    return (x, *inputs[1:])


def _product(make: Callable[[], Pair]) -> torch.Tensor:
    a, b = make()
    return b @ a


def _device(name: str) -> torch.device:
    import torch

    name = best_device() if name == "auto" else name
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise RecipeError(Problem(f"device {name}", "is not a device", "Use cpu, cuda, mps or auto.")) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RecipeError(
            Problem(f"device {name}", "this machine has no usable CUDA device", "Use cpu, such as by --device cpu.")
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise RecipeError(
            Problem(f"device {name}", "this machine has no usable MPS device", "Use cpu, such as by --device cpu.")
        )
    return device


def read_texts(folder: Path, system: str = "", thinking: bool | None = None) -> tuple[Any, Any]:
    """Configuration and tokenizer of a model folder. Raises DataError for a folder that cannot be used."""
    from transformers import AutoConfig, AutoTokenizer

    where = str(folder)
    if not (folder / "config.json").is_file():
        raise DataError(Problem(where, "is not a model folder: there is no config.json", "Give a local model folder."))
    if not list(folder.glob("*.safetensors")):
        raise DataError(Problem(where, "has no safetensors weights", "Convert the model to safetensors."))
    try:
        config = AutoConfig.from_pretrained(folder, **LOCAL)
        if found := problem(where, method(config.to_dict()), None):
            raise DataError(found)
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left", **LOCAL)
    except DataError:
        raise
    except Exception as error:  # of many kinds, some of libraries below; whatever it is, the folder is not usable
        raise _unreadable(where, error) from error
    speak(tokenizer, system, thinking)
    check_template(tokenizer)
    return config, tokenizer


_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.*", "spiece.model", "*.tiktoken", "tekken.json")


def _unreadable(where: str, error: Exception) -> DataError:
    reason = (str(error).strip() or type(error).__name__).split("\n")[0]
    if "custom code" in reason:
        fix = "Give a model of an architecture that transformers itself has."
        return DataError(Problem(where, "needs code of its own folder, which is never run here", fix))
    if not any(any(Path(where).glob(name)) for name in _TOKENIZERS):
        fix = "Copy tokenizer.json and tokenizer_config.json of the model beside the weights."
        return DataError(Problem(where, "holds no tokenizer", fix))
    return DataError(Problem(where, f"cannot be loaded: {reason}", "Check that the files are complete."))


def _load(
    folder: Path,
    system: str,
    thinking: bool | None,
    bits: int | None,
    place: torch.device,
    spread: Mapping[str, Any],
) -> tuple[Any, Any]:
    """Model on the CPU in the checkpoint's precision, or where `spread` says and as, and tokenizer."""
    from safetensors import SafetensorError

    where = str(folder)
    config, tokenizer = read_texts(folder, system, thinking)
    if found := problem(where, method(config.to_dict()), bits):
        raise DataError(found)
    try:
        how = LOCAL | {"dtype": "auto"} | dict(spread) | (loading(bits) if bits else {})
        if bits or method(config.to_dict()):
            how |= {"device_map": {"": str(place)}}
        loaded: Any = model_class(config).from_pretrained(
            folder, config=config, use_safetensors=True, output_loading_info=True, **how
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise _unreadable(where, error) from error
    model, info = loaded
    if missing := sorted(info["missing_keys"]):
        fault = f"{len(missing)} weights are missing, {missing[0]} among them"
        raise DataError(Problem(where, fault, "Check that the files are complete."))
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        fault = f"the tokenizer has {len(tokenizer)} tokens, the model {rows}"
        raise DataError(Problem(where, fault, "Use the tokenizer that belongs to the model."))
    return model, tokenizer


def _put_in(model: Any, saved: Mapping[str, Callable[[], torch.Tensor]], where: str) -> None:
    import torch

    modules = called(model)
    for name, make in saved.items():
        owner, _, part = name.rpartition(".")
        module = modules.get(canonical(owner))
        weight = module._parameters.get(part) if module is not None else None
        tensor = make()
        if weight is None or weight.shape != tensor.shape:
            fault = f"has no {name} of the shape {tuple(tensor.shape)}, which the adapter has trained whole"
            raise AdapterError(Problem(where, fault, "Use an adapter of this base model."))
        assert module is not None
        # a parameter of its own: what was tied to it keeps the base's
        module._parameters[part] = torch.nn.Parameter(tensor.to(weight.device, weight.dtype), requires_grad=False)


def _tied_weights(modules: Mapping[str, Any]) -> dict[str, torch.nn.Parameter]:
    """The weights that more than one module has, by module name."""
    own = {name: module.weight for name, module in modules.items() if not isinstance(module, ExpertMatrix)}
    holders = Counter(map(id, own.values()))
    return {name: weight for name, weight in own.items() if holders[id(weight)] > 1}


def _is_transposed(module: Any, delta: tuple[int, ...]) -> bool:
    """Conv1D and embeddings keep their weight as (in, out); PEFT calls that ``fan_in_fan_out``. `delta`: ΔW's shape."""
    import torch

    if isinstance(module, ExpertMatrix):
        shape = tuple(module.weight.shape)
        return module.is_transposed if shape[0] == shape[1] else delta == shape[::-1]
    return isinstance(module, torch.nn.Embedding) or type(module).__name__ == "Conv1D"


def eos_ids(tokenizer: Any, *configs: Any) -> frozenset[int]:
    """Tokens that end an answer, by the tokenizer, the model's configurations and `END_OF_TURN`."""
    found: set[int] = set()
    for given in (getattr(config, "eos_token_id", None) for config in (tokenizer, *configs)):
        if given is not None:
            found.update(given if isinstance(given, (list, tuple)) else [given])
    vocabulary = tokenizer.get_added_vocab()
    ends = {*END_OF_TURN, end_of_turn(tokenizer)}
    if is_harmony(tokenizer):
        ends -= {"<|end|>"}  # which ends a channel there
    found.update(vocabulary[token] for token in ends if token in vocabulary)
    return frozenset(found)
