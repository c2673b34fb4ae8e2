"""The journal and the lease: one holder, cuts in order, and silence measured by one's own clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors import journal
from detectors.journal import Claim, Cut, Done, Journal, Lease, Renew
from servelens.contract.errors import PayloadError


def cut(epoch: str, number: int) -> Cut:
    return Cut(epoch, number, "n/i/predictor//", "d", 1, 2, {"0": 5})


def folded(*entries: journal.Entry) -> tuple[Journal, list[str]]:
    state = Journal()
    return state, [state.apply(offset, entry) for offset, entry in enumerate(entries)]


def test_only_the_last_claimant_s_entries_count() -> None:
    _, effects = folded(
        Claim("a", "x"), cut("a", 1), Claim("b", "y"), cut("a", 2), Renew("a"), Done("a", 1), cut("b", 2)
    )
    assert effects == ["claimed", "cut", "claimed", "ignored", "ignored", "ignored", "cut"]


def test_cuts_are_numbered_without_hole_or_repeat() -> None:
    state, effects = folded(Claim("a", "x"), cut("a", 2), cut("a", 1), cut("a", 1), cut("a", 2))
    assert effects == ["claimed", "ignored", "cut", "ignored", "cut"]
    assert state.cuts == 2


def test_nothing_is_done_that_was_not_cut() -> None:
    assert folded(Claim("a", "x"), cut("a", 1), Done("a", 9))[0].done == 1


def test_entries_survive_the_wire() -> None:
    entries: list[journal.Entry] = [Claim("a", "x"), Renew("a"), cut("a", 1), Done("a", 1)]
    assert [journal.decode(journal.encode(entry)) for entry in entries] == entries


@given(st.binary(max_size=100) | st.sampled_from([b"{}", b'{"t":"cut"}', b"[]", b'{"t":["cut"]}', b"null"]))
def test_a_foreign_record_is_refused(value: bytes) -> None:
    with pytest.raises(PayloadError):
        journal.decode(value)


def test_a_standby_claims_after_silence_and_once() -> None:
    state, lease = Journal(), Lease(timeout=5)
    lease.see(Claim("a", "x"), state.apply(0, Claim("a", "x")), now=10)
    assert not lease.may_claim(14.9)
    lease.see(Renew("zombie"), state.apply(1, Renew("zombie")), now=14)  # not the holder's: no sign of life
    assert lease.may_claim(15)
    mine = lease.claim("b", "me")
    assert not lease.may_claim(99)
    assert not lease.holds(state)
    lease.see(mine, state.apply(2, mine), now=16)
    assert lease.holds(state)
    other = Claim("c", "other")
    lease.see(other, state.apply(3, other), now=17)
    assert not lease.holds(state)
    assert lease.may_claim(22)
