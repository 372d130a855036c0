"""The configuration: one TOML file, every value checked at start."""

import hashlib
import tomllib
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, field

from backchannel.agents.bandit import BanditConfig
from backchannel.agents.memory import MemoryConfig
from backchannel.agents.outcomes import RewardConfig
from backchannel.agents.quality import QualityConfig
from backchannel.agents.rephrases import RephraseConfig
from backchannel.streams.kafka_config import KafkaConfig
from backchannel.streams.turns import TurnConfig


class CommitConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How often what was learned is made durable, and published."""

    events: Annotated[
        int, Meta(ge=1, description="events after which to commit; more of them are quicker, and more to read again")
    ] = 50_000
    publish_s: Annotated[
        float, Meta(gt=0, le=86_400, description="seconds between two policy versions while there is something new")
    ] = 5.0


class MetricsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a worker answers Prometheus and probes."""

    port: Annotated[
        int, Meta(ge=0, le=65_535, description="of /metrics, /healthz and /readyz; 0: they are not served")
    ] = 0
    host: Annotated[str, Meta(min_length=1, description="address to listen on. Nothing here asks for a password")] = (
        "127.0.0.1"
    )


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that can be configured. The defaults are a working configuration."""

    turns: Annotated[TurnConfig, Meta(description="How events become turns.")] = field(default_factory=TurnConfig)
    rewards: Annotated[RewardConfig, Meta(description="What feedback is worth.")] = field(default_factory=RewardConfig)
    bandit: Annotated[BanditConfig, Meta(description="The strategy bandit.")] = field(default_factory=BanditConfig)
    memory: Annotated[MemoryConfig, Meta(description="The memory index.")] = field(default_factory=MemoryConfig)
    rephrases: Annotated[RephraseConfig, Meta(description="The rephrase graph.")] = field(
        default_factory=RephraseConfig
    )
    quality: Annotated[QualityConfig, Meta(description="Watching how good the answers are.")] = field(
        default_factory=QualityConfig
    )
    commits: Annotated[CommitConfig, Meta(description="Commits and publishing.")] = field(default_factory=CommitConfig)
    metrics: Annotated[MetricsConfig, Meta(description="Metrics and probes of a worker.")] = field(
        default_factory=MetricsConfig
    )
    kafka: Annotated[KafkaConfig, Meta(description="How to reach Kafka. `backchannel run` needs none.")] = field(
        default_factory=KafkaConfig
    )

    @property
    def fingerprint(self) -> str:
        """A short hash of all values that decide what is learned from an event."""
        learned = (self.turns, self.rewards, self.bandit, self.memory, self.rephrases)
        return hashlib.blake2b(msgspec.json.encode(learned), digest_size=8).hexdigest()


class ConfigError(ValueError):
    """A configuration is not valid; the message names the file and the key."""


def load(path: Path) -> Config:
    """Read and check a configuration file; what it does not mention has its default.

    Raises:
        ConfigError: it cannot be read, is not TOML, or has an unknown key or a value out of bounds.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    return parse(document, str(path))


def parse(document: dict[str, Any], origin: str) -> Config:
    """Check a configuration that was read from `origin`.

    Raises:
        ConfigError: an unknown key or a value out of bounds.
    """
    try:
        return msgspec.convert(document, Config)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        key = where.rstrip("`") or "the top level"
        raise ConfigError(f"{origin}: {key}: {what}. `backchannel config` prints every key with its meaning") from None
