"""The one way a prompt becomes text for a model: training, Fisher pass and evaluation must agree on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def chat_text(tokenizer: Any, prompt: str) -> str:
    """`prompt` as a user's turn in the tokenizer's own chat template, up to where the answer begins.

    Without a template (a base model) the prompt and a line break, after the beginning-of-sequence token where the
    tokenizer sets one: the text holds every special token, so tokenize it with ``add_special_tokens=False``.
    """
    return conversation_text(tokenizer, [{"role": "user", "content": prompt}])


def conversation_text(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> str:
    """The same of a conversation: messages with ``role`` (``user``, ``assistant``) and ``content``, a user's last.

    Without a template every message ends with a line break. Templates may refuse roles that do not alternate.
    """
    if not getattr(tokenizer, "chat_template", None):
        sets_bos = tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
        lines = "".join(f"{message['content']}\n" for message in messages)
        return f"{tokenizer.bos_token if sets_bos else ''}{lines}"
    return tokenizer.apply_chat_template(
        list(messages),
        tokenize=False,
        add_generation_prompt=True,
        date_string="26 Jul 2024",  # Llama 3 templates write today's date otherwise: a run must not depend on its day
    )


def template_kind(tokenizer: Any) -> str:
    """``chat_template`` or ``plain``: recorded with every result."""
    return "chat_template" if getattr(tokenizer, "chat_template", None) else "plain"
