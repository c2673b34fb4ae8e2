"""What is remembered of a profile: monitors a revision, canaries against the stable one, and what is told of it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import drift_samples
import jsonschema
import numpy as np
import orjson
import pytest

from detectors import publish
from detectors.pane import Pane
from detectors.profile import Profile
from detectors.statistics import Settings
from detectors.verdict import Circumstances
from detectors.verdict_schema import VERDICT_SCHEMA
from detectors.watched import REMEMBERED, Watched
from detectors.windows import Taken

PROFILE = drift_samples.profile_of()
SETTINGS = Settings()


def taken(rng: np.random.Generator, **rows: int) -> dict[Any, Taken]:
    """A window of so many rows for each revision, all of the reference's kind."""
    return {
        replace(PROFILE.identity, revision=revision): Taken(
            replace(drift_samples.window(PROFILE, rng, count), identity=replace(PROFILE.identity, revision=revision)),
            0,
            {},
        )
        for revision, count in rows.items()
    }


def about(number: int, **more: Any) -> Circumstances:
    return Circumstances(group="g", first=number * 10, last=number * 10 + 9, slot_seconds=10, **more)


def judged(watched: Watched, parts: Mapping[Any, Taken], number: int, **more: Any) -> list[tuple[dict[str, Any], bool]]:
    return list(watched.judge(parts, about(number, **more), SETTINGS))


def test_a_verdict_is_told_when_something_changes_and_once_a_heartbeat() -> None:
    watched, rng = Watched.start(PROFILE), np.random.default_rng(1)
    told = [judged(watched, taken(rng, v1=1000), number, heartbeat_slots=60)[0][1] for number in range(14)]
    assert told == [True, *[False] * 5, True, *[False] * 5, True, False]


def test_every_verdict_is_what_the_schema_says() -> None:
    validator = jsonschema.Draft202012Validator(VERDICT_SCHEMA)
    validator.check_schema(VERDICT_SCHEMA)
    watched, windows = Watched.start(PROFILE), canary(np.random.default_rng(8), 1.0)
    said = [one for number in range(20) for one, _ in judged(watched, next(windows), number, coverage=0.5)]
    said += [one for one, _ in judged(watched, taken(np.random.default_rng(9), stable=30), 20, previous="a" * 64)]
    for one in said:
        record = orjson.loads(publish.event(one).value)
        validator.validate(record)
        assert not list(validator.iter_errors(one))
    assert {one["state"] for one in said} >= {"ok", "drift", "insufficient"}
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({**said[0], "more": 1})


def test_a_change_is_told_at_once() -> None:
    watched, rng = Watched.start(PROFILE), np.random.default_rng(2)
    shifted = Taken(drift_samples.window(PROFILE, rng, 1000, n4=1.5), 0, {})
    identity = PROFILE.identity
    told = []
    for number, part in enumerate([taken(rng, **{identity.revision: 1000})[identity], shifted, shifted, shifted]):
        ((said, telling),) = judged(watched, {identity: part}, number)
        told.append((said["state"], telling))
    assert told == [("ok", True), ("suspect", True), ("drift", True), ("drift", False)]


def test_too_few_rows_are_insufficient_and_leave_the_states_alone() -> None:
    watched, rng = Watched.start(PROFILE), np.random.default_rng(3)
    (before, _), (few, telling) = (judged(watched, taken(rng, v1=rows), at)[0] for at, rows in enumerate((1000, 40)))
    assert (before["state"], few["state"], telling) == ("ok", "insufficient", True)
    assert {column["state"] for column in few["columns"]} == {"ok"}


def canary(rng: np.random.Generator, shift: float) -> Iterator[dict[Any, Taken]]:
    while True:
        parts = taken(rng, stable=1000, canary=400)
        identity = replace(PROFILE.identity, revision="canary")
        moved = drift_samples.window(PROFILE, rng, 400, score=shift)
        yield {**parts, identity: Taken(replace(moved, identity=identity), 0, {})}


@pytest.mark.parametrize(("shift", "state"), [(0.0, "ok"), (1.0, "drift")])
def test_a_canary_is_compared_with_the_stable_revision_by_a_named_test(shift: float, state: str) -> None:
    watched, windows = Watched.start(PROFILE), canary(np.random.default_rng(4), shift)
    for number in range(6):
        said = [one for one, _ in judged(watched, next(windows), number)]
    assert [one["kind"] for one in said] == ["window", "window", "comparison"]
    compared = said[-1]
    assert (compared["revision"], compared["against"], compared["state"]) == ("canary", "stable", state)
    assert {column["statistic"] for column in compared["columns"]} == {"ks_two_sample", "chi_square_two_sample"}
    drifted = {column["column"] for column in compared["columns"] if column["state"] == "drift"}
    assert drifted == ({"score"} if shift else set())
    assert len({one["id"] for one in said}) == 3


def test_revisions_alike_are_never_called_apart() -> None:
    watched, windows = Watched.start(PROFILE), canary(np.random.default_rng(5), 0.0)
    states = {one["state"] for number in range(40) for one, _ in judged(watched, next(windows), number)}
    assert states == {"ok"}


def test_what_is_remembered_survives_a_snapshot_and_goes_on_alike() -> None:
    rng = np.random.default_rng(6)
    watched, windows = Watched.start(PROFILE), canary(rng, 0.6)
    for number in range(5):
        judged(watched, next(windows), number)
    again = Watched.from_mapping(PROFILE, json.loads(json.dumps(watched.to_mapping())))
    following = next(windows)
    assert judged(again, following, 5) == judged(watched, following, 5)
    assert again.latest() == watched.latest()


def test_the_timeline_is_bounded_and_a_revision_that_is_gone_is_forgotten() -> None:
    watched, rng = Watched.start(PROFILE), np.random.default_rng(7)
    judged(watched, taken(rng, old=200), 0)
    some = taken(rng, new=200)
    for number in range(1, REMEMBERED + 30):
        judged(watched, some, number)
    (identity,) = (who for who in watched.models if who.revision == "new")
    assert len(watched.models[identity].seen) == REMEMBERED
    judged(watched, some, 30 * 8640 // 10 + 50)
    assert [who.revision for who in watched.models] == ["new"]


def test_both_profiles_are_named_around_a_change(profile: Profile) -> None:
    watched = Watched.start(profile)
    part = Taken(Pane.empty(profile, profile.identity, (0, 10)), 0, {})
    ((said, telling),) = judged(watched, {profile.identity: part}, 0, previous="aa", following="bb")
    assert (said["profile"], said["previousprofile"], said["followingprofile"]) == (profile.digest, "aa", "bb")
    assert telling
