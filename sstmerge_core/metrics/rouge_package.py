"""The package rouge-score without the rest of NLTK, of which it uses one stemmer.

``import nltk`` brings SciPy's statistics and 900 modules: most of a second and 85 MB of every server, worker and
command that scores an answer.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import cache
from types import ModuleType
from typing import Any

_PACKAGES = ("nltk", "nltk.stem")
"""Whose own code is not run: what is imported from them is found beside it all the same"""


class _Later(ModuleType):
    """A package that is imported when something of it is asked for which is no module of its own."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or sys.modules.get(self.__name__) is self:  # still being imported from
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(self.__name__), name)


@cache
def rouge_score() -> tuple[Any, Any]:
    """The package's ``RougeScorer`` and ``DefaultTokenizer``; NLTK is left to be imported by who needs it."""
    if not any(name.partition(".")[0] in ("nltk", "rouge_score") for name in sys.modules):
        try:
            return _alone()
        except (ImportError, AttributeError):  # another version of either, which needs more of NLTK
            _forget("rouge_score")
    return _classes()


def _alone() -> tuple[Any, Any]:
    try:
        for name in _PACKAGES:
            spec = importlib.util.find_spec(name)
            if spec is None or spec.submodule_search_locations is None:
                raise ImportError(name)
            package = _Later(name)
            package.__path__ = list(spec.submodule_search_locations)
            sys.modules[name] = package
        return _classes()
    finally:
        _forget("nltk")


def _classes() -> tuple[Any, Any]:
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import DefaultTokenizer

    return RougeScorer, DefaultTokenizer


def _forget(package: str) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]
