"""The judge `endpoint`: a model behind an OpenAI-compatible address (``/chat/completions``). Imports no torch.

    SSTMERGE_JUDGE_URL=https://host/v1 SSTMERGE_JUDGE_KEY=… sstmerge judge rescore RUN --judge endpoint:MODEL

The prompts and answers of the run leave this machine for that address. Answers are cached by what was asked, so that
nothing is paid twice; requests keep to a rate, and those that fail for a while are tried again.
"""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import http.client
import json
import os
import random
import sqlite3
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sstmerge_core import documents
from sstmerge_core.errors import OF_SQLITE, DataError, JobError, Problem, RecipeError
from sstmerge_core.evaluate.guards import GUARDS, Guard, read_so
from sstmerge_core.evaluate.judges_guard import Asked, GuardJudge
from sstmerge_core.workspace import Workspace

URL, KEY, RATE, PRICE = "SSTMERGE_JUDGE_URL", "SSTMERGE_JUDGE_KEY", "SSTMERGE_JUDGE_PER_MINUTE", "SSTMERGE_JUDGE_PRICE"
"""Environment variables: the address up to ``/v1``, the key, requests a minute, and dollars for a million tokens in
and out with a comma between"""
DEFAULT_RUBRIC = "strongreject"
PER_MINUTE = 60.0
TRIES = 5
SECONDS = 120.0
"""For one request"""
LONGEST_WAIT = 60.0
"""Seconds between two tries at most, whatever the server asks for"""
LARGEST = 4 * 2**20
"""Bytes of an answer that are read"""
MOST_TOKENS = 10**9
"""Of one question and its answer; what says more counts nothing"""
_LOCAL = ("localhost", "127.0.0.1", "::1")


def askable() -> tuple[str, ...]:
    """The declarations that can be put to an endpoint: made of turns alone, asked once."""
    return tuple(name for name, guard in GUARDS.items() if not guard.template and guard.questions == ({},))


def endpoint(model: str, _device: str = "") -> GuardJudge:
    """The judge ``endpoint:MODEL`` or ``endpoint:RUBRIC/MODEL``, RUBRIC a declaration of `askable`.

    Without one StrongREJECT's rubric is asked. Raises RecipeError where a model, the address or a number is missing or
    wrong, or a declaration cannot be asked that way.
    """
    first, _, rest = model.partition("/")
    rubric, named = (first, rest) if first in GUARDS else (DEFAULT_RUBRIC, model)
    if not named:
        fix = "Write endpoint:MODEL, the name by which the server knows it."
        raise RecipeError(Problem("judge endpoint", "no model is named", fix))
    if rubric not in askable():
        fix = f"Use one of {', '.join(askable())}."
        raise RecipeError(Problem(f"judge endpoint:{rubric}", "is not asked by turns of a chat alone", fix))
    url, key = _address(), os.environ.get(KEY) or ""
    guard = GUARDS[rubric]
    client = Client(guard, named, url, key, _number(RATE, PER_MINUTE), _prices(), _cache())
    return GuardJudge(guard, read_so(f"endpoint:{rubric}/{named}@{urlsplit(url).netloc}"), client)


@dataclass
class Usage:
    """What a judge has cost so far."""

    requests: int = 0
    cached: int = 0
    """Questions whose answer was known already"""
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float | None = None
    """Dollars, where `PRICE` is set"""

    @property
    def words(self) -> str:
        cost = "" if self.cost is None else f", ${self.cost:.4f}"
        return (
            f"{self.requests} requests ({self.cached} answers known before), {self.tokens_in:,} tokens in and "
            f"{self.tokens_out:,} out{cost}"
        )


@dataclass
class Client:
    """Asks one declaration's question of one model."""

    guard: Guard
    model: str
    url: str
    key: str = field(repr=False)
    per_minute: float = PER_MINUTE
    prices: tuple[float, float] | None = None
    """Dollars for a million tokens in and out"""
    cache: Path | None = None
    usage: Usage = field(default_factory=Usage)
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _next: float = 0.0
    """When the next request may go out"""
    _limit: str = "max_tokens"
    """What the server calls the longest answer: newer models of OpenAI's have another name for it"""

    def __call__(self, asked: Sequence[Asked]) -> list[str]:
        return [self._answer(prompt, response) for prompt, response, _ in asked]

    def _answer(self, prompt: str, response: str) -> str:
        guard = self.guard
        turns = (("system", guard.system), ("user", guard.user), ("assistant", guard.assistant))
        messages = [{"role": role, "content": guard.fill(text, prompt, response)} for role, text in turns if text]
        body = {"model": self.model, "messages": messages, "temperature": 0}
        identity = json.dumps([self.url, guard.name, guard.new_tokens, body], sort_keys=True)
        key = hashlib.sha256(identity.encode()).hexdigest()
        if (known := self._known(key)) is not None:
            self.usage.cached += 1
            return known
        try:
            told = self._asked_until_told(body)
        except _ThisAlone:  # the others can be asked: it is a miss
            return ""
        text = _content(told).encode("utf-8", "replace").decode()  # half a character is none that could be kept
        self._count(told.get("usage"))
        if text:
            self._keep(key, text)
        return text

    def _asked_until_told(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The server's answer. Raises DataError for what no second try mends, JobError where it keeps failing."""
        reason, said, name = "", "", ""
        for attempt in range(TRIES):
            self._wait_for_the_rate()
            self.usage.requests += 1
            try:
                told = self._post(dict(body) | {self._limit: self.guard.new_tokens})
                if told.get("choices") or not told.get("error"):
                    return told
                (code, said, name), wait = _fault(told), None  # gateways tell errors of others as their own success
            except urllib.error.HTTPError as error:
                (_, said, name), wait = _said(error), _retry_after(error)
                code = error.code
            except documents.FormatError as error:
                reason, wait, code = f"its answer {error}", None, 0
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason, wait = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}", None
                code = 0
            if code == 400 and "max_completion_tokens" in said and self._limit == "max_tokens":
                self._limit = "max_completion_tokens"
                continue
            if code:
                if name in _OF_ONE_QUESTION:
                    raise _ThisAlone(said)
                if code not in (408, 409, 425, 429) and code < 500:
                    raise DataError(Problem(self._where, *_refused(code, said)))
                reason = f"HTTP {code}: {said}"
            if attempt < TRIES - 1:
                # whole seconds of one's own would have many clients come back at once
                pause = 2.0**attempt * random.uniform(0.75, 1.25) if wait is None else wait
                self.sleep(min(LONGEST_WAIT, pause))
        fix = "Ask again later: the answers so far are kept, and nothing is asked twice."
        raise JobError(Problem(self._where, f"gave no answer in {TRIES} tries; the last: {reason}", fix))

    def _post(self, body: Mapping[str, Any]) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(f"{self.url}/chat/completions", json.dumps(body).encode(), headers)
        # without redirects: the key is for this address alone
        opener = urllib.request.build_opener(_NoRedirects)
        with opener.open(request, timeout=SECONDS) as answer:
            data = answer.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise ValueError("the answer is too long")
        found = documents.from_json(data)
        if not isinstance(found, dict):
            raise ValueError("the answer is no JSON object")
        return found

    @property
    def _where(self) -> str:
        return f"judge endpoint {urlsplit(self.url).netloc}"

    def _wait_for_the_rate(self) -> None:
        now = self.clock()
        if now < self._next:
            self.sleep(self._next - now)
        self._next = max(now, self._next) + 60.0 / self.per_minute

    def _count(self, usage: Any) -> None:
        told = usage if isinstance(usage, dict) else {}
        counts = [told.get(name) for name in ("prompt_tokens", "completion_tokens")]
        asked, said = (count if isinstance(count, int) and 0 <= count < MOST_TOKENS else 0 for count in counts)
        self.usage.tokens_in += asked
        self.usage.tokens_out += said
        if self.prices is not None:
            spent = (asked * self.prices[0] + said * self.prices[1]) / 1e6
            self.usage.cost = (self.usage.cost or 0.0) + spent

    def _known(self, key: str) -> str | None:
        if self.cache is None or not self.cache.is_file():
            return None
        with contextlib.suppress(*OF_SQLITE), closing(sqlite3.connect(self.cache, timeout=30)) as connection:
            row = connection.execute("SELECT text FROM answers WHERE key = ?", [key]).fetchone()
            return None if row is None else str(row[0])
        return None

    def _keep(self, key: str, text: str) -> None:
        if self.cache is None:
            return
        with contextlib.suppress(*OF_SQLITE, OSError):  # a cache that cannot be written costs money, not the verdict
            self.cache.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.cache, timeout=30)) as connection, connection:
                connection.execute("CREATE TABLE IF NOT EXISTS answers(key TEXT PRIMARY KEY, text TEXT)")
                connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", [key, text])


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _address() -> str:
    """The address from the environment. Raises RecipeError where it is missing or would show the key."""
    url = (os.environ.get(URL) or "").strip().rstrip("/")
    if not url:
        fix = f"Set {URL} (such as https://host/v1) and {KEY} where the server runs, or the command."
        raise RecipeError(Problem("judge endpoint", "no address is set", fix))
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise RecipeError(Problem(f"{URL}", "is no address of the web", "Give one such as https://host/v1."))
    if parts.username or parts.password:
        raise RecipeError(Problem(f"{URL}", "has a name or a password in it", f"Give the key in {KEY}."))
    if parts.scheme == "http" and os.environ.get(KEY) and parts.hostname not in _LOCAL:
        raise RecipeError(Problem(f"{URL}", "is not encrypted: the key would be read on its way", "Give https."))
    return url


def _number(name: str, default: float) -> float:
    text = os.environ.get(name) or ""
    try:
        value = float(text) if text else default
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise RecipeError(Problem(f"{name}={text}"[:80], "is no number above 0", "Give requests a minute."))
    return value


def _prices() -> tuple[float, float] | None:
    text = os.environ.get(PRICE) or ""
    if not text:
        return None
    try:
        first, second = (float(part) for part in text.split(","))
    except ValueError:
        first = second = -1.0
    if not (0 <= first < float("inf") and 0 <= second < float("inf")):
        fix = "Give dollars for a million tokens in and out, such as 0.15,0.60."
        raise RecipeError(Problem(f"{PRICE}={text}"[:80], "is not two prices", fix))
    return first, second


def _cache() -> Path:
    return Workspace.default().cache / "judge-answers.sqlite"


_OF_ONE_QUESTION = (
    *("content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation"),
    *("context_length_exceeded", "string_above_max_length"),
)
"""Codes of errors that are about what was asked and not about who asks: a filter on harmful prompts, a length"""


class _ThisAlone(Exception):
    """The server does not answer this question; what it says of it."""


def _content(told: Mapping[str, Any]) -> str:
    """The text of the first completion, of several parts too; empty where a filter left none, or there is none."""
    try:
        found = told["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        return ""
    parts = found if isinstance(found, list) else [{"text": found}]
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    return "".join(text for text in texts if isinstance(text, str))


def _said(error: urllib.error.HTTPError) -> tuple[int, str, str]:
    """As `_fault`, from the body of an error."""
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
        text = error.read(20_000).decode(errors="replace")
        with contextlib.suppress(ValueError, LookupError, TypeError):
            found = documents.from_json(text)
            if isinstance(found, dict) and found.get("error"):
                return _fault(found)
        return error.code, " ".join(text.split())[:200], ""
    return error.code, str(error.reason)[:200], ""


def _fault(told: Mapping[str, Any]) -> tuple[int, str, str]:
    """The HTTP status that an error's object names (500 where none), the server's own words, and the error's name."""
    error = told["error"]
    if not isinstance(error, dict):
        return 500, " ".join(str(error).split())[:200], ""
    status = next(
        (one for one in (error.get("code"), error.get("status")) if type(one) is int and 400 <= one < 600), 500
    )
    inner = error.get("innererror")
    names = [error.get("code"), error.get("type"), inner.get("code") if isinstance(inner, dict) else None]
    name = next((one for one in names if isinstance(one, str) and one in _OF_ONE_QUESTION), "")
    return status, " ".join(str(error.get("message") or error).split())[:200], name


def _refused(code: int, said: str) -> tuple[str, str]:
    """Fault and fix."""
    if code in (401, 403):
        return f"refuses the key (HTTP {code}: {said})", f"Set {KEY} to one that may ask this model."
    if code == 404:
        return f"knows no such model or address (HTTP 404: {said})", f"Check {URL} and the model's name."
    return f"refuses the question (HTTP {code}: {said})", "Ask another model."


def _retry_after(error: urllib.error.HTTPError) -> float | None:
    """Seconds that the server asks to wait: a number, or a date."""
    text = error.headers.get("Retry-After") if error.headers else None
    if not text:
        return None
    with contextlib.suppress(ValueError):
        return max(0.0, float(text))
    with contextlib.suppress(ValueError, TypeError, OverflowError, OSError):
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    return None
