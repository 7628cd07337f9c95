"""How the rooms of `sstmerge_core` lie above each other, by the real imports; CONTRIBUTING.md draws the same."""

from __future__ import annotations

import re
from pathlib import Path

import grimp
import networkx
import pytest

PACKAGE = "sstmerge_core"
GUIDE = Path(__file__).resolve().parents[1] / "CONTRIBUTING.md"
FLOORS = (
    ("cli",),
    ("report", "playground"),
    ("plots", "worker", "upkeep"),
    ("experiments",),
    ("runs",),
    ("builder",),
    ("jobs", "evaluate", "catalog"),
    ("demo",),
    ("train",),
    ("suites", "merge"),
    ("fitting",),
    ("fisher",),
    ("models", "recipe"),
    ("methods", "store", "analysis"),
    ("content", "space", "metrics"),
    ("access", "adapters", "gevp"),
    ("workspace", "resources", "words", "documents"),
    ("errors",),
)
"""A room imports only rooms of lower floors, never one beside it"""


@pytest.fixture(scope="module")
def house() -> grimp.ImportGraph:
    return grimp.build_graph(PACKAGE, "studio", include_external_packages=False, cache_dir=None)


def test_every_room_has_its_floor(house: grimp.ImportGraph) -> None:
    rooms = {child.removeprefix(f"{PACKAGE}.") for child in house.find_children(PACKAGE)}
    assert rooms == {room for floor in FLOORS for room in floor}


def test_the_guide_draws_the_floors_as_they_are() -> None:
    drawn = re.findall(r'floor(\d+)\["([^"]+)"\]', GUIDE.read_text())
    assert [int(number) for number, _ in drawn] == list(range(len(FLOORS), 0, -1))
    assert [tuple(rooms.split(" · ")) for _, rooms in drawn] == list(FLOORS)


def test_no_import_leads_upwards_or_sideways(house: grimp.ImportGraph) -> None:
    floor_of = {room: height for height, floor in enumerate(reversed(FLOORS)) for room in floor}
    wrong = []
    for importer in house.modules:
        own = importer.split(".")[1:2]
        for imported in house.find_modules_directly_imported_by(importer):
            other = imported.split(".")[1:2]
            if not importer.startswith(f"{PACKAGE}.") or not other or not own or own == other:
                continue
            if floor_of[own[0]] <= floor_of[other[0]]:
                wrong.append(f"{importer} imports {imported}")
    assert not wrong


def test_no_module_imports_itself_by_way_of_others(house: grimp.ImportGraph) -> None:
    graph = networkx.DiGraph(
        (importer, imported)
        for importer in house.modules
        for imported in house.find_modules_directly_imported_by(importer)
        # a package hands on the names of its own modules, which import each other by their full names
        if imported != PACKAGE and not importer.startswith(f"{imported}.")
    )
    assert not [sorted(circle) for circle in networkx.strongly_connected_components(graph) if len(circle) > 1]


def test_the_core_knows_no_page(house: grimp.ImportGraph) -> None:
    assert not house.find_upstream_modules(PACKAGE, as_package=True) & {"studio", *house.find_descendants("studio")}
