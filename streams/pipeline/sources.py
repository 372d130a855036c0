"""The sources of a run: event files and pipes, new or known, read together in time order."""

import hashlib
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Final, Self, TypeAlias

from msgspec import Struct

from backchannel.schemas.codec import EventDecoder
from backchannel.streams.turns.event_file import Chunk, EventFile
from backchannel.streams.turns.identity import SourceError, identify
from backchannel.streams.turns.position import TopicPosition
from backchannel.streams.turns.sorting import SortedFile

TOPIC: Final = "events"
"""The topic of a stream that is one source, with all event types in time order."""

_WAIT_S: Final = 0.2
"""Seconds to wait for a silent source before commits continue."""

_CHUNKS: Final = 4
"""Maximum number of chunks of a source to read ahead."""

Positions: TypeAlias = Mapping[str, Mapping[str, TopicPosition]]
"""Stream -> topic -> position."""


class Source(Struct, frozen=True):
    """One of the sources: its topic in the stream, and its lines."""

    topic: str
    file: EventFile | SortedFile


class Sources:
    """Event files and pipes that are read as one stream.

    A single source is a stream by itself. Several together are the topics of one stream, which only the same sources
    can continue.

    Args:
        paths: paths of files or pipes; "-" is standard input.
        decoder: the decoder of their events, needed for sorting.
        in_disorder: whether to sort each source by event time.
        complete: see `EventFile`.

    Attributes:
        name: the name of the stream, once `resume` was called.
        ended: the topics read to their ends.

    Raises:
        SourceError: one of them cannot be read, or is empty.
    """

    def __init__(
        self, paths: Sequence[str], decoder: EventDecoder, *, in_disorder: bool = False, complete: bool = False
    ) -> None:
        self._files: Final[list[EventFile | SortedFile]] = []
        self._sources: list[Source] = []
        self._in_disorder: Final = in_disorder
        self.name = ""
        self.ended: Final[list[str]] = []
        with ExitStack() as stack:
            for path in paths:
                file = stack.enter_context(EventFile(path, complete=complete))
                if not file.base:
                    raise SourceError(
                        f"{path} is empty: there is nothing to learn from"
                        if file.unfinished is None
                        else f"{path} holds only an incomplete line so far"
                    )
                self._files.append(SortedFile(file, decoder) if in_disorder else file)
            self._close: Final = stack.pop_all().close

    @property
    def topics(self) -> list[str]:
        """The topics of the stream."""
        return [source.topic for source in self._sources]

    @property
    def size(self) -> int | None:
        """The size of the files on disk in bytes; None if one of them is a pipe."""
        sizes = [file.size for file in self._files]
        return None if None in sizes else sum(filter(None, sizes))

    @property
    def consumed(self) -> int:
        """The number of bytes read so far of the files on disk."""
        return sum(file.consumed for file in self._files)

    @property
    def unfinished(self) -> list[tuple[str, int]]:
        """The path and line number (from 0) of each file's last line that was left because it is incomplete."""
        return [(file.path, file.unfinished) for file in self._files if file.unfinished is not None]

    def path_of(self, topic: str) -> str:
        """Return the path of the source of a topic."""
        return next(source.file.path for source in self._sources if source.topic == topic)

    def resume(self, known: Positions) -> None:
        """Find out which stream this is.

        Args:
            known: the streams that were read into the store.

        Raises:
            SourceError: a source was read into this store in a different way, so its events would count twice; or see
                `identify`.
        """
        alone = {stream: topics[TOPIC] for stream, topics in known.items() if TOPIC in topics}
        together = {topic: (at, stream) for stream, topics in known.items() for topic, at in topics.items()}
        every = {**alone, **{topic: at for topic, (at, _) in together.items() if topic != TOPIC}}
        names: list[str] = []
        for file in self._files:
            self._refuse_other_order(file, every)
            name = identify(file, every)
            if name in names:
                twin = self._files[names.index(name)].path
                raise SourceError(
                    f"{file.path} is {twin} again, or begins with the same line: give each source once, and those that "
                    "begin alike one after the other"
                )
            names.append(name)
            if isinstance(file, SortedFile) and name in every:
                file.continues(every[name])
        single = len(names) == 1
        self.name = names[0] if single else _together(names)
        for file, name in zip(self._files, names, strict=True):
            stream = together[name][1] if name in together else name if name in alone else self.name
            if stream != self.name:
                others = "together with other sources" if stream != name else "by itself"
                raise SourceError(
                    f"{file.path} was read into this store {others} before, and would count twice: "
                    f"{'leave it out' if not single else 'run it with them'}, or begin a new store"
                )
        self._sources = [Source(TOPIC if single else name, file) for file, name in zip(self._files, names, strict=True)]

    def _refuse_other_order(self, file: EventFile | SortedFile, known: Mapping[str, TopicPosition]) -> None:
        """Check that the file was not read before in the other order: sorted, or as it is."""
        own = file.base.partition(":")[0]
        other = {
            f"{own}:{name.partition(':')[2]}": at
            for name, at in known.items()
            if name.partition(":")[0] == ("file" if own == "sorted" else "sorted") and at.read
        }
        if identify(file, other) in other:
            how, option = ("unsorted", "without --sort") if own == "sorted" else ("sorted", "with --sort")
            raise SourceError(
                f"{file.path} was read {how} before, and would count twice: run it {option}, or begin a new store"
            )

    def read(
        self, positions: Mapping[str, TopicPosition], newest: Callable[[str], int], stopped: Callable[[], bool]
    ) -> Iterator[tuple[str, Chunk | None]]:
        """Read the sources to their ends, next always the one that is furthest behind in event time.

        Threads read ahead, so that commits continue while a pipe is silent.

        Args:
            positions: where to resume each topic.
            newest: returns the newest event time (ms) yielded so far of a topic.
            stopped: returns whether to stop.

        Yields:
            A topic and its next chunk; None if there is none yet.
        """
        ahead = {
            source.topic: _Ahead(source.file.chunks(positions[source.topic].resume if source.topic in positions else 0))
            for source in self._sources
        }
        while ahead and not stopped():
            topic = min(ahead, key=newest)
            chunk = ahead[topic].get()
            if chunk is None and ahead[topic].ended:
                del ahead[topic]
                self.ended.append(topic)
            yield topic, chunk

    def close(self) -> None:
        """Close the files. Pipes stay open, because threads may be waiting in them."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Ahead:
    """Chunks, read ahead in a thread."""

    def __init__(self, chunks: Iterator[Chunk]) -> None:
        self._ready: Final[queue.Queue[Chunk | BaseException | None]] = queue.Queue(maxsize=_CHUNKS)
        self._chunks: Final = chunks
        self.ended = False
        threading.Thread(target=self._read, name="backchannel-read", daemon=True).start()

    def _read(self) -> None:
        try:
            for chunk in self._chunks:
                self._ready.put(chunk)
            self._ready.put(None)
        except BaseException as error:
            self._ready.put(error)

    def get(self) -> Chunk | None:
        """Return the next chunk; None if there is none yet, or none is left."""
        try:
            chunk = self._ready.get(timeout=_WAIT_S)
        except queue.Empty:
            return None
        if isinstance(chunk, BaseException):
            raise chunk
        self.ended = chunk is None
        return chunk


def _together(names: Sequence[str]) -> str:
    return f"files:{hashlib.blake2b(' '.join(sorted(names)).encode(), digest_size=8).hexdigest()}"
