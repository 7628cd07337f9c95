"""The one way a prompt becomes text for a model: training, Fisher pass and evaluation must agree on it."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from weakref import WeakKeyDictionary

from sstmerge_core.errors import DataError, Problem

_HARMONY = "<|channel|>"
"""gpt-oss's format: what follows it, up to ``<|message|>``, says whether the model reasons or answers"""
_SPOKEN: WeakKeyDictionary[Any, tuple[str, bool | None]] = WeakKeyDictionary()
"""By tokenizer, the system prompt and whether the template is told to let the model reason"""
_PROBE = "a prompt that must be in the text 4711"
_DAY = datetime(2024, 7, 26)
"""Templates of Llama 3, gpt-oss, Granite and others write today's date otherwise: a run must not depend on its day"""
_SAID = "".join(f"|replace('%{code}', '{_DAY.strftime(f'%{code}')}')" for code in "YymdBbAaHMSIpj")
_DATED = f"{{%- macro strftime_now(form) -%}}{{{{ form{_SAID} }}}}{{%- endmacro -%}}"
"""Put before a template: its ``strftime_now`` says `_DAY`. transformers hands a template no functions of ours"""


@dataclass(frozen=True)
class Conversation:
    """A user's turns that are asked one after another, and how the answer to the last one begins."""

    turns: tuple[str, ...]
    prefill: str = ""
    answers: tuple[str, ...] = ()
    """The model's own, to the turns before; as many as are known"""

    @property
    def messages(self) -> list[dict[str, str]]:
        """Up to the turn that is to be answered next."""
        found = []
        for turn, answer in zip(self.turns, self.answers, strict=False):
            found += [{"role": "user", "content": turn}, {"role": "assistant", "content": answer}]
        return [*found, {"role": "user", "content": self.turns[len(self.answers)]}]

    @property
    def is_at_last(self) -> bool:
        """Whether the turn that is to be answered next is the last one."""
        return len(self.answers) + 1 == len(self.turns)

    def answered(self, answer: str) -> Conversation:
        """With the answer to the next turn."""
        return replace(self, answers=(*self.answers, answer))

    @property
    def told(self) -> str:
        """All of it as text for people, up to the answer; of a prompt alone the prompt."""
        if len(self.turns) == 1 and not self.prefill:
            return self.turns[0]
        known = (*self.answers, *("…",) * (len(self.turns) - len(self.answers)))
        last = [f"{self.prefill} …"] if self.prefill else []
        said = zip(self.turns, (*known[: len(self.turns) - 1], *last), strict=False)
        lines = [f"User: {turn}\n\nAssistant: {answer}" for turn, answer in said]
        return "\n\n".join(lines if last else [*lines, f"User: {self.turns[-1]}"])


def asked_text(tokenizer: Any, asked: str | Conversation) -> str:
    """What a model sees of a prompt (`chat_text`), or of a conversation up to where its next answer begins."""
    if isinstance(asked, str):
        return chat_text(tokenizer, asked)
    return conversation_text(tokenizer, asked.messages) + (asked.prefill if asked.is_at_last else "")


def chat_text(tokenizer: Any, prompt: str) -> str:
    """`prompt` as a user's turn in the tokenizer's own chat template, up to where the answer begins.

    Without a template (a base model) the prompt and a line break, after the beginning-of-sequence token where the
    tokenizer sets one: the text holds every special token, so tokenize it with ``add_special_tokens=False``. Raises
    DataError for a template that cannot be used, see `check_template`.
    """
    return conversation_text(tokenizer, [{"role": "user", "content": prompt}])


def speak(tokenizer: Any, system: str = "", thinking: bool | None = None) -> None:
    """Have every text made with this tokenizer from now on begin with a system turn, and reason or not.

    `thinking` is what templates know as ``enable_thinking``; None leaves it to the template. Raises DataError, in one
    line, where the tokenizer has no template, or one that cannot take what is asked or makes the same text of it.
    """
    if _SPOKEN:
        _SPOKEN.pop(tokenizer, None)
    if not system and thinking is None:
        return
    if not getattr(tokenizer, "chat_template", None):
        fix = "Leave the system prompt and thinking out, or give the base a chat template."
        raise _unusable(tokenizer, "is missing: a base model has no system turn and no thinking", fix)
    _SPOKEN[tokenizer] = (system, thinking)
    try:
        text = conversation_text(tokenizer, [{"role": "user", "content": _PROBE}])
        if system and not _holds(text, system):
            fix = "Leave the system prompt out, or give the base a template that writes it."
            raise _unusable(tokenizer, "leaves the system prompt out of its text", fix)
        if thinking is not None and not _knows_thinking(tokenizer):
            fix = "Leave thinking to the template, or give the base one that knows enable_thinking."
            raise _unusable(tokenizer, "makes the same text with thinking and without", fix)
    except DataError:
        del _SPOKEN[tokenizer]
        raise


def _system_turn(tokenizer: Any) -> list[dict[str, str]]:
    system, _ = _SPOKEN.get(tokenizer, ("", None))
    return [{"role": "system", "content": system}] if system else []


def _knows_thinking(tokenizer: Any) -> bool:
    system, own = _SPOKEN[tokenizer]
    texts = set()
    for thinking in (True, False):
        _SPOKEN[tokenizer] = (system, thinking)
        texts.add(conversation_text(tokenizer, [{"role": "user", "content": _PROBE}]))
    _SPOKEN[tokenizer] = (system, own)
    return len(texts) == 2


def end_of_turn(tokenizer: Any) -> str:
    """The token that the template writes after an assistant's answer, where it is one of the added ones; else empty."""
    if not getattr(tokenizer, "chat_template", None):
        return ""
    answer = "an answer 4711"
    asked = {"role": "user", "content": _PROBE}
    turns = [*_system_turn(tokenizer), asked, {"role": "assistant", "content": answer}]
    try:
        text = _rendered(tokenizer, turns, parts=_takes_parts(tokenizer), begin=False)
    except DataError:
        return ""  # of a template that wants another turn; it is told where it is used
    after = text.rpartition(answer)[2].lstrip()
    found = [token for token in tokenizer.get_added_vocab() if after.startswith(token)]
    return max(found, key=len, default="")


def is_harmony(tokenizer: Any) -> bool:
    """Whether the model says in channels what it reasons and what it answers."""
    return _HARMONY in tokenizer.get_added_vocab()


def from_harmony(text: str) -> str:
    """A response in channels as other models write it: ``<think>…</think>``, then the answer.

    `text` has its special tokens. The format is that of OpenAI's harmony: ``<|channel|>analysis<|message|>…<|end|>``,
    then ``<|start|>assistant<|channel|>final<|message|>…``.
    """
    thoughts: list[str] = []
    answers: list[str] = []
    for part in text.split(_HARMONY)[1:] or [f"final<|message|>{text}"]:
        channel, _, said = part.partition("<|message|>")
        said = re.split(r"<\|(?:end|return|start|call)\|>", said, maxsplit=1)[0].strip()
        (answers if channel.strip().startswith("final") else thoughts).append(said)
    inner = "\n".join(filter(None, thoughts))
    answer = "\n".join(answers)
    if not inner:
        return answer
    return f"<think>\n{inner}\n</think>\n\n{answer}" if answers else f"<think>\n{inner}"


def conversation_text(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> str:
    """The same of a conversation: messages with ``role`` (``user``, ``assistant``) and ``content``, a user's last.

    Without a template every message ends with a line break. Raises DataError where the template refuses the
    conversation, as some do with roles that do not alternate, and where it leaves the last message out.
    """
    if not getattr(tokenizer, "chat_template", None):
        sets_bos = tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
        lines = "".join(f"{message['content']}\n" for message in messages)
        return f"{tokenizer.bos_token if sets_bos else ''}{lines}"
    turns = [*_system_turn(tokenizer), *messages]
    text = _rendered(tokenizer, turns, parts=_takes_parts(tokenizer))
    # a template may trim a message or break its lines elsewhere, but all of its words must be there
    if not _holds(text, messages[-1]["content"]):
        fix = "Give the base a template that writes the message's content."
        raise DataError(Problem(_where(tokenizer), "leaves the prompt out of its text", fix))
    return text


def check_template(tokenizer: Any) -> None:
    """Raises DataError in one line where the chat template cannot be used with a user's turn alone.

    That is: several named templates and none of them the default, Jinja that does not parse or fails, one that wants
    another turn first, and one that loses the prompt whether it is given as text or as content parts.
    """
    conversation_text(tokenizer, [{"role": "user", "content": _PROBE}])


def template_kind(tokenizer: Any) -> str:
    """``chat_template`` or ``plain``: recorded with every result."""
    return "chat_template" if getattr(tokenizer, "chat_template", None) else "plain"


_PARTS: WeakKeyDictionary[Any, tuple[Any, bool]] = WeakKeyDictionary()
"""By tokenizer, its template and whether that takes content as parts"""


def _takes_parts(tokenizer: Any) -> bool:
    """Whether the template writes a prompt only where its content is a list of parts, as those of many VLMs do."""
    template = tokenizer.chat_template
    known = _PARTS.get(tokenizer)
    if known is None or known[0] != template:
        probe = [*_system_turn(tokenizer), {"role": "user", "content": _PROBE}]
        known = (template, _probe_wants_parts(tokenizer, probe))
        _PARTS[tokenizer] = known
    return known[1]


def _probe_wants_parts(tokenizer: Any, probe: Sequence[Mapping[str, str]]) -> bool:
    problem = None
    try:
        if _holds(_rendered(tokenizer, probe, parts=False), _PROBE):
            return False
    except DataError as error:
        problem = error
    try:
        text = _rendered(tokenizer, probe, parts=True)
        # a template that cuts a text, or cannot take it, may write the list of parts itself, as Python shows it
        if _holds(text, _PROBE) and not re.search(r"""['"]type['"]\s*:""", text):
            return True
    except DataError as error:
        problem = problem or error
    if problem:
        raise problem
    return False


def _rendered(tokenizer: Any, messages: Sequence[Mapping[str, str]], *, parts: bool, begin: bool = True) -> str:
    """The template's text. Raises DataError that says what the template is or says."""
    import jinja2

    given: list[dict[str, Any]] = [dict(message) for message in messages]
    if parts:
        given = [one | {"content": [{"type": "text", "text": one["content"]}]} for one in given]
    try:
        thinking = _SPOKEN.get(tokenizer, ("", None))[1]
        told = {} if thinking is None else {"enable_thinking": thinking}
        template = tokenizer.get_chat_template()
        if "strftime_now" in template:
            template = _DATED + template
        return tokenizer.apply_chat_template(
            given,
            chat_template=template,
            tokenize=False,
            add_generation_prompt=begin,
            date_string=f"{_DAY:%d %b %Y}",
            **told,
        )
    except jinja2.TemplateSyntaxError as error:
        fault = f"cannot be parsed, line {error.lineno}: {_line(error)}"
        raise _unusable(tokenizer, fault, "Correct chat_template.jinja, or take the model's own.") from None
    except jinja2.TemplateError as error:
        raise _unusable(tokenizer, *_refusal(_line(error))) from None
    except ValueError as error:
        if isinstance(tokenizer.chat_template, dict):
            names = ", ".join(sorted(map(str, tokenizer.chat_template)))
            fix = "Save the one to use as chat_template.jinja in the base's folder."
            raise _unusable(tokenizer, f"has only named templates ({names}) and no default", fix) from None
        raise _unusable(tokenizer, f"fails: {_line(error)}", _TAKE_ITS_OWN) from None
    except (TypeError, KeyError, AttributeError, IndexError, RecursionError, ArithmeticError) as error:
        raise _unusable(tokenizer, f"fails: {_line(error)}", _TAKE_ITS_OWN) from None


_TAKE_ITS_OWN = "Correct it, or take the template that the model was trained with."


def _refusal(said: str) -> tuple[str, str]:
    """Fault and fix for what a template says by raising an exception itself."""
    if "system" in said.lower():
        fix = "Give a system prompt (--system), or the base a template that takes a user's turn alone."
        return f"refuses a conversation without a system turn ({said})", fix
    return f"refuses the conversation ({said})", _TAKE_ITS_OWN


def _unusable(tokenizer: Any, fault: str, fix: str) -> DataError:
    return DataError(Problem(_where(tokenizer), fault, fix))


def _where(tokenizer: Any) -> str:
    return f"chat template of {getattr(tokenizer, 'name_or_path', '') or 'the tokenizer'}"


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__ if not str(error) else error}".split())[:160]


def _holds(text: str, prompt: str) -> bool:
    """Whether the text has the prompt in it, but for white space; some templates write it as JSON or HTML."""
    bare = _bare(text)
    return any(
        _bare(one) in bare
        for one in (prompt, json.dumps(prompt, ensure_ascii=False)[1:-1], json.dumps(prompt)[1:-1], html.escape(prompt))
    )


def _bare(text: str) -> str:
    return "".join(text.split())
