"""How a TCP connection ends, as far as an event loop neither says nor does it: by RST, sent or received.

Apart from `forward`, which decides when; here are the questions to the kernel. Called by it only.
"""

import asyncio
import fcntl
import socket
import struct
import termios
from typing import Final

_RESET: Final = struct.pack("ii", 1, 0)  # linger on, zero seconds: closing sends RST
_CLOSED: Final = 7  # TCP_CLOSE in the kernel's `tcp_states.h`
_INET: Final = (socket.AF_INET, socket.AF_INET6)


def reset(transport: asyncio.Transport) -> None:
    """Close by RST: a response that ends with its connection would else look whole."""
    with transport.get_extra_info("socket").dup() as shared_socket:
        shared_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()


def all_arrived(transport: asyncio.Transport) -> bool:
    """Whether the other end's kernel has all that was written: an RST then costs it nothing (tcp(7), SIOCOUTQ)."""
    if transport.get_write_buffer_size():
        return False
    with transport.get_extra_info("socket").dup() as shared_socket:
        left = fcntl.ioctl(shared_socket, termios.TIOCOUTQ, bytes(4))
    return not any(left)


def was_reset(transport: asyncio.Transport) -> bool:
    """Whether the connection is gone (tcp(7), TCP_INFO): of an end that has been read to EOF no loop tells it."""
    if transport.is_closing():
        return False
    with transport.get_extra_info("socket").dup() as shared_socket:
        if shared_socket.family not in _INET:  # a UNIX socket says so at once, by EPIPE
            return False
        state: int = shared_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return state == _CLOSED
