"""A real server and a real browser."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.browser import chromium, serving
from sstmerge_core.workspace import Workspace
from tests.synthetic_workspace import fill


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with contextlib.ExitStack() as stack:
        try:
            opened = stack.enter_context(chromium())
        except RuntimeError as error:
            pytest.skip(str(error))
        yield opened


@pytest.fixture(scope="session")
def full_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app on a workspace with made-up runs."""
    workspace = fill(Workspace(tmp_path_factory.mktemp("full")))
    with serving(workspace.root) as address:
        yield address


@pytest.fixture(scope="session")
def empty_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("empty")) as address:
        yield address


@pytest.fixture(scope="module")
def _contexts(browser: Any) -> Iterator[dict[str, list[Any]]]:
    """color scheme → browser sessions, which keep the app's 10 MB of scripts from test to test."""
    kept: dict[str, list[Any]] = {"light": [], "dark": []}
    yield kept
    for context in [*kept["light"], *kept["dark"]]:
        context.close()


@pytest.fixture
def new_page(browser: Any, _contexts: dict[str, list[Any]]) -> Iterator[Any]:
    """``new_page(width=390, dark=True)``: a page of somebody who was never here before; each call is another person."""
    used: list[Any] = []

    def opened(width: int = 1440, height: int = 900, dark: bool = False) -> Any:
        scheme = "dark" if dark else "light"
        free = [context for context in _contexts[scheme] if context not in used]
        if not free:
            free = [browser.new_context(color_scheme=scheme)]
            _contexts[scheme] += free
        used.append(free[0])
        page = free[0].new_page()
        page.set_viewport_size({"width": width, "height": height})
        page.set_default_timeout(60_000)
        return page

    yield opened
    for context in used:
        for page in context.pages:
            with contextlib.suppress(Exception):  # a page that shows nothing yet has no storage
                page.evaluate("() => { localStorage.clear(); sessionStorage.clear(); }")
            page.close()
        context.clear_cookies()
        context.clear_permissions()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)
