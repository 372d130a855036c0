"""Prediction files: predicted scores and new entities, as JSON lines, CSV or Parquet."""

import csv
import importlib.util
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

import msgspec
import orjson
from msgspec import Meta, Struct

from backchannel.agents.memory.proposals import Entity
from backchannel.schemas.codec import explain
from backchannel.schemas.errors import BackchannelError
from backchannel.schemas.events import Id, Text
from backchannel.schemas.text import normalize
from backchannel.streams.extras import install

SEPARATOR: Final = "|"
"""Separates the aliases of an entity in a CSV file."""


class Prediction(Struct, frozen=True):
    """A predicted score: a line of type `prediction`, which is the default."""

    query: Annotated[Text, Meta(min_length=1)]
    entity_id: Id
    score: Annotated[float, Meta(ge=0, le=1)]


class BadLine(Struct, frozen=True):
    """An invalid line, and the reason."""

    line: int
    reason: str


Line: TypeAlias = Prediction | Entity | BadLine
_KINDS: Final[dict[str, type[Prediction | Entity]]] = {"prediction": Prediction, "entity": Entity}
_FIELDS: Final = {name: {*struct.__struct_fields__, "type"} for name, struct in _KINDS.items()}


class PredictionFileError(BackchannelError, RuntimeError):
    """The file cannot be read; the message says why."""


class PredictionFile:
    """Reads a prediction file.

    Args:
        path: the file; CSV if its suffix is .csv, Parquet if it is .parquet, otherwise JSON lines.

    Attributes:
        unknown: columns that were ignored, in order of appearance.
    """

    def __init__(self, path: Path) -> None:
        self._path: Final = path
        self.unknown: dict[str, None] = {}

    def lines(self) -> Iterator[Line]:
        """Yield the contents of each line that is not blank.

        Raises:
            PredictionFileError: the file cannot be read.
        """
        read = {".csv": self._csv, ".parquet": self._parquet}.get(self._path.suffix, self._json)
        try:
            for number, record in read():
                yield record if isinstance(record, BadLine) else self._decode(number, record)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise PredictionFileError(f"{self._path}: {error}") from None

    def _json(self) -> Iterator[tuple[int, dict[str, Any] | BadLine]]:
        with self._path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    record = orjson.loads(line)
                except orjson.JSONDecodeError as error:
                    yield number, BadLine(number, f"line: invalid JSON ({error})")
                    continue
                yield number, record if isinstance(record, dict) else BadLine(number, "line: not a JSON object")

    def _csv(self) -> Iterator[tuple[int, dict[str, Any] | BadLine]]:
        with self._path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            for record in reader:
                if None in record:
                    yield reader.line_num, BadLine(reader.line_num, "line: more fields than the header has columns")
                    continue
                filled: dict[str, Any] = {name: value for name, value in record.items() if value}
                with suppress(KeyError, ValueError):
                    filled["score"] = float(filled["score"])  # .4 and +0.4 are numbers in CSV, and not in JSON
                if "aliases" in filled:
                    filled["aliases"] = filled["aliases"].split(SEPARATOR)
                if filled.get("type") == "entity":  # every other column is an attribute
                    said = {name: filled.pop(name) for name in filled.keys() - _FIELDS["entity"] - {"query", "score"}}
                    filled["attributes"] = said
                yield reader.line_num, filled

    def _parquet(self) -> Iterator[tuple[int, dict[str, Any] | BadLine]]:
        if importlib.util.find_spec("pyarrow") is None:
            raise PredictionFileError(f"{self._path}: Parquet needs {install('parquet')}")
        import pyarrow  # noqa: PLC0415 - an extra
        import pyarrow.parquet  # noqa: PLC0415 - an extra

        try:
            number = 0
            for batch in pyarrow.parquet.ParquetFile(self._path).iter_batches():
                for record in batch.to_pylist():
                    number += 1
                    yield number, {name: value for name, value in record.items() if value is not None}
        except pyarrow.ArrowException as error:
            raise PredictionFileError(f"{self._path}: {error}") from None

    def _decode(self, number: int, record: dict[str, Any]) -> Line:
        kind = record.get("type", "prediction")
        if kind not in _KINDS:
            return BadLine(number, f"type: {kind!r} is neither 'prediction' nor 'entity'")
        self.unknown.update(dict.fromkeys(record.keys() - _FIELDS[kind]))
        try:
            found = msgspec.convert(record, _KINDS[kind], strict=False)
        except msgspec.ValidationError as error:
            return BadLine(number, explain(error, record, _KINDS[kind]))
        if isinstance(found, Prediction) and not normalize(found.query):
            return BadLine(number, f"query: {found.query!r} has no words")
        if any("\0" in text for text in (found.entity_id, getattr(found, "query", ""))):
            return BadLine(number, "line: contains the character U+0000")
        return found
