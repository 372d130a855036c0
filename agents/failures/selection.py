"""Which turns to label next: those whose label is expected to teach most."""

import numpy as np
from numpy.random import Generator

from backchannel.agents.labelled.ridge import Model
from backchannel.agents.sums import Floats, Integers


def next_to_label(model: Model | None, vectors: Floats, count: int, rng: Generator) -> Integers:
    """Return the indexes of at most `count` turns, the most instructive first; drawn at random without a model.

    These are the turns for which the two most probable failure points are about equally probable (margin sampling;
    Settles, "Active learning literature survey", 2009).

    Args:
        model: what is known from the labels so far; None if that is nothing.
        vectors: the evidence of the turns without labels, (turns, width).
        count: the number of turns wanted.
        rng: the source of randomness.
    """
    order = rng.permutation(len(vectors))
    if model is not None:
        second, first = np.partition(model.probabilities(vectors[order]), -2, axis=1)[:, -2:].T
        order = order[np.argsort(first - second, kind="stable")]
    return order[:count]
