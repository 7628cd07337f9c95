"""What a store can do without: files that no manifest names, uploads cut off in the middle, items nobody refers to.

Other machines write while this goes on, and a store has no lock. So nothing young is touched; what goes is put aside
first, under ``removed/``, then the manifests are read once more, and what one of them names by now is put back. A push
for its part looks for all objects once more after it has written its manifest (`ContentStore.push`): whichever of the
two is later sees the other. What a kill leaves in ``removed/`` is judged again the next time.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sstmerge_core.content.remote import KINDS, ContentStore, Manifest
from sstmerge_core.errors import DataError, Problem

HOUR = 3600.0
YOUNGEST = HOUR
"""Nothing younger is ever touched: a push may be at it, and clocks differ"""
FILE, CUT_OFF, ITEM, ASIDE = "file", "cut off", "item", "put aside"
_REMOVED = "removed"


@dataclass(frozen=True)
class Leftover:
    """One thing that can go."""

    what: str
    """``file``: no manifest names it; ``cut off``: of an upload that a kill ended; ``item``: a manifest that nobody
    refers to; ``put aside``: by a tidying that was killed"""
    path: str
    """Below the address of the store"""
    bytes: int
    """An item's own files count with it where no other item has them"""
    age: float
    """Seconds since it was written"""
    name: str = ""
    """Of an item, its kind and name"""


@dataclass(frozen=True)
class _Entry:
    bytes: int
    age: float


def plan(
    store: ContentStore, *, older_than: float, referred: Collection[str] | None = None, now: float | None = None
) -> list[Leftover]:
    """What can go of what is older than `older_than` seconds, but at least `YOUNGEST`; changes nothing.

    With `referred` (fingerprints and run ids) items are listed too that are none of these; without it every item stays.
    What does not say how old it is stays. Raises DataError where a manifest cannot be read: what it names is not known.
    """
    now = time.time() if now is None else now
    oldest = max(older_than, YOUNGEST)
    manifests = list({(one.kind, one.sha256): one for one in _manifests(store)}.values())
    gone = [] if referred is None else [one for one in manifests if _is_unreferred(one, referred, oldest, now)]
    stays = _named([one for one in manifests if one not in gone])
    either = stays | _named(gone)
    loose = {path: entry for path, entry in _entries(store, "objects", now).items() if entry.age >= oldest}
    found = [
        Leftover(CUT_OFF if ".partial-" in path else FILE, path, one.bytes, one.age)
        for path, one in loose.items()
        if path.rpartition("/")[2] not in either
    ]
    counted: set[str] = set()
    for one in gone:
        own = {digest: size for size, digest in one.files.values() if digest not in stays | counted}
        counted |= set(own)
        path, name = f"{one.kind}/{one.sha256}.json", f"{one.kind} {one.name}"
        found.append(Leftover(ITEM, path, sum(own.values()), now - one.stored_at, name))
    manifest_files = {path: entry for kind in KINDS for path, entry in _entries(store, kind, now).items()}
    found += [
        Leftover(CUT_OFF, path, one.bytes, one.age)
        for path, one in manifest_files.items()
        if ".partial-" in path and one.age >= oldest
    ]
    aside = _entries(store, _REMOVED, now)
    found += [Leftover(ASIDE, path, one.bytes, one.age) for path, one in aside.items() if one.age >= oldest]
    order = (ITEM, FILE, CUT_OFF, ASIDE)
    return sorted(found, key=lambda one: (order.index(one.what), -one.bytes, one.path))


def carry_out(
    store: ContentStore,
    planned: Sequence[Leftover],
    *,
    older_than: float,
    referred: Collection[str] | None = None,
    now: float | None = None,
) -> tuple[int, list[str]]:
    """Delete what was planned and still can go; the bytes freed, and a sentence for each that stays."""
    now = time.time() if now is None else now
    oldest = max(older_than, YOUNGEST)
    items = [one for one in planned if one.what == ITEM]
    kept = [why for one in items if (why := _take_item(store, one, referred or (), oldest, now)) is not None]
    # with the items gone, what only they named is named by nobody
    again = [one for one in plan(store, older_than=older_than, now=now) if one.what != ITEM]
    wanted = {one.path for one in planned} | {one.path for one in again if items and one.what == FILE}
    aside: list[tuple[str, str, int]] = []
    for one in again:
        if one.path in wanted and one.what == FILE:
            target = f"{_REMOVED}/{one.path.rpartition('/')[2]}"
            if _moved(store, one.path, target):
                aside.append((target, one.path, one.bytes))
        elif one.path in wanted and one.what == ASIDE:
            aside.append((one.path, _home(one.path), one.bytes))
    freed = sum(one.bytes for one in again if one.path in wanted and one.what == CUT_OFF and _removed(store, one.path))
    named = _named(_manifests(store))
    for place, home, size in aside:
        if place.rpartition("/")[2] in named or (place.endswith(".json") and store.manifest_at(home) is None):
            _moved(store, place, home)
            kept.append(f"{home}: something names it by now.")
        elif _removed(store, place):
            freed += size
    return freed, kept


def _take_item(store: ContentStore, one: Leftover, referred: Collection[str], oldest: float, now: float) -> str | None:
    """Take a manifest away, and put it back where it is another one by now; why it stays, or None."""
    target = f"{_REMOVED}/{one.path.replace('/', '-')}"
    if not _moved(store, one.path, target):
        return None  # somebody else did
    found = store.manifest_at(target)
    if found is not None and _is_unreferred(found, referred, oldest, now):
        _removed(store, target)
        return None
    _moved(store, target, one.path)
    return f"{one.name}: was pushed again meanwhile."


def _is_unreferred(one: Manifest, referred: Collection[str], oldest: float, now: float) -> bool:
    return one.sha256 not in referred and one.run_id not in {*referred} and now - one.stored_at >= oldest


def _home(path: str) -> str:
    """Where what was put aside belongs."""
    name = path.rpartition("/")[2]
    return f"objects/{name[:2]}/{name}" if not name.endswith(".json") else name.replace("-", "/", 1)


def _manifests(store: ContentStore) -> list[Manifest]:
    """All of them, with those that were put aside. Raises DataError where one cannot be read."""
    paths = [path for folder in (*KINDS, _REMOVED) for path in _entries(store, folder, 0.0) if path.endswith(".json")]
    return [one for one in map(store.manifest_at, paths) if one is not None]


def _named(manifests: Sequence[Manifest]) -> set[str]:
    return {digest for one in manifests for _, digest in one.files.values()}


def _entries(store: ContentStore, folder: str, now: float) -> dict[str, _Entry]:
    """Every file below a folder of the store, by its path below the address."""
    with store.spoken(folder) as (filesystem, root):
        filesystem.invalidate_cache()
        try:
            found: Mapping[str, Mapping[str, Any]] = filesystem.find(f"{root}/{folder}", detail=True)
        except FileNotFoundError:
            return {}
    entries = {}
    for path, told in sorted(found.items()):
        changed = _changed(told)
        age = float("-inf") if changed is None else now - changed
        start = path.find(f"{root.lstrip('/')}/{folder}/")
        entries[path[start + len(root.lstrip("/")) + 1 :]] = _Entry(int(told.get("size") or 0), age)
    return entries


def _changed(told: Mapping[str, Any]) -> float | None:
    """UTC epoch seconds at which a file was written last, by whatever name its file system has for that."""
    for name in ("mtime", "LastModified", "last_modified", "updated", "modified", "created"):
        value = told.get(name)
        if isinstance(value, (int, float)):
            return float(value)
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return value.timestamp()
    return None


def _moved(store: ContentStore, source: str, target: str) -> bool:
    """Whether a file was there to be moved."""
    with store.spoken(source) as (filesystem, root):
        filesystem.makedirs(f"{root}/{target}".rpartition("/")[0], exist_ok=True)
        try:
            filesystem.mv(f"{root}/{source}", f"{root}/{target}")
        except FileNotFoundError:
            return False
    return True


def _removed(store: ContentStore, path: str) -> bool:
    with store.spoken(path) as (filesystem, root):
        try:
            filesystem.rm_file(f"{root}/{path}")
        except FileNotFoundError:
            return False
    return True


def check_age(days: float) -> float:
    """Seconds. Raises DataError for what is too young to be told from what is being written."""
    seconds = days * 24 * HOUR
    if not seconds >= YOUNGEST:
        fix = "Give at least an hour (0.05): what is younger may be of a push that is under way."
        raise DataError(Problem(f"--older-than {days:g}", "is too young", fix))
    return seconds
