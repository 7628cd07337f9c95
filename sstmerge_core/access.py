"""Who acts, what their role lets them do, and which folders of this machine they may name.

The command line and the workers act for whoever started them, with every right that the system gives. A dashboard
registers by `identify_by` how it tells its visitors apart; then every action of the core asks here, whatever page or
message it comes from.
"""

from __future__ import annotations

import contextlib
import getpass
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sstmerge_core import documents, resources
from sstmerge_core.errors import AccessError, DataError, Problem, disk_problem
from sstmerge_core.workspace import Workspace, given_path

ROLES = ("viewer", "runner", "admin")
"""Each may do what those before it may"""
NOBODY = "none"
"""The role of who is signed in and may see nothing"""
ROOTS = "SSTMERGE_ROOTS"
"""Environment: the folders that visitors may name, separated as PATH is; `sstmerge serve --root` sets it"""
LINKS = 4096
"""Entries of a folder that are looked at for links that lead out"""


@dataclass(frozen=True)
class Action:
    """What somebody may want to do."""

    role: str
    """The least that it takes"""
    words: str
    """As the end of "you may not …\""""


ACTIONS = {
    "look": Action("viewer", "look at runs and ask queries"),
    "launch": Action("runner", "start or resume a job"),
    "cancel": Action("runner", "cancel a job of your own"),
    "cancel others": Action("admin", "cancel somebody else's job"),
    "move": Action("runner", "move a job of your own in the queue"),
    "move others": Action("admin", "move somebody else's job in the queue"),
    "talk": Action("runner", "talk to a model"),
    "end model": Action("admin", "end the model process, which all share"),
    "add": Action("runner", "add adapters, base models, prompts or training rows"),
    "change": Action("runner", "rename or tag an adapter"),
    "say": Action("runner", "label answers, tag runs or write notes"),
    "save query": Action("runner", "save, rename or delete a query that all see"),
    "score": Action("runner", "compute further metrics of a run"),
    "push": Action("admin", "push to the Hugging Face hub in the server's name"),
    "remove": Action("admin", "remove adapters, base models or prompt sets"),
    "delete": Action("admin", "delete runs or their weights"),
    "restore": Action("admin", "bring back what was deleted"),
    "empty": Action("admin", "delete anything for good"),
}
"""The one place that says which action needs which role"""


@dataclass(frozen=True)
class Actor:
    """In whose name something is done."""

    name: str
    """An e-mail address where people sign in, what they call themselves where nobody does, else the system's account"""
    role: str
    origin: Literal["command line", "dashboard", "worker"]
    roots: Callable[[], Sequence[Path]] | None = None
    """The folders within which they may name files and folders, without links; None: anywhere"""


_ask: Callable[[], Actor | None] = lambda: None  # noqa: E731


def identify_by(ask: Callable[[], Actor | None]) -> None:
    """Have `ask` say who acts in the present thread; None where it is nobody's visit."""
    global _ask
    _ask = ask


@contextlib.contextmanager
def acting_for(name: str) -> Iterator[None]:
    """Within the block this process works for whoever launched its job; what they may was asked at the launch."""
    global _ask
    before, who = _ask, Actor(name, "admin", "worker")
    _ask = lambda: who  # noqa: E731
    try:
        yield
    finally:
        _ask = before


def actor() -> Actor:
    """Who acts now."""
    if (found := _ask()) is not None:
        return found
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # an account without a name, as in some containers
        name = ""
    return Actor(name, "admin", "command line")


def allowed(action: str) -> bool:
    """Whether who acts now may do this."""
    return refusal(action) is None


def refusal(action: str) -> str | None:
    """Why who acts now may not do this, as a sentence; None where they may."""
    who, needed = actor(), ACTIONS[action].role
    if who.role in ROLES and ROLES.index(who.role) >= ROLES.index(needed):
        return None
    return f"Your role is {who.role}; to {ACTIONS[action].words} takes the role {needed}."


def require(action: str) -> None:
    """Raises AccessError where who acts now may not do this."""
    if (why := refusal(action)) is not None:
        fix = f"Ask whoever runs this server for the role {ACTIONS[action].role}."
        raise AccessError(Problem("access", why.rstrip("."), fix))


def whose(action: str, user: str) -> str:
    """The action's name for a job of `user`: ``cancel`` of one's own is another thing than ``cancel others``."""
    return action if user and user == actor().name else f"{action} others"


# --- roles -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Roles:
    """Who has which role where people sign in."""

    people: Mapping[str, str]
    """E-mail address as `_address` spells it → role"""
    default: str = "viewer"
    """Of who is signed in and not named"""

    def of(self, email: str, *, verified: bool = True) -> str:
        """The role of an address; one that the provider has not verified names nobody."""
        return self.people.get(_address(email), self.default) if verified else self.default


def roles_file(workspace: Workspace) -> Path:
    return workspace.root / "roles.toml"


def read_roles(workspace: Workspace, secret: Mapping[str, Any] | None = None) -> Roles:
    """The roles that ``[roles]`` of the secrets declares (`secret`), else ``roles.toml`` of the workspace.

    Raises DataError for a role that is none, with the line at fault; where nothing is declared all are viewers.
    """
    path = roles_file(workspace)
    where, told = "[roles] of the secrets", secret
    if told is None:
        where = str(path)
        try:
            told = documents.from_toml(path.read_bytes())
        except FileNotFoundError:
            return Roles({})
        except documents.FormatError as error:
            raise DataError(Problem(where, f"cannot be read ({error})", "Correct the file.")) from None
        except OSError as error:
            raise DataError(disk_problem(error, where) or Problem(where, str(error))) from None
    people = told.get("people", {})
    if not isinstance(people, Mapping) or set(told) - {"people", "default"}:
        fix = 'Write default = "viewer", and below [people] lines such as "ada@example.org" = "admin".'
        raise DataError(Problem(where, "has other things in it than default and people", fix))
    said = {"default": told.get("default", "viewer"), **people}
    for name, role in said.items():
        if role not in (*ROLES, NOBODY):
            raise DataError(Problem(f"{where}: {name}", f"{role!r} is no role", f"Use {', '.join((*ROLES, NOBODY))}."))
    return Roles({_address(str(name)): role for name, role in people.items()}, said["default"])


def _address(email: str) -> str:
    """An address without the case of its ASCII letters.

    Of no others: ``ß`` and ``ss``, or ``K`` and the sign of Kelvin, are one letter to `str.casefold`, but two mailboxes
    to a provider, and whoever gets the other one would be let in as this one.
    """
    return "".join(letter.lower() if letter.isascii() else letter for letter in email.strip())


# --- folders ---------------------------------------------------------------------------------------------------------


def roots(workspace: Workspace, known: Iterable[Path] = (), *, private: bool = False) -> list[Path]:
    """The folders within which visitors may name files and folders, without links.

    Always the workspace, what ships, and `known` (the registered adapters and base models). Beside them those that
    ``SSTMERGE_ROOTS`` names; where it names none and `private` (one person's own machine), the home folder, the current
    one and the cache of the Hugging Face hub.
    """
    found = [workspace.root, resources.DATA, *known]
    if named := os.environ.get(ROOTS, "").strip():
        found += [Path(part).expanduser() for part in named.split(os.pathsep) if part.strip()]
    elif private:
        cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HF_HOME")
        found += [Path.home(), Path.cwd(), *([Path(cache).expanduser()] if cache else [])]
    return list(dict.fromkeys(path.resolve() for path in found))


def place(text: str | Path) -> Path:
    """The one door for a path that somebody writes: absolute, without links and ``..``.

    The command line may name any. Raises AccessError, whether there is such a file or not, for
    one outside of the roots, and for a folder of which an entry is a link that leads out.
    """
    who = actor()
    try:
        path = given_path(text, AccessError)
        found = path.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, an unknown ~user, a NUL
        raise AccessError(_not_opened(text, error)) from None
    if who.roots is None:
        return found
    within = who.roots()
    if not _inside(found, within):
        raise AccessError(_outside(text))
    try:
        if found.is_dir():
            with os.scandir(found) as entries:
                links = [
                    Path(entry.path) for entry, _ in zip(entries, range(LINKS), strict=False) if entry.is_symlink()
                ]
            for link in links:
                if not _inside(link.resolve(), [found, *within]):
                    raise AccessError(_outside(link))
    except (OSError, RuntimeError) as error:
        raise AccessError(_not_opened(text, error)) from None
    return found


def named(text: str) -> str:
    """A text that may be a name or a path: as it is, where it is a name; a path goes through `place`.

    What follows a colon counts too, as in the name of a judge (``guard:/models/guard``), and what stands before the
    layer of an encoder (``bertscore:/models/encoder#9``).
    """
    whole = (text, text.partition(":")[2])
    for part in dict.fromkeys((*whole, *(one.partition("#")[0] for one in whole))):
        if part and (part[0] in "/~." or ".." in Path(part).parts or _exists(part)):
            place(part)
    return text


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):
        return False


def _inside(path: Path, within: Iterable[Path]) -> bool:
    return any(path == root or path.is_relative_to(root) for root in within)


def _not_opened(text: str | Path, error: Exception) -> Problem:
    reason = getattr(error, "strerror", None) or str(error)
    return Problem(f"path {_shown(text)}", f"cannot be opened: {reason}", "Correct the path or its rights.")


def _outside(text: str | Path) -> Problem:
    fault = "is outside of the folders that this server may be asked for"
    fix = "Whoever runs it names more by `sstmerge serve --root DIR` or in SSTMERGE_ROOTS."
    return Problem(_shown(text), fault, fix)


def _shown(text: str | Path) -> str:
    shown = str(text).replace("\0", "␀")
    return shown if len(shown) <= 120 else f"{shown[:119]}…"
