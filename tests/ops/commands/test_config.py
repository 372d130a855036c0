"""The configuration: its errors name the key, and it can be printed."""

import tomllib
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
from click.testing import CliRunner

from backchannel.agents.bandit.features import DERIVED, DERIVED_MEANINGS, Categorical, Numeric
from backchannel.agents.bandit.learner import BanditConfig
from backchannel.agents.horizon.learner import HorizonConfig
from backchannel.agents.memory.learner import MemoryConfig
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.ops.cli import main
from backchannel.ops.commands.config import reference, render
from backchannel.ops.options import kafka_config
from backchannel.schemas.forms import EventConfig
from backchannel.streams.config import CommitConfig, Config, ConfigError, SnapshotConfig, load, parse
from backchannel.streams.kafka.config import KafkaConfig
from backchannel.streams.turns.assembler import TurnConfig

OWN = Config(
    rewards=RewardConfig(click_gain={"play": 1.0, 'odd "kind"': 0.25}),
    events=EventConfig(fields={"query": {"text": "search.term", "ts": "at"}}),
    kafka=KafkaConfig(topics={"query": "searches"}),
    bandit=BanditConfig(strategies=("web",), features=(Numeric("n", 1.0, 2.0), Categorical("device", ("tv", 'a "b"')))),
)


@pytest.mark.parametrize("config", [Config(), OWN])
def test_what_is_printed_is_the_configuration(config: Config) -> None:
    assert parse(tomllib.loads(render(config)), "printed") == config


def test_every_key_is_explained() -> None:
    lines = render(Config()).splitlines()
    for before, line in pairwise(lines):
        if " = " in line and not line.startswith(("#", " ")):
            assert before.startswith("# "), line
            assert len(before) > 10, line


def test_every_kind_of_feature_and_every_derived_one_is_in_the_reference() -> None:
    said = reference(Config())
    assert "| `hashed` | `name`, `buckets` (default `16`) | " in said
    assert "| `cross` | `left`, `right` |" in said
    assert DERIVED.keys() == DERIVED_MEANINGS.keys()
    assert all(f"| `{name}` |" in said for name in DERIVED)


def test_the_command_prints_the_effective_configuration(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text("[memory]\nkappa = 7.5\n")
    done = CliRunner().invoke(main, ["config", "--config", str(path)])
    assert done.exit_code == 0
    assert "kappa = 7.5" in done.output
    assert parse(tomllib.loads(done.output), "printed").memory.kappa == 7.5


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"turn": {}}, r"the top level: .*unknown field `turn` \(did you mean `turns`\?\)\."),
        ({"turns": {"window": 3}}, r"turns: .*unknown field `window` \(did you mean `window_s`\?\)\."),
        ({"turns": {"xyz": 3}}, r"turns: .*unknown field `xyz`\."),
        ({"bandit": {"features": [{"kind": "numeric", "nam": "x"}]}}, r"bandit.features\[0\]: "),
        ({"turns": {"window_s": "long"}}, "turns.window_s: Expected `float`, got `str` 'long'"),
        ({"kafka": {"sasl_password": 12345}}, "kafka.sasl_password: Expected `str`, got `int`"),  # not the password
        ({"kafka": {"servers": "here"}}, "kafka: servers: 'here' is not host:port"),
        ({"kafka": {"sasl_mechanism": "FOO"}}, "'FOO', must be one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512"),
        ({"bandit": {"policy": "best"}}, "bandit.policy: .*'best', must be one of thompson, greedy"),
        ({"events": {"fields": {"querry": {}}}}, "events.fields: 'querry' is not an event type: query, "),
        ({"events": {"fields": {"query": {"txt": "a"}}}}, "events.fields.query: 'txt' is not a field: "),
        ({"events": {"fields": {"query": {"text": "a["}}}}, "events: fields.query.text: "),
        ({"turns": {"max_ahead_s": inf}}, "turns.max_ahead_s: Expected `float` <= 1000000000.0, got inf"),
        ({"gate": {"established": inf}}, "gate.established: Expected `float` <= 1000000000000.0, got inf"),
        ({"memory": {"kappa": 0}}, "memory.kappa: Expected `float` >= 0.01, got 0"),
        ({"bandit": {"strategies": ["a", "a"]}}, "bandit: 'a' is listed twice"),
        (
            {"bandit": {"features": [{"kind": "odd", "name": "x"}]}},
            r"features\[0\].kind: .*'odd', must be one of numeric, ",
        ),
        (
            {"ranking": {"features": [{"kind": "cross"}]}},
            r"features\[0\].kind: .*'cross', must be one of numeric, .*, binned\.",
        ),
        (
            {"rewards": {"click_gain": {"click": 1, "play": 2}}},
            "rewards.click_gain.play: Expected `float` <= 1.0, got 2",
        ),
        ({"bandit": {"limits": {"a": {}, "b": {"minimun": 1}}}}, r"bandit.limits.b: .*\(did you mean `minimum`\?\)"),
        ({"bandit": {"limits": {"a": [1, 2]}}}, "bandit.limits.a: Expected `object`, got `array`"),
        ({"events": {"fields": {"query": {"text": 1}}}}, "events.fields.query"),
    ],
)
def test_the_error_names_the_key(document: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"own.toml: .*{message}"):
        parse(document, "own.toml")


@pytest.mark.parametrize("content", [b"not toml", b"\xff", None])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "own.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"own\.toml"):
        load(path)


def test_what_is_learned_from_an_event_has_a_fingerprint() -> None:
    assert Config().fingerprint == msgspec.convert({}, Config).fingerprint != OWN.fingerprint
    elsewhere = Config(kafka=KafkaConfig(group="other"), commits=CommitConfig(events=7))
    assert elsewhere.fingerprint == Config().fingerprint


def test_the_fingerprint_is_that_of_the_file() -> None:
    given = Config(turns=TurnConfig(window_s=1), memory=MemoryConfig(kappa=2))
    assert parse(tomllib.loads(render(given)), "x").fingerprint == given.fingerprint


def test_a_password_from_the_environment_is_not_printed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BACKCHANNEL_KAFKA_PASSWORD", "secret")
    path = tmp_path / "own.toml"
    path.write_text('[kafka]\nsecurity_protocol = "SASL_SSL"\nsasl_username = "me"\n')
    done = CliRunner().invoke(main, ["config", "--config", str(path)])
    assert done.exit_code == 0
    assert "secret" not in done.output
    assert kafka_config(load(path), None).sasl_password == "secret"


def test_secrets_of_the_file_are_not_printed_either() -> None:
    three = HorizonConfig(salt="3" * 16)
    secret = Config(kafka=KafkaConfig(sasl_password="one"), snapshots=SnapshotConfig(signing_key="two"), horizon=three)
    printed = render(secret)
    assert '"one"' not in printed
    assert '"two"' not in printed
    assert "3" * 16 not in printed
    assert printed.count('""  # set, and not shown') == 3
    assert parse(tomllib.loads(printed), "x").kafka.sasl_password == ""


def test_kafka_settings_that_contradict_each_other_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BACKCHANNEL_KAFKA_PASSWORD", raising=False)
    config = Config(kafka=KafkaConfig(security_protocol="SASL_SSL", sasl_username="me"))
    with pytest.raises(click.UsageError, match=r"Kafka settings: .*BACKCHANNEL_KAFKA_PASSWORD"):
        kafka_config(config, "a:1")


@pytest.mark.parametrize("command", [["worker"], ["topics", "check"], ["health"]])
def test_servers_that_are_none_are_a_wrong_command_line(command: list[str]) -> None:
    done = CliRunner().invoke(main, [*command, "--servers", "foo"])
    assert done.exit_code == 2
    assert "servers: 'foo' is not host:port of one or more brokers" in done.output
