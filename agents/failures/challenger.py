"""Gradient boosting on the evidence of failure points: compared with the ridge, and used nowhere.

It is no sum: it is trained from a sample of labelled turns, see `sample`, and anew whenever that changes. So it is
trained when an operator asks how good it would be, and never when a version is published.
"""

from importlib.util import find_spec
from typing import Final

import numpy as np

from backchannel.agents.failures.evidence import BINS
from backchannel.agents.sums import Floats

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
    """Return whether LightGBM is installed: it is an extra."""
    return find_spec("lightgbm") is not None


def boosted(features: Floats, labels: Floats, tested: Floats) -> Floats:
    """Return the probabilities of failure points, (tested, points), by LightGBM: the mean of a few models, balanced.

    Settings and balance were chosen by folds of one half of DSTC2's callers.

    Args:
        features: what `features_of` returns for the turns to learn from, (turns, features).
        labels: the weight of each failure point's labels, (turns, points).
        tested: what `features_of` returns for the turns to tell, (tested, features).

    Raises:
        ModuleNotFoundError: LightGBM is not installed.
    """
    import lightgbm  # noqa: PLC0415 - an extra

    rows, truth = np.nonzero(labels)
    points = labels.shape[1]
    settings = _SETTINGS | {"objective": "multiclass", "num_class": points, "verbosity": -1, "num_threads": 1}
    told = np.zeros((len(tested), points))
    for seed in _SEEDS:
        learned = lightgbm.Dataset(features[rows], truth, weight=labels[rows, truth])
        told += lightgbm.train(settings | {"seed": seed}, learned, _ROUNDS).predict(tested)
    told /= (np.maximum(labels.sum(axis=0), 1.0) / labels.sum()) ** _BALANCE
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
