"""Pairs of a turn and the query that followed it, with a label from public logs: rephrased or not.

- DSTC2, real callers: a turn is rephrased if its annotation shares an inform or request act, value included, with that
  of the next utterance, and no slot got a different value. "I don't care" means nothing by itself, so repeating it is
  not a rephrase.
- TREC Session Track 2013, real searchers, who explore: no turn is rephrased. Pairs that differ only in spelling are
  left out.
- SLURP, real errors of a recogniser: a rephrased turn is a wrong hypothesis, followed by the hypothesis for another
  recording of its sentence or, if there is none, by the sentence. A turn that is not rephrased is a hypothesis followed
  by one for another sentence, every second time one with the same intent. SLURP has no sessions: the rest of a turn
  (times, barge-ins, results, clicks) is copied from a DSTC2 pair with the same label, so that it adds no information.

The labels come from what was said and meant; the model sees only what was recognised. Pairs in which either query is
empty are left out.

Nobody is both trained on and tested on: a caller of DSTC2, a session of TREC or a sentence of SLURP is held out with
all of its pairs.
"""

import gzip
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from io import BufferedIOBase
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import msgspec
from msgspec import Struct, structs
from numpy.random import Generator
from rapidfuzz.fuzz import token_sort_ratio

from backchannel.ops.lab.convert import dstc2, trec_session
from backchannel.schemas.events import Event
from backchannel.schemas.text import normalize
from backchannel.schemas.turn import Turn
from backchannel.streams.turns.assembler import TurnAssembler, TurnConfig

HELD_OUT: Final = 0.3
"""Share of callers, sessions and sentences that are held out for tests."""

_SPELT_ANEW: Final = 92.0  # TREC queries whose sorted words are this similar (%) differ only in spelling


class Pair(Struct, frozen=True):
    """A turn with a next query, and its label.

    Attributes:
        turn: the assembled turn.
        rephrased: the label.
        held_out: whether the pair is held out for tests.
    """

    turn: Turn
    rephrased: bool
    held_out: bool


class Hypothesis(Struct, frozen=True):
    """A recogniser's hypothesis for a recording of a SLURP sentence."""

    slurp_id: int
    asr_text: str
    gold_text: str
    intent: str

    @property
    def heard(self) -> str:
        """The hypothesis, normalised."""
        return normalize(self.asr_text)

    @property
    def meant(self) -> str:
        """The sentence, normalised."""
        return normalize(self.gold_text)


class _Meant(Struct, frozen=True):
    session_id: str
    turn: int
    semantics: dstc2.Acts


def labelled(data: Path, rng: Generator) -> dict[str, list[Pair]]:
    """Return the pairs of each log in the folder `data`: "dstc2", "trec" and "slurp"."""
    spoken = list(_dstc2(data / "dstc2"))
    return {
        "dstc2": spoken,
        "trec": list(_trec(data / "trec_session_2013" / "sessiontrack2013.xml.gz")),
        "slurp": list(_slurp(hypotheses(data), spoken, rng)),
    }


def assembled(events: Iterable[Event]) -> list[Turn]:
    """Return the turns assembled from a log's events."""
    happened = list(events)
    assembler = TurnAssembler(["log"], TurnConfig(max_open=max(2 * len(happened), 1)))
    assembler.add("log", range(len(happened)), happened)
    return assembler.finish()


def dialogues(folder: Path) -> list[Event]:
    """Return the events of DSTC2 in time order."""
    with open_log(folder / dstc2.DIALOGS) as dialogs, open_log(folder / dstc2.TURNS) as rows:
        return list(dstc2.events(dialogs, rows))


def meanings(folder: Path) -> dict[str, frozenset[tuple[str, str, str]]]:
    """Return the annotated meaning of each DSTC2 query: query_id -> inform and request acts, slots and values."""
    decode = msgspec.json.Decoder(_Meant).decode
    with open_log(folder / dstc2.TURNS) as lines:
        return {
            f"{row.session_id}/{row.turn}": frozenset(
                (act, slot, value)
                for act, slots in row.semantics
                if act in ("inform", "request")
                for slot, value in slots
                if value != "dontcare"
            )
            for row in map(decode, lines)
        }


def hypotheses(data: Path) -> list[Hypothesis]:
    """Return the hypotheses for SLURP's recordings, without empty ones."""
    with open_log(data / "slurp_asr" / "test_asr_hyps.jsonl.gz") as lines:
        decode = msgspec.json.Decoder(Hypothesis).decode
        return [found for found in map(decode, lines) if found.heard]


def open_log(path: Path) -> BufferedIOBase:
    """Open a gzipped log."""
    return gzip.open(path)


def is_held_out(name: str) -> bool:
    return crc32(name.encode()) < HELD_OUT * 2**32


def _dstc2(folder: Path) -> Iterator[Pair]:
    meant = meanings(folder)
    for turn in assembled(dialogues(folder)):
        if turn.next is not None and normalize(turn.query.text) and normalize(turn.next.text):
            before, after = meant[turn.query.query_id], meant[turn.next.query_id]
            given = {(act, slot) for act, slot, _ in after if act == "inform"}
            changed = any((act, slot) in given for act, slot, _ in before - after)
            yield Pair(turn, bool(before & after) and not changed, is_held_out(turn.query.user_id or ""))


def _trec(path: Path) -> Iterator[Pair]:
    with open_log(path) as log:
        turns = assembled(trec_session.events(log, 0))
    for turn in turns:
        if turn.next is not None:
            text, following = normalize(turn.query.text), normalize(turn.next.text)
            if token_sort_ratio(text, following) < _SPELT_ANEW:
                yield Pair(turn, False, is_held_out(turn.query.session_id))


def _slurp(heard: Sequence[Hypothesis], spoken: Sequence[Pair], rng: Generator) -> Iterator[Pair]:
    deck: defaultdict[tuple[bool, bool], list[Turn]] = defaultdict(list)
    for pair in spoken:
        deck[pair.rephrased, pair.held_out].append(pair.turn)
    by_sentence, by_intent = defaultdict[int, list[Hypothesis]](list), defaultdict[str, list[Hypothesis]](list)
    for one in heard:
        by_sentence[one.slurp_id].append(one)
        by_intent[one.intent].append(one)

    def followed(one: Hypothesis, following: str, rephrased: bool) -> Pair:
        held_out = is_held_out(str(one.slurp_id))
        like = _any(deck[rephrased, held_out], rng)
        assert like.next is not None
        turn = structs.replace(
            like,
            query=structs.replace(like.query, text=one.asr_text, interpretation=None),
            next=structs.replace(like.next, text=following, interpretation=None),
        )
        return Pair(turn, rephrased, held_out)

    for one in heard:
        if one.heard != one.meant:
            again = _any(by_sentence[one.slurp_id], rng)
            yield followed(one, one.gold_text if again is one else again.asr_text, True)
        for others in (by_intent[one.intent], heard):
            other = _any(others, rng)
            if other.meant != one.meant:
                yield followed(one, other.asr_text, False)


def _any(some: Sequence[Any], rng: Generator) -> Any:
    return some[int(rng.integers(len(some)))]
