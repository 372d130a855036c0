"""Records that a schema registry describes: Avro, Protobuf and JSON in Confluent's wire format, as JSON."""

import importlib
import json
from collections.abc import Callable
from functools import cache, partial
from io import BytesIO
from typing import Any, Final, TypeAlias

import msgspec

from backchannel.schemas.errors import BackchannelError
from backchannel.schemas.forms import FormError
from backchannel.streams.kafka.config import KafkaConfig

_HEADER: Final = 5
"""Bytes before a value: 0, and the number of its schema."""

_RETRIES: Final = 10
"""How often a registry that is away is asked again, with pauses that grow to `_PAUSE_MS`."""
_PAUSE_MS: Final = 5000

Reader: TypeAlias = Callable[[bytes], bytes]
"""Turns a record into JSON, or raises `FormError`."""


class RegistryError(BackchannelError, RuntimeError):
    """The schema registry cannot be used; the message says why."""


class SchemaRegistry:
    """Reads records by the schemas that their headers name.

    Args:
        config: the registry, and the classes of Protobuf messages.

    Raises:
        ModuleNotFoundError: the extra `registry` is not installed.
        RegistryError: a class cannot be imported.
    """

    def __init__(self, config: KafkaConfig) -> None:
        from confluent_kafka.schema_registry import SchemaRegistryClient  # noqa: PLC0415 - an extra

        settings: dict[str, Any] = {
            "url": config.schema_registry,
            "max.retries": _RETRIES,
            "retries.max.wait.ms": _PAUSE_MS,
        }
        if config.schema_registry_auth:
            settings["basic.auth.user.info"] = config.schema_registry_auth
        self._url: Final = config.schema_registry
        self._client: Final = SchemaRegistryClient(settings)
        self._messages: Final = {name: _imported(path) for name, path in config.protobuf.items()}
        self._decoder: Final = cache(self._find)  # by schema and event type

    def reader(self, event: str) -> Reader:
        """Return the function that turns a record with an event of type `event` into JSON.

        It raises `FormError` if the record cannot be read, and `RegistryError` if the registry stays away.
        """

        def read(record: bytes) -> bytes:
            if record[:1] != b"\0":  # JSON without a schema, as `backchannel produce` and `serve` send it
                return record
            if len(record) < _HEADER:
                raise FormError("record: ends within the header that names its schema")
            try:
                return self._decoder(int.from_bytes(record[1:_HEADER]), event)(record)
            except (FormError, RegistryError):
                raise
            except Exception as error:  # of any library, for bytes that anybody may have written
                raise FormError(f"record: {error or type(error).__name__}") from None

        return read

    def _find(self, schema_id: int, event: str) -> Reader:
        schema = self._ask(partial(self._client.get_schema, schema_id))
        if schema.schema_type == "JSON":
            return lambda record: record[_HEADER:]
        if schema.schema_type == "PROTOBUF":
            return self._protobuf(event)
        return self._avro(schema)

    def _avro(self, schema: Any) -> Reader:
        from fastavro import schemaless_reader  # noqa: PLC0415 - an extra

        parsed = self._parsed(schema, {})

        def read(record: bytes) -> bytes:
            return msgspec.json.encode(schemaless_reader(BytesIO(record[_HEADER:]), parsed, None))

        return read

    def _parsed(self, schema: Any, named: dict[str, Any]) -> Any:
        """Return a schema for the Avro library, and add the types that it declares to `named`."""
        from fastavro import parse_schema  # noqa: PLC0415 - an extra

        for one in schema.references or ():
            self._parsed(self._ask(partial(self._client.get_version, one.subject, one.version)).schema, named)
        return parse_schema(json.loads(schema.schema_str), named_schemas=named)

    def _protobuf(self, event: str) -> Reader:
        if event not in self._messages:
            raise FormError(f"record: Protobuf, and kafka.protobuf names no class for {event}")
        from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer  # noqa: PLC0415 - an extra
        from confluent_kafka.serialization import MessageField, SerializationContext  # noqa: PLC0415 - an extra
        from google.protobuf.json_format import MessageToDict  # noqa: PLC0415 - an extra

        decode = ProtobufDeserializer(self._messages[event], {"use.deprecated.format": False})  # not that of 2021
        where = SerializationContext(event, MessageField.VALUE)

        def read(record: bytes) -> bytes:
            return msgspec.json.encode(MessageToDict(decode(record, where), preserving_proto_field_name=True))

        return read

    def _ask(self, ask: Callable[[], Any]) -> Any:
        from confluent_kafka.schema_registry.error import SchemaRegistryError  # noqa: PLC0415 - an extra

        try:
            return ask()
        except SchemaRegistryError as error:
            if error.http_status_code == 404:
                raise FormError(f"record: {error.error_message}") from None
            fault: Exception = error
        except Exception as error:  # of the client's transport
            fault = error
        raise RegistryError(f"schema registry {self._url} does not answer: {fault}") from fault


def _imported(path: str) -> Any:
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise RegistryError(f"kafka.protobuf: {path}: {error}") from None
