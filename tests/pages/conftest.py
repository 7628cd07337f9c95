"""Workspaces for the page tests, and the app run on them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import streamlit as st
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest

from sstmerge_core import catalog
from sstmerge_core.store import Owner
from sstmerge_core.workspace import Workspace
from tests.synthetic_workspace import fill

ROOT = Path(__file__).resolve().parents[2]

Open = Callable[..., AppTest]


@pytest.fixture(scope="session", autouse=True)
def installed_packages_are_looked_through_once() -> Iterator[None]:
    """An AppTest looks for components in every installed package at each first run: a third of its time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest_scanner, "scan_component_manifests", cache(manifest_scanner.scan_component_manifests))
        yield


@pytest.fixture(scope="session")
def full_workspace(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tiny_pair: tuple[Path, Path]
) -> Workspace:
    """Runs of two pairs, and a base model with two adapters that can really be merged."""
    workspace = fill(Workspace(tmp_path_factory.mktemp("full")))
    catalog.add_base(workspace, tiny_base)
    for path, name, role in zip(tiny_pair, ("tiny-utility", "tiny-safety"), ("utility", "safety"), strict=True):
        catalog.add(workspace, path, name=name, role=role)
    with Owner.open(workspace) as owner:
        owner.ingest()
        owner.publish()
    return workspace


@pytest.fixture
def empty_workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "empty")


@pytest.fixture(scope="module")
def one_store() -> Iterator[None]:
    """The server's store stays open from test to test of a module, as it does from visitor to visitor.

    For modules whose tests mostly look: what one has computed, the next has at once. A test that replaces something
    (`monkeypatch`) has a store of its own all the same.
    """
    yield
    st.cache_resource.clear()


@pytest.fixture
def open_page(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Open]:
    """``open_page(workspace, "pareto", x="utility")`` → the page after its first run."""

    def run(workspace: Workspace, page: str, /, **query: str | list[str]) -> AppTest:
        monkeypatch.setenv("SSTMERGE_WORKSPACE", str(workspace.root))
        app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
        for name, value in query.items():
            app.query_params[name] = value
        return app.run() if page == "overview" else app.switch_page(f"pages/{page}.py").run()

    alone = "one_store" not in request.fixturenames or "monkeypatch" in inspect.signature(request.function).parameters
    if alone:
        st.cache_resource.clear()
    yield run
    if alone:
        st.cache_resource.clear()
