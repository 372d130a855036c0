"""Pairs of a turn and the query that followed it, labelled from public logs: was it rephrased?

- DSTC2, real callers: rephrased is what shares an inform or request act with its value with what is said next, as both
  are annotated, unless another slot got another value. "I don't care" means nothing by itself, so saying it twice is no
  rephrase.
- TREC Session Track 2013, real searchers, who explore: none of them, leaving out what only spells alike words anew.
- SLURP, real errors of a recogniser: rephrased is a wrong hypothesis, followed by what was recognised in another
  recording of that sentence, or, if there is none, by the sentence; not rephrased is a hypothesis that is followed by
  one of another sentence, every other time one of the same intent. SLURP has no sessions: the rest of a turn (times,
  barge-ins, results, clicks) is a DSTC2 pair's of the same label, so that it says nothing beyond what it says there.

The labels come from what was meant and said; the model sees only what was recognised. Pairs where either time nothing
was recognised are left out.

Whoever is trained with is not tested with: a caller of DSTC2, a session of TREC, a sentence of SLURP is held out or not
with all of its pairs.
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
"""The share of callers, sessions and sentences that are tested with."""

_SPELT_ANEW: Final = 92.0  # similarity of sorted words, in %, from which TREC queries differ in spelling only


class Pair(Struct, frozen=True):
    """A turn with a next query, and its label.

    Attributes:
        turn: as it was assembled.
        rephrased: the label.
        held_out: whether it is to be tested with.
    """

    turn: Turn
    rephrased: bool
    held_out: bool


class Hypothesis(Struct, frozen=True):
    """What a recogniser made of a recording of a sentence of SLURP."""

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
    """Return the turns of a log."""
    happened = list(events)
    assembler = TurnAssembler(["log"], TurnConfig(max_open=max(2 * len(happened), 1)))
    assembler.add("log", range(len(happened)), happened)
    return assembler.finish()


def dialogues(folder: Path) -> list[Event]:
    """Return the events of DSTC2 in time order."""
    with open_log(folder / dstc2.DIALOGS) as dialogs, open_log(folder / dstc2.TURNS) as rows:
        return list(dstc2.events(dialogs, rows))


def meanings(folder: Path) -> dict[str, frozenset[tuple[str, str, str]]]:
    """Return what each query of DSTC2 meant, as annotated: query_id -> inform and request acts, slots and values."""
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
    """Return SLURP's recordings, as they were recognised; those of which nothing was are left out."""
    with open_log(data / "slurp_asr" / "test_asr_hyps.jsonl.gz") as lines:
        decode = msgspec.json.Decoder(Hypothesis).decode
        return [found for found in map(decode, lines) if found.heard]


def open_log(path: Path) -> BufferedIOBase:
    """Open a gzipped log."""
    return gzip.open(path)


def _is_held_out(name: str) -> bool:
    return crc32(name.encode()) < HELD_OUT * 2**32


def _dstc2(folder: Path) -> Iterator[Pair]:
    meant = meanings(folder)
    for turn in assembled(dialogues(folder)):
        if turn.next is not None and normalize(turn.query.text) and normalize(turn.next.text):
            before, after = meant[turn.query.query_id], meant[turn.next.query_id]
            given = {(act, slot) for act, slot, _ in after if act == "inform"}
            changed = any((act, slot) in given for act, slot, _ in before - after)
            yield Pair(turn, bool(before & after) and not changed, _is_held_out(turn.query.user_id or ""))


def _trec(path: Path) -> Iterator[Pair]:
    with open_log(path) as log:
        turns = assembled(trec_session.events(log, 0))
    for turn in turns:
        if turn.next is not None:
            text, following = normalize(turn.query.text), normalize(turn.next.text)
            if token_sort_ratio(text, following) < _SPELT_ANEW:
                yield Pair(turn, False, _is_held_out(turn.query.session_id))


def _slurp(heard: Sequence[Hypothesis], spoken: Sequence[Pair], rng: Generator) -> Iterator[Pair]:
    deck: defaultdict[tuple[bool, bool], list[Turn]] = defaultdict(list)
    for pair in spoken:
        deck[pair.rephrased, pair.held_out].append(pair.turn)
    by_sentence, by_intent = defaultdict[int, list[Hypothesis]](list), defaultdict[str, list[Hypothesis]](list)
    for one in heard:
        by_sentence[one.slurp_id].append(one)
        by_intent[one.intent].append(one)

    def followed(one: Hypothesis, following: str, rephrased: bool) -> Pair:
        held_out = _is_held_out(str(one.slurp_id))
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
