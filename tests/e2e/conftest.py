"""A real server and a real browser."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import cache, partial
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


class Walker:
    """One visitor who goes from page to page of a server as the menu does: the scripts are loaded once."""

    def __init__(self, browser: Any, server: str):
        self.asked: list[str] = []
        """What the browser has asked for since the page was opened"""
        self._server, self._at = server, ""
        self._page = browser.new_context(color_scheme="dark").new_page()
        self._page.set_default_timeout(60_000)
        self._page.on("request", lambda request: self.asked.append(request.url))

    def open(self, path: str, *, width: int = 390, height: int = 844) -> Any:
        """The page at `path`, dark and of this size."""
        page = self._page
        self.asked.clear()
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme="dark")
        before = page.title()
        if not before or self._at == path:
            page.goto(f"{self._server}/{path}")
        else:
            page.evaluate(
                "path => { history.pushState({}, '', path); dispatchEvent(new PopStateEvent('popstate')) }", f"/{path}"
            )
            page.wait_for_function("before => document.title !== before", arg=before)
        self._at = path
        return page


@pytest.fixture(scope="module")
def walker(browser: Any) -> Callable[[str], Walker]:
    """``walker(server)``: the one visitor of a module who walks through that server's pages."""
    return cache(partial(Walker, browser))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)
