"""The process that runs one generated program; started by `code_sandbox.passes` with `python -I`, imports none of ours.

Reads one JSON request (``program``, ``seconds``, ``token``) from stdin and writes the token to stdout when the program
has run to its end. Limits are set and doors are shut before the program is compiled: no files but reading Python's own,
no network, no other process, no signals, nothing on the terminal. Python's audit events stop what a model writes; they
are no wall against an attacker who knows the interpreter.
"""

import json
import os
import resource
import sys

ADDRESS_SPACE = 1 << 30
FORBIDDEN = (
    "ctypes.",
    "fcntl.",
    "ftplib.",
    "gc.",
    "mmap.",
    "os.",
    "pty.",
    "shutil.",
    "signal.",
    "smtplib.",
    "socket.",
    "sqlite3.",
    "subprocess.",
    "syslog.",
    "tempfile.",
    "urllib.",
    "webbrowser.",
    "sys.settrace",
    "sys.setprofile",
)
HARMLESS = ("os.listdir", "os.scandir")
"""What Python's own import does"""


def main() -> None:
    request = json.load(sys.stdin)
    answers = os.dup(1)
    silence = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(silence, descriptor)
    limit_resources(int(request["seconds"]) + 1)
    os.environ.clear()
    readable = tuple(os.path.realpath(place) + os.sep for place in {*sys.path, sys.prefix, sys.base_prefix} if place)
    sys.addaudithook(door(readable))
    token = request["token"].encode()
    namespace = {"__name__": "__main__", "__builtins__": __builtins__}
    exec(compile(request["program"], "<answer>", "exec"), namespace)
    os.write(answers, token)


def limit_resources(seconds: int) -> None:
    if sys.platform != "darwin":  # whose kernel refuses this limit
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def door(readable: tuple):
    """An audit hook that lets only reading below `readable` and computing through. It cannot be taken off again."""

    def check(event: str, arguments: tuple) -> None:
        if event == "open":
            path, mode, flags = arguments
            writing = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND) if flags else 0
            inside = isinstance(path, (str, bytes)) and os.path.realpath(os.fsdecode(path)).startswith(readable)
            if writing or not inside or any(letter in (mode or "") for letter in "wax+"):
                raise PermissionError("answers may not open files")
        elif event.startswith(FORBIDDEN) and event not in HARMLESS:
            raise PermissionError(f"answers may not use {event}")

    return check


if __name__ == "__main__":
    main()
