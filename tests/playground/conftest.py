"""A workspace with a tiny base model and two adapters of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sstmerge_core.playground.protocol import Asked, Question
from sstmerge_core.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "w").create()


@pytest.fixture
def ask(tiny_base: Path):
    """``ask({"U": folder}, {"U": 1.0}, prompt)``: a question to one column."""

    def question(
        *columns: dict[str, tuple[Path, float]], prompt: str = "w1 w2 w3", tokens: int = 6, **more
    ) -> Question:
        asked = [
            Asked(
                [(name, str(path), weight) for name, (path, weight) in column.items()],
                [{"role": "user", "content": prompt}],
            )
            for column in columns
        ]
        return Question(str(tiny_base), asked, tokens, **more)

    return question
