"""`backchannel forget-user`."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import create_engine, text

from backchannel.agents.bandit.features import Numeric
from backchannel.agents.bandit.learner import BanditConfig
from backchannel.agents.bandit.users import TURNS
from backchannel.agents.memory.learner import MemoryConfig
from backchannel.agents.sums import ALL
from backchannel.ops.cli import main
from backchannel.streams.config import Config
from backchannel.streams.pipeline.erasure import forget_user
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.serving.reader import PolicyReader
from backchannel.streams.snapshots.signing import KEY_VARIABLE
from tests.support.ledgers import contents
from tests.support.pipelines import learn, turn

CONFIG = Config(bandit=BanditConfig(features=(Numeric(TURNS),)), memory=MemoryConfig(personal=10))


@pytest.mark.parametrize("key", ["", "secret"])
def test_a_user_is_forgotten_in_all_versions_and_by_readers(
    store_url: str, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, key)
    url = store_url
    reader = PolicyReader(url)
    with LocalPipeline(url, CONFIG, "test") as embedded:
        for number in range(6):
            learn(embedded, turn(number, True, user=f"user-{number % 2}"))
        everybody = reader.policy.recall("jazz", 1)
        assert reader.policy.recall("jazz", 1, "user-1") != everybody
        assert reader.policy.of_user("user-1")[TURNS] == pytest.approx(2.0, abs=0.01)  # log2(1 + 3), hardly faded
        done = CliRunner().invoke(main, ["forget-user", "user-1", "--store", url])
        assert done.exit_code == 0, done.output
        # A sum of the memory index, one of the rewrites, one of turns, and three versions of two rows of the policy.
        assert "9 rows of 'user-1'" in done.stdout
        left = contents(url, CONFIG)
        assert {user for user, _, _ in left["personal"]} == {"user-0"}
        assert {user for (user,) in left["users"]} == {ALL, "user-0"}
        engine = create_engine(url)
        with engine.connect() as connection:
            rows = "SELECT key FROM snapshot_row WHERE section IN ('personal', 'users')"
            found = connection.execute(text(rows)).all()
        engine.dispose()
        assert {key for (key,) in found} == {ALL, "user-0"}
        fresh = PolicyReader(url)
        assert fresh.refresh()  # what is left adds up
        assert fresh.policy.recall("jazz", 1, "user-1") == everybody
        assert fresh.policy.of_user("user-1") == {TURNS: 0.0}
        fresh.close()
        learn(embedded, turn(6, True, user="user-0"))
    assert reader.refresh()
    assert reader.status.error is None
    assert reader.policy.recall("jazz", 1, "user-1") == reader.policy.recall("jazz", 1)
    reader.close()
    again = CliRunner().invoke(main, ["forget-user", "user-1", "--store", url])
    assert "nothing" in again.stdout
    for nobody in (ALL, "user-2"):
        assert not forget_user(url, CONFIG, nobody)
    assert (ALL,) in contents(url, CONFIG)["users"]


def test_of_a_store_that_is_not_there_nobody_is_forgotten(tmp_path: Path) -> None:
    """Else a mistyped name would look like a request that was met."""
    done = CliRunner().invoke(main, ["forget-user", "u1", "--store", f"sqlite:///{tmp_path / 'typo.db'}"])
    assert done.exit_code == 1
    assert "there is no file" in done.output
    assert not list(tmp_path.iterdir())
