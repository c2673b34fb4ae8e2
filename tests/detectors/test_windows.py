"""When a window closes, and what a cut takes: whole slots, the same for every revision, each pane once."""

from dataclasses import replace

import numpy as np
import pytest

from detectors.journal import Cut
from detectors.pane import Pane
from detectors.profile import Profile
from detectors.windows import Closing, OpenWindows, Piece

CLOSING = Closing(n_target=100, n_min=20, lateness=2, least_slots=1, most_slots=30, carry_slots=500)


def pane(profile: Profile, slot: int, rows: int, revision: str = "") -> Pane:
    counts = np.zeros(profile.width, np.int64)
    identity = replace(profile.identity, revision=revision)
    return Pane(profile, identity, (slot, slot + 1), counts, rows, rows)


def opened(profile: Profile, *sizes: tuple[int, int], revision: str = "") -> OpenWindows:
    """(slot, rows) of each pane, in one partition."""
    windows = OpenWindows(profile)
    for offset, (slot, rows) in enumerate(sizes):
        windows.add(Piece(0, offset, pane(profile, slot, rows, revision), ("payloads", offset * 10, offset * 10 + 10)))
    return windows


def cut(first: int, last: int, offsets: int = 1000) -> Cut:
    return Cut("e", 1, "m", "d", first, last, {"0": offsets})


@pytest.mark.parametrize(
    ("sizes", "watermark", "expected"),
    [
        ([(5, 60), (7, 60)], 8, None),  # slot 7 may still get late rows
        ([(5, 60), (7, 60)], 9, (5, 7)),
        ([(5, 60), (7, 39)], 50, (5, 48)),  # open for long enough, with more than the fewest
        ([(5, 19)], 50, None),  # too few: carried on
        ([(5, 19)], 600, (5, 598)),  # and given up
        ([(5, 200)], 7, (5, 5)),
        ([], 600, None),
    ],
)
def test_a_window_closes_full_overdue_or_given_up(
    profile: Profile, sizes: list[tuple[int, int]], watermark: int, expected: tuple[int, int] | None
) -> None:
    assert opened(profile, *sizes).proposal(watermark, CLOSING) == expected


def test_a_window_is_no_shorter_than_its_least_even_when_full(profile: Profile) -> None:
    windows = opened(profile, (0, 500), (3, 500), (6, 500))
    assert windows.proposal(20, replace(CLOSING, least_slots=5)) == (0, 6)


def test_every_revision_must_have_its_fewest_rows_until_the_window_is_overdue(profile: Profile) -> None:
    windows = opened(profile, (0, 150))
    windows.add(Piece(1, 0, pane(profile, 0, 5, "canary")))
    assert windows.proposal(10, CLOSING) is None
    assert windows.proposal(40, CLOSING) == (0, 38)
    windows.add(Piece(1, 1, pane(profile, 1, 15, "canary")))
    assert windows.proposal(10, CLOSING) == (0, 1)


def test_a_profile_s_last_window_ends_where_the_next_profile_begins(profile: Profile) -> None:
    windows = opened(profile, (0, 30))
    assert windows.proposal(9, CLOSING, until=9) is None  # slot 8 may still get late rows
    assert windows.proposal(10, CLOSING, until=9) == (0, 8)
    windows.take(cut(0, 8))
    windows.add(Piece(0, 50, pane(profile, 40, 150)))
    assert windows.proposal(60, CLOSING, since=40) == (40, 40)  # not from 9, when another one counted


def test_a_cut_takes_each_pane_once_and_says_what_came_late(profile: Profile) -> None:
    windows = opened(profile, (1, 10), (2, 20), (3, 30))
    windows.add(Piece(0, 9, pane(profile, 2, 7)))  # behind the cut's offsets: not read by then
    taken = windows.take(cut(1, 2, offsets=3))
    assert [(part.window.rows, part.late_rows) for part in taken.values()] == [(30, 0)]
    windows.add(Piece(0, 10, pane(profile, 1, 3)))
    (part,) = windows.take(Cut("e", 2, "m", "d", 3, 3, {"0": 1000})).values()
    assert (part.window.rows, part.late_rows) == (30, 10)
    assert windows.pieces == windows.late == []


def test_pointers_span_the_batches_of_the_window(profile: Profile) -> None:
    (part,) = opened(profile, (1, 10), (2, 20), (9, 1)).take(cut(1, 2)).values()
    assert part.pointers == {"payloads": {"0": (0, 20)}}


def test_late_rows_alone_are_still_said(profile: Profile) -> None:
    windows = opened(profile, (1, 10))
    windows.take(cut(1, 5))
    windows.add(Piece(0, 4, pane(profile, 3, 8, "canary")))
    (part,) = windows.take(Cut("e", 2, "m", "d", 6, 9, {"0": 99})).values()
    assert (part.window.rows, part.late_rows, part.window.identity.revision) == (0, 8, "canary")


def test_the_open_windows_survive_a_snapshot(profile: Profile) -> None:
    windows = opened(profile, (1, 10), (2, 20), (3, 30))
    windows.take(cut(1, 1, offsets=2))
    again = OpenWindows.from_mapping(profile, windows.to_mapping())
    assert again.to_mapping() == windows.to_mapping()
    assert again.take(cut(2, 3)).keys() == windows.take(cut(2, 3)).keys()
