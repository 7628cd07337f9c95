"""``sstmerge serve``: the dashboard with the demo in it, from any folder."""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sstmerge_core import access, resources
from sstmerge_core.cli.prepared import prepare_demo
from sstmerge_core.errors import DataError, Problem
from sstmerge_core.upkeep import shipped
from sstmerge_core.workspace import Workspace


def register(command: Any) -> None:
    """Add the command; `command` makes a parser from name, function and description."""
    serve = command("serve", _serve, "Prepare the demo, where that is not done yet, and open the dashboard.")
    serve.add_argument("--host", default="localhost", help="where to listen; default localhost: this machine alone")
    serve.add_argument("--port", type=_port, default=8501, help="default 8501")
    serve.add_argument("--base-url", metavar="URL", help="what share links begin with; default: BASE_URL, else as seen")
    serve.add_argument(
        "--base-path",
        metavar="PATH",
        help="where the pages are on their host, handed on by a reverse proxy; default: the path of the base URL",
    )
    serve.add_argument("--workspace", metavar="DIR", help="default: SSTMERGE_WORKSPACE, else `workspace` where you are")
    serve.add_argument(
        "--root",
        action="append",
        default=[],
        metavar="DIR",
        help="a folder whose files visitors may name, beside the workspace and registered folders; may be given "
        "several times. Default: SSTMERGE_ROOTS; of one user: your home folder and this one",
    )
    serve.add_argument(
        "--secrets",
        metavar="FILE",
        help="where sign-in is configured; default: secrets.toml or .streamlit/secrets.toml in the workspace",
    )
    serve.add_argument("--no-browser", action="store_true", help="open none, although there is a screen")


def _port(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= 65_535):
        raise argparse.ArgumentTypeError(f"{text!r} is no port: give a number from 1 to 65535")
    return int(text)


def _path(text: str) -> str:
    """A path on a host without slashes around it. Raises DataError for one that no proxy could hand on."""
    path = text.strip("/")
    if path and not re.fullmatch(r"[\w.~-]+(/[\w.~-]+)*", path, re.ASCII):
        raise DataError(Problem(f"base path {text}", "is no path of a host", "Give one such as /sst."))
    return path


def _folder(name: str) -> Path:
    """A folder of ``--root``. Raises DataError where there is none, as a slip would let nobody in."""
    path = Path(name).expanduser().resolve()
    if not path.is_dir() or os.pathsep in str(path):
        raise DataError(Problem(f"--root {name}", "is no folder that can be named", "Name one that is there."))
    return path


def _secrets(name: str | None, workspace: Workspace) -> Path | None:
    """The file that configures sign-in; None where there is none. Raises DataError where the named one is not there."""
    if name is not None:
        path = Path(name).expanduser().resolve()
        if not path.is_file():
            raise DataError(Problem(f"--secrets {name}", "is not there", "Without it everybody would be let in."))
        return path
    usual = (workspace.root / "secrets.toml", workspace.root / ".streamlit" / "secrets.toml")
    return next((path for path in usual if path.is_file()), None)


def _serve(options: argparse.Namespace, workspace: Workspace) -> None:
    """Become the server: Streamlit takes the place of this process, so that a signal to it ends the one there is."""
    try:
        prepare_demo(workspace)  # the server itself takes new runs into its database
    except DataError as error:
        shipped.install(workspace)
        print(f"sstmerge: {error}\nThe dashboard opens without the demo's model.", file=sys.stderr)
    screen = sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    settings = {
        "server.address": options.host,
        "server.port": str(options.port),
        "server.headless": "false" if screen and not options.no_browser else "true",
    }
    base_url = options.base_url or os.environ.get("BASE_URL", "").strip()
    if path := _path(urlsplit(base_url).path if options.base_path is None else options.base_path):
        settings["server.baseUrlPath"] = path
    # -P: a file of the user's folder that is called like a library must not be taken for it. All other settings are in
    # .streamlit/config.toml beside app.py, where Streamlit looks whatever folder it is started in.
    if secrets := _secrets(options.secrets, workspace):
        settings["secrets.files"] = str(secrets)
    launch = resources.TOP / "studio" / "launch.py"
    command = [sys.executable, "-P", str(launch), "run", str(resources.TOP / "app.py")]
    command += [part for name, value in settings.items() for part in (f"--{name}", value)]
    environment = os.environ | {"SSTMERGE_WORKSPACE": str(workspace.root)}
    if options.root:
        environment[access.ROOTS] = os.pathsep.join(str(_folder(name)) for name in options.root)
    if options.base_url:
        environment["BASE_URL"] = options.base_url
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(command[0], command, environment)
