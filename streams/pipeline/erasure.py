"""Erasure of a user from the ledger and from all retained versions of the policy."""

import msgspec
from msgspec import structs
from sqlalchemy import Connection, delete, select, update

from backchannel.agents import registry
from backchannel.agents.sums import USER
from backchannel.streams.config import Config
from backchannel.streams.snapshots import teachings
from backchannel.streams.snapshots import versions as snapshots
from backchannel.streams.snapshots.signing import sign, signing_key
from backchannel.streams.store.engine import Store
from backchannel.streams.store.merging import log_changes, merge_segments, merge_within
from backchannel.streams.store.tables import change, snapshot, snapshot_row


def forget_user(url: str, config: Config, user: str) -> int:
    """Remove everything stored under `user`, and return the number of rows removed.

    Rows of old versions are removed, too, and the headers updated. A reader that still holds such a row finds at the
    next version that its checksum does not match, and reads all rows again.

    Raises:
        StoreError: the store cannot be used; see the message.
        CorruptPolicyError: a version is damaged, or was signed with another key than the one configured here.
    """
    if not user:  # the key of all users together
        return 0
    # Including disabled learners: their rows may still be there.
    tables = {learner: [table for table in learner.tables if table.by_user] for learner in registry.registered(config)}
    tables = {learner: by_user for learner, by_user in tables.items() if by_user}
    key = signing_key(config.snapshots.signing_key)
    store = Store(url)
    try:
        with store.read() as connection:
            store.check(connection)
        store.create([table for by_user in tables.values() for table in by_user])

        def forget(connection: Connection) -> int:
            # Segments not merged yet may hold the user, too.
            log_changes(connection, merge_within(store, connection))
            snapshots.current(connection, lock=True)
            gone = teachings.forget(connection, user)
            for learner, by_user in tables.items():
                for table in by_user:
                    of_table = change.c.table_name == table.name
                    connection.execute(delete(change).where(of_table, change.c.value == user))
                    stored = store.sum_tables[table.name]
                    gone += connection.execute(delete(stored).where(stored.c[USER] == user)).rowcount
                gone += _erase(connection, learner.name, user, key)
            return gone

        merge_segments(store)
        return store.transact(forget)
    finally:
        store.close()


def _erase(connection: Connection, section: str, row_key: str, key: bytes) -> int:
    """Remove a row from every version that has it, and update the headers, signed with `key` unless it is empty."""
    row = snapshot_row
    mine = (row.c.section == section, row.c.key == row_key)
    held = connection.execute(select(row.c.valid_from, row.c.valid_to, row.c.value).where(*mine)).all()
    for begun, ended, value in held:
        for version in snapshots.versions(connection):
            header = snapshots.header(connection, version, key)
            if header is None or version < begun or (ended is not None and version >= ended):
                continue
            digests = []
            for secret in (b"", key) if key else (b"",):
                checksum = header.checksums(secret)
                checksum.remove(section, row_key, value)
                digests.append(checksum.hexdigest(header.nonce))
            rows = {**header.rows, section: header.rows[section] - 1}
            changed = structs.replace(header, rows=rows, checksum=digests[0], seal=digests[1] if key else None)
            text = msgspec.json.encode(changed).decode()
            signature = sign(text, key) if key else None
            connection.execute(
                update(snapshot).where(snapshot.c.version == version).values(header=text, signature=signature)
            )
    connection.execute(delete(row).where(*mine))
    return len(held)
