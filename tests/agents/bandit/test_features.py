"""Contexts become the same vectors in the learner and in serving, and none of them can spoil a sum."""

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backchannel.agents.bandit.features import (
    DERIVED,
    LIMIT,
    Categorical,
    Cross,
    Cyclic,
    Encoder,
    Feature,
    Hashed,
    Numeric,
    Value,
    context_of,
)
from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.sums import GRID
from backchannel.schemas.codec import EventDecoder, encode
from backchannel.schemas.events import Query
from backchannel.schemas.turn import Turn
from tests.support.turns import LAST, TEXTS, query

NAMES = st.sampled_from(["hour", "device", "driving", *DERIVED])
STRINGS = st.sampled_from(["car", "phone", "true", "false", "1.0", "en", ""])
NUMERICS = st.builds(
    Numeric,
    NAMES,
    center=(st.floats(-1e300, 1e300) | st.floats(-10, 10)).map(lambda center: center + 0.0),  # no -0.0
    scale=st.floats(1e-300, 1e300) | st.floats(0.1, 10),
)
CATEGORICALS = st.builds(Categorical, NAMES, st.lists(STRINGS, min_size=1, max_size=4, unique=True).map(tuple))
HASHED = st.builds(Hashed, NAMES, st.sampled_from([2, 5]))
CYCLIC = st.builds(Cyclic, NAMES, period=st.floats(1e-300, 1e300) | st.floats(1.0, 30.0), harmonics=st.integers(1, 3))


@st.composite
def feature_lists(draw: st.DrawFn) -> list[Feature]:
    plain = draw(
        st.lists(NUMERICS | CATEGORICALS | HASHED | CYCLIC, max_size=5, unique_by=lambda feature: feature.name)
    )
    if not plain:
        return []
    names = st.sampled_from([feature.name for feature in plain])
    crosses = draw(st.lists(st.builds(Cross, names, names), max_size=2, unique_by=lambda cross: cross.name))
    return [*plain, *crosses]


FEATURES = feature_lists()
SENT = st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | STRINGS
QUERIES = st.builds(
    query,
    st.integers(0, LAST),
    TEXTS | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5),
    interpretation=st.none() | TEXTS,
    locale=st.none() | STRINGS,
    context=st.dictionaries(NAMES, SENT, max_size=5),
)


@given(FEATURES, st.lists(QUERIES, max_size=4))
def test_serving_and_learning_encode_alike(features: list[Feature], queries: list[Query]) -> None:
    encoder = Encoder(features)
    vectors = encoder.vectors(columns_of([Turn(one) for one in queries]))
    assert vectors.shape == (len(queries), encoder.dimension)
    for vector, one in zip(vectors, queries, strict=True):
        sent = EventDecoder().decode(encode(one))
        assert isinstance(sent, Query)
        for served in (one, sent):
            assert encoder.encode(context_of(served)).tobytes() == vector.tobytes()


@given(FEATURES, st.dictionaries(NAMES, SENT | st.floats() | st.none() | st.integers(-(2**60), 2**60)))
def test_vectors_lie_on_the_grid_and_within_the_limit(features: list[Feature], context: dict[str, Value]) -> None:
    encoder = Encoder(features)
    vector = encoder.encode(context)
    assert vector.shape == (encoder.dimension,) == (len(encoder.columns),)
    assert vector[0] == 1
    assert (np.abs(vector) <= LIMIT).all()
    assert (vector * GRID % 1 == 0).all()
    for feature in features:
        if isinstance(feature, Categorical | Hashed):
            chosen = vector[[encoder.columns.index(column) for column in feature.columns]]
            assert set(chosen) <= {0.0, 1.0}
            assert chosen.sum() <= 1


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (4.0, 0.0),
        (6.0, 1.0),
        (4.0009, 0.0),
        (4.001, 1 / 1024),
        (True, -1.5),
        (1e308, LIMIT),
        (float("-inf"), -LIMIT),
        (float("nan"), 0.0),  # not from JSON, but from serving's own arithmetic
        ("6.0", 0.0),
        (None, 0.0),
    ],
)
def test_numbers(value: Value, encoded: float) -> None:
    assert Encoder([Numeric("hour", center=4, scale=2)]).encode({"hour": value}).tolist() == [1, encoded]


@pytest.mark.parametrize(
    ("value", "encoded"), [("car", 0), ("true", 1), (True, 1), (False, None), (1.0, None), ("bus", None), (None, None)]
)
def test_categories(value: Value, encoded: int | None) -> None:
    assert Categorical("device", ("car", "true")).encode(value) == encoded


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("query.words", 2.0),
        ("query.characters", 11.0),
        ("query.interpreted", True),
        ("query.locale", "en-GB"),
        ("time.hour", 13.0),
        ("time.weekday", 3.0),  # the epoch began on a Thursday
    ],
)
def test_derived_features(name: str, value: Value) -> None:
    asked = query(13 * 3_600_000 + 59, "Play jazz! ", interpretation="play", locale="en-GB", context={name: -1.0})
    assert context_of(asked)[name] == value


def test_nothing_has_no_words() -> None:
    assert context_of(query(text=" "))["query.words"] == 0


@given(FEATURES, FEATURES)
def test_the_fingerprint_tells_features_apart(one: list[Feature], two: list[Feature]) -> None:
    assert (Encoder(one).fingerprint == Encoder(two).fingerprint) == (one == two)
    again = msgspec.convert(msgspec.to_builtins(one), list[Feature])
    assert Encoder(again).fingerprint == Encoder(one).fingerprint


@pytest.mark.parametrize("field", ["center", "scale"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), "4"])
def test_a_feature_of_no_number_is_refused(field: str, value: Any) -> None:
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.convert({"kind": "numeric", "name": "hour", field: value}, Numeric)


def test_hashed_values_have_columns_of_their_own() -> None:
    feature = Hashed("artist", 64)
    places = [feature.encode(f"artist{number}") for number in range(200)]
    assert len(set(places)) > 50
    assert feature.encode(None) is None
    assert feature.encode(1) == feature.encode(1.0) != feature.encode(True)
    # As it is on every machine, for the sums are kept.
    assert feature.encode("abba") == 45


def test_a_cross_multiplies_columns() -> None:
    encoder = Encoder(
        [Numeric("hour", scale=2), Categorical("device", ("car", "tv")), Cross("hour", "device"), Cross("hour", "hour")]
    )
    assert encoder.columns[4:] == ("hour*device=car", "hour*device=tv", "hour*hour")
    assert encoder.encode({"hour": 3.0, "device": "tv"})[4:].tolist() == [0, 1.5, 2.25]
    assert encoder.encode({"hour": -1000.0, "device": "car"})[4:].tolist() == [-LIMIT, 0, LIMIT]


def test_a_cross_is_of_features_before_it() -> None:
    with pytest.raises(ValueError, match=r"cross hour\*device: 'device' is not"):
        Encoder([Numeric("hour"), Cross("hour", "device")])


def test_there_are_not_too_many_columns() -> None:
    with pytest.raises(ValueError, match="features: 1089 columns"):
        Encoder([Hashed("artist", 32), Hashed("album", 32), Cross("artist", "album")])


def test_a_cycle_has_no_seam() -> None:
    encoder = Encoder([Cyclic("time.hour", 24.0)])
    vectors = [encoder.encode({"time.hour": float(hour)}) for hour in range(24)]
    steps = [float(np.linalg.norm(one - other)) for one, other in zip(vectors, [*vectors[1:], vectors[0]], strict=True)]
    assert max(steps) == pytest.approx(min(steps), abs=0.01)
    assert np.array_equal(encoder.encode({"time.hour": 24.0}), vectors[0])
    assert not encoder.encode({"time.hour": "noon"})[1:].any()
