"""Learning from a journal: a worker's task, in one process and without a broker."""

import logging
import threading
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final

from backchannel.streams.config import Config
from backchannel.streams.journal.journal import Journal, JournalReader
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.pipeline.sources import TOPIC
from backchannel.streams.store.engine import StoreAwayError

logger = logging.getLogger(__name__)

POLL_S: Final = 0.05
"""Seconds between polls of a journal that was read to its end."""

AWAY_S: Final = 1.0
"""Seconds between two attempts to commit while the store is away."""


class JournalLearner:
    """Learns from a journal and publishes. A crash loses nothing: the ledger says where to read on.

    Args:
        url: SQLAlchemy URL of the store.
        config: what to learn, and how.
        folder: the folder of the journal.

    Raises:
        StoreError: the store cannot be used.
        JournalError: the journal cannot be used, or another process learns from it.
    """

    def __init__(self, url: str, config: Config, folder: Path) -> None:
        self._config: Final = config
        self._keep: Final = round(config.serve.journal_gb * (1 << 29))  # half of the maximum size
        with closing(Journal(folder, 0)) as journal, ExitStack() as failing:
            # Before the pipeline claims the partition, which fences off whoever reads the journal.
            self._reader: Final = JournalReader(folder, 0)
            failing.callback(self._reader.close)
            self._pipeline: Final = LocalPipeline(url, config, journal.source)
            failing.callback(self._pipeline.close)
            resume = self._pipeline.partition.claim.position.topic(TOPIC).resume
            journal.begin_at(resume)
            self._reader.seek(resume)
            failing.pop_all()
        if self._reader.skipped:
            logger.warning("%d bytes of the journal were removed before this store learned them", self._reader.skipped)
        self._fed = 0  # records, since the last commit
        self._quiet_s: Final = config.turns.window_s + config.turns.lateness_s

    def run(self, stop: threading.Event) -> None:
        """Learn until `stop` is set, then commit and publish. Turns still open are rebuilt on the next start."""
        heard = published = time.monotonic()
        while not stop.is_set():
            progressed = self._feed()
            now = time.monotonic()
            if progressed:
                heard = now
            elif now - heard >= self._quiet_s:  # like a worker whose topics are read to their ends
                self._pipeline.finish(time.time_ns() // 1_000_000)
                heard = now
            if now - published >= self._config.commits.publish_s:
                self._commit(stop)
                published = time.monotonic()
            elif self._fed >= self._config.commits.events:
                self._commit(stop)
            elif not progressed:
                stop.wait(POLL_S)
        while self._feed():
            if self._fed >= self._config.commits.events and not self._commit(stop):
                return
        self._commit(stop)

    def close(self) -> None:
        """Close journal and store."""
        self._reader.close()
        self._pipeline.close()

    def _feed(self) -> bool:
        """Read on, and return whether there were new records."""
        offsets, records = self._reader.read()
        if not offsets:
            return False
        self._fed += len(records)
        for letter in self._pipeline.feed_records(offsets, records):
            logger.warning("journal, offset %d: not learned: %s", letter.offset, letter.reason)
        return True

    def _commit(self, stop: threading.Event) -> bool:
        """Commit, publish and remove segments no longer needed; return whether that was done.

        While the store is away it is tried again until `stop` is set, and nothing more is read into memory.
        """
        while True:
            try:
                self._pipeline.commit()
                version = self._pipeline.publish()
            except StoreAwayError as error:
                logger.warning("the store is away; retrying: %s", error)
                if stop.wait(AWAY_S):
                    return False
            else:
                break
        self._fed = 0
        if version is not None:
            logger.info("published version %d", version.version)
        self._reader.remove_before(self._pipeline.partition.claim.position.topic(TOPIC).resume, self._keep)
        return True
