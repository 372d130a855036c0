"""What is packed comes back as it was: every value, and the type and shape of every array."""

import pickle

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import (
    array_shapes,
    arrays,
    boolean_dtypes,
    floating_dtypes,
    integer_dtypes,
    unsigned_integer_dtypes,
)
from numpy.typing import NDArray

from backchannel.streams.worker.packing import packed

ARRAYS = st.one_of(integer_dtypes(), unsigned_integer_dtypes(), floating_dtypes(), boolean_dtypes()).flatmap(
    lambda kind: arrays(kind, array_shapes(min_dims=0, max_dims=3, min_side=0))
)


@given(st.lists(ARRAYS))
def test_arrays_keep_their_values_types_and_shapes(several: list[NDArray[np.generic]]) -> None:
    for before, after in zip(several, pickle.loads(packed(several)), strict=True):
        assert (after.dtype, after.shape) == (before.dtype, before.shape)
        assert after.tobytes() == before.tobytes()


def test_small_numbers_take_few_bytes() -> None:
    varied, same = np.arange(10_000) % 100, np.full(10_000, -1)
    assert len(packed(varied)) < 1.1 * len(varied)
    assert len(packed(same)) < 1_000
