"""The configuration: one TOML file, with every value checked at startup."""

import hashlib
import re
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct, field, structs
from msgspec.inspect import is_struct_type

from backchannel.agents import registry
from backchannel.agents.ope.gate import GateConfig
from backchannel.agents.satisfaction.asking import AskConfig
from backchannel.agents.taught.rules import TaughtConfig
from backchannel.schemas.codec import named, quoting
from backchannel.schemas.errors import BackchannelError
from backchannel.schemas.events import EVENT_TYPES
from backchannel.schemas.forms import EventConfig
from backchannel.schemas.text import RULES
from backchannel.streams.kafka.config import KafkaConfig
from backchannel.streams.snapshots.signing import KEY_VARIABLE
from backchannel.streams.turns.assembler import TurnConfig

_UNKNOWN: Final = re.compile("Object contains unknown field `(.*)`")


class CommitConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How often what was learned is made durable, and published."""

    events: Annotated[
        int,
        Meta(
            ge=1,
            description="maximum number of events in a commit; a worker commits every second in any case. A larger "
            "commit is faster, because its rows are merged, but takes more memory and rereads more after a crash",
        ),
    ] = 200_000
    publish_s: Annotated[
        float,
        Meta(
            gt=0,
            le=86_400,
            description="seconds between policy versions while something new is being learned; at least ten while a "
            "worker catches up with a backlog of more than a commit",
        ),
    ] = 5.0


class SnapshotConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Which policy versions are kept for inspection and rollback, and how they are signed."""

    keep: Annotated[int, Meta(ge=1, le=10_000, description="number of newest versions to keep")] = 100
    keep_days: Annotated[
        float, Meta(ge=0, le=3650, description="days for which the first version of each hour is kept after that")
    ] = 7.0
    signing_key: Annotated[
        str,
        Meta(
            description="key shared with readers, which then serve only versions signed with it; empty: versions "
            f"are not signed. Prefer setting {KEY_VARIABLE}"
        ),
    ] = ""


class MetricsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a worker answers Prometheus and probes."""

    port: Annotated[int, Meta(ge=0, le=65_535, description="port of /metrics, /healthz and /readyz; 0: off")] = 0
    host: Annotated[str, Meta(min_length=1, description="address to listen on, without authentication")] = "127.0.0.1"


class ServeConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What `backchannel serve` accepts, and how much of it."""

    poll_s: Annotated[float, Meta(gt=0, le=3600, description="seconds between polls for a new policy")] = 1.0
    personal: Annotated[
        bool,
        Meta(description="whether to read what is known about single users; false for a role that may not read it"),
    ] = True
    timeout_s: Annotated[float, Meta(gt=0, le=600, description="seconds after which a request is abandoned (503)")] = (
        10.0
    )
    body_kb: Annotated[int, Meta(ge=1, le=1 << 20, description="maximum size of a request body, KB (413)")] = 4096
    rate: Annotated[
        float,
        Meta(ge=0, le=1e9, description="maximum requests per second and burst size of one token (429); 0: no limit"),
    ] = 0.0
    pending_mb: Annotated[
        int,
        Meta(
            ge=1, le=1 << 20, description="maximum size of the events of one process that are not durable yet, MB (429)"
        ),
    ] = 32
    journal_gb: Annotated[
        float,
        Meta(
            ge=0.25,
            le=1e6,
            description="maximum size of the journal, GB (429); up to half of it may hold events already learned",
        ),
    ] = 8.0
    origins: Annotated[
        tuple[str, ...], Meta(description="origins whose pages may call the service from a browser; none: CORS is off")
    ] = ()


Bounds: TypeAlias = tuple[Annotated[float, Meta(ge=0, le=1e9)], Annotated[float, Meta(ge=0, le=1e9)]]
"""The value from which to warn, and the value from which it is critical."""


class HealthConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """When `backchannel health` warns, and when it reports something as critical."""

    lag_s: Annotated[
        Bounds, Meta(description="seconds of event time by which reading lags, while there are unread records")
    ] = (
        60.0,
        600.0,
    )
    commit_s: Annotated[Bounds, Meta(description="seconds since the last commit, while there are unread records")] = (
        30.0,
        300.0,
    )
    heartbeat_s: Annotated[Bounds, Meta(description="seconds since a worker's last heartbeat")] = (20.0, 60.0)
    policy_s: Annotated[
        Bounds, Meta(description="age of the newest version, s, while there are unpublished changes")
    ] = (
        60.0,
        600.0,
    )
    dead_letters: Annotated[Bounds, Meta(description="recent share of records that were invalid events")] = (
        0.001,
        0.05,
    )
    late: Annotated[Bounds, Meta(description="recent share of events that came too late")] = (0.01, 0.1)
    orphans: Annotated[Bounds, Meta(description="recent share of events without a turn")] = (0.01, 0.1)
    late_clicks: Annotated[
        Bounds,
        Meta(
            description="difference between strategies in the share of clicks that come after the attribution window, "
            "as estimated from those before"
        ),
    ] = (0.05, 1.0)
    lost: Annotated[
        Bounds,
        Meta(
            description="share of received records that were not learned: late, without a turn, or invalid. From the "
            "first number on, `run` exits with an error; it refuses to learn from a disordered file when more records "
            "than the second are late"
        ),
    ] = (0.01, 0.1)
    store_gb: Annotated[Bounds, Meta(description="size of the store in GB")] = (50.0, 200.0)
    alarm_h: Annotated[
        float, Meta(ge=0, le=1e6, description="how long a drift alarm is shown as a warning, in hours")
    ] = 24.0

    def __post_init__(self) -> None:
        for name, value in structs.asdict(self).items():
            if isinstance(value, tuple) and value[0] > value[1]:
                raise ValueError(f"{name}: {list(value)} must be two numbers in ascending order")


class Config(registry.LearningConfig, frozen=True, forbid_unknown_fields=True):
    """Everything that can be configured; the defaults work."""

    events: Annotated[EventConfig, Meta(description="How events are written.")] = field(default_factory=EventConfig)
    turns: Annotated[TurnConfig, Meta(description="How events become turns.")] = field(default_factory=TurnConfig)
    taught: Annotated[TaughtConfig, Meta(description="What people may teach.")] = field(default_factory=TaughtConfig)
    ask: Annotated[AskConfig, Meta(description="When people are asked.")] = field(default_factory=AskConfig)
    commits: Annotated[CommitConfig, Meta(description="Commits and publishing.")] = field(default_factory=CommitConfig)
    gate: Annotated[GateConfig, Meta(description="When a policy may go live.")] = field(default_factory=GateConfig)
    snapshots: Annotated[SnapshotConfig, Meta(description="Policy versions.")] = field(default_factory=SnapshotConfig)
    metrics: Annotated[MetricsConfig, Meta(description="Metrics and probes of a worker.")] = field(
        default_factory=MetricsConfig
    )
    serve: Annotated[ServeConfig, Meta(description="The HTTP service.")] = field(default_factory=ServeConfig)
    health: Annotated[
        HealthConfig,
        Meta(
            description="Bounds of `backchannel health`: a warning from the first number on, critical from the second."
        ),
    ] = field(default_factory=HealthConfig)
    kafka: Annotated[KafkaConfig, Meta(description="How to reach Kafka; `backchannel run` does not need it.")] = field(
        default_factory=KafkaConfig
    )

    def __post_init__(self) -> None:
        registry.LearningConfig.__post_init__(self)
        for name, fields in self.events.fields.items():
            event_type = EVENT_TYPES.get(name)
            if event_type is None:
                raise ValueError(f"events.fields: {name!r} is not an event type: {', '.join(EVENT_TYPES)}")
            known = {one.encode_name for one in structs.fields(event_type)}
            if unknown := sorted(fields.keys() - known):
                raise ValueError(f"events.fields.{name}: {unknown[0]!r} is not a field: {', '.join(sorted(known))}")

    @property
    def fingerprint(self) -> str:
        """A short hash of all values, and of the rules of texts, that affect the content of the policy."""
        # Converted as if read from a file, where 1 and 1.0 are the same.
        alike = msgspec.convert(msgspec.to_builtins(self), type(self))
        learned = (RULES, alike.turns, alike.rewards, *registry.published(alike))
        return hashlib.blake2b(msgspec.json.encode(learned), digest_size=8).hexdigest()


class ConfigError(BackchannelError, ValueError):
    """The configuration is invalid; the message names the file and the key."""


def load(path: Path) -> Config:
    """Read and check a configuration file; keys that it does not mention have their defaults.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or has an unknown key or a value out of bounds.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    return parse(document, str(path))


def parse(document: dict[str, Any], origin: str) -> Config:
    """Check a configuration that was read from `origin`.

    Raises:
        ConfigError: there is an unknown key or a value out of bounds.
    """
    try:
        return msgspec.convert(document, Config)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        key = named(where.rstrip("`"), document, Config)
        if not what.startswith("Expected `str"):  # what is there in place of a text may be a password
            what = quoting(what, document, key)
        what += _remedy(what, _kind_of(key))
        key = key or "the top level"
        raise ConfigError(f"{origin}: {key}: {what}. `backchannel config` describes every key") from None


def _remedy(what: str, kind: Any) -> str:
    """Return what msgspec's message does not say: the choices, or a name that may have been meant."""
    if what.startswith("Invalid enum value"):
        return f", must be one of {', '.join(get_args(kind))}"
    if what.startswith("Invalid value"):  # of the key that says which struct of a union it is
        return f", must be one of {', '.join(one.__struct_config__.tag for one in get_args(kind))}"
    unknown = _UNKNOWN.match(what)
    if unknown and is_struct_type(kind):
        near = get_close_matches(unknown[1], [one.encode_name for one in structs.fields(kind)], 1)
        return f" (did you mean `{near[0]}`?)" if near else ""
    return ""


def _kind_of(key: str) -> Any:
    """Return the type of a key such as `bandit.policy`, or of everything; of a union's tag, the union."""
    kind: Any = Config
    for name in re.findall(r"[^.\[\]]+", key):
        if is_struct_type(kind):
            kind = get_type_hints(kind).get(name)
        elif get_origin(kind) is tuple:
            kind = get_args(kind)[0]
        elif get_origin(kind) is dict:
            kind = get_args(kind)[1]
    return kind
