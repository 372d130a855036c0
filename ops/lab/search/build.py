"""Building a harness: the results of every generator for every query, kept in the cache."""

import time
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from backchannel.ops.lab.search import cache
from backchannel.ops.lab.search.corpus import Corpus
from backchannel.ops.lab.search.generators.base import Found, Generator
from backchannel.ops.lab.search.generators.browse import Browse
from backchannel.ops.lab.search.generators.lexical import AllWords, Lexical, TextIndex, Trigrams
from backchannel.ops.lab.search.generators.structured import Structured, Understanding
from backchannel.ops.lab.search.harness import DEPTH, Harness
from backchannel.ops.lab.search.query_features import features_of
from backchannel.ops.progress import Progress

if TYPE_CHECKING:
    from backchannel.ops.lab.search.generators.dense import Dense
    from backchannel.ops.lab.search.generators.encoder import SentenceEncoder

FORMAT: Final = 1
"""Version of the cache's contents; to be raised with every change of a generator or a feature."""


def quiet(what: str, share: float) -> None:
    """Show nothing."""


class Engine(Struct, frozen=True):
    """All generators over one catalogue.

    Attributes:
        generators: generators by name, in the order in which ties are broken.
        index, understanding: the sources of query features.
        seconds: processor time to build each index, s.
        dense: the dense generator, if there is one.
    """

    generators: Mapping[str, Generator]
    index: TextIndex
    understanding: Understanding
    seconds: Mapping[str, float]
    dense: "Dense | None" = None

    def prepare(self, queries: Sequence[str]) -> None:
        """Encode queries that will be asked: a batch takes less time than single queries."""
        if self.dense is not None:
            self.dense.prepare(queries)

    def find(self, query: str, depth: int) -> dict[str, Found]:
        """Ask every generator."""
        return {name: generator.find(query, depth) for name, generator in self.generators.items()}

    def features(self, query: str, found: Mapping[str, Found]) -> dict[str, float]:
        """Return the features of `query`, given what the generators found."""
        return features_of(query, self.index, self.understanding, found["lexical"], found.get("dense"))


def popularity(corpus: Corpus, queries: Sequence[int]) -> NDArray[np.float64]:
    """Return the number of `queries` for which each document is relevant, (documents,), as a proxy of past clicks."""
    count = np.zeros(len(corpus.documents))
    for query in queries:
        for doc_id in corpus.relevant(corpus.queries[query]):
            count[corpus.number[doc_id]] += 1
    return count


def engine(
    corpus: Corpus, popular: NDArray[np.float64], encoder: "SentenceEncoder | None", progress: Progress = quiet
) -> Engine:
    """Build all generators.

    Args:
        corpus: the catalogue.
        popular: past clicks of each document, (documents,).
        encoder: the encoder of the strategy `dense`; None to leave it out.
        progress: called at every step.
    """
    seconds: dict[str, float] = {}
    began = time.process_time()

    def done(what: str) -> None:
        nonlocal began
        now = time.process_time()
        seconds[what] = now - began
        began = now
        progress(what, 1.0)

    documents = corpus.documents
    dense: Dense | None = None
    index = TextIndex(documents)
    done("text index")
    understanding = Understanding(documents)
    structured = Structured(documents, understanding)
    done("query understanding")
    generators: dict[str, Generator] = {
        "lexical": Lexical(index),
        "all_words": AllWords(index),
        "trigrams": Trigrams(index),
    }
    if encoder is not None:
        from backchannel.ops.lab.search.generators import dense as embedded  # noqa: PLC0415 - an extra

        generators["dense"] = dense = embedded.Dense(documents, encoder, lambda share: progress("embeddings", share))
        done("embeddings")
    generators["structured"] = structured
    generators["popular"] = Browse(understanding, popular)
    released = [document.released for document in documents]
    if any(released):
        generators["new"] = Browse(understanding, released)
    return Engine(generators, index, understanding, seconds, dense)


def build(
    corpus: Corpus,
    seed: int,
    encoder: "SentenceEncoder | None" = None,
    *,
    held_out: float = 0.3,
    depth: int = DEPTH,
    progress: Progress = quiet,
) -> Harness:
    """Return the harness of a corpus, from the cache if possible; else ask every generator for every query.

    Args:
        corpus: a corpus with judged queries.
        seed: the seed of the split into training and held-out queries, which `popular` depends on.
        encoder: the encoder of the strategy `dense`; None to leave it out.
        held_out: share of queries to hold out, 0 to 1.
        depth: number of ranks of each list to keep.
        progress: called at every step.
    """
    key = f"{FORMAT}|{corpus.fingerprint}|{seed}|{held_out}|{depth}|{encoder.key if encoder else ''}"

    def make() -> dict[str, NDArray[np.generic]]:
        none = np.empty((len(corpus.queries), 0, 1), np.int32)
        split = Harness(
            corpus,
            (),
            none,
            none[:, :, 0],
            feature_names=(),
            features=none[:, :, 0].astype(float),
            seed=seed,
            held_out_share=held_out,
        )
        searching = engine(corpus, popularity(corpus, split.train.tolist()), encoder, progress)
        if encoder is not None:
            searching.prepare([query.text for query in corpus.queries])
        lists = np.full((len(corpus.queries), len(searching.generators), depth), -1, np.int32)
        totals = np.zeros(lists.shape[:2], np.int32)
        features = []
        for number, query in enumerate(corpus.queries):
            found = searching.find(query.text, depth)
            for place, one in enumerate(found.values()):
                lists[number, place, : len(one.places)] = one.places
                totals[number, place] = one.total
            features.append(searching.features(query.text, found))
            progress("lists", (number + 1) / len(corpus.queries))
        return {
            "strategies": np.array(list(searching.generators)),
            "lists": lists,
            "totals": totals,
            "feature_names": np.array(list(features[0])),
            "features": np.array([list(row.values()) for row in features]),
        }

    kept = cache.arrays("search", blake2b(key.encode(), digest_size=12).hexdigest(), make)
    strategies, names = kept["strategies"].tolist(), kept["feature_names"].tolist()
    return Harness(
        corpus,
        strategies,
        kept["lists"],
        kept["totals"],
        feature_names=names,
        features=kept["features"],
        seed=seed,
        held_out_share=held_out,
    )
