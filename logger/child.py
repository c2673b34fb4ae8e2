"""What the logger's child processes share: when to stop, and that none of them outlives its parent.

The parent holds the write end of a pipe on every child's stdin; its death, by any signal, is the end of file there.
SIGTERM and SIGINT ask for a graceful end. Apart so that tap, recorder and shipper all end alike.
"""

import asyncio
import os
import signal
import stat
import threading
from typing import Final

_STDIN: Final = 0
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def _stdin_is_a_pipe() -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(_STDIN).st_mode)
    except OSError:  # closed at start: nobody holds the other end
        return False


def stop_event(loop: asyncio.AbstractEventLoop) -> asyncio.Event:
    """An event set on SIGTERM, on SIGINT and, where stdin is a pipe, on its end of file. For asyncio and uvloop."""
    stop = asyncio.Event()

    def readable() -> None:
        if not os.read(_STDIN, 4096):
            loop.remove_reader(_STDIN)
            stop.set()

    for number in _SIGNALS:
        loop.add_signal_handler(number, stop.set)
    if _stdin_is_a_pipe():
        loop.add_reader(_STDIN, readable)
    return stop


def stop_flag() -> threading.Event:
    """The same for a child without an event loop; call it in the main thread, where Python delivers signals."""
    stop = threading.Event()

    def until_end_of_file() -> None:
        while os.read(_STDIN, 4096):
            pass
        stop.set()

    for number in _SIGNALS:
        signal.signal(number, lambda *_: stop.set())
    if _stdin_is_a_pipe():
        threading.Thread(target=until_end_of_file, name="stdin", daemon=True).start()
    return stop
