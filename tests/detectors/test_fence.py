"""The fold, entry by entry: what counts, what a claim resets, what survives the wire and a snapshot."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors import fence
from detectors.fence import PAYLOADS, RETRY, Claim, Commit, Entry, Fold, Heartbeat, Part
from servelens.contract.errors import PayloadError

TOPICS = {PAYLOADS: "topic-1"}


def claim(epoch: str, topic: str = "topic-1", **more: object) -> Claim:
    return Claim(epoch, "w", 1, {PAYLOADS: topic}, **more)  # type: ignore[arg-type]


def part(epoch: str, lo: int, hi: int, index: int = 0, count: int = 1) -> Part:
    return Part(epoch, PAYLOADS, lo, hi, index, count, {"rows": hi - lo, "model": index})


def commit(epoch: str, lo: int, hi: int, parts: int = 1, **more: object) -> Commit:
    return Commit(epoch, PAYLOADS, lo, hi, parts, hi - lo, 5, **more)  # type: ignore[arg-type]


def folded(entries: Sequence[Entry]) -> tuple[Fold, list[str]]:
    fold = Fold()
    return fold, [fold.apply(offset, entry).verdict for offset, entry in enumerate(entries)]


def test_a_batch_of_two_models_counts_as_one() -> None:
    fold, seen = folded([claim("a"), part("a", 0, 9, 0, 2), part("a", 0, 9, 1, 2), commit("a", 0, 9, 2)])
    assert seen == ["claimed", "pending", "pending", "accepted"]
    assert fold.next == {PAYLOADS: 9}


@pytest.mark.parametrize(
    ("entries", "last"),
    [
        ([claim("a"), commit("a", 0, 9, 1)], "rejected"),
        ([claim("a"), part("a", 0, 9, 1, 2), commit("a", 0, 9, 2)], "rejected"),
        ([claim("a"), part("a", 0, 9, 0, 2), commit("a", 0, 9, 2)], "rejected"),
        ([claim("a"), part("a", 3, 9), commit("a", 3, 9)], "rejected"),
        ([claim("a"), part("a", 0, 8), commit("a", 0, 9)], "rejected"),
        ([claim("a"), part("a", 0, 9), claim("b"), commit("a", 0, 9)], "foreign"),
        ([claim("a"), part("a", 0, 9), claim("b"), part("b", 0, 5), commit("b", 0, 5)], "accepted"),
        ([claim("a"), part("a", 0, 9), commit("a", 0, 9), part("a", 0, 9), commit("a", 0, 9)], "rejected"),
        ([claim("a"), part("a", 0, 9), claim("b"), commit("b", 0, 9)], "rejected"),
        ([claim("a"), commit("a", 0, 9, 0)], "accepted"),
        ([claim("a"), commit("a", 3, 9, 0)], "rejected"),
        ([claim("a"), commit("a", 0, 9, 0), commit("a", 0, 9, 0)], "rejected"),
        ([claim("a"), commit("a", 0, -1, 0)], "rejected"),
        ([claim("a"), Heartbeat("b", 7)], "foreign"),
    ],
)
def test_what_counts(entries: list[Entry], last: str) -> None:
    assert folded(entries)[1][-1] == last


def test_a_topic_made_anew_starts_at_nought_and_forgets_the_row_numbers() -> None:
    entries = [claim("a"), part("a", 0, 9), commit("a", 0, 9, seqs={"tap": 9}), claim("b", "topic-2")]
    fold, _ = folded(entries)
    assert fold.next == {PAYLOADS: 0}
    assert fold.seqs == {PAYLOADS: {}}


def test_inputs_are_counted_apart_under_one_claim() -> None:
    two = Claim("a", "w", 1, {PAYLOADS: "t", RETRY: "r"})
    letters = [Part("a", RETRY, 0, 3, 0, 1, {}), Commit("a", RETRY, 0, 3, 1, 3, 5, seqs={"letters": 3})]
    fold, seen = folded([two, part("a", 0, 9), letters[0], commit("a", 0, 9), letters[1]])
    assert seen[-2:] == ["accepted", "accepted"]
    assert fold.next == {PAYLOADS: 9, RETRY: 3}
    assert fold.seqs[RETRY] == {"letters": 3}


def test_the_first_claim_says_how_long_the_group_s_slots_are() -> None:
    fold, _ = folded([claim("a", slot=10), claim("b", slot=60), claim("c")])
    assert fold.slot_seconds == 10


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([claim("a"), commit("a", 3, 9)], "wrong_start"),
        ([claim("a"), commit("a", 0, 9, 2)], "missing_parts"),
        ([claim("a"), part("a", 4, 9)], "wrong_start"),
        ([claim("a"), part("a", 0, 9, 1, 2)], "missing_parts"),
    ],
)
def test_a_rejection_says_why(entries: list[Entry], reason: str) -> None:
    fold = Fold()
    assert [fold.apply(offset, entry) for offset, entry in enumerate(entries)][-1].reason == reason


def test_a_rewind_goes_back_but_never_forward() -> None:
    entries: list[Entry] = [claim("a"), part("a", 0, 9), commit("a", 0, 9)]
    assert folded([*entries, claim("b", rewind={PAYLOADS: 4})])[0].next == {PAYLOADS: 4}
    assert folded([*entries, claim("b", rewind={PAYLOADS: 99})])[0].next == {PAYLOADS: 9}


def test_row_numbers_are_kept_for_the_taps_last_heard_of() -> None:
    fold = Fold()
    fold.apply(0, claim("a"))
    many = {f"tap-{number}": 1 for number in range(fence.MAX_TAPS + 5)}
    fold.apply(1, commit("a", 0, 1, 0, seqs=many))
    assert len(fold.seqs[PAYLOADS]) == fence.MAX_TAPS
    assert "tap-0" not in fold.seqs[PAYLOADS]


@given(st.binary(max_size=200) | st.sampled_from([b"{}", b'{"t":"claim"}', b'{"t":"part","x":1}', b"[1]", b"null"]))
def test_a_foreign_record_is_refused(value: bytes) -> None:
    with pytest.raises(PayloadError):
        fence.decode(value)


@given(st.integers(0, 5), st.integers(0, 50))
def test_entries_survive_the_wire(index: int, lo: int) -> None:
    entries: list[Entry] = [
        claim("a", rewind={PAYLOADS: lo}, slot=10),
        part("a", lo, lo + 3, index),
        commit("a", lo, lo + 3, gaps=((1, 2),), seqs={"tap": 4}, accounting=({"offered": 1},)),
        Heartbeat("a", lo),
    ]
    assert [fence.decode(fence.encode(entry)) for entry in entries] == entries


def test_the_fold_restored_from_a_snapshot_anywhere_goes_on_alike() -> None:
    entries: list[Entry] = [claim("a")]
    for lo in range(0, 40, 4):
        entries += [part("a", lo, lo + 4, 0, 2), part("a", lo, lo + 4, 1, 2), commit("a", lo, lo + 4, 2)]
    whole, _ = folded(entries)
    for cut in range(len(entries)):
        fold, _ = folded(entries[:cut])
        again = Fold.from_mapping(json.loads(json.dumps(fold.to_mapping())))
        for offset in range(cut, len(entries)):
            again.apply(offset, entries[offset])
        assert again.to_mapping() == whole.to_mapping()
