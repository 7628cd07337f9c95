"""Adapter folders, right ones of many kinds and faulty ones, written byte by byte on a base of two small layers.

Right is an adapter that the catalogue takes, that fits the base, whose ΔW is that of the written factors, and that
merges with another one; a faulty one is refused in words before anything is computed with it.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sstmerge_core import adapters, catalog
from sstmerge_core.errors import AdapterError
from tests.corpus.case import EITHER, REFUSED, RIGHT, Case, Expected

WIDTH, INNER, VOCABULARY, LAYERS = 8, 12, 20, 2
SHAPES = {
    **dict.fromkeys(("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"), (WIDTH, WIDTH)),
    **dict.fromkeys(("mlp.gate_proj", "mlp.up_proj"), (INNER, WIDTH)),
    "mlp.down_proj": (WIDTH, INNER),
}
"""(out, in) of a layer's modules"""
CONFIG, WEIGHTS, RECORD = "adapter_config.json", "adapter_model.safetensors", "sstmerge.json"
RANK = 2
SETTINGS: dict[str, Any] = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "tiny-base",
    "r": RANK,
    "lora_alpha": 4,
    "lora_dropout": 0.0,
    "bias": "none",
    "target_modules": ["q_proj", "down_proj"],
    "inference_mode": True,
}
PREFIX = "base_model.model."
PLAIN = tuple(
    f"model.layers.{layer}.{name}" for layer in range(LAYERS) for name in ("self_attn.q_proj", "mlp.down_proj")
)
Tensor = tuple[str, list[Any], bytes]
"""Format, shape and bytes as a safetensors file has them"""
Tensors = dict[str, Tensor]

_GENERATOR = np.random.default_rng(19)


def shape_of(module: str) -> tuple[int, int]:
    if module.endswith(("embed_tokens", "lm_head")):
        return VOCABULARY, WIDTH
    return SHAPES[module.split(".", 3)[3]]


@dataclass
class Made:
    """Factors by module and what they are written as."""

    factors: dict[str, tuple[np.ndarray, np.ndarray]]
    tensors: Tensors = field(default_factory=dict)


def tensor(values: np.ndarray, kind: str = "F32") -> Tensor:
    types = {"F32": np.float32, "F64": np.float64, "F16": np.float16}
    if kind == "BF16":
        return kind, list(values.shape), (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()
    return kind, list(values.shape), values.astype(types[kind]).tobytes()


def made(
    modules: tuple[str, ...] = PLAIN,
    rank: int | Callable[[str], int] = RANK,
    kind: str = "F32",
    key: Callable[[str, str], str] = lambda module, side: f"{PREFIX}{module}.lora_{side}.weight",
) -> Made:
    """Factors A (r, in) and B (out, r) of eighths, which every format holds exactly, under the keys of `key`."""
    found = Made({})
    for module in modules:
        r = rank if isinstance(rank, int) else rank(module)
        height, width = shape_of(module)
        a, b = (_GENERATOR.integers(-8, 9, shape) / 8 for shape in ((r, width), (height, r)))
        found.factors[module] = a, b
        found.tensors |= {key(module, "A"): tensor(a, kind), key(module, "B"): tensor(b, kind)}
    return found


def safetensors(tensors: Mapping[str, Tensor], metadata: Any = None, pad: int = 0) -> bytes:
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    at = 0
    for name, (kind, shape, data) in tensors.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    return whole(json.dumps(header).encode() + b" " * pad, b"".join(data for _, _, data in tensors.values()))


def whole(header: bytes, data: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def write(folder: Path, settings: Any, weights: bytes | Mapping[str, Tensor] | None) -> Path:
    """An adapter's folder; `settings` may be bytes, None is no file."""
    folder.mkdir(parents=True, exist_ok=True)
    if settings is not None:
        (folder / CONFIG).write_bytes(settings if isinstance(settings, bytes) else json.dumps(settings).encode())
    if weights is not None:
        (folder / WEIGHTS).write_bytes(weights if isinstance(weights, bytes) else safetensors(weights))
    return folder


def write_base(folder: Path) -> Path:
    """A base model of two layers in safetensors, and nothing but what adapters are held against."""
    names = {f"model.layers.{n}.{name}": shape for n in range(LAYERS) for name, shape in SHAPES.items()}
    names |= {"model.embed_tokens": (VOCABULARY, WIDTH), "lm_head": (VOCABULARY, WIDTH)}
    tensors = {f"{name}.weight": tensor(np.ones(shape)) for name, shape in names.items()}
    folder.mkdir(parents=True)
    settings = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCABULARY}
    settings |= {"tie_word_embeddings": False, "_name_or_path": "tiny-base"}
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "model.safetensors").write_bytes(safetensors(tensors))
    return folder


class _Corpus:
    """The cases as they are declared."""

    def __init__(self, base: Path) -> None:
        self.base, self.cases = base, list[Case]()

    def right(
        self,
        name: str,
        settings: Mapping[str, Any] | bytes | None = None,
        what: Made | None = None,
        scaling: float | Callable[[str], float] = 4 / RANK,
        *,
        weights: bytes | None = None,
        place: Callable[[Path], Path] = lambda folder: folder / "adapter",
        more: Callable[[Path], Any] = lambda folder: None,
        expected: Expected = RIGHT,
    ) -> None:
        """An adapter whose ΔW is scaling · B A; `settings` change the usual ones, `place` says where it lies."""
        content = what or made()
        told = settings if isinstance(settings, bytes) else {**SETTINGS, **(settings or {})}

        def tried(folder: Path) -> bool:
            where = write(place(folder), told, weights if weights is not None else content.tensors)
            more(where)
            return self._usable(where, content, scaling if callable(scaling) else lambda module: scaling)

        self.cases.append(Case(name, expected, tried))

    def faulty(
        self,
        name: str,
        settings: Any = None,
        weights: bytes | Mapping[str, Tensor] | None = None,
        more: Callable[[Path], Any] = lambda folder: None,
        expected: Expected = REFUSED,
    ) -> None:
        """What is no usable adapter. Without `weights` they are right ones; `settings` change the usual ones."""
        content: Any = made().tensors if weights is None else weights
        told = {**SETTINGS, **settings} if isinstance(settings, dict) else SETTINGS if settings is None else settings

        def tried(folder: Path) -> bool:
            where = write(folder / "adapter", told, content)
            more(where)
            return self._usable(where, None, lambda module: 1.0)

        self.cases.append(Case(name, expected, tried))

    def _usable(self, where: Path, content: Made | None, scaling: Callable[[str], float]) -> bool:
        """Whether the catalogue takes it, it fits, ΔW is right, and it merges. Raises AdapterError."""
        import torch

        from sstmerge_core.merge import deltas, merge

        report = adapters.check_many(self.base, {"utility": where})
        try:
            entry = catalog.entry(where)
        except AdapterError:
            assert report.problems, "refused by `add`, and not by `check`"
            raise
        json.dumps(entry.scores)
        if report.problems:
            raise AdapterError(report.problems)
        factors = adapters.read(where).load()
        merged = deltas(merge([factors, factors], "linear", {"alpha": 0.25}))
        if not all(bool(torch.isfinite(delta()).all()) for delta in merged.values()):
            return False
        if content is None:
            return True
        expected = {name: scaling(name) * b @ a for name, (a, b) in content.factors.items()}
        if set(expected) != set(factors):
            return False
        own = {name: (one.scaling * one.b.double() @ one.a.double()).numpy() for name, one in factors.items()}
        return all(np.allclose(own[name], expected[name], rtol=1e-6, atol=0) for name in expected)


def cases(scratch: Path) -> list[Case]:
    """All cases; the base that they are held against is written into `scratch`."""
    import torch  # noqa: F401 (its import is no adapter's time)

    import sstmerge_core.merge  # noqa: F401

    corpus = _Corpus(write_base(scratch / "tiny-base"))
    _right_kinds(corpus)
    _right_places(corpus)
    _right_settings(corpus)
    _other_kinds(corpus)
    _settings_of_wrong_types(corpus)
    _settings_that_are_none(corpus)
    _patterns(corpus)
    _headers(corpus)
    _tensors(corpus)
    _values(corpus)
    _names(corpus)
    _files(corpus)
    return corpus.cases


def _right_kinds(corpus: _Corpus) -> None:
    corpus.right("plain")
    for kind in ("F16", "BF16", "F64"):
        corpus.right(f"in {kind}", what=made(kind=kind))
    mixed = made()
    for number, (name, (a, b)) in enumerate(mixed.factors.items()):
        for side, values in (("A", a), ("B", b)):
            mixed.tensors[f"{PREFIX}{name}.lora_{side}.weight"] = tensor(values, ("F32", "BF16", "F16")[number % 3])
    corpus.right("formats mixed", what=mixed)
    corpus.right("rank 1", {"r": 1, "lora_alpha": 1}, made(rank=1), 1.0)
    corpus.right("a rank above the width", {"r": 40, "lora_alpha": 80}, made(rank=40), 2.0)
    corpus.right("rsLoRA", {"use_rslora": True}, scaling=4 / math.sqrt(RANK))
    corpus.right("α of a float", {"lora_alpha": 0.5}, scaling=0.25)
    corpus.right("α of nothing", {"lora_alpha": 0}, scaling=0.0)
    corpus.right("α negative", {"lora_alpha": -4}, scaling=-2.0)
    corpus.right("one module", what=made(PLAIN[:1]))
    every = tuple(f"model.layers.{n}.{name}" for n in range(LAYERS) for name in SHAPES)
    corpus.right("every module", {"target_modules": "all-linear"}, made(every))
    corpus.right("the output embedding", what=made((*PLAIN, "lm_head")))
    ranks = {"q_proj": 3, "model.layers.1.mlp.down_proj": 5}

    def rank_of(module: str) -> int:
        return 3 if module.endswith("q_proj") else 5 if module.startswith("model.layers.1") else RANK

    corpus.right("ranks by pattern", {"rank_pattern": ranks}, made(rank=rank_of), lambda module: 4 / rank_of(module))
    corpus.right(
        "ranks and α by pattern",
        {"rank_pattern": ranks, "alpha_pattern": {r"layers\.0\..*q_proj": 9}},
        made(rank=rank_of),
        lambda module: (9 if module == PLAIN[0] else 4) / rank_of(module),
    )
    corpus.right("patterns of nothing", {"rank_pattern": {}, "alpha_pattern": None})
    keys: dict[str, Callable[[str, str], str]] = {
        "no prefix": lambda module, side: f"{module}.lora_{side}.weight",
        "no body": lambda module, side: f"{module.removeprefix('model.')}.lora_{side}.weight",
        "an adapter's name": lambda module, side: f"{PREFIX}{module}.lora_{side}.default.weight",
        "a name of its own": lambda module, side: f"{PREFIX}{module}.lora_{side}.été.weight",
        "DDP": lambda module, side: f"module.{PREFIX}{module}.lora_{side}.weight",
        "torch.compile": lambda module, side: f"_orig_mod.{PREFIX}{module}.lora_{side}.weight",
        "torch.compile within": lambda module, side: f"{PREFIX}{module}._orig_mod.lora_{side}.weight",
        "FSDP": lambda module, side: f"_fsdp_wrapped_module.{PREFIX}{module}.lora_{side}.weight",
        "Fabric": lambda module, side: f"_forward_module.{PREFIX}{module}.lora_{side}.weight",
        "checkpointing": lambda module, side: f"{PREFIX}{module}._checkpoint_wrapped_module.lora_{side}.weight",
        "DDP and torch.compile": lambda module, side: f"module._orig_mod.{PREFIX}{module}.lora_{side}.weight",
    }
    for name, key in keys.items():
        corpus.right(f"keys: {name}", what=made(key=key))
    plain = made()
    for name, metadata in {
        "PEFT's": {"format": "pt"},
        "empty": {},
        "of any letters": {"é\u202e\u200b": "\x00\x1b[31m", "": ""},
        "long": {"a": "x" * 1_000_000},
    }.items():
        corpus.right(f"metadata: {name}", what=plain, weights=safetensors(plain.tensors, metadata))
    corpus.right("a padded header", what=plain, weights=safetensors(plain.tensors, pad=1_000))
    backwards = Made(plain.factors, dict(reversed(plain.tensors.items())))
    corpus.right("tensors in another order", what=backwards)
    shuffled = json.loads(safetensors(plain.tensors)[8 : 8 + struct.unpack("<Q", safetensors(plain.tensors)[:8])[0]])
    data = b"".join(one for _, _, one in plain.tensors.values())
    entries = json.dumps(dict(sorted(shuffled.items(), reverse=True))).encode()
    corpus.right("a header in another order than its data", what=plain, weights=whole(entries, data))
    copied = made()
    copied.tensors["base_model.model.model.embed_tokens.weight"] = tensor(np.ones((VOCABULARY, WIDTH)))
    corpus.right("the base's own embedding beside the factors", what=copied)


def _right_places(corpus: _Corpus) -> None:
    for name in (
        *("a b", "a*b", "**", "a?b", "[ab]", "a[b", "a\\b", "a'b", 'a"b', "a#b", "a%20b", "%s", "{a}"),
        *("$HOME", "~", "-r", "a;b", "été", "日本語", "🦙"),
        *("a\u202eb", "a\u200bb", "a\tb", "a\nb", "..a", ".a", "x" * 200),
    ):  # fmt: skip
        corpus.right(f"in a folder {name[:20]!r}", place=_below(name))

    def linked(folder: Path) -> None:
        os.rename(folder, folder.with_name("real"))
        os.symlink("real", folder)

    def linked_files(folder: Path) -> None:
        for name in (CONFIG, WEIGHTS):
            os.rename(folder / name, folder.parent / name)
            os.symlink(f"../{name}", folder / name)

    def protected(folder: Path) -> None:
        for name in (CONFIG, WEIGHTS):
            (folder / name).chmod(0o400)

    corpus.right("a link to its folder", more=linked)
    corpus.right("links to its files", more=linked_files)
    corpus.right("hard links", more=lambda folder: os.link(folder / WEIGHTS, folder.parent / "twin"))
    corpus.right("protected files", more=protected)
    snapshot = "models--org--it/snapshots/0123456789abcdef0123456789abcdef01234567"
    corpus.right("a snapshot of the hub's cache", place=lambda folder: folder / snapshot)
    for name, text in {
        "a list": "[1]",
        "a number": "5",
        "empty": "",
        "no JSON": "{",
        "deep": "[" * 100_000,
        "names of wrong types": '{"name": 5, "role": [], "suite": {}, "description": null, "scores": [1]}',
        "of hostile texts": json.dumps({"description": "![x](https://evil.example)", "scores": {"<img>": 1}}),
        "half a character": '{"description": "\\ud800"}',
        "a huge number": '{"scores": {"a": ' + "9" * 5_000 + "}}",
    }.items():
        corpus.right(f"a record: {name}", more=_with(RECORD, text))
    corpus.right("a record that is a pipe", more=lambda folder: os.mkfifo(folder / RECORD))
    corpus.right("a record that never ends", more=lambda folder: os.symlink("/dev/zero", folder / RECORD))
    corpus.right("a template that is a pipe", more=lambda folder: os.mkfifo(folder / "chat_template.jinja"))
    corpus.right(
        "tokenizer settings that never end",
        more=lambda folder: os.symlink("/dev/zero", folder / "tokenizer_config.json"),
    )
    corpus.right(
        "tokenizer settings of no kind", more=lambda folder: (folder / "tokenizer_config.json").write_text("[") and None
    )
    corpus.right(
        "a pickle beside it", more=lambda folder: (folder / "adapter_model.bin").write_bytes(b"PK\3\4") and None
    )


_ODD: dict[str, Any] = {
    "a number": 5,
    "a text": "x",
    "a list": [1],
    "a mapping": {"a": 1},
    "null": None,
    "true": True,
    "not a number": math.nan,
    "nested": [[[[{"a": [None]}]]]],
}
"""A value of every type of JSON"""
_WITHOUT_EFFECT = (
    *("task_type", "auto_mapping", "peft_version", "revision", "inference_mode", "target_modules", "exclude_modules"),
    *("layers_to_transform", "layers_pattern", "lora_dropout", "loftq_config", "runtime_config", "megatron_core"),
    *("base_model_name_or_path", "fan_in_fan_out"),
)


def _right_settings(corpus: _Corpus) -> None:
    for number, name in enumerate(_WITHOUT_EFFECT):  # every type is tried, and every setting
        for odd in list(_ODD)[number % 4 :: 4]:
            corpus.right(f"{name}: {odd}", {name: _ODD[odd]})
    corpus.right("an unknown setting", {"new_setting_of_next_year": {"a": [1]}})
    corpus.right("settings with a byte order mark", b"\xef\xbb\xbf" + json.dumps(SETTINGS).encode())
    corpus.right("settings with blanks", b"\n\t " + json.dumps(SETTINGS, indent=8).encode() + b"\n\n")
    corpus.right("a base's name of 10,000 letters", {"base_model_name_or_path": "x/" * 5_000})
    corpus.right("a base's name that leads elsewhere", {"base_model_name_or_path": "../../../etc/passwd"})
    corpus.right("a base's name of odd letters", {"base_model_name_or_path": "a\u202e\x1b[31m\0🦙"})
    without = {name: value for name, value in SETTINGS.items() if name in ("peft_type", "r", "lora_alpha")}
    corpus.right("only what enters", json.dumps(without).encode())
    for begun in ("gaussian", "eva", "orthogonal", True, False, None):
        corpus.right(f"begun by {begun}", {"init_lora_weights": begun})


def _other_kinds(corpus: _Corpus) -> None:
    for name, value in {
        "use_dora": True,
        "bias": "all",
        "lora_bias": True,
        "modules_to_save": ["lm_head"],
        "trainable_token_indices": [1, 2],
        "layer_replication": [[0, 2], [1, 2]],
        "alora_invocation_tokens": [1, 2],
        "use_qalora": True,
        "megatron_config": {"a": 1},
        "monteclora_config": {"a": 1},
        "use_bdlora": {"a": 1},
        "arrow_config": {"a": 1},
        "kasa_config": {"a": 1},
    }.items():
        corpus.faulty(f"of another kind: {name}", {name: value})
    # PEFT warns of parameters that the base has not, and adapts the modules
    corpus.right("parameters that are not there", {"target_parameters": ["mlp.experts.gate_up_proj"]})
    for initial in ("pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga", 5, ["pissa"]):
        corpus.faulty(f"begun by {initial}", {"init_lora_weights": initial})
    kinds = (
        *("ADALORA", "IA3", "VERA", "LOHA", "LOKR", "XLORA", "POLY", "TRAINABLE_TOKENS", "MISS", "FOURIERFT", "VBLORA"),
        *("RANDLORA", "HIRA", "DELORA", "GRALORA", "OFT", "BOFT", "HRA", "PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING"),
        *("ADAPTION_PROMPT", "CPT", "LN_TUNING", "of nobody", "lora", "", None, 5, ["LORA"], {"LORA": 1}, True),
    )
    for kind in kinds:
        corpus.faulty(f"of type {kind!r}", {"peft_type": kind})
    mlx = {"fine_tune_type": "lora", "lora_parameters": {"rank": 8}}
    corpus.faulty("MLX's settings", json.dumps(mlx).encode())


def _settings_of_wrong_types(corpus: _Corpus) -> None:
    numbers: dict[str, Any] = {"a text": "4", "null": None, "a list": [4], "a mapping": {"a": 4}, "true": True}
    numbers |= {"not a number": math.nan, "infinite": math.inf, "of 400 digits": 10**300, "2**70": 2**70}
    for name, value in numbers.items():
        for setting in ("r", "lora_alpha"):
            corpus.faulty(f"{setting}: {name}", {setting: value})
    for name, value in {"nothing": 0, "negative": -1, "a fraction": 2.5, "another": 3, "1e308": 1e308}.items():
        corpus.faulty(f"r: {name}", {"r": value})
    corpus.faulty("lora_alpha: 1e308", {"lora_alpha": 1e308})
    corpus.faulty("lora_alpha: of 5,000 digits", b'{"peft_type": "LORA", "r": 2, "lora_alpha": ' + b"9" * 5_000 + b"}")
    for name, value in {"a text": "yes", "a number": 5, "a list": [False], "a mapping": {"a": 1}}.items():
        corpus.faulty(f"use_rslora: {name}", {"use_rslora": value})


def _settings_that_are_none(corpus: _Corpus) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    for name, data in {
        "empty": b"",
        "a blank": b" ",
        "null": b"null",
        "a list": b"[]",
        "a number": b"5",
        "a text": b'"LORA"',
        "true": b"true",
        "half": b'{"peft_type": "LO',
        "single quotes": b"{'peft_type': 'LORA'}",
        "YAML": b"peft_type: LORA\nr: 2\n",
        "deep": f'{{"peft_type": "LORA", "x": {deep}}}'.encode(),
        "17 MB": b" " * 17_000_000,
        "UTF-16": '{"peft_type": "LORA"}'.encode("utf-16"),
        "UTF-32": '{"peft_type": "LORA"}'.encode("utf-32"),
        "Latin-1": '{"peft_type": "LORA", "revision": "é"}'.encode("latin-1"),
        "zeros": bytes(1_000),
        "half a character": b'{"peft_type": "LORA", "revision": "\\ud800"}',
        "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
        "a web page": b"<!DOCTYPE html><html><body>Please log in</body></html>",
        "a ZIP archive": b"PK\x03\x04" + bytes(100),
        "gzip": b"\x1f\x8b\x08\0" + bytes(100),
        "two values": b"{} {}",
        "a comment": b'// PEFT\n{"peft_type": "LORA"}',
        "an empty object": b"{}",
    }.items():
        corpus.faulty(f"settings: {name}", data)


def _patterns(corpus: _Corpus) -> None:
    hanging = "((a|[a-z_.0-9])+)+!"
    for setting in ("rank_pattern", "alpha_pattern"):
        for name, value in {
            "a list": ["q_proj"],
            "a text": "q_proj",
            "a number": 5,
            "a text for a number": {"q_proj": "2"},
            "null for a number": {"q_proj": None},
            "a mapping for a number": {"q_proj": {"a": 1}},
            "huge": {"q_proj": 1e300},
            "not a number": {"q_proj": math.nan},
            "no pattern": {"(": 2},
            "a look behind": {"(?<=a+)b": 2},
        }.items():
            corpus.faulty(f"{setting}: {name}", {setting: value})
        # what matches nothing leaves everything as it was; or it is refused: both are right, hanging is not
        corpus.right(f"{setting}: hangs re", {setting: {hanging: 2}}, expected=EITHER)
        corpus.right(f"{setting}: nested stars", {setting: {"(((x*)*)*)*y": 2}}, expected=EITHER)
        corpus.right(f"{setting}: back reference", {setting: {r"(a+)\1+$x": 2}}, expected=EITHER)
        corpus.right(f"{setting}: of 100,000 letters", {setting: {"x" * 100_000: 2}}, expected=EITHER)
        corpus.right(f"{setting}: 10,000 of them", {setting: {f"n{n}": 2 for n in range(10_000)}}, expected=EITHER)
        corpus.right(f"{setting}: a repeat of billions", {setting: {"x{1,999999999}y": 2}}, expected=EITHER)
    corpus.faulty("rank_pattern: another rank than the file's", {"rank_pattern": {"q_proj": 7}})
    corpus.faulty("rank_pattern: nothing", {"rank_pattern": {"q_proj": 0}})


def _headers(corpus: _Corpus) -> None:
    tensors = made().tensors
    plain = safetensors(tensors)
    length = struct.unpack("<Q", plain[:8])[0]
    header, data = json.loads(plain[8 : 8 + length]), plain[8 + length :]
    first, second = list(header)[:2]

    def entry(**changes: Any) -> bytes:
        return whole(json.dumps({**header, first: header[first] | changes}).encode(), data)

    def told(changes: Any) -> bytes:
        return whole(json.dumps({**header, **changes}).encode(), data)

    size = header[first]["data_offsets"][1]
    value: Any
    faults: dict[str, bytes] = {
        "bytes after the last tensor": plain + bytes(16),
        "one byte too many": plain + b"x",
        "one byte too few": plain[:-1],
        "another file behind it": plain + plain,
        "overlapping": told({second: header[second] | {"data_offsets": header[first]["data_offsets"]}}),
        "a gap": whole(
            json.dumps(
                {n: e | {"data_offsets": [at + 8 for at in e["data_offsets"]]} for n, e in header.items()}
            ).encode(),
            bytes(8) + data,
        ),
        "in UTF-16": whole(json.dumps(header).encode("utf-16"), data),
        "in UTF-32": whole(json.dumps(header).encode("utf-32"), data),
        "with a byte order mark": whole(json.dumps(header).encode("utf-8-sig"), data),
        "a list": whole(b"[1, 2]", b""),
        "a number": whole(b"4711", b""),
        "null": whole(b"null", b""),
        "a text": whole(b'"x"', b""),
        "empty": whole(b"", b""),
        "without tensors": whole(b"{}", b""),
        "only metadata": whole(b'{"__metadata__": {"format": "pt"}}', b""),
        "half": whole(json.dumps(header).encode()[:50], data),
        "deep": whole(b'{"a":' * 50_000 + b"1" + b"}" * 50_000, b""),
        "deep lists": whole(b"[" * 100_000, b""),
        "NaN": whole(b'{"a": NaN}', b""),
        "every byte": whole(bytes(range(256)), b""),
        "a name twice": whole((json.dumps(header)[:-1] + "," + json.dumps({first: header[first]})[1:]).encode(), data),
        "half a character in a name": told({"\ud800": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}),
        "an entry that is a list": told({first: [1, 2]}),
        "an entry that is null": told({first: None}),
        "an entry of nothing": told({first: {}}),
        "longer than the file": struct.pack("<Q", 2**60) + b"{}",
        "a length of all bits": b"\xff" * 8 + b"{}",
        "larger than allowed": struct.pack("<Q", 40_000_000) + b"{}" + bytes(41_000_000),
        "of 31 MB of blanks": whole(b" " * 31_000_000, b""),
        "of 31 MB of brackets": whole(b"[" * 31_000_000, b""),
        "of a million names": whole(("{" + ",".join(f'"{n}":[]' for n in range(1_000_000)) + "}").encode(), b""),
    }
    for value in ([1], "pt", 5, True, {"a": 1}, {"a": {"b": "c"}}, {"a": None}, {"a": [1]}):
        faults[f"metadata {json.dumps(value)}"] = told({"__metadata__": value})
    for value in (["F32"], {"F32": 1}, None, 5, "F33", "f32", "", "F32\0", "x" * 10_000, True):
        faults[f"dtype {json.dumps(value)[:20]}"] = entry(dtype=value)
    for value in (
        *(
            [0.0, float(size)],
            ["0", str(size)],
            [-size, 0],
            [0, 10**300],
            [0, 2**64],
            [0, 1, 2],
            [size, 0],
            [0],
            [],
            None,
        ),
        *("abc", {"0": 1}, [None, None], [True, size], [0, [size]], 5),
    ):
        faults[f"offsets {json.dumps(value)[:30]}"] = entry(data_offsets=value)
    for value in (
        *(
            [2**70, 1],
            [2**32, 2**32, 2**32],
            [-4, -4],
            [4.0, 4.0],
            [True, 16],
            "abc",
            None,
            5,
            {"a": 1},
            [[2, 8]],
            ["2", "8"],
        ),
        *([], [1] * 65, [0, 10**300], [2, 8, 1], [16], [8, 2], [2, 9]),
    ):
        faults[f"shape {json.dumps(value)[:30]}"] = entry(shape=value)
    for name, content in faults.items():
        corpus.faulty(f"header: {name}", weights=content)
    for at in (
        0,
        1,
        4,
        7,
        8,
        9,
        8 + length // 2,
        8 + length - 1,
        8 + length,
        8 + length + 1,
        len(plain) // 2,
        len(plain) - 4,
    ):
        corpus.faulty(f"cut after {at} bytes", weights=plain[:at])


def _tensors(corpus: _Corpus) -> None:
    plain = made().tensors
    a, b = list(plain)[:2]
    width = SHAPES["self_attn.q_proj"][1]

    def changed(**changes: Tensor) -> Tensors:
        return plain | {{"a": a, "b": b}[side]: one for side, one in changes.items()}

    faults: dict[str, Tensors] = {
        "only A": {a: plain[a]},
        "only B": {b: plain[b]},
        "one B missing": {name: one for name, one in plain.items() if name != b},
        "A turned": changed(a=("F32", [width, RANK], bytes(4 * RANK * width))),
        "B of another rank": changed(b=tensor(np.ones((WIDTH, RANK + 1)))),
        "both of another rank": changed(a=tensor(np.ones((7, WIDTH))), b=tensor(np.ones((WIDTH, 7)))),
        "A empty": changed(a=("F32", [0, width], b"")),
        "both empty": changed(a=("F32", [0, width], b""), b=("F32", [WIDTH, 0], b"")),
        "all empty": {name: ("F32", [0, 8], b"") for name in plain},
        "A flat": changed(a=("F32", [RANK * width], bytes(4 * RANK * width))),
        "A a number": changed(a=("F32", [], bytes(4))),
        "convolutions": changed(a=("F32", [RANK, width, 1, 1], bytes(4 * RANK * width))),
        "three axes": changed(b=("F32", [1, WIDTH, RANK], bytes(4 * RANK * WIDTH))),
        "the wrong width": changed(a=tensor(np.ones((RANK, width + 1)))),
        "the wrong height": changed(b=tensor(np.ones((WIDTH + 1, RANK)))),
    }
    for kind, size in (
        ("I8", 1),
        ("I32", 4),
        ("I64", 8),
        ("U8", 1),
        ("BOOL", 1),
        ("U16", 2),
        ("C64", 8),
        ("F8_E8M0", 1),
    ):
        faults[f"A in {kind}"] = changed(a=(kind, [RANK, width], bytes(size * RANK * width)))
    for name, tensors in faults.items():
        corpus.faulty(f"tensors: {name}", weights=tensors)
    other = {name.replace("q_proj", "qkv_proj"): one for name, one in plain.items()}
    corpus.faulty("another base: modules it has not", weights=other)
    deeper = {name.replace("layers.1", "layers.31"): one for name, one in plain.items()}
    corpus.faulty("another base: more layers", weights=deeper)
    wide = {name: tensor(np.ones((RANK, 64) if "lora_A" in name else (64, RANK))) for name in plain}
    corpus.faulty("another base: wider", weights=wide)
    gpt2 = {
        f"{PREFIX}transformer.h.0.attn.c_attn.lora_{side}.weight": plain[name] for side, name in (("A", a), ("B", b))
    }
    corpus.faulty("another base: of another family", weights=gpt2)
    vocabulary = {"A": tensor(np.ones((RANK, WIDTH))), "B": tensor(np.ones((VOCABULARY + 2, RANK)))}
    head = {f"{PREFIX}lm_head.lora_{side}.weight": one for side, one in vocabulary.items()}
    corpus.faulty("another base: another vocabulary", weights=plain | head)
    embedding = plain | {"base_model.model.model.embed_tokens.weight": tensor(np.zeros((VOCABULARY, WIDTH)))}
    corpus.faulty("an embedding that was trained", weights=embedding)
    resized = plain | {"base_model.model.model.embed_tokens.weight": tensor(np.ones((VOCABULARY + 3, WIDTH)))}
    corpus.faulty("an embedding of another size", weights=resized)


def _values(corpus: _Corpus) -> None:
    for kind in ("F64", "F32", "F16", "BF16"):
        for name, value in (("NaN", np.nan), ("infinity", np.inf), ("minus infinity", -np.inf)):
            tensors = made(kind=kind).tensors
            last = list(tensors)[-1]
            values = np.zeros(tensors[last][1])
            values[-1, -1] = value
            corpus.faulty(f"{name} in {kind}", weights=tensors | {last: tensor(values, kind)})
    tensors = made().tensors
    every = {name: tensor(np.full(one[1], np.nan)) for name, one in tensors.items()}
    corpus.faulty("nothing but NaN", weights=every)
    for size in (1e20, 1e30, 3e38):
        huge = {name: tensor(np.full(one[1], size)) for name, one in tensors.items()}
        corpus.faulty(f"values of {size:g}", weights=huge)
    large = {name: tensor(np.full(one[1], 1e300), "F64") for name, one in tensors.items()}
    corpus.faulty("values beyond float32", weights=large)
    corpus.faulty(
        "an α that makes it huge", {"lora_alpha": 9e8}, {n: tensor(np.full(t[1], 1e4)) for n, t in tensors.items()}
    )
    zero = made()
    for name, (a, b) in list(zero.factors.items()):
        zero.factors[name] = a, b * 0
        zero.tensors[f"{PREFIX}{name}.lora_B.weight"] = tensor(b * 0)
    corpus.right("an update of nothing", what=zero)
    tiny = made()
    for name, (a, b) in list(tiny.factors.items()):
        tiny.factors[name] = a, b * 2.0**-120
        tiny.tensors[f"{PREFIX}{name}.lora_B.weight"] = tensor(b * 2.0**-120)
    corpus.right("an update of next to nothing", what=tiny)


def _names(corpus: _Corpus) -> None:
    plain = made().tensors
    a, b = list(plain)[:2]
    spare: dict[str, Tensor] = {"x": tensor(np.ones((2, 2)))}
    for key in (
        *(
            "x",
            "",
            ".",
            "lora_A",
            "base_model.model.",
            "a" * 10_000,
            "é\u202e\x1b[31m",
            "../../etc/passwd",
            "a\nb",
            "a\0b",
        ),
        "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias",
        "base_model.model.model.layers.0.self_attn.q_proj.hada_w1_a",
        "base_model.model.model.layers.0.self_attn.q_proj.lokr_w1",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_E",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_C.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.bias",
        "base_model.model.lm_head.modules_to_save.weight",
        "prompt_embeddings",
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
        "blk.0.attn_q.weight.lora_a",
        "unet.down_blocks.0.attentions.0.lora_A.weight",
    ):
        corpus.faulty(f"a tensor called {key[:60]!r}", weights=plain | {key: spare["x"]})
    corpus.faulty("no factor at all", weights={"x": spare["x"]})
    unknown = {
        name.replace("base_model.model.", "base_model.model.wrapper.unknown."): one for name, one in plain.items()
    }
    corpus.faulty("a prefix of nobody's", weights=unknown)
    two = {name.replace("lora_A.", "lora_A.one.").replace("lora_B.", "lora_B.one."): one for name, one in plain.items()}
    corpus.faulty("two adapters in one file", weights=plain | two)
    both = {name.removeprefix(PREFIX): one for name, one in plain.items()}
    corpus.faulty("every factor under two names", weights=plain | both)
    embedding = {
        f"{PREFIX}model.layers.0.self_attn.q_proj.lora_embedding_{side}": plain[key]
        for side, key in (("A", a), ("B", b))
    }
    corpus.faulty("a module both linear and embedding", weights=plain | embedding)
    corpus.faulty(
        "MLX's names",
        weights={
            name.replace("lora_A.weight", "lora_a").replace("lora_B.weight", "lora_b"): one
            for name, one in plain.items()
        },
    )
    corpus.faulty(
        "torchtune's names",
        weights={name.replace("lora_A", "lora_a").replace("lora_B", "lora_b"): one for name, one in plain.items()},
    )
    corpus.faulty("bare parameters", weights={name.removesuffix(".weight"): one for name, one in plain.items()})


def _files(corpus: _Corpus) -> None:
    def replaced(name: str, make: Callable[[Path], Any]) -> Callable[[Path], Any]:
        def change(folder: Path) -> None:
            (folder / name).unlink()
            make(folder / name)

        return change

    for name in (CONFIG, WEIGHTS):
        for what, make in {
            "a pipe": os.mkfifo,
            "a folder": os.mkdir,
            "a link to /dev/zero": lambda path: os.symlink("/dev/zero", path),
            "a link to /dev/null": lambda path: os.symlink("/dev/null", path),
            "a link to nothing": lambda path: os.symlink("nothing", path),
            "a link to itself": lambda path: os.symlink(path.name, path),
            "a link to a folder": lambda path: os.symlink("..", path),
            "a link to a text": lambda path: os.symlink("/etc/hostname", path),
            "missing": lambda path: None,
        }.items():
            corpus.faulty(f"{name} is {what}", more=replaced(name, make))
    for name, data in {
        "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
        "a web page": b"<!doctype html><title>403</title>",
        "a pickle": b"PK\x03\x04" + bytes(100),
        "a pickle of old": b"\x80\x02}q\x00.",
        "GGUF": b"GGUF\x03\0\0\0" + bytes(100),
        "a picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "zeros": bytes(1_000),
        "all bits": b"\xff" * 1_000,
        "empty": b"",
    }.items():
        corpus.faulty(f"weights: {name}", weights=data)
    corpus.faulty("nothing in the folder", more=_bare)

    def another(name: str, data: bytes = b"x") -> Callable[[Path], Any]:
        def change(folder: Path) -> None:
            for file in (CONFIG, WEIGHTS):
                (folder / file).unlink()
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)

        return change

    for name in (
        *(
            "adapter_model.bin",
            "adapters.safetensors",
            "pytorch_lora_weights.safetensors",
            "model.gguf",
            "other.safetensors",
        ),
        *(
            "config.json",
            "checkpoint-5/adapter_config.json",
            "checkpoint-99999999999999999999/config.json",
            "in/adapter_config.json",
        ),
        "a\nb\x1b[31m.safetensors",
    ):
        corpus.faulty(f"only {name!r}", more=another(name))

    def file_itself(folder: Path) -> None:
        weights = folder / WEIGHTS
        data = weights.read_bytes()
        for file in (CONFIG, WEIGHTS):
            (folder / file).unlink()
        folder.rmdir()
        folder.write_bytes(data)

    corpus.faulty("the file in place of its folder", more=file_itself)


def _bare(folder: Path) -> None:
    for name in (CONFIG, WEIGHTS):
        (folder / name).unlink()


def _below(name: str) -> Callable[[Path], Path]:
    return lambda folder: folder / name


def _with(name: str, text: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(text)
