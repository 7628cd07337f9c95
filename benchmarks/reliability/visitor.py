"""A visitor of a Streamlit server without a browser: opens pages by the browsers' protocol, and presses buttons."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any


@dataclass
class Seen:
    """What one run of a page's script drew."""

    seconds: float
    buttons: dict[str, str] = field(default_factory=dict)
    """Label → id"""
    text: str = ""
    exceptions: list[str] = field(default_factory=list)
    boxes: list[str] = field(default_factory=list)
    """Errors, warnings and hints"""
    fragments: list[str] = field(default_factory=list)
    """Ids of the fragments that run again by themselves"""


class Visitor:
    """One session, as one tab of a browser has it. Raises OSError where the server does not answer or goes away."""

    def __init__(self, port: int, *, patience: float = 30.0):
        from websockets.exceptions import InvalidMessage
        from websockets.sync.client import connect

        deadline = time.monotonic() + patience
        while True:
            try:
                address = f"ws://localhost:{port}/_stcore/stream"
                self._socket = connect(address, max_size=None, open_timeout=patience, compression=None)
                return
            except (OSError, InvalidMessage) as error:
                if time.monotonic() > deadline:
                    raise OSError(str(error)) from error
                time.sleep(0.05)

    def __enter__(self) -> Visitor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    def open(self, page: str = "", query: str = "", *, press: str = "", fragment: str = "", wait: float = 60.0) -> Seen:
        """Run a page (``overview`` is the empty name) once, with the button of the id `press` pressed."""
        from streamlit.proto.BackMsg_pb2 import BackMsg

        message = BackMsg()
        state = message.rerun_script
        state.query_string, state.page_name, state.fragment_id = query, "" if page == "overview" else page, fragment
        if fragment:
            state.is_auto_rerun = True
        if press:
            widget = state.widget_states.widgets.add()
            widget.id, widget.trigger_value = press, True
        begun = time.monotonic()
        self._send(message)
        seen = Seen(0.0)
        self._read(seen, begun + wait)
        seen.seconds = time.monotonic() - begun
        return seen

    def _send(self, message: Any) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            self._socket.send(message.SerializeToString())
        except ConnectionClosed as error:
            raise OSError("the server is gone") from error

    def _read(self, seen: Seen, deadline: float) -> None:
        """Take in what the server draws until the script has ended; a script that starts another one counts on."""
        from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
        from websockets.exceptions import ConnectionClosed

        running = True
        while running:
            try:
                data = self._socket.recv(timeout=max(0.01, deadline - time.monotonic()))
            except ConnectionClosed as error:
                raise OSError("the server is gone") from error
            except TimeoutError as error:
                raise OSError("the page was not drawn in time") from error
            assert isinstance(data, bytes)
            message = ForwardMsg.FromString(data)
            kind = message.WhichOneof("type")
            if kind == "script_finished":
                rerun = message.script_finished == ForwardMsg.FINISHED_EARLY_FOR_RERUN
                running = rerun
            elif kind == "auto_rerun":
                seen.fragments.append(message.auto_rerun.fragment_id)
            elif kind == "delta":
                _take(message.delta, seen)


def _take(delta: Any, seen: Seen) -> None:
    if delta.WhichOneof("type") != "new_element":
        return
    element = delta.new_element
    kind = element.WhichOneof("type")
    if kind == "button":
        seen.buttons[element.button.label] = element.button.id
    elif kind == "exception":
        seen.exceptions.append(f"{element.exception.type}: {element.exception.message}"[:500])
    elif kind == "alert":
        seen.text += f" {element.alert.body}"
        seen.boxes.append(element.alert.body)
    elif kind == "markdown":
        seen.text += f" {element.markdown.body}"
