"""`backchannel forget-user`."""

from click.testing import CliRunner
from sqlalchemy import create_engine, text

from backchannel.agents.memory import MemoryConfig
from backchannel.ops.cli import main
from backchannel.streams.config import Config
from backchannel.streams.embedded import Embedded
from backchannel.streams.reader import PolicyReader
from tests.streams.ledgers import contents
from tests.streams.test_priming import learn, turn

CONFIG = Config(memory=MemoryConfig(personal=10))


def test_a_user_is_forgotten_in_all_versions_and_by_readers(store_url: str) -> None:
    url = store_url
    reader = PolicyReader(url)
    with Embedded(url, CONFIG, "test") as embedded:
        for number in range(6):
            learn(embedded, turn(number, True, user=f"user-{number % 2}"))
        everybody = reader.policy.recall("jazz", 1)
        assert reader.policy.recall("jazz", 1, "user-1") != everybody
        done = CliRunner().invoke(main, ["forget-user", "user-1", "--store", url])
        assert done.exit_code == 0, done.output
        # A sum of the memory index, one of the rewrites, and three versions of a row of the policy.
        assert "5 rows of 'user-1' are gone" in done.stdout
        assert {user for user, _, _ in contents(url, CONFIG)["personal"]} == {"user-0"}
        engine = create_engine(url)
        with engine.connect() as connection:
            found = connection.execute(text("SELECT key FROM snapshot_row WHERE section = 'personal'")).all()
        engine.dispose()
        assert {key for (key,) in found} == {"user-0"}
        fresh = PolicyReader(url)
        assert fresh.refresh()  # what is left adds up
        assert fresh.policy.recall("jazz", 1, "user-1") == everybody
        fresh.close()
        learn(embedded, turn(6, True, user="user-0"))
    assert reader.refresh()
    assert reader.status.error is None
    assert reader.policy.recall("jazz", 1, "user-1") == reader.policy.recall("jazz", 1)
    reader.close()
    again = CliRunner().invoke(main, ["forget-user", "user-1", "--store", url])
    assert again.stdout == "nothing was stored of 'user-1'\n"
