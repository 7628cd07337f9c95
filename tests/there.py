"""For tests that know a thing to be there that the program's types leave open."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def there(value: T | None) -> T:
    """`value`, which must be there: a job of a known id, the pipe of a process, a recipe without problems."""
    assert value is not None
    return value
