"""Numbers as people read them."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from sstmerge_core.errors import visible


def duration(seconds: float | None) -> str:
    """``8 s``, ``2 min 10 s``, ``1 h 5 min``; ``unknown`` for None."""
    if seconds is None:
        return "unknown"
    if seconds < 0.95:
        return "under 1 s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        minutes, rest = divmod(whole, 60)
        return f"{minutes} min {rest} s" if rest and minutes < 10 else f"{minutes} min"
    hours, rest = divmod(whole, 3600)
    return f"{hours} h {rest // 60} min" if rest // 60 else f"{hours} h"


def between(least: float, most: float) -> str:
    """Two durations that lie apart: ``20 to 50 s``, ``2 to 5 min``, ``40 s to 3 min``; one where they read alike."""
    low, high = _rough(least, down=True), _rough(most, down=False)
    if low == high:
        return high
    number, _, unit = low.partition(" ")
    return f"{number} to {high}" if high.endswith(f" {unit}") and high.count(" ") == 1 else f"{low} to {high}"


def _rough(seconds: float, *, down: bool) -> str:
    """A duration in few digits, rounded away from what lies between: steps of 1, 5 or 10 s, of minutes, of tenths."""
    round_to = math.floor if down else math.ceil
    if seconds < 55:
        step = 1 if seconds < 10 else 5 if seconds < 30 else 10
        return duration(max(1, round_to(seconds / step) * step))
    if seconds < 50 * 60:
        minutes = max(1, round_to(seconds / 60))
        return duration(60 * (minutes if minutes < 10 else round_to(minutes / 5) * 5))
    return f"{max(0.5, round_to(seconds / 360) / 10):g} h"


def ago(then: float | None, now: float | None = None) -> str:
    """How long before `now` (UTC epoch seconds, default: this moment) `then` was."""
    if then is None:
        return "–"
    passed = max(0.0, (time.time() if now is None else now) - then)
    if passed < 60:
        return "just now"
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if passed >= length:
            return f"{count(int(passed // length), unit)} ago"
    raise AssertionError("60 seconds are at least a minute")


def count(number: int, noun: str, plural: str = "") -> str:
    """``1 run``, ``1,000 runs``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def listed(names: Sequence[str], most: int = 4) -> str:
    """``A, B and C``; of many the first ones, and how many more."""
    shown = list(names) if len(names) <= most else [*names[: most - 1], f"{len(names) - most + 1} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}" if shown else ""


def upper(value: float | None, digits: int = 3) -> str:
    """The upper end of an interval; None where it has none, as that of a Safety Tax whose gain may be nothing."""
    return "∞" if value is None or value != value else f"{value:.{digits}f}"


def size(number: int) -> str:
    """Bytes in the unit that gives 1 to 999: ``4.7 MB``."""
    value = float(number)
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.3g} {unit}"
        value /= 1000
    raise AssertionError("the loop ends at TB")


def shortened(text: str, most: int = 80) -> str:
    """`text` on one line of at most `most` characters, the last one … where something is left out."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def plain(text: object, *, code: bool = False) -> str:
    """`text`, as `str` gives it, in Markdown that shows just that: no image, link, HTML, icon, list or heading of it.

    It goes into one line. Backslashes alone do not do: the browser looks for addresses, icons and arrows after it has
    taken them away, so that such have an invisible word joiner within. `code` leaves commands in backticks as they are.
    """
    line = visible(_BREAKS.sub(" ", str(text)))
    if not code:
        return _quiet(line)
    parts = _CODE.split(line)
    return "".join(f"`{part}`" if index % 2 else _quiet(part, first=not index) for index, part in enumerate(parts))


def markdown(text: object) -> str:
    """`plain` for Markdown that other programs render: without escapes that only Streamlit needs, or no Markdown."""
    return re.sub(r"(?<=\w)\\_(?=\w)", "_", plain(text).replace("\\:", ":"))


def run_name(run: Mapping[str, Any]) -> str:
    """What a run is called, of a row of it: by its own name, an adapter alone by the adapter, else by its recipe."""
    own, label = run.get("own_name"), run.get("label")
    if isinstance(own, str) and own:
        return own
    if run.get("method") == "adapter" and isinstance(run.get("pair"), str) and run["pair"]:
        return f"{run['pair']} alone"
    return label if isinstance(label, str) and label else str(run.get("method") or run.get("run_id") or "")


def run_link(text: str, run_id: str) -> str:
    """Markdown of a link to a run's page that shows `text`; a folder of runs may be called anything."""
    return f"[{plain(text)}]({run_address(run_id)})"


def run_address(run_id: str) -> str:
    """``run?run=…``: the way from any page to a run's."""
    return f"run?run={quote(str(run_id), safe='')}"


_BREAKS = re.compile(r"\s*[\n\r\v\f\x1c-\x1f\x85\u2028\u2029]\s*|^[ \t]+")
_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_SPECIAL = re.compile(r"[\\*_{}\[\]<>#|$~:`!&]")
_BLOCK = re.compile(r"^(\d{1,9})?([-+.)=])")
"""What makes a list, a rule or a heading at the beginning of a line"""
_FOUND_LATER = re.compile(
    r"(?<=:)(?=//|material[/_]|streamlit:)|(?<=www)(?=\.)|(?<=[\w.+-]@)(?=[\w-]+\.)"
    r"|(?<=(?<!\S)[-<>~=!])(?=[->=]+(?!\S))",
    re.IGNORECASE,
)
"""Places within addresses, icons and arrows"""
_JOINER = "\u2060"


def _quiet(text: str, *, first: bool = True) -> str:
    escaped = _SPECIAL.sub(r"\\\g<0>", _FOUND_LATER.sub(_JOINER, text))
    return _BLOCK.sub(r"\g<1>\\\g<2>", escaped) if first else escaped
