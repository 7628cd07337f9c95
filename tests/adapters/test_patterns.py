"""Patterns for module names: the answers of `re`, without its exponential time."""

from __future__ import annotations

import random
import re
import time
import warnings

import pytest

from sstmerge_core.adapters.patterns import Patterns, UnusablePattern, whole

MODULES = [
    f"model.layers.{layer}.{name}_proj"
    for layer in range(40)
    for name in ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp.up", "mlp.gate", "mlp.down")
]
REAL = [
    "q_proj",
    "self_attn.q_proj",
    r"model\.layers\.(0|1\d|2[0-3])\..*proj",
    "model.layers.3.mlp.up_proj",
    "[kv]_proj",
    r"^model\.layers\.1\.self_attn\.o_proj",
    "(?:.*?(?:self_attn|mlp).*?(?:q_proj|up_proj).*?)",
    r"layers\.\d+\.mlp\.\w+",
    "(?!.*mlp).*proj",
    r".*\b(?:q|k)_proj",
    "layers.1.{1,12}proj",
    "[^.]+",
    "a{0}q_proj",
]


@pytest.mark.parametrize("pattern", REAL)
def test_a_pattern_matches_what_re_matches(pattern):
    found = [name for name in MODULES if Patterns({pattern: 1}).value(name, 0)]
    assert found == [name for name in MODULES if re.match(rf"(.*\.)?({pattern})$", name)]


def test_random_patterns_match_what_re_matches():
    draw = random.Random(0)
    parts = [*"ab._*+?()|[]^$\\d", "{2}", "(a|b)", "[a-b]", "(?:", "(?=", r"\.", r"\b"]
    tried = 0
    for _ in range(6000):
        pattern = "".join(draw.choice(parts) for _ in range(draw.randint(1, 8)))
        name = "".join(draw.choice("ab.ba1_") for _ in range(draw.randint(1, 7)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                expected = bool(re.match(rf"(.*\.)?({pattern})$", name))
                found = Patterns({pattern: True}).value(name, False)
            except (re.error, UnusablePattern):
                continue
        tried += 1
        assert found == expected, (pattern, name)
    assert tried > 1000


def test_the_first_pattern_that_matches_counts():
    patterns = Patterns({"layers.0.q": 1, "q": 2, r"layers\.1\.[q]": 3, "layers.1.q": 4, "l.yers.2.q": 5})
    found = [patterns.value(f"model.layers.{layer}.q", 0) for layer in range(3)]
    assert found == [1, 2, 2] and patterns.value("layers.1.k", 0) == 0
    assert Patterns({"layers.1.[q]": 3, "q": 2}).value("layers.1.q", 0) == 3
    assert Patterns({"layersX0.q": 1, "layers.0.q": 2}).value("layersX0.q", 0) == 1, "a dot stands for any character"


HOSTILE = [
    "((a|[a-z_.0-9])+)+!",
    "(a|a|[a-z.]|.)*!",
    ".*" * 30 + "!",
    "(.*)*(.*)*(.*)*!",
    "(?=(([a-z._0-9]+)+!))q",
    "((a{0,60000}){0,60000}){0,60000}!",
    "(((.?)*)*)*!",
    "(.*.*.*.*)*" * 50 + "!",
    "(" * 3000 + "a" + ")" * 3000,
    r"(.+)+\1!",
    "(?P<n>.+)+(?P=n)!",
    "(?>(a|.)+)+!",
    "((.|a)++)*!",
    "(?i:((a|.)+)+)!",
    "(?<=((a|.)))x",
    "a" * 30_000 + "*",
    "(",
    "*",
    "(.*)" * 4000 + "!",
]


@pytest.mark.parametrize("pattern", HOSTILE, ids=range(len(HOSTILE)))
def test_no_pattern_takes_long(pattern):
    start = time.process_time()
    try:
        patterns = Patterns({pattern: 1})
        assert not any(patterns.value(name, 0) for name in MODULES)
    except UnusablePattern as error:
        assert len(str(error)) < 400
    assert time.process_time() - start < 10


def test_many_patterns_take_little_time():
    start = time.process_time()
    patterns = Patterns(
        {name: number for number, name in enumerate(MODULES * 1)} | {f"x.{n}": n for n in range(20_000)}
    )
    assert [patterns.value(name, -1) for name in MODULES] == list(range(len(MODULES)))
    assert time.process_time() - start < 5
    with pytest.raises(UnusablePattern, match="too long"):
        many = Patterns({f"({name}|.*)*!": 1 for name in MODULES * 1} | {f"(.*{n}.*)*!": 1 for n in range(300)})
        for name in MODULES:
            many.value(name, 0)
    assert time.process_time() - start < 30


def test_targets_are_matched_from_beginning_to_end():
    names = ["model.layers.0.q", "layers.0.q", "q"]
    assert whole("layers.*", names) == ["layers.0.q"] and whole(".*q", names) == names
