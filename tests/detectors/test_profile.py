import contextlib
import dataclasses
import io
import json
import math
import zipfile

import drift_samples
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors import profile_file
from detectors.profile import Choices, Segment, build_profile
from detectors.profile_file import pack, read_profile, unpack, write_profile
from servelens.contract.errors import ConfigError, StateError
from servelens.contract.schema import Feature, ModelSchema, Outputs, parse_model
from servelens.contract.table import Table
from servelens.io.tables import read_table

PROFILE = drift_samples.profile_of(rows=6000)
PACKED = pack(PROFILE)
SMALL = ModelSchema(
    drift_samples.IDENTITY,
    (
        Feature("age", "numeric"),
        Feature("rooms", "integer"),
        Feature("garden", "boolean"),
        Feature("city", "categorical"),
    ),
    Outputs("probabilities", "", ("no", "yes")),
)


def zipped(**members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name.replace("_", "."), data)
    return out.getvalue()


def member(name):
    return zipfile.ZipFile(io.BytesIO(PACKED)).read(name)


def repacked(facts=None, bins=None):
    return zipped(profile_json=facts or member("profile.json"), columns_parquet=bins or member("columns.parquet"))


def test_columns_are_the_features_then_the_predictions():
    names = [feature.name for feature in drift_samples.FEATURES]
    assert [column.name for column in PROFILE.columns] == [*names, "score"]
    assert [column.family for column in PROFILE.columns] == ["feature"] * 20 + ["prediction"]
    assert PROFILE.rows == 6000
    assert all(column.rows == 6000 for column in PROFILE.columns)


def test_gamma_is_split_over_all_columns():
    assert sum(column.gamma for column in PROFILE.columns) == pytest.approx(0.01)


def test_the_schema_reads_as_a_model_yaml():
    assert parse_model(orjson.dumps(PROFILE.schema)) == drift_samples.MODEL
    assert PROFILE.identity == drift_samples.IDENTITY


def test_the_same_rows_and_seed_give_the_same_digest_whatever_the_time():
    table = drift_samples.draw(np.random.default_rng(0), 500)
    digests = [
        build_profile(table, drift_samples.MODEL, {"source": "a", "time": time}).digest
        for time in ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z")
    ]
    assert digests[0] == digests[1]
    others = [
        build_profile(table, drift_samples.MODEL, {"source": "b"}),
        build_profile(drift_samples.draw(np.random.default_rng(1), 500), drift_samples.MODEL, {"source": "a"}),
    ]
    assert len({digests[0], *(other.digest for other in others)}) == 3


def test_the_digest_is_pinned():
    """Whatever the platform, numpy or pyarrow: a change here makes every stored profile unreadable."""
    values = np.array([0.1, 0.2, 0.3, 1e300, -5e-324] * 40)
    table = Table.of({"x": values, "prediction": np.arange(200.0) % 7})
    model = ModelSchema(drift_samples.IDENTITY, (Feature("x", "numeric"),), Outputs("values"))
    profile = build_profile(table, model, {"source": "pinned", "time": "now"})
    assert [column.deff for column in profile.columns] == [1.0, 1.0]  # so no random shuffle reaches the digest
    assert profile.digest == "66c4d5793cd5368fa5d21022759915be7352102fa9ec82b5410082e542d7b916"


def test_progress_is_told_after_every_column():
    told = []
    table = drift_samples.draw(np.random.default_rng(0), 200)
    build_profile(table, drift_samples.MODEL, {}, progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 21) for done in range(1, 22)]


def test_fewer_than_a_hundred_rows_are_refused():
    with pytest.raises(ConfigError, match="99 rows"):
        build_profile(drift_samples.draw(np.random.default_rng(0), 99), drift_samples.MODEL, {})


def test_a_missing_feature_is_refused_by_name():
    table = drift_samples.draw(np.random.default_rng(0), 200)
    with pytest.raises(ConfigError, match="lacks n3"):
        build_profile(
            Table({name: column for name, column in table.columns.items() if name != "n3"}, 200),
            drift_samples.MODEL,
            {},
        )


def test_warnings_name_a_short_reference_missing_predictions_nulls_and_correlation():
    rng = np.random.default_rng(0)
    columns = dict(drift_samples.draw(rng, 2000).columns)
    del columns["score"]
    columns["n0"] = np.full(2000, math.nan)
    columns["n1"] = np.repeat(rng.normal(size=20), 100)
    columns["n4"] = np.where(np.arange(2000) % 100 < 10, columns["n1"], columns["n4"])
    warnings = build_profile(Table.of(columns), drift_samples.MODEL, {}).warnings
    assert [
        word for word in ("2000 rows", "no score", "n0 holds nothing", "n1 is too correlated") if word in str(warnings)
    ] == [
        "2000 rows",
        "no score",
        "n0 holds nothing",
        "n1 is too correlated",
    ]
    assert len(warnings) == 4
    assert PROFILE.warnings == ()


def test_a_profile_survives_its_file(tmp_path):
    path = tmp_path / "churn.profile"
    write_profile(PROFILE, path)
    again = read_profile(path)
    assert again.digest == PROFILE.digest
    assert again.to_mapping() == PROFILE.to_mapping()
    assert again.model == PROFILE.model
    assert list(tmp_path.iterdir()) == [path]
    values = drift_samples.draw(np.random.default_rng(9), 300).columns
    for before, after in zip(PROFILE.columns, again.columns, strict=True):
        assert before.count(values[before.name]).tolist() == after.count(values[before.name]).tolist()


def test_equal_profiles_are_equal_bytes():
    assert pack(unpack(PACKED)) == PACKED


def test_no_row_of_the_reference_is_in_the_file():
    rng = np.random.default_rng(0)
    secret = rng.normal(size=1000)
    profile = drift_samples.one_column(secret)
    held = {*profile.columns[0].bins.edges.tolist(), *pq.read_table(io.BytesIO(_bins(profile)))["value"].to_pylist()}
    assert held & set(secret.tolist()) == set()


def _bins(profile):
    return zipfile.ZipFile(io.BytesIO(pack(profile))).read("columns.parquet")


def test_no_file_is_the_operators_error_naming_the_path(tmp_path):
    with pytest.raises(ConfigError, match=r"missing\.profile"):
        read_profile(tmp_path / "missing.profile")


def test_a_damaged_file_names_itself_and_the_remedy(tmp_path):
    path = tmp_path / "bad.profile"
    path.write_bytes(PACKED[:-100])
    with pytest.raises(StateError, match=r"bad\.profile: .*servelens profile build"):
        read_profile(path)


def test_another_count_is_not_what_the_digest_says():
    bins = pq.read_table(io.BytesIO(member("columns.parquet"))).to_pydict()
    bins["count"][0] += 1
    bins["count"][1] -= 1
    out = io.BytesIO()
    pq.write_table(pa.table(bins, profile_file._SCHEMA), out, compression="none", use_dictionary=False)
    with pytest.raises(StateError, match="digest"):
        unpack(repacked(bins=out.getvalue()))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"format": 1}, "format 1"),
        ({"digest": "0" * 64}, "digest"),
        ({"rows": 5999}, "contradict"),
        ({"provenance": 1}, "damaged"),
        ({"columns": [1]}, "damaged"),
        ({"schema": {}}, "damaged"),
    ],
)
def test_a_changed_fact_is_refused(change, complaint):
    facts = {**json.loads(member("profile.json")), **change}
    with pytest.raises(StateError, match=complaint):
        unpack(repacked(facts=json.dumps(facts).encode()))


def test_a_column_that_contradicts_itself_is_refused():
    facts = json.loads(member("profile.json"))
    facts["columns"][0]["deff"] = 0.5
    with pytest.raises(StateError, match="column 'n0' contradicts itself"):
        unpack(repacked(facts=json.dumps(facts).encode()))


def test_a_zip_bomb_is_stopped_at_the_limit():
    bomb = zipped(profile_json=b" " * (profile_file.LARGEST + 1), columns_parquet=b"")
    assert len(bomb) < 1 << 20
    with pytest.raises(StateError, match="unpacks to more than"):
        unpack(bomb)


def test_bins_that_unpack_inside_parquet_are_refused():
    table = pq.read_table(io.BytesIO(member("columns.parquet")))
    for options in ({"compression": "zstd", "use_dictionary": False}, {"compression": "none", "use_dictionary": True}):
        out = io.BytesIO()
        pq.write_table(table, out, **options)
        with pytest.raises(StateError, match="not as"):
            unpack(repacked(bins=out.getvalue()))


def test_seasons_segment_and_series_survive_the_file():
    rng = np.random.default_rng(3)
    table = drift_samples.draw(rng, 4800)
    hours = np.arange(4800) // 100 % 24
    choices = Choices("hour-of-day", hours, Segment("c0", "level 1"), ["score", "n0"])
    profile = build_profile(table, drift_samples.MODEL, {"source": "seasons"}, choices)
    again = unpack(pack(profile))
    assert again.to_mapping() == profile.to_mapping()
    assert again.digest == profile.digest
    assert (again.season, str(again.segment), again.series) == ("hour-of-day", "c0=level 1", ("n0", "score"))
    assert again.rows == int((table.columns["c0"] == "level 1").sum())
    assert [column.seasonal.shape[0] for column in again.columns] == [24] * 21


@pytest.mark.parametrize(
    ("choices", "complaint"),
    [
        (Choices(season="hour-of-day"), "--season"),
        (Choices(season="weekly", season_of_row=np.zeros(200, np.int64)), "--season"),
        (Choices(segment=Segment("nothing", "1")), "--segment: there is no column"),
        (Choices(segment=Segment("n0", "one")), "--segment: 'one' is no number"),
        (Choices(segment=Segment("c0", "level 9")), "0 rows"),
        (Choices(series=["n99"]), "--series: there is no column n99"),
    ],
)
def test_a_choice_that_does_not_fit_is_refused_by_name(choices, complaint):
    with pytest.raises(ConfigError, match=complaint):
        build_profile(drift_samples.draw(np.random.default_rng(0), 200), drift_samples.MODEL, {}, choices)


def test_metrics_show_predictions_first_and_fifty_columns_at_most():
    features = tuple(Feature(f"x{at}", "numeric") for at in range(60))
    model = ModelSchema(drift_samples.IDENTITY, features, Outputs("values"))
    columns = {one.name: np.arange(200.0) for one in features} | {"prediction": np.arange(200.0)}
    series = build_profile(Table.of(columns), model, {}).series
    assert len(series) == 50
    assert "prediction" in series


def test_other_members_are_refused():
    with pytest.raises(StateError, match="other members"):
        unpack(zipped(profile_json=b"{}", columns_parquet=b"", evil_pickle=b""))


@given(st.integers(0, len(PACKED) - 1), st.integers(1, 255))
@settings(max_examples=80, deadline=None)
def test_a_flipped_byte_is_never_another_profile(at, mask):
    damaged = bytearray(PACKED)
    damaged[at] ^= mask
    with contextlib.suppress(StateError):
        assert unpack(bytes(damaged)).to_mapping() == PROFILE.to_mapping()  # a byte nobody reads, as a zip's dates


def test_csv_keeps_text_and_knows_missing_numbers(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('age,extra,rooms,garden,city,score\n1.5,x,2,true,"NA",0.5\nNA,y,,False,,nan\n-inf,z,4,1,007,1\n')
    table = read_table(path, SMALL)
    assert list(table.columns) == ["age", "rooms", "garden", "city", "score"]
    assert table.columns["city"].tolist() == ["NA", None, "007"]
    np.testing.assert_array_equal(table.columns["age"], [1.5, math.nan, -math.inf])
    np.testing.assert_array_equal(table.columns["rooms"], [2, math.nan, 4])
    np.testing.assert_array_equal(table.columns["garden"], [1, 0, 1])
    np.testing.assert_array_equal(table.columns["score"], [0.5, math.nan, 1])


def test_parquet_and_csv_of_the_same_rows_are_the_same_table(tmp_path):
    rows = {
        "age": [1.5, None],
        "rooms": pa.array([3, None], pa.int16()),
        "garden": [True, None],
        "city": pa.array(["Rome", None]).dictionary_encode(),
    }
    pq.write_table(pa.table(rows), tmp_path / "rows.parquet")
    (tmp_path / "rows.csv").write_text("age,rooms,garden,city\n1.5,3,true,Rome\n,,,\n")
    left, right = read_table(tmp_path / "rows.parquet", SMALL), read_table(tmp_path / "rows.csv", SMALL)
    assert left.columns["city"].tolist() == right.columns["city"].tolist() == ["Rome", None]
    for name in ("age", "rooms", "garden"):
        np.testing.assert_array_equal(left.columns[name], right.columns[name])


def test_integers_of_a_coded_column_are_indices_of_its_categories(tmp_path):
    features = (Feature("city", "categorical", ("Rome", "Oslo")),)
    model = dataclasses.replace(SMALL, features=features)
    pq.write_table(pa.table({"city": [1, 0, None]}), tmp_path / "rows.parquet")
    assert read_table(tmp_path / "rows.parquet", model).columns["city"].tolist() == ["Oslo", "Rome", None]
    pq.write_table(pa.table({"city": [2]}), tmp_path / "rows.parquet")
    with pytest.raises(ConfigError, match="city"):
        read_table(tmp_path / "rows.parquet", model)


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_missing_columns_are_named(tmp_path, name):
    table = pa.table({"age": [1.0], "city": ["Rome"]})
    if name.endswith("csv"):
        (tmp_path / name).write_text("age,city\n1,Rome\n")
    else:
        pq.write_table(table, tmp_path / name)
    with pytest.raises(ConfigError, match="lacks the columns rooms, garden"):
        read_table(tmp_path / name, SMALL)


def test_text_in_a_numeric_column_is_named(tmp_path):
    (tmp_path / "rows.csv").write_text("age,rooms,garden,city\nold,1,true,Rome\n")
    with pytest.raises(ConfigError, match="column age is not numeric"):
        read_table(tmp_path / "rows.csv", SMALL)


@pytest.mark.parametrize(
    ("name", "text"), [("rows.xls", "x"), ("rows.parquet", "x"), ("rows.csv", ""), ("no.csv", None)]
)
def test_an_unreadable_file_is_named(tmp_path, name, text):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=name):
        read_table(tmp_path / name, SMALL)


def test_a_file_becomes_the_profile_its_table_has(tmp_path):
    table = drift_samples.draw(np.random.default_rng(3), 400)
    pq.write_table(pa.table({name: pa.array(column) for name, column in table.columns.items()}), tmp_path / "r.parquet")
    read = build_profile(read_table(tmp_path / "r.parquet", drift_samples.MODEL), drift_samples.MODEL, {})
    assert read.digest == build_profile(table, drift_samples.MODEL, {}).digest
