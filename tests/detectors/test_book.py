"""Which profiles count a payload, and from which slot on."""

from dataclasses import replace

import numpy as np
import pytest

from detectors.activation import Announced, records
from detectors.book import Book
from detectors.profile import Choices, Profile, Segment, build_profile
from servelens.contract.errors import PayloadError
from servelens.contract.identity import ModelIdentity
from servelens.contract.schema import Feature, ModelSchema, Outputs
from servelens.contract.table import Table

US = 1_000_000
ASKED = ModelIdentity("shop", "risk", "predictor", "risk", "r1")
ANY = replace(ASKED, revision="")


def made(source: str, identity: ModelIdentity = ANY, segment: Segment | None = None) -> Profile:
    rng = np.random.default_rng(0)
    model = ModelSchema(identity, (Feature("x", "numeric"), Feature("city", "categorical")), Outputs("values"))
    table = Table.of({"x": rng.normal(size=400), "city": np.array(["Bern", "Graz"] * 200, object)})
    return build_profile(table, model, {"source": source}, Choices(segment=segment))


OLD, NEW = made("old"), made("new")


def test_an_announced_profile_counts_from_the_first_whole_slot_after_its_moment() -> None:
    book = Book([OLD], slot_seconds=10)
    book.announce(NEW, 1005 * US)
    assert [book.find(ASKED, slot)[0].digest for slot in (0, 100, 101, 500)] == [OLD.digest] * 2 + [NEW.digest] * 2
    reign = book.line_of(OLD).reign(100, 10)
    assert (reign.since, reign.until, reign.previous, reign.following) == (-1, 101, "", NEW.digest)
    assert book.line_of(OLD).reign(101, 10).previous == OLD.digest


def test_a_profile_may_come_back() -> None:
    book = Book([OLD], slot_seconds=10)
    book.announce(OLD, 3000 * US)
    book.announce(NEW, 1000 * US)  # told in whatever order
    assert [book.find(ASKED, slot)[0].digest for slot in (99, 100, 299, 300)] == [
        OLD.digest, NEW.digest, NEW.digest, OLD.digest,
    ]  # fmt: skip
    assert book.line_of(OLD).reign(400, 10).since == 300


def test_of_two_for_one_moment_the_later_told_counts() -> None:
    book = Book([OLD])
    book.announce(NEW, 5 * US)
    book.announce(OLD, 5 * US)
    assert book.find(ASKED, 90)[0].digest == OLD.digest


def test_before_the_first_announcement_nothing_counts() -> None:
    book = Book([], slot_seconds=10)
    book.announce(NEW, 1000 * US)
    assert book.find(ASKED, 99) == ()
    assert book.find(ASKED, 100) == (NEW,)


def test_segments_count_beside_the_whole_and_each_has_its_own_line() -> None:
    bern, graz = (made("s", segment=Segment("city", name)) for name in ("Bern", "Graz"))
    book = Book([bern, OLD, graz])
    assert book.find(ASKED, 0) == (OLD, bern, graz)
    book.announce(NEW, 1000 * US)
    assert book.find(ASKED, 500) == (NEW, bern, graz)


def test_two_files_that_fit_equally_well_count_for_nothing_and_a_more_exact_one_wins() -> None:
    assert Book([OLD, NEW]).find(ASKED, 0) == ()
    exact = made("exact", ASKED)
    assert Book([OLD, exact]).find(ASKED, 0) == (exact,)
    assert Book([OLD, exact]).find(replace(ASKED, revision="r2"), 0) == (OLD,)
    assert Book([exact]).find(replace(ASKED, namespace="other"), 0) == ()


def test_a_profile_survives_the_topic() -> None:
    announced, found = Announced(), []
    for key, value in records(NEW, 77 * US):
        found.append(announced.offer(key, value))
    assert found[:-1] == [None] * (len(found) - 1)
    profile, from_us = found[-1]
    assert (profile.digest, from_us) == (NEW.digest, 77 * US)


def test_a_head_without_its_chunks_and_foreign_records_are_refused() -> None:
    *chunks, (key, head) = records(NEW, 0)
    assert chunks
    for announced, row in ((Announced(), (key, head)), (Announced(), (b"what", b"{}"))):
        with pytest.raises(PayloadError, match="profiles"):
            announced.offer(*row)
    torn = Announced()
    torn.offer(chunks[0][0], chunks[0][1][:-1])
    with pytest.raises(PayloadError, match="not those of its head"):
        torn.offer(key, head)
