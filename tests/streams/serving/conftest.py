"""A pipeline that publishes to a store, and a reader of it, on each kind of store."""

from collections.abc import Iterator

import numpy as np
import pytest

from backchannel.streams.config import Config
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.serving.reader import PolicyReader


@pytest.fixture
def url(store_url: str) -> str:
    return store_url


@pytest.fixture
def pipeline(url: str) -> Iterator[LocalPipeline]:
    with LocalPipeline(url, Config(), "test") as pipeline:
        yield pipeline


@pytest.fixture
def reader(url: str) -> Iterator[PolicyReader]:
    reader = PolicyReader(url, rng=np.random.default_rng(7))
    yield reader
    reader.close()
