"""Who is at the door: sign-in by OpenID Connect where it is configured, each visitor's role, and what it allows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from sstmerge_core import access, catalog, documents
from sstmerge_core.errors import DataError, Problem, SSTMergeError
from sstmerge_core.words import plain
from studio import start

ALONE = ("localhost", "127.0.0.1", "::1")


def identify() -> access.Actor | None:
    """Who acts in this thread; None in one that serves no visitor. Registered with `sstmerge_core.access`."""
    if get_script_run_ctx(suppress_warning=True) is None:
        return None
    try:
        asked = sign_in_asked()
        if not asked:
            return access.Actor(start.user(), "admin", "dashboard", _roots)
        if not start.signed_in():
            return access.Actor("", access.NOBODY, "dashboard", _roots)
        return access.Actor(start.user(), _role(), "dashboard", _roots)
    except SSTMergeError:  # a file that cannot be read lets nobody in; `gate` says which
        return access.Actor("", access.NOBODY, "dashboard", _roots)


access.identify_by(identify)


def sign_in_asked() -> bool:
    """Whether the operator configured a provider. Raises DataError for secrets that cannot be read."""
    return "auth" in _secrets()


def open_to_visitor() -> bool:
    """Whether this visitor may look at anything."""
    return access.allowed("look")


def gate() -> None:
    """Where the visitor may not look: why, and the way in, instead of the page."""
    if open_to_visitor():
        return
    with st.container(key="entrance", width=460):
        st.header("SST-Merge Studio", anchor=False)
        _why_not()
    st.stop()


def _why_not() -> None:
    try:
        asked = sign_in_asked()
        if asked and start.signed_in():
            _role()
    except SSTMergeError as error:
        st.error("  \n".join(plain(str(problem)) for problem in error.problems), icon=":material/error:")
        return
    if asked and not start.signed_in():
        st.markdown("This server asks who you are.")
        st.button("Sign in", icon=":material/login:", type="primary", key="entrance.in", on_click=st.login)
        return
    st.markdown(f"You are signed in as **{plain(start.user())}**, which has no role here.")
    st.caption("Ask whoever runs this server to add you to its roles.")
    _out()


def footer() -> None:
    """Who is signed in, their role, and the way out; nothing where nobody signs in."""
    if not start.signed_in() or not open_to_visitor():
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="footer"):
        st.caption(f"Signed in as **{plain(start.user())}** · {access.actor().role}", width="content")
        _out()


def guard(action: str, *, disabled: bool = False, help: str | None = None) -> dict[str, Any]:
    """`disabled` and `help` of a button that does this: off, with the reason, where the visitor's role does not do.

    The action itself is refused by the core too, which asks `access` again.
    """
    if (why := access.refusal(action)) is not None:
        return {"disabled": True, "help": why}
    return {"disabled": disabled, "help": help}


def claims() -> Mapping[str, Any]:
    """What the provider says of who is signed in."""
    return st.user.to_dict()


def _out() -> None:
    st.button("Sign out", icon=":material/logout:", type="tertiary", key="entrance.out", on_click=st.logout)


def _role() -> str:
    """The role of who is signed in. Raises DataError where the roles cannot be read."""
    told = claims()
    roles = access.read_roles(start.workspace(), _secrets().get("roles"))
    # an address that the provider did not check may be anybody's; some say so in a text
    verified = str(told.get("email_verified", True)).strip().lower() in ("true", "1")
    return roles.of(str(told.get("email") or ""), verified=verified)


def _roots() -> Sequence[Path]:
    workspace = start.workspace()
    return access.roots(workspace, catalog.ever_registered(workspace), private=alone())


def alone() -> bool:
    """Whether this is one person's own server: it listens to this machine alone, and asks nobody who they are."""
    told = os.environ.get("BASE_URL", "").strip()
    host = urlsplit(told).hostname if told else ALONE[0]
    return st.get_option("server.address") in ALONE and host in ALONE and not _asked_or_broken()


def _asked_or_broken() -> bool:
    try:
        return sign_in_asked()
    except DataError:
        return True


def _secrets() -> Mapping[str, Any]:
    """What Streamlit's files of secrets say, later files over earlier ones.

    Read here too, since Streamlit takes a file that it cannot read for none: everybody would be let in.
    """
    found: dict[str, Any] = {}
    for name in st.get_option("secrets.files") or ():
        path = Path(name)
        try:
            told = path.stat()
        except OSError:
            continue
        found |= _toml(path, told.st_mtime_ns, told.st_size)
    return found


@lru_cache(maxsize=8)
def _toml(path: Path, changed: int, size: int) -> dict[str, Any]:
    try:
        return documents.from_toml(path.read_bytes())
    except (OSError, documents.FormatError) as error:
        fix = "Correct the file; until then nobody is let in."
        raise DataError(Problem(str(path), f"cannot be read ({error})", fix)) from None
