"""The decoders of the event topics: one for each, for how its records are written."""

from backchannel.schemas.codec import EventDecoder
from backchannel.schemas.events import EVENT_TYPES
from backchannel.schemas.forms import EventConfig
from backchannel.streams.kafka.config import KafkaConfig


def event_decoders(kafka: KafkaConfig, events: EventConfig) -> dict[str, EventDecoder]:
    """Return topic -> the decoder of its records.

    Raises:
        ModuleNotFoundError: there is a schema registry, and the extra `registry` is not installed.
        RegistryError: there is one, and a class of Protobuf messages cannot be imported.
    """
    if not kafka.schema_registry:
        return {topic: EventDecoder(EVENT_TYPES[name], events) for name, topic in kafka.event_topics.items()}
    from backchannel.streams.kafka.registry import SchemaRegistry  # noqa: PLC0415 - needs an extra

    registry = SchemaRegistry(kafka)
    return {
        topic: EventDecoder(EVENT_TYPES[name], events, registry.reader(name))
        for name, topic in kafka.event_topics.items()
    }
