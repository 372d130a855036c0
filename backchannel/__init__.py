"""Backchannel: clicks, barge-ins and rephrases in, versioned policy snapshots out.

What is exported here is the public interface; every other module is internal. Names are imported when they are first
used, so `import backchannel` is light, and a serving process imports neither Kafka nor Faust nor River.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from backchannel.agents.bandit.decision import Decision, walk
    from backchannel.agents.bandit.features import context_of
    from backchannel.agents.bandit.river_policy import LinearThompsonSampling
    from backchannel.agents.bandit.serving import EncodingError
    from backchannel.agents.memory.serving import Recalled
    from backchannel.agents.ranking.serving import Candidate, Ranking
    from backchannel.agents.rewrites.serving import Rewriting
    from backchannel.agents.satisfaction.asking import AskConfig, Asker
    from backchannel.agents.satisfaction.budget import Budget
    from backchannel.agents.satisfaction.sessions import earlier_of
    from backchannel.agents.taught.rules import TaughtRule
    from backchannel.schemas.codec import EventDecoder, EventError, encode
    from backchannel.schemas.errors import BackchannelError
    from backchannel.schemas.events import (
        BargeIn,
        Click,
        Earlier,
        Event,
        Feedback,
        Hypothesis,
        Impression,
        Like,
        LikeAttribute,
        Means,
        Never,
        Prefer,
        Query,
        Recognition,
        Result,
        Rewrite,
        Teach,
    )
    from backchannel.streams.config import ConfigError
    from backchannel.streams.serving.impressions import impression_of
    from backchannel.streams.serving.policy import Policy
    from backchannel.streams.serving.reader import NoPolicyError, PolicyReader, ReaderStatus
    from backchannel.streams.snapshots.versions import CorruptPolicyError
    from backchannel.streams.store.engine import StoreError

__all__ = [
    "AskConfig",
    "Asker",
    "BackchannelError",
    "BargeIn",
    "Budget",
    "Candidate",
    "Click",
    "ConfigError",
    "CorruptPolicyError",
    "Decision",
    "Earlier",
    "EncodingError",
    "Event",
    "EventDecoder",
    "EventError",
    "Feedback",
    "Hypothesis",
    "Impression",
    "Like",
    "LikeAttribute",
    "LinearThompsonSampling",
    "Means",
    "Never",
    "NoPolicyError",
    "Policy",
    "PolicyReader",
    "Prefer",
    "Query",
    "Ranking",
    "ReaderStatus",
    "Recalled",
    "Recognition",
    "Result",
    "Rewrite",
    "Rewriting",
    "StoreError",
    "TaughtRule",
    "Teach",
    "context_of",
    "earlier_of",
    "encode",
    "impression_of",
    "walk",
]

_MODULES: Final = {
    "agents.bandit.decision": ("Decision", "walk"),
    "agents.bandit.features": ("context_of",),
    "agents.bandit.river_policy": ("LinearThompsonSampling",),
    "agents.bandit.serving": ("EncodingError",),
    "agents.memory.serving": ("Recalled",),
    "agents.ranking.serving": ("Candidate", "Ranking"),
    "agents.rewrites.serving": ("Rewriting",),
    "agents.satisfaction.asking": ("AskConfig", "Asker"),
    "agents.satisfaction.budget": ("Budget",),
    "agents.satisfaction.sessions": ("earlier_of",),
    "agents.taught.rules": ("TaughtRule",),
    "schemas.codec": ("EventDecoder", "EventError", "encode"),
    "schemas.errors": ("BackchannelError",),
    "schemas.events": (
        "BargeIn",
        "Click",
        "Earlier",
        "Event",
        "Feedback",
        "Hypothesis",
        "Impression",
        "Like",
        "LikeAttribute",
        "Means",
        "Never",
        "Prefer",
        "Query",
        "Recognition",
        "Result",
        "Rewrite",
        "Teach",
    ),
    "streams.config": ("ConfigError",),
    "streams.serving.impressions": ("impression_of",),
    "streams.serving.policy": ("Policy",),
    "streams.serving.reader": ("NoPolicyError", "PolicyReader", "ReaderStatus"),
    "streams.snapshots.versions": ("CorruptPolicyError",),
    "streams.store.engine": ("StoreError",),
}
_HOMES: Final = {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
