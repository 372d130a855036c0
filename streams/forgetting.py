"""Forgetting a user: in the ledger, and in all versions of the policy that are retained."""

import msgspec
from msgspec import structs
from sqlalchemy import Connection, delete, select, update

from backchannel.agents.memory import MemoryIndex
from backchannel.agents.personal import PersonalMemory
from backchannel.agents.personal_rewrites import PersonalRewrites
from backchannel.schemas.snapshot import Checksum, Snapshot
from backchannel.streams import snapshots
from backchannel.streams.config import Config
from backchannel.streams.store import Store, change, snapshot, snapshot_row


def forget_user(url: str, config: Config, user: str) -> int:
    """Remove what is stored under `user`, and return how many rows that were.

    The rows of old versions go, too, and their headers then say so. A reader that still holds such a row finds that its
    checksum does not add up when the next version comes, and reads it all anew.

    Raises:
        StoreError: the store cannot be used, see the message.
    """
    learners = (PersonalMemory(MemoryIndex(config.memory)), PersonalRewrites(config.rephrases))
    store = Store(url)
    try:
        store.create([table for learner in learners for table in learner.tables])

        def forget(connection: Connection) -> int:
            snapshots.current(connection, lock=True)
            gone = 0
            for learner in learners:
                for table in learner.tables:
                    of_table = change.c.table_name == table.name
                    connection.execute(delete(change).where(of_table, change.c.value == user))
                    stored = store.sum_tables[table.name]
                    gone += connection.execute(delete(stored).where(stored.c.user == user)).rowcount
                gone += _erase(connection, learner.name, user)
            return gone

        return store.transact(forget)
    finally:
        store.close()


def _erase(connection: Connection, section: str, key: str) -> int:
    """Remove a row from every version that has it."""
    row = snapshot_row
    mine = (row.c.section == section, row.c.key == key)
    held = connection.execute(select(row.c.valid_from, row.c.valid_to, row.c.value).where(*mine)).all()
    for begun, ended, value in held:
        versions = select(snapshot.c.version, snapshot.c.header).where(snapshot.c.version >= begun)
        for version, encoded in connection.execute(versions).all():
            if ended is None or version < ended:
                header = msgspec.json.decode(encoded, type=Snapshot)
                checksum = Checksum(header.checksum)
                checksum.remove(section, key, value)
                rows = {**header.rows, section: header.rows[section] - 1}
                changed = structs.replace(header, rows=rows, checksum=checksum.hexdigest())
                connection.execute(
                    update(snapshot)
                    .where(snapshot.c.version == version)
                    .values(header=msgspec.json.encode(changed).decode())
                )
    connection.execute(delete(row).where(*mine))
    return len(held)
