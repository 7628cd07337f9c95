"""JSON and YAML that parsers choke on: depth, size, aliases, merge keys, numbers, encodings, tags, halves of things."""

from __future__ import annotations

from collections.abc import Mapping


def _grown(link: str, levels: int = 12) -> str:
    """Each level stands for nine of the one before: 9¹² values in half a kilobyte. `link`: how one refers to nine."""
    lines = ["a0: &a0 {x: 1}"]
    for level in range(1, levels):
        nine = ", ".join([f"*a{level - 1}"] * 9)
        lines.append(f"a{level}: &a{level} {link.replace('NINE', nine)}")
    return "\n".join(lines)


DEEP = {
    "lists": "[" * 25_000 + "]" * 25_000,
    "lists without an end": "[" * 1_000_000,
    "objects": '{"a":' * 25_000 + "1" + "}" * 25_000,
    "lists and objects": '[{"a":' * 10_000 + "1" + "}]" * 10_000,
    "one too many": "[" * 65 + "]" * 65,
    "below Python's own limit": "[" * 900 + "]" * 900,
    "after a string with quotes": '["\\"[", ' * 20_000 + "1" + "]" * 20_000,
    "in a row": '{"prompt": "a", "more": ' + "[" * 5_000 + "]" * 5_000 + "}",
}
"""JSON, and YAML too, with lists and objects within each other"""
JSON: Mapping[str, str | bytes] = {
    **{f"deep: {name}": text for name, text in DEEP.items()},
    "nothing": "",
    "a space": " ",
    "half an object": '{"a": ',
    "half a string": '"abc',
    "quotes without end": '"' + '\\"' * 2_000_000,
    "strings without end": '["' * 500_000,
    "a backslash at the end": '["a\\',
    "two values": "1 2",
    "a comment": "// a\n1",
    "5,000 digits": "9" * 5_000,
    "5,000 digits in a list": "[1, " + "9" * 5_000 + "]",
    "309 digits": "9" * 309,
    "minus 5,000 digits": "-" + "9" * 5_000,
    "Latin-1": "ü".encode("latin-1"),
    "UTF-16": "[1]".encode("utf-16"),
    "UTF-32": "[1]".encode("utf-32"),
    "NUL": b"\0" * 100,
    "every byte": bytes(range(256)),
    "control characters": '"\x01\x02"',
    "a gzip": b"\x1f\x8b\x08\0\0\0\0\0",
    "single quotes": "{'a': 1}",
    "a trailing comma": "[1,]",
    "braces only": "}" * 100_000,
    "brackets the wrong way": "]" * 1_000_000 + "[" * 1_000_000,
}
"""None of them is JSON within the limits"""
_DEEP_FLOW = {name: text for name, text in DEEP.items() if name != "after a string with quotes"}
YAML: Mapping[str, str | bytes] = {
    **{f"deep: {name}": text for name, text in _DEEP_FLOW.items()},
    "deep block lists": "- " * 25_000,
    "deep mappings": "{a: " * 25_000,
    "deep keys": "? " * 25_000,
    "deep by indenting": "\n".join(" " * level + "a:" for level in range(1_000)),
    "deep by aliases": "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 100)),
    "a billion laughs": _grown("[NINE]"),
    "a billion laughs in mappings": _grown("{a: [NINE]}"),
    "a billion merged keys": _grown("{<<: [NINE]}"),
    "many aliases of much": "a: &a [" + "1," * 1_000 + "]\nb: [" + "*a," * 1_000 + "]",
    "itself": "&a [*a]",
    "itself as a key": "&a {*a : 1}",
    "itself by another": "a: &a\n  b: &b [*a]\n  c: *b",
    "an alias of nothing": "[*b]",
    "an anchor of nothing": "*",
    "anchors without end": "&a" * 10_000,
    "a million values": "[" + "1," * 1_000_000 + "]",
    "a million lines": "- a\n" * 1_000_000,
    "5,000 digits": "a: " + "9" * 5_000,
    "5,000 digits by tag": "a: !!int '" + "9" * 5_000 + "'",
    "a million sixties": "a: 1" + ":59" * 1_000_000,
    "a million sixties by tag": "a: !!int '1" + ":59" * 1_000_000 + "'",
    "sixties with a fraction": "a: 1" + ":59" * 5_000 + ".5",
    "a long hexadecimal": "a: 0x" + "f" * 1_000_000,
    "a long binary": "a: 0b" + "1" * 5_000,
    "digits and underscores": "a: " + "1_" * 5_000,
    "no such day": "a: 2001-99-99",
    "no such hour": "a: 2001-01-01 99:99:99",
    "a timestamp by tag": "a: !!timestamp soon",
    "an empty whole number": "a: !!int ''",
    "a flag by tag": "a: !!bool perhaps",
    "a float by tag": "a: !!float lots",
    "binary that is not": "a: !!binary é",
    "a Python object": "!!python/object/apply:os.system ['true']",
    "a Python name": "!!python/name:os.system",
    "a Python module": "!!python/module:os",
    "a tag of nobody's": "!wanted x",
    "a tag of 100,000 letters": "!" + "x" * 100_000,
    "a key that is a list": "{[1]: 2}",
    "a key that is a mapping": "? {a: 1}\n: 2",
    "a merge of a number": "<<: 1",
    "a merge of numbers": "{<<: [1, 2]}",
    "an ordered map of numbers": "!!omap [1]",
    "pairs of a word": "!!pairs x",
    "two documents": "---\na\n---\nb",
    "a version of nobody's": "%YAML 9.9\n---\na",
    "directives without end": "%TAG ! x\n" * 10_000,
    "a tab": "a:\n\t- x",
    "a colon too many": "a: b: c",
    "colons": "a:" * 100_000,
    "quotes without end": "'" * 99_999,
    "a quote without end": '"' + "a" * 1_000_000,
    "NUL": "\0",
    "half a surrogate pair": "\ud800",
    "Latin-1": "ü: ü".encode("latin-1"),
    "UTF-16": "a: b".encode("utf-16"),
    "every byte": bytes(range(256)),
    "an escape of nobody's": '"\\q"',
    "percent signs": "%" * 100_000,
    "exclamation marks": "!" * 100_000,
    "stars": "*" * 100_000,
    "at": "@",
    "a backtick": "`a`",
}
"""None of them is YAML within the limits"""
