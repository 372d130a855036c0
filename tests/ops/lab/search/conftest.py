"""What the tests of the lab's search engine share."""

import pytest

from backchannel.ops.lab.search.build import build
from backchannel.ops.lab.search.corpus import Corpus
from backchannel.ops.lab.search.generated import generated_corpus
from backchannel.ops.lab.search.harness import Harness


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def made_up() -> Corpus:
    """A small catalogue with simulated queries."""
    return generated_corpus(1, documents=300, queries=120)


@pytest.fixture(scope="session")
def harness(made_up: Corpus, cache_folder: str) -> Harness:
    """What strategies find in it; without embeddings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", cache_folder)
        return build(made_up, seed=1)
