"""What the tests of the dashboard ask of its stores."""

from backchannel.streams.config import Config
from backchannel.streams.kafka.config import KafkaConfig

CONFIG = Config(kafka=KafkaConfig(servers="127.0.0.1:1"))
TEXT = "what was asked first"
CUISINES = ("thai", "greek")
GARBLED = ("play the velvet song knight", "play the song velvet knight", "play the song velvet night")
"""What people say first, second, and last, when they are understood."""
