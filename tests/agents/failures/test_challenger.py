"""Gradient boosting on the evidence of failure points."""

import numpy as np
import pytest

from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.failures.challenger import boosted, features_of, is_there
from backchannel.agents.failures.evidence import BINS, evidence, vectors
from tests.agents.failures.test_learner import LABELLED

needs_lightgbm = pytest.mark.skipif(not is_there(), reason="LightGBM is not installed")


@needs_lightgbm
def test_it_tells_rare_failure_points_more_often_than_they_are_most_probable() -> None:
    rng = np.random.default_rng(1)
    truth = (rng.random(400) < 0.1).astype(np.int64)
    features = rng.normal(size=(400, 3)) + truth[:, None]
    found = boosted(features[:300], np.eye(3)[truth[:300]], features[300:])
    assert np.allclose(found.sum(axis=1), 1.0)
    assert found[truth[300:] == 1, 1].mean() > 2 * found[truth[300:] == 0, 1].mean()
    assert found[:, 1].mean() > 0.1
    assert found[:, 2].max() < 0.1


@needs_lightgbm
def test_labellers_who_disagree_have_equal_shares() -> None:
    features = np.repeat([[0.0], [1.0]], 100, axis=0)
    labels = np.repeat([[0.5, 0.5], [0.0, 1.0]], 100, axis=0)
    disputed, clear = boosted(features, labels, np.array([[0.0], [1.0]]))
    assert disputed[0] > 0.4
    assert clear[0] < 0.1


def test_trees_get_a_column_per_number() -> None:
    every = vectors((one.values() for one in evidence(columns_of(LABELLED))), len(LABELLED))
    found = features_of(every)
    assert found.shape[1] == every.shape[1] - 1 - sum(len(edges) + 1 for edges in BINS.values())
    known = np.nan_to_num(found).astype(bool).sum(axis=1) + np.isnan(found).sum(axis=1)
    assert (known == every[:, 1:].sum(axis=1)).all()
