"""The kinds of connection a generated run is made of: a table of writers, each a `Draft` from a seeded `Random`.

`scripts(seed)` is endless; the script of an index depends on nothing but the seed and that index.
"""

from collections.abc import Callable, Iterator
from random import Random
from typing import Final

from byte_messages import (
    BULK,
    INFORMATIONAL,
    SWITCHING,
    Request,
    bad_request,
    bad_response,
    bulk,
    request,
    response,
)
from byte_pen import ENDS, OTHER, Pen
from byte_scripts import (
    CLIENT,
    CLOSE,
    CUTS,
    DEAF,
    HALF_CLOSE,
    RESET,
    SERVER,
    Script,
    few,
    whole,
)


def keep_alive(pen: Pen) -> None:
    turns = pen.random.choice((1, 2, 3, 8, pen.random.randrange(1, 31), 30))
    for number in range(turns):
        told = pen.exchange(last=number == turns - 1)
    pen.finish(SERVER, pen.random.choice((HALF_CLOSE, CLOSE))) if told.by_close else pen.finish()


def pipelined(pen: Pen) -> None:
    """Requests glued together, answers in their order, glued or not, at times while requests still come."""
    turns = pen.random.randrange(2, 31)
    waiting, asked_for, told_of = list[Request](), b"", b""
    for number in range(turns):
        last = number == turns - 1
        asked = pen.request(last=last)
        asked_for += asked.raw
        waiting.append(asked)
        if not last and pen.random.random() < 0.7:
            continue
        pen.say(CLIENT, asked_for, wait=pen.random.random() < 0.7)
        asked_for = b""
        for due in waiting[: None if last else pen.random.randrange(len(waiting) + 1)]:
            told = response(pen.random, due.method, last=last and due is waiting[-1])
            pen.log(due, told)
            told_of += told.raw
            waiting = waiting[1:]
            if pen.random.random() < 0.4:
                pen.say(SERVER, told_of)
                told_of = b""
    if told_of:
        pen.say(SERVER, told_of)
    pen.finish(SERVER, HALF_CLOSE) if told.by_close else pen.finish()


def continued(pen: Pen) -> None:
    """Expect: 100-continue: granted, granted with other news, or refused."""
    pen.some(3)
    asked = pen.request(with_body=True)
    head = asked.raw[: asked.head].replace(b"\r\n", b"\r\nExpect: 100-continue\r\n", 1)
    pen.say(CLIENT, head)
    if pen.random.random() < 0.8:
        for news in pen.random.choices(INFORMATIONAL, k=pen.random.randrange(1, 4)):
            pen.say(SERVER, news)
        told = response(pen.random, asked.method)
        pen.say(CLIENT, asked.raw[asked.head :])
        pen.say(SERVER, told.raw)
        pen.log(asked, told)
        pen.some(2)
        pen.finish()
    else:
        pen.say(SERVER, b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        pen.finish(pen.random.choice((CLIENT, SERVER)))


def early(pen: Pen) -> None:
    """An answer with the request half sent; the client finishes it, or not."""
    pen.some(3)
    asked = pen.request(with_body=True)
    told = response(pen.random, asked.method, last=pen.random.random() < 0.3)
    sent = pen.random.randrange(asked.head, len(asked.raw))
    pen.say(CLIENT, asked.raw[:sent])
    pen.say(SERVER, told.raw)
    if told.by_close and pen.random.random() < 0.7:
        pen.do(SERVER, HALF_CLOSE, wait=False)
    if pen.random.random() < 0.6:
        pen.say(CLIENT, asked.raw[sent:], wait=pen.random.random() < 0.5)
        if not told.by_close:
            pen.log(asked, told)
            pen.some(2)
    pen.finish()


def too_early(pen: Pen) -> None:
    """As servers do that have heard enough: answered and closed with the rest of the request unread."""
    asked = pen.request(known=False, with_body=True)
    pen.say(CLIENT, asked.raw[: asked.head])
    pen.do(SERVER, DEAF)
    pen.say(CLIENT, asked.raw[asked.head :])
    pen.say(SERVER, b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    if pen.random.random() < 0.4:
        pen.do(SERVER, HALF_CLOSE)
    pen.do(SERVER, CLOSE)


def half_closed(pen: Pen) -> None:
    """One end sends no more, the other goes on."""
    pen.some(4)
    asked = pen.request(last=True)
    told = response(pen.random, asked.method, last=True)
    if pen.random.random() < 0.6:
        pen.say(CLIENT, asked.raw)
        pen.do(CLIENT, HALF_CLOSE, wait=False)
        pen.say(SERVER, told.raw)
        pen.log(asked, told)
        pen.do(SERVER, pen.random.choice((HALF_CLOSE, CLOSE, RESET)), wait=False)
    else:
        sent = pen.random.randrange(1, len(asked.raw))
        pen.say(CLIENT, asked.raw[:sent])
        pen.say(SERVER, told.raw[: pen.random.choice((0, len(told.raw) // 2, len(told.raw)))])
        pen.do(SERVER, HALF_CLOSE, wait=False)
        extra = pen.random.choice((b"", b"", b"more" * 5000, pen.random.randbytes(pen.random.randrange(1, 300_000))))
        pen.say(CLIENT, asked.raw[sent:] + extra, wait=pen.random.random() < 0.5)
        pen.do(CLIENT, pen.random.choice((HALF_CLOSE, CLOSE, RESET)), wait=False)


def broken_off(pen: Pen) -> None:
    """Reset or ended anywhere: in a request, before its answer, in that answer, after it."""
    pen.some(5)
    asked = pen.request(known=False)
    told = response(pen.random, asked.method)
    where = pen.random.choice(("in request", "before answer", "in answer", "after answer"))
    pen.say(CLIENT, asked.raw[: pen.random.randrange(1, len(asked.raw))] if where == "in request" else asked.raw)
    if where == "in answer":
        pen.say(SERVER, told.raw[: pen.random.randrange(1, len(told.raw))])
    elif where == "after answer":
        pen.say(SERVER, told.raw)
    pen.finish(how=pen.random.choice((RESET, RESET, RESET, CLOSE, HALF_CLOSE)))


def spoken_after(pen: Pen) -> None:
    """One end closes, the other has not noticed and sends: it is told so by RST."""
    pen.some(3)
    asked = pen.request(known=False)
    pen.say(CLIENT, asked.raw)
    told = response(pen.random, asked.method)
    end = pen.random.choice((CLIENT, SERVER))
    if end == SERVER:
        pen.say(SERVER, told.raw[: pen.random.choice((0, len(told.raw)))])
    pen.do(end, CLOSE)
    pen.say(OTHER[end], told.raw if end == CLIENT else asked.raw)


def upgraded(pen: Pen) -> None:
    """Another protocol from some response on, or an upgrade that is refused."""
    pen.some(3)
    pen.draft.exchanges += 1
    kind = pen.random.choice((b"websocket", b"echo", b"h2c"))
    ask = b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: %b\r\n\r\n" % kind
    if pen.random.random() < 0.3:
        ask = b"POST /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        ask += b"HTTP2-Settings: AAMAAABk\r\nContent-Length: 4\r\n\r\nbody"
    pen.say(CLIENT, ask)
    if pen.random.random() < 0.7:
        early = pen.random.choice((b"", b"\x81\x05hello", b"\x00\x00\x06\x04\x00\x00\x00\x00\x00"))
        pen.say(SERVER, SWITCHING + early)
        _talk(pen)
    else:
        pen.say(SERVER, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        pen.some(3)
    pen.finish()


def connected(pen: Pen) -> None:
    pen.some(2)
    pen.draft.exchanges += 1
    pen.say(CLIENT, b"CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\n")
    if pen.random.random() < 0.7:
        pen.say(SERVER, b"HTTP/1.1 200 Connection established\r\n\r\n")
    else:
        pen.say(SERVER, b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 4\r\n\r\nnope")
    _talk(pen)
    pen.finish()


def _talk(pen: Pen, most: int = 8) -> None:
    for _ in range(pen.random.randrange(most)):
        data = pen.random.choice(
            (b"\x00", b"GET / HTTP/1.1\r\n\r\n", pen.random.randbytes(pen.random.randrange(1, 3000)), b"\r\n\r\n" * 9)
        )
        pen.say(pen.random.choice((CLIENT, SERVER)), data, wait=pen.random.random() < 0.6)


def malformed(pen: Pen) -> None:
    """A request that is none, refused, ignored, or answered as if it were one; the connection may go on."""
    pen.some(4)
    for _ in range(pen.random.choice((1, 1, 2, 4))):
        pen.draft.exchanges += 1
        pen.say(CLIENT, bad_request(pen.random))
        choice = pen.random.random()
        if choice < 0.4:
            pen.say(SERVER, b"HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbad")
        elif choice < 0.7:
            pen.say(SERVER, response(pen.random, "GET").raw)
        elif choice < 0.8:
            pen.say(SERVER, bad_response(pen.random))
    pen.finish()


def misanswered(pen: Pen) -> None:
    """A good request, and an answer that is none."""
    pen.some(4)
    for _ in range(pen.random.choice((1, 1, 3))):
        pen.say(CLIENT, pen.request(known=False).raw)
        pen.say(SERVER, bad_response(pen.random))
    pen.finish()


def senseless(pen: Pen) -> None:
    """Anything in any order."""
    pen.say(CLIENT, _anything(pen))
    for _ in range(pen.random.randrange(14)):
        pen.draft.exchanges += 1
        end = pen.random.choice((CLIENT, SERVER))
        if pen.random.random() < 0.08:
            pen.do(end, pen.random.choice((*ENDS, HALF_CLOSE, HALF_CLOSE)), wait=pen.random.random() < 0.5)
        else:
            pen.say(end, _anything(pen), wait=pen.random.random() < 0.5)


def _anything(pen: Pen) -> bytes:
    random = pen.random
    return random.choice((
        lambda: request(random).raw,
        lambda: response(random, random.choice(("GET", "HEAD"))).raw,
        lambda: bad_request(random),
        lambda: bad_response(random),
        lambda: random.randbytes(random.randrange(1, 500)),
        lambda: random.choice(INFORMATIONAL),
        lambda: SWITCHING,
    ))()  # fmt: skip


def events(pen: Pen) -> None:
    """Server-sent events: each chunk arrives before the next is sent."""
    asked = pen.request()
    pen.say(CLIENT, asked.raw)
    pen.say(SERVER, b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    for number in range(pen.random.randrange(1, 20)):
        event = b"id: %d\ndata: {}\n\n" % number
        pen.say(SERVER, b"%x\r\n%b\r\n" % (len(event), event))
    pen.finish(how=pen.random.choice((HALF_CLOSE, CLOSE, RESET)))


def unused(pen: Pen) -> None:
    """Opened, and ended without a byte; a server answers such an end with its own."""
    pen.do(CLIENT, pen.random.choice(ENDS))
    pen.do(SERVER, CLOSE)


def heavy(pen: Pen) -> None:
    """Bodies up to a mebibyte, each way or both, and at times both at once."""
    up, down = (pen.random.choice((0, 70_000, pen.random.randrange(BULK), BULK)) for _ in range(2))
    if pen.random.random() < 0.3:
        pen.draft.exchanges += 1
        asked, told = bulk(pen.random, f"{pen.name}-1", up=up, down=down)
        pen.say(CLIENT, asked.raw[: asked.head + 1])
        pen.say(SERVER, told.raw[: told.head + 1])
        pen.say(CLIENT, asked.raw[asked.head + 1 :], wait=False)
        pen.say(SERVER, told.raw[told.head + 1 :], wait=False)
        pen.log(asked, told)
    else:
        pen.draft.exchanges += 1
        asked, told = bulk(pen.random, f"{pen.name}-1", up=up, down=down)
        pen.say(CLIENT, asked.raw)
        pen.say(SERVER, told.raw)
        pen.log(asked, told)
        pen.some(2)
    pen.finish()


# Weights are of connections.
KINDS: Final[dict[Callable[[Pen], None], int]] = {
    keep_alive: 300,
    pipelined: 200,
    continued: 60,
    early: 70,
    too_early: 20,
    half_closed: 90,
    broken_off: 120,
    spoken_after: 40,
    upgraded: 60,
    connected: 40,
    malformed: 150,
    misanswered: 80,
    senseless: 80,
    events: 30,
    unused: 20,
    heavy: 8,
}


def script(seed: int, index: int) -> Script:
    """The script of this index."""
    random = Random(f"{seed}/{index}")
    kind = random.choices(list(KINDS), weights=list(KINDS.values()))[0]
    large = kind is heavy
    cuts = random.choice((whole, few)) if large else random.choices(list(CUTS), weights=list(CUTS.values()))[0]
    pen = Pen(random, str(index), cuts, apart=False if large else None)
    kind(pen)
    return pen.draft.script(f"{seed}/{index}", kind.__name__)


def scripts(seed: int, exchanges: int) -> Iterator[Script]:
    """Scripts in order of index, until they attempt that many exchanges."""
    index = 0
    while exchanges > 0:
        made = script(seed, index)
        exchanges -= made.exchanges
        index += 1
        yield made
