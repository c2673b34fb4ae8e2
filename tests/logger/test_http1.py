from collections.abc import Iterator
from random import Random

import h11
import pytest
from http_traffic import Turn, conversation, split
from hypothesis import given, settings
from hypothesis import strategies as st

from logger.budget import Budget
from logger.http1 import PENDING_LIMIT, QUIET_LIMIT, Observer
from logger.seen import Headers, Seen

CAP = 1 << 20


class Notes:
    """A watch that writes down what it is told, and keeps everything."""

    def __init__(self) -> None:
        self.open: list[Seen] = []
        self.done: list[Seen] = []
        self.answers: list[Seen] = []
        self.drops: list[tuple[Seen | None, str]] = []

    def begun(self, seen: Seen, headers: Headers) -> None:
        seen.keep = True
        seen.requestid = headers.get(b"x-request-id", b"").decode()
        self.open.append(seen)

    def answered(self, seen: Seen) -> None:
        assert seen not in self.answers
        self.answers.append(seen)

    def finished(self, seen: Seen) -> None:
        assert seen in self.answers
        self.open.remove(seen)
        self.done.append(seen)

    def dropped(self, seen: Seen, reason: str) -> None:
        seen.keep = False
        if reason != "over_budget":
            self.open.remove(seen)
        self.drops.append((seen, reason))

    def unseen(self, reason: str) -> None:
        self.drops.append((None, reason))

    @property
    def reasons(self) -> list[str]:
        return [reason for _, reason in self.drops]


def observer(notes: Notes, cap: int = CAP, budget: int = 32 << 20, *, lean: bool = False) -> Observer:
    return Observer(notes, Budget(budget), cap, lean=lean)


def facts(seen: Seen) -> tuple[object, ...]:
    response = seen.response
    assert response is not None
    assert not seen.request.truncated
    assert not response.truncated
    assert seen.request.size == len(seen.request.body)
    assert response.size == len(response.body)
    return (
        seen.method,
        seen.path,
        seen.status,
        seen.requestid,
        bytes(seen.request.body),
        bytes(response.body),
        seen.request.content_type,
        response.content_type,
    )


def one(request: bytes, *responses: bytes) -> tuple[Notes, Observer]:
    notes = Notes()
    seen = observer(notes)
    seen.request(request)
    for response in responses:
        seen.response(response)
    return notes, seen


def interleaved(random: Random, turns: list[Turn], *, pipelined: bool) -> Iterator[tuple[str, bytes]]:
    """The pieces of both directions in an order in which they can pass."""
    if pipelined:
        for piece in split(random, b"".join(turn.request for turn in turns), random.randrange(1, 9)):
            yield "request", piece
        for piece in split(random, b"".join(turn.response for turn in turns), random.randrange(1, 9)):
            yield "response", piece
        return
    for turn in turns:
        for piece in split(random, turn.request, random.randrange(1, 5)):
            yield "request", piece
        for piece in split(random, turn.response, random.randrange(1, 5)):
            yield "response", piece


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), turns=st.integers(1, 8), pipelined=st.booleans())
def test_generated_connections_are_seen_as_they_were_made_however_they_are_split(
    seed: int, turns: int, pipelined: bool
) -> None:
    random = Random(seed)
    said = conversation(random, turns)
    notes = Notes()
    seen = observer(notes)
    for direction, piece in interleaved(random, said, pipelined=pipelined):
        getattr(seen, direction)(piece)
    if said[-1].closes:
        assert not seen.idle
        seen.response_eof()
    assert [facts(exchange) for exchange in notes.done] == [turn.seen() for turn in said]
    assert seen.idle
    seen.lost()
    assert (notes.open, notes.drops, seen.trouble) == ([], [], "")


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_byte_by_byte_is_the_same(seed: int) -> None:
    said = conversation(Random(seed), 4, largest=60)
    notes = Notes()
    seen = observer(notes)
    for turn in said:
        for byte in turn.request:
            seen.request(bytes([byte]))
        for byte in turn.response:
            seen.response(bytes([byte]))
    seen.response_eof()
    assert [facts(exchange) for exchange in notes.done] == [turn.seen() for turn in said]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_requests_are_what_h11_reads_in_them(seed: int) -> None:
    said = conversation(Random(seed), 5)
    server = h11.Connection(h11.SERVER)
    server.receive_data(b"".join(turn.request for turn in said))
    expected = []
    for _ in said:
        request, body = server.next_event(), b""
        assert isinstance(request, h11.Request)
        while isinstance(event := server.next_event(), h11.Data):
            body += event.data
        assert isinstance(event, h11.EndOfMessage)
        expected.append((request.method.decode(), request.target.decode().partition("?")[0], body))
        server.send(h11.Response(status_code=204, headers=[]))
        server.send(h11.EndOfMessage())
        server.start_next_cycle()
    notes, seen = one(b"".join(turn.request for turn in said), *(turn.response for turn in said))
    seen.response_eof()
    assert [(done.method, done.path, bytes(done.request.body)) for done in notes.done] == expected


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), pipelined=st.booleans())
def test_a_lean_observer_sees_the_same_methods_and_statuses(seed: int, pipelined: bool) -> None:
    random = Random(seed)
    said, notes = conversation(random, 6), Notes()
    seen = observer(notes, lean=True)
    for direction, piece in interleaved(random, said, pipelined=pipelined):
        getattr(seen, direction)(piece)
    seen.response_eof()
    assert [(one.method, one.status) for one in notes.done] == [(turn.method, turn.status) for turn in said]


@settings(max_examples=200, deadline=None)
@given(pieces=st.lists(st.tuples(st.booleans(), st.binary(max_size=80)), max_size=12))
def test_no_bytes_make_it_raise_or_leave_an_exchange_open(pieces: list[tuple[bool, bytes]]) -> None:
    notes = Notes()
    seen = observer(notes)
    seen.request(b"POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 40\r\n\r\n")
    for upward, data in pieces:
        (seen.request if upward else seen.response)(data)
    seen.lost()
    assert notes.open == []
    assert len(notes.done) + len(notes.drops) >= 1


GET = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n\r\nbody"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def test_an_early_answer_is_finished_with_its_request() -> None:
    notes, seen = one(b"POST /p HTTP/1.1\r\ncontent-length: 8\r\n\r\nhalf", OK)
    assert len(notes.answers) == 1
    assert notes.done == []
    assert not seen.idle
    seen.request(b"rest")
    assert bytes(notes.done[0].request.body) == b"halfrest"
    seen.request(GET)
    seen.response(OK)
    assert [done.method for done in notes.done] == ["POST", "GET"]


def test_an_early_answer_and_then_the_end_leaves_a_truncated_request() -> None:
    notes, seen = one(b"POST /p HTTP/1.1\r\ncontent-length: 8\r\n\r\nhalf", OK)
    seen.request_eof()
    (done,) = notes.done
    assert (bytes(done.request.body), done.request.truncated, done.status) == (b"half", True, 200)


def test_a_half_closed_client_is_still_answered() -> None:
    notes, seen = one(POST)
    seen.request_eof()
    assert notes.done == []
    seen.response(OK)
    assert notes.done[0].status == 200
    assert not notes.done[0].request.truncated


def test_a_response_cut_by_a_reset_is_truncated_even_if_only_the_close_could_end_it() -> None:
    notes, seen = one(GET, b"HTTP/1.1 200 OK\r\n\r\npart")
    seen.lost()
    (done,) = notes.done
    assert done.response is not None
    assert (done.status, bytes(done.response.body), done.response.truncated) == (200, b"part", True)


def test_a_response_cut_before_its_announced_end_is_truncated_by_a_clean_close_too() -> None:
    notes, seen = one(GET, b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart")
    seen.response_eof()
    assert notes.done[0].response is not None
    assert notes.done[0].response.truncated


def test_an_exchange_without_any_answer_ends_without_a_status() -> None:
    notes, seen = one(POST)
    seen.lost()
    assert [(done.status, done.response) for done in notes.done] == [(None, None)]


@pytest.mark.parametrize("lean", [False, True])
def test_an_upgrade_granted_ends_the_sight_as_upgraded(lean: bool) -> None:
    notes = Notes()
    seen = observer(notes, lean=lean)
    seen.request(b"GET /chat HTTP/1.1\r\nhost: h\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n")
    assert seen.upgrading
    seen.response(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n\x81\x05hello")
    assert (seen.trouble, seen.blind, notes.reasons) == ("upgraded", True, ["upgraded"])
    seen.request(b"\x81\x05hello")
    seen.response(OK)
    seen.lost()
    assert (notes.reasons, notes.done) == (["upgraded"], [])


@pytest.mark.parametrize("lean", [False, True])
@pytest.mark.parametrize(
    "framing", [b"content-length: 4\r\n\r\nbody", b"transfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"]
)
def test_an_upgrade_not_granted_is_an_exchange_with_its_body(lean: bool, framing: bytes) -> None:
    # As Java's HttpClient sends its first POST over cleartext.
    ask = (
        b"POST /p HTTP/1.1\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEA\r\n" + framing
    )
    notes = Notes()
    seen = observer(notes, lean=lean)
    seen.request(ask)
    seen.response(OK)
    seen.request(ask + POST)
    seen.response(OK + OK)
    assert [(done.method, done.path) for done in notes.done[1:]] == [("POST", "/p")] * 2
    assert [bytes(done.request.body) for done in notes.done[1:]] == [b"body"] * 2
    assert (len(notes.done), notes.drops, seen.upgrading) == (3, [], False)


def test_an_upgrade_split_anywhere_keeps_its_body() -> None:
    ask = b"POST /p HTTP/1.1\r\nconnection: upgrade\r\nupgrade: h2c\r\ncontent-length: 4\r\n\r\nbody"
    for cut in range(1, len(ask)):
        notes = Notes()
        seen = observer(notes)
        seen.request(ask[:cut])
        seen.request(ask[cut:])
        seen.response(OK)
        assert [(done.path, bytes(done.request.body)) for done in notes.done] == [("/p", b"body")]


def test_connect_ends_the_sight_once_granted_and_not_when_refused() -> None:
    ask = b"CONNECT db:5432 HTTP/1.1\r\nhost: db\r\n\r\n"
    notes, seen = one(ask, b"HTTP/1.1 405 No\r\ncontent-length: 0\r\n\r\n")
    assert [(done.method, done.status) for done in notes.done] == [("CONNECT", 405)]
    seen.request(GET)
    seen.response(OK)
    assert len(notes.done) == 2
    notes, seen = one(ask, b"HTTP/1.1 200 Go\r\n\r\n\x00\x01")
    assert (seen.trouble, notes.reasons) == ("upgraded", ["upgraded"])


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00TLS hello\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\nhost: h\n\n",
        b"POST / HTTP/1.1\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
    ],
)
def test_a_head_that_cannot_be_framed_is_counted_once_and_ends_the_sight(request_bytes: bytes) -> None:
    notes, seen = one(request_bytes, OK)
    seen.lost()
    assert (seen.trouble, seen.blind, notes.reasons, notes.open) == ("unparsable", True, ["unparsable"], [])


def test_a_body_that_cannot_be_framed_drops_its_exchange() -> None:
    notes, seen = one(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")
    assert (notes.reasons, notes.open, seen.blind) == (["unparsable"], [], True)


def test_answers_due_before_the_bytes_that_cannot_be_framed_are_still_seen() -> None:
    notes, seen = one(POST + b"\x00garbage")
    assert (seen.trouble, seen.blind) == ("unparsable", False)
    seen.response(OK)
    assert [bytes(done.request.body) for done in notes.done] == [b"body"]
    assert (notes.reasons, seen.blind) == (["unparsable"], True)


def test_a_response_that_cannot_be_framed_drops_all_that_is_open() -> None:
    notes, seen = one(POST + GET, b"NOT HTTP\r\n")
    assert (notes.reasons, notes.open, seen.blind) == (["unparsable"] * 2, [], True)


def test_a_response_nobody_asked_for_is_counted() -> None:
    notes, seen = one(GET, OK)
    seen.response(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n")
    assert (len(notes.done), notes.reasons, seen.blind) == (1, ["unparsable"], True)


def test_a_status_below_100_is_no_http() -> None:
    notes, seen = one(GET, b"HTTP/1.1 099 Odd\r\n\r\n")
    assert (notes.reasons, seen.blind) == (["unparsable"], True)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /",
        b"GET / HTTP/1.1\r\nx: ",
        POST[:-4].replace(b"4", b"chunked").replace(b"content-length", b"transfer-encoding") + b"1;",
    ],
)
def test_an_endless_head_or_extension_is_not_held(head: bytes) -> None:
    notes, seen = one(head)
    for _ in range(QUIET_LIMIT // 1000 + 2):
        seen.request(b"a" * 1000)
    assert (seen.trouble, notes.reasons, notes.open) == ("unparsable", ["unparsable"], [])


def test_an_endless_response_head_is_not_held() -> None:
    notes, seen = one(GET, b"HTTP/1.1 200 OK\r\nx: ")
    for _ in range(QUIET_LIMIT // 1000 + 2):
        seen.response(b"a" * 1000)
    assert (seen.blind, notes.reasons) == (True, ["unparsable"])


def test_pipelining_has_an_end() -> None:
    notes, seen = one(GET * (PENDING_LIMIT + 1))
    assert (seen.blind, len(notes.drops), notes.open) == (True, PENDING_LIMIT + 1, [])


def test_the_cap_counts_all_and_keeps_its_part() -> None:
    notes = Notes()
    seen = observer(notes, cap=3)
    seen.request(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n2\r\ncd\r\n2\r\nef\r\n0\r\n\r\n")
    seen.response(OK)
    (done,) = notes.done
    assert (bytes(done.request.body), done.request.size, done.request.truncated) == (b"abc", 6, True)
    assert done.response is not None
    assert (done.response.size, done.response.truncated) == (2, False)


def test_over_the_budget_the_exchange_is_dropped_and_the_framing_goes_on() -> None:
    notes = Notes()
    seen = observer(notes, budget=3)
    seen.request(POST)
    assert notes.reasons == ["over_budget"]
    seen.response(OK)
    assert [done.status for done in notes.done] == [200]
    assert seen.idle


def test_what_is_due_is_known_until_its_first_byte() -> None:
    _, seen = one(GET)
    assert seen.answerable is not None
    seen.response(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert seen.answerable is not None
    seen.response(b"H")
    assert seen.answerable is None
    seen.response(OK[1:])
    assert seen.answerable is None
    seen.request(GET + GET)
    seen.response(OK)
    assert seen.answerable is not None
    seen.response_eof()
    assert seen.answerable is None


def test_secrets_and_queries_are_not_kept() -> None:
    notes, _ = one(
        b"POST /p?api_key=hunter2 HTTP/1.1\r\nauthorization: Bearer hunter2\r\ncookie: hunter2\r\n"
        b"content-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nset-cookie: hunter2\r\ncontent-length: 0\r\n\r\n",
    )
    (done,) = notes.done
    assert "hunter2" not in done.path
    assert b"hunter2" not in b"".join([*done.request._headers, *done.request._headers.values()])
    assert done.response is not None
    assert b"hunter2" not in b"".join([*done.response._headers, *done.response._headers.values()])


def test_a_watch_that_fails_is_raised_and_what_is_open_can_be_given_up() -> None:
    class Failing(Notes):
        failures = 1

        def answered(self, seen: Seen) -> None:
            if self.failures:
                self.failures = 0
                raise ZeroDivisionError(seen.path)
            super().answered(seen)

    notes = Failing()
    seen = observer(notes)
    seen.request(GET + GET)
    with pytest.raises(ZeroDivisionError):
        seen.response(OK)
    seen.abandon()
    assert (seen.blind, notes.reasons) == (True, ["unparsable"])


@pytest.mark.parametrize("cut", range(1, 5))
def test_a_head_asked_for_while_the_answer_to_another_is_half_there(cut: int) -> None:
    notes = Notes()
    seen = observer(notes)
    asked = b"HEAD / HTTP/1.1\r\nhost: h\r\n\r\n"
    told = b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n"
    seen.request(asked)
    seen.response(told[:-cut])
    seen.request(asked)
    seen.response(told[-cut:])
    seen.response(told)
    assert ([done.status for done in notes.done], notes.reasons, seen.idle) == ([200, 200], [], True)
