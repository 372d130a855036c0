"""`backchannel allocate` on a store with a learned bandit."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result

from backchannel.agents.bandit.features import Categorical, Numeric
from backchannel.agents.bandit.learner import BanditConfig
from backchannel.ops.cli import main
from backchannel.ops.inspect.allocation import Choice
from backchannel.ops.lab.load import mixed_stream
from backchannel.streams.config import Config
from backchannel.streams.pipeline.local import LocalPipeline
from tests.support.ledgers import sqlite_url

FEATURES = (Categorical("device", ("speaker", "tv")), Numeric("time.hour", center=12.0, scale=12.0))


@pytest.fixture
def store(tmp_path: Path) -> str:
    url = sqlite_url(tmp_path)
    with LocalPipeline(url, Config(bandit=BanditConfig(features=FEATURES)), "test") as driver:
        driver.feed(list(mixed_stream(200, np.random.default_rng(0))))
        driver.finish()
        driver.commit()
        driver.publish()
    return url


def run(store: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["allocate", "play jazz", "--store", store, *arguments])


def found(store: str, context: str) -> list[Choice]:
    result = run(store, "--context", context, "--json")
    assert result.exit_code == 0, result.output
    return msgspec.json.decode(result.stdout, type=list[Choice])


def test_it_says_what_is_asked_and_what_each_feature_adds(store: str) -> None:
    choices = found(store, '{"device": "speaker", "time.hour": 18}')
    assert {one.strategy for one in choices} == {"lexical", "semantic", "memory", "popular", "new"}
    assert sum(one.candidates for one in choices) == 20
    assert sum(one.expected for one in choices) == pytest.approx(20)
    for one in choices:
        assert one.terms.keys() == {"1", "device=speaker", "time.hour"}
        assert sum(one.terms.values()) == pytest.approx(one.reward, abs=1e-12)
    elsewhere = found(store, '{"time.hour": 12}')
    assert [one.terms for one in elsewhere] == [{"1": one.terms["1"]} for one in choices]
    shown = run(store, "--context", '{"device": "speaker"}').stdout
    assert "device=speaker" in shown
    assert "time.hour" in shown  # of midnight


def test_the_same_seed_draws_the_same(store: str) -> None:
    assert run(store, "--json").stdout == run(store, "--json").stdout
    assert run(store, "--json").stdout != run(store, "--json", "--seed", "2").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--context", "device=car"), "--context 'device=car': "),
        (("--context", '{"device": ["car"]}'), "Expected `bool | float | str`"),
        (("--budget", "1000000"), "1000000"),
    ],
)
def test_a_wrong_command_is_refused(store: str, arguments: tuple[str, ...], said: str) -> None:
    result = run(store, *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
