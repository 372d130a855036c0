"""Reward models, each fitted to other turns than those that it predicts."""

import numpy as np
from numpy.typing import NDArray

from backchannel.agents.sums import Floats

Integers = NDArray[np.int64]


def cross_fitted(contexts: Floats, drawn: Floats, rewards: Floats, folds: Integers, ridge: float) -> Floats:
    """Return q'_k(x_i), (turns, strategies): per strategy a ridge regression on the turns of all other folds.

    Cross-fitting (Chernozhukov et al., "Double/debiased machine learning", Econometrics Journal 2018) by a difference
    of sums: the Gram matrix of the other folds is that of all folds minus the fold's own. Strategies with little data
    are pulled towards a model of all strategies together.

    Args:
        contexts: encoded contexts, (turns, strategies, d), or (turns, 1, d) if all strategies share one; the first
            column is 1.
        drawn: 0 for a strategy that was not asked, 1 for one that was, or else the share of q that its reward is
            expected to be, (turns, strategies).
        rewards: rewards, (turns, strategies); ignored for strategies that were not asked.
        folds: the fold of each turn, (turns,), from 0; at least two. Dependent turns belong in the same fold.
        ridge: the strength of the pull, in turns.
    """
    dimension, strategies, count = contexts.shape[2], drawn.shape[1], int(folds.max(initial=0)) + 1
    shared = contexts.shape[1] == 1
    sums = np.zeros((count, strategies, dimension, dimension + 1))
    members = [folds == fold for fold in range(count)]
    for fold, own in enumerate(members):
        rows, shares, gains = contexts[own], drawn[own], rewards[own]
        for strategy in range(strategies):
            some = np.flatnonzero(shares[:, strategy])
            share = shares[some, strategy, np.newaxis]
            design = rows[some, 0 if shared else strategy] * share
            sums[fold, strategy, :, :-1] = design.T @ design
            sums[fold, strategy, :, -1] = design.T @ gains[some, strategy]
    others = sums.sum(axis=0) - sums
    identity = np.eye(dimension)
    pooled = others.sum(axis=1)
    common = np.linalg.solve(pooled[..., :-1] + 1e-6 * identity, pooled[..., -1:])[:, np.newaxis]
    theta = np.linalg.solve(others[..., :-1] + ridge * identity, others[..., -1:] + ridge * common)[..., 0]
    predicted = np.empty(drawn.shape)
    for own, weights in zip(members, theta, strict=True):
        predicted[own] = (contexts[own].swapaxes(0, 1) @ weights[..., np.newaxis])[..., 0].T
    return predicted


def folds_of(keys: NDArray[np.uint64], count: int) -> Integers:
    """Return the fold of each turn, (turns,), by a hash such as its session's: turns with the same hash share a
    fold.
    """
    return (keys % np.uint64(count)).astype(np.int64)
