import dataclasses
import json
import time

import drift_samples
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.pane import LARGEST, MOST_COUNTERS, Pane, total
from servelens.contract.errors import PayloadError
from servelens.contract.identity import ModelIdentity
from servelens.contract.table import Table, concat

PROFILE = drift_samples.profile_of(rows=2000)
OTHER = drift_samples.profile_of(seed=1, rows=2000)
WIDE = st.lists(
    st.fixed_dictionaries(
        {
            "n0": st.floats(),
            "n2": st.sampled_from([0.0, 1.0, float("nan")]),
            "c1": st.sampled_from(["level 0", "level 2", "never seen", None]),
            "children": st.sampled_from([0.0, 1.0, 9.0]),
        }
    ),
    min_size=1,
    max_size=30,
)


def table_of(rows):
    text = {"c1"}
    return Table.of(
        {name: np.array([row[name] for row in rows], object if name in text else np.float64) for name in rows[0]}
    )


def part(table, rows):
    return Table({name: column[rows] for name, column in table.columns.items()}, len(rows))


@given(WIDE, st.data())
@settings(max_examples=60, deadline=None)
def test_any_split_into_panes_and_any_order_of_addition_gives_the_same_bits(rows, data):
    table = table_of(rows)
    owner = data.draw(st.lists(st.integers(0, 4), min_size=len(rows), max_size=len(rows)))
    panes = [
        Pane.of(
            PROFILE, part(table, [at for at, pane in enumerate(owner) if pane == number]), slot=7, counters={"late": 1}
        )
        for number in range(5)
    ]
    ordered = total(data.draw(st.permutations(panes)))
    paired = total([panes[3].add(panes[1]), total([panes[0], panes[4]]), panes[2]])
    whole = Pane.of(PROFILE, table, slot=7, counters={"late": 5})
    assert json.dumps(ordered.to_mapping()) == json.dumps(paired.to_mapping()) == json.dumps(whole.to_mapping())


@given(WIDE)
@settings(max_examples=40, deadline=None)
def test_a_pane_survives_json(rows):
    pane = Pane.of(PROFILE, table_of(rows), slot=-3, exchanges=2, counters={"undecodable": 4})
    again = Pane.from_mapping(PROFILE, json.loads(json.dumps(pane.to_mapping())))
    assert again.to_mapping() == pane.to_mapping()
    assert again.counts.dtype == np.int64
    assert again.identity == pane.identity


def test_every_row_is_counted_once_in_every_column_of_the_table():
    pane = Pane.of(PROFILE, drift_samples.draw(np.random.default_rng(0), 300), exchanges=12)
    assert [int(counts.sum()) for counts in pane.split()] == [300] * 21
    assert (pane.rows, pane.exchanges, pane.slots) == (300, 12, (0, 1))
    assert pane.column("c1").tolist() == pane.split()[15].tolist()
    assert pane.column("c1").sum() == 300


def test_a_column_the_table_lacks_counts_nothing_and_a_strange_one_is_passed_over():
    table = drift_samples.draw(np.random.default_rng(0), 50)
    columns = {name: column for name, column in table.columns.items() if name != "score"}
    pane = Pane.of(PROFILE, Table.of({**columns, "strange": np.zeros(50)}))
    assert pane.column("score").sum() == 0
    assert pane.column("n0").sum() == 50


def test_text_where_the_profile_has_numbers_is_refused_by_name():
    with pytest.raises(PayloadError, match="n0"):
        Pane.of(PROFILE, Table.of({"n0": np.array(["1"], object)}))


def test_adding_joins_slots_rows_and_counters():
    table = drift_samples.draw(np.random.default_rng(0), 10)
    early = Pane.of(PROFILE, table, slot=3, exchanges=2, counters={"late": 1})
    later = Pane.of(PROFILE, table, slot=9, exchanges=3, counters={"late": 2, "undecodable": 5})
    both = later.add(early)
    assert (both.slots, both.rows, both.exchanges) == ((3, 10), 20, 5)
    assert both.counters == {"late": 3, "undecodable": 5}


def test_the_empty_pane_changes_nothing_but_the_slots():
    pane = Pane.of(PROFILE, drift_samples.draw(np.random.default_rng(0), 10), slot=4)
    both = pane.add(Pane.empty(PROFILE, pane.identity, (2, 8)))
    assert both.to_mapping() == {**pane.to_mapping(), "slots": [2, 8]}


def test_panes_of_different_models_or_profiles_are_not_added():
    table = drift_samples.draw(np.random.default_rng(0), 10)
    pane = Pane.of(PROFILE, table)
    for other in (Pane.of(OTHER, table), Pane.of(PROFILE, table, identity=ModelIdentity("a", "b"))):
        with pytest.raises(PayloadError, match="another"):
            pane.add(other)


GOOD = Pane.of(
    PROFILE, drift_samples.draw(np.random.default_rng(5), 20), exchanges=1, counters={"late": 1}
).to_mapping()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"profile": OTHER.digest}, r"pane\.profile"),
        ({"identity": None}, r"pane\.identity"),
        ({"identity": {"namespace": 1}}, r"pane\.identity"),
        ({"slots": [1]}, r"pane\.slots"),
        ({"slots": [2, 2]}, r"pane\.slots"),
        ({"slots": [0, True]}, r"pane\.slots"),
        ({"slots": [[], 1]}, r"pane\.slots"),
        ({"rows": -1}, r"pane\.rows"),
        ({"rows": 19}, "more than the pane's 19 rows"),
        ({"rows": LARGEST + 1}, r"pane\.rows"),
        ({"rows": 20.0}, r"pane\.rows"),
        ({"exchanges": None}, r"pane\.exchanges"),
        ({"counters": {"late": -1}}, r"pane\.counters\.late"),
        ({"counters": {"Late rows": 1}}, r"pane\.counters"),
        ({"counters": {f"c{at}": 1 for at in range(MOST_COUNTERS + 1)}}, r"pane\.counters"),
        ({"counts": None}, "expected a text"),
        ({"counts": [1]}, "expected a text"),
        ({"counts": True}, "expected a text"),
        ({"counts": "1.0"}, "expected integers"),
        ({"counts": "1  2"}, "expected integers"),
        ({"counts": " 1"}, "expected integers"),
        ({"counts": "one"}, "expected integers"),
        ({"counts": "9" * 30}, "expected integers"),
        ({"counts": "٣"}, "expected integers"),
        ({"counts": "0"}, "not the counts"),
        ({"counts": "1 -3"}, "not the counts"),
        ({"counts": "-1 -2 1"}, "not the counts"),
        ({"counts": f"-{PROFILE.width} 1"}, "not the counts"),
        ({"counts": f"-{10**17} -{10**17} 1"}, "not the counts"),
        ({"counts": f"{LARGEST + 1}"}, "not the counts"),
        ({"counts": "21"}, "more than the pane's 20 rows"),
    ],
)
def test_what_is_no_pane_of_this_profile_is_refused_by_field(change, complaint):
    with pytest.raises(PayloadError, match=complaint):
        Pane.from_mapping(PROFILE, {**GOOD, **change})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(GOOD)), JSON)
@settings(max_examples=120, deadline=None)
def test_anything_in_any_field_is_a_pane_or_a_payload_error(name, value):
    try:
        pane = Pane.from_mapping(PROFILE, {**GOOD, name: value})
    except PayloadError:
        return
    assert pane.counts.min() >= 0
    assert max(counts.sum() for counts in pane.split()) <= pane.rows


def test_binning_many_one_row_events_together_costs_microseconds_a_row():
    events = [drift_samples.draw(np.random.default_rng(at), 1) for at in range(500)]
    table = concat(events)

    def seconds():
        start = time.perf_counter()
        Pane.of(PROFILE, table)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(20)) / 500 < 15e-6


def test_a_pane_is_frozen():
    pane = Pane.of(PROFILE, drift_samples.draw(np.random.default_rng(0), 10))
    with pytest.raises(dataclasses.FrozenInstanceError):
        pane.rows = 3  # type: ignore[misc]
