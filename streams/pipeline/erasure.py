"""Erasure of a user from the ledger and from all retained versions of the policy."""

from collections.abc import Sequence

import msgspec
from msgspec import structs
from sqlalchemy import Connection, delete, select, update

from backchannel.agents import registry
from backchannel.agents.sums import USER
from backchannel.schemas.snapshot import Checksums
from backchannel.streams.config import Config
from backchannel.streams.pipeline.rare_texts import delete_texts, rare_texts
from backchannel.streams.snapshots import teachings
from backchannel.streams.snapshots import versions as snapshots
from backchannel.streams.snapshots.signing import sign, signing_key
from backchannel.streams.store.dialects import among
from backchannel.streams.store.engine import Store
from backchannel.streams.store.ledger import all_keys
from backchannel.streams.store.merging import log_changes, merge_segments, merge_within
from backchannel.streams.store.tables import change, snapshot, snapshot_row


def forget_user(url: str, config: Config, user: str, *, deep: bool = False) -> int:
    """Remove everything stored under `user`, and return the number of rows removed.

    If `deep`, the texts that only `user` asked, as far as the sums tell, are removed, too; see `rare_texts`.

    Rows of old versions are removed, too, and the headers updated. A reader that still holds such a row finds at the
    next version that its checksum does not match, and reads all rows again.

    Raises:
        StoreError: the store cannot be used; see the message.
        CorruptPolicyError: a version is damaged, or was signed with another key than the one configured here.
    """
    if not user:  # the key of all users together
        return 0
    # Including disabled learners: their rows may still be there.
    learners = registry.registered(config)
    tables = {learner: [table for table in learner.tables if table.by_user] for learner in learners}
    key = signing_key(config.snapshots.signing_key)
    store = Store(url)
    try:
        with store.read() as connection:
            store.check(connection)
        store.create([table for learner in learners for table in learner.tables])

        def forget(connection: Connection) -> int:
            # Segments not merged yet may hold the user, too.
            log_changes(connection, merge_within(store, connection))
            snapshots.current(connection, lock=True)
            gone = teachings.forget(connection, user)
            for learner, by_user in tables.items():
                own = learner.key_of(user)
                for table in by_user:
                    of_table = change.c.table_name == table.name
                    connection.execute(delete(change).where(of_table, change.c.value == own))
                    stored = store.sum_tables[table.name]
                    gone += connection.execute(delete(stored).where(stored.c[USER] == own)).rowcount
                if learner.fitted:  # perhaps to rows of the user that others have displaced since
                    _erase(connection, learner.name, learner.fitted, key)
                    log_changes(connection, all_keys(connection, store, by_user))
                gone += _erase(connection, learner.name, [user], key) if learner.is_personal else 0
            if deep:
                of_all = list(store.sum_tables.values())
                texts = rare_texts(connection, of_all, user)
                gone += delete_texts(connection, of_all, texts)
                gone += sum(_erase(connection, learner.name, texts, key) for learner in learners if learner.serving)
            return gone

        merge_segments(store)
        return store.transact(forget)
    finally:
        store.close()


def _erase(connection: Connection, section: str, keys: Sequence[str], key: bytes) -> int:
    """Remove rows from every version that has them, and update the headers, signed with `key` unless it is empty."""
    row = snapshot_row
    mine = (row.c.section == section, among(connection, row.c.key, keys))
    query = select(row.c.key, row.c.valid_from, row.c.valid_to, row.c.value).where(*mine)
    held = connection.execute(query).all() if keys else []
    for version in snapshots.versions(connection) if held else ():
        gone = [
            (name, value)
            for name, begun, ended, value in held
            if begun <= version and (ended is None or version < ended)
        ]
        header = snapshots.header(connection, version, key) if gone else None
        if header is None:
            continue
        checksums = Checksums(header, header.personal, key)
        for name, value in gone:
            checksums.remove(section, name, value)
        rows = {**header.rows, section: header.rows[section] - len(gone)}
        changed = structs.replace(header, rows=rows, **checksums.fields(header.nonce))
        text = msgspec.json.encode(changed).decode()
        signature = sign(text, key) if key else None
        connection.execute(
            update(snapshot).where(snapshot.c.version == version).values(header=text, signature=signature)
        )
    if held:
        connection.execute(delete(row).where(*mine))
    return len(held)
