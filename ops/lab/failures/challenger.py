"""Gradient boosting on the evidence of failure points: shown beside the learner, and used nowhere.

It is no sum, so it would have to keep a sample of labelled turns, and learn it anew for each version.
"""

from importlib.util import find_spec
from typing import Final

import numpy as np

from backchannel.agents.failures.evidence import BINS
from backchannel.agents.sums import Floats, Integers

_SEEDS: Final = (1, 2, 3)
_ROUNDS: Final = 200
_SETTINGS: Final = {
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_data_in_leaf": 20,
    "feature_fraction": 0.3,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 1.0,
}
_BALANCE: Final = 0.3
"""Probabilities are divided by the failure points' shares to this power: 0 is best for accuracy, more for macro-F1."""


def is_there() -> bool:
    """Return whether LightGBM is installed; `make rivals` installs it."""
    return find_spec("lightgbm") is not None


def boosted(features: Floats, truth: Integers, own: Integers, tested: Integers, points: int) -> Floats:
    """Return the probabilities of failure points, (tested, points), by LightGBM: the mean of a few models, balanced.

    Settings and balance were chosen by folds of one half of DSTC2's callers.

    Args:
        features: what `features_of` returns for all turns.
        truth: index of each turn's failure point, (turns,).
        own: indexes of the turns to learn from.
        tested: indexes of the turns to tell.
        points: the number of failure points.
    """
    import lightgbm  # noqa: PLC0415 - for comparison only

    settings = _SETTINGS | {"objective": "multiclass", "num_class": points, "verbosity": -1, "num_threads": 1}
    told = np.zeros((len(tested), points))
    for seed in _SEEDS:
        model = lightgbm.train(settings | {"seed": seed}, lightgbm.Dataset(features[own], truth[own]), _ROUNDS)
        told += model.predict(features[tested])
    shares = np.maximum(np.bincount(truth[own], minlength=points), 1) / len(own)
    told /= shares**_BALANCE
    return np.asarray(told / told.sum(axis=1, keepdims=True))


def features_of(vectors: Floats) -> Floats:
    """Return vectors with a column per number, its bin, or NaN if it is unknown: trees need no column per bin."""
    columns, start = [], 1
    for edges in BINS.values():
        size = len(edges) + 2
        places = vectors[:, start : start + size].argmax(axis=1)
        columns.append(np.where(places == 0, np.nan, places))
        start += size
    return np.column_stack((*columns, vectors[:, start:]))
