"""Simulated sessions of SLURP recordings that went through a real recogniser and NLU.

The data have recordings, but no sessions. So a person says a sentence. Who is misunderstood mostly says it again, which
is another recording of the same sentence, by the same or another person, until it is understood, there is none left or
the person gives up; then goes on with another sentence, half of the time one with the same intent, or leaves. People
choose something after answers to what they meant, and sometimes after others; see `People`. Texts and interpretations
are real, errors included; what people do is not.

Times between queries tell nothing: they are drawn alike for rephrases and for new sentences. Nobody interrupts, and the
system always answers. The two microphones of one utterance are never both in a goal.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct
from numpy.random import Generator

from backchannel.ops.lab.convert import ConversionError
from backchannel.ops.lab.rephrases.pairs import is_held_out, open_log
from backchannel.schemas.events import Click, Event, Impression, Query, Result

AGAIN: Final = 0.8
"""Probability that somebody who was misunderstood says it again, each time."""
ON: Final = 0.7
"""Probability that somebody goes on with another sentence."""
_GAP_MS: Final = (5_000, 40_000)
_SESSION_MS: Final = 3_600_000


class People(NamedTuple):
    """What people do: the probability that they choose something if they were understood, and if they were not."""

    chosen: float
    misled: float


class _Recording(Struct):
    file: str
    slurp_id: int
    asr: str
    nlu: tuple[str, list[tuple[str, str]]]


class _Sentence(Struct):
    slurp_id: int
    intent: str
    entities: list[tuple[str, str]]


class Recording(NamedTuple):
    """A recording.

    Attributes:
        utterance: what was said, by one person at one time; two microphones may have recorded it.
        sentence: the sentence's id.
        intent: what was meant, without values.
        text: what the recogniser heard.
        form: what the NLU made of it.
        meant: what was meant.
    """

    utterance: str
    sentence: int
    intent: str
    text: str
    form: str
    meant: str

    @property
    def is_understood(self) -> bool:
        """Whether the whole interpretation is right: intent and values."""
        return self.form == self.meant


class Sessions(NamedTuple):
    """Simulated sessions.

    Attributes:
        events: the events of all sessions, in time order.
        recordings: query_id -> the recording.
        possible: the queries whose recording failed and is followed by one of the same sentence that was understood.
    """

    events: list[Event]
    recordings: dict[str, Recording]
    possible: set[str]


def recordings(folder: Path, *, held_out: bool) -> list[Recording]:
    """Return the recordings in which something was heard, of the sentences that the rephrase detector learned from, or
    of the others.

    Raises:
        ConversionError: a recording has no sentence.
    """
    with open_log(folder / "slurp_pipeline" / "sentences.jsonl.gz") as lines:
        sentences = {one.slurp_id: one for one in map(msgspec.json.Decoder(_Sentence).decode, lines)}
    found = []
    with open_log(folder / "slurp_pipeline" / "recordings.jsonl.gz") as lines:
        for one in map(msgspec.json.Decoder(_Recording).decode, lines):
            sentence = sentences.get(one.slurp_id)
            if sentence is None:
                raise ConversionError(f"recordings.jsonl.gz: {one.file} has no sentence: use files of the same copy")
            if one.asr.strip() and is_held_out(str(one.slurp_id)) == held_out:
                utterance = one.file.removesuffix(".flac").removesuffix("-headset")
                form, meant = _form(*one.nlu), _form(sentence.intent, sentence.entities)
                found.append(Recording(utterance, one.slurp_id, sentence.intent, one.asr, form, meant))
    return found


def sessions(found: Sequence[Recording], people: People, rng: Generator) -> Sessions:
    """Return a session for each recording, which begins with it.

    Args:
        found: the recordings.
        people: what people do.
        rng: the source of randomness.
    """
    by_sentence: defaultdict[int, list[Recording]] = defaultdict(list)
    by_intent: defaultdict[str, list[Recording]] = defaultdict(list)
    for one in found:
        by_sentence[one.sentence].append(one)
        by_intent[one.intent].append(one)
    events: list[Event] = []
    asked: dict[str, Recording] = {}
    possible: set[str] = set()
    for number, place in enumerate(rng.permutation(len(found)).tolist()):
        ts = number * _SESSION_MS
        goal: list[str] = []
        for one, again in _said(found, by_sentence, by_intent, found[place], rng):
            goal = [*goal, f"{number}/{len(asked)}"] if again else [f"{number}/{len(asked)}"]
            asked[goal[-1]] = one
            if one.is_understood:
                possible.update(goal[:-1])
            chosen = rng.random() < (people.chosen if one.is_understood else people.misled)
            events += _events(one, str(number), goal[-1], ts, chosen=chosen)
            ts += int(rng.integers(*_GAP_MS))
    return Sessions(events, asked, possible)


def _said(
    found: Sequence[Recording],
    by_sentence: dict[int, list[Recording]],
    by_intent: dict[str, list[Recording]],
    first: Recording,
    rng: Generator,
) -> Iterator[tuple[Recording, bool]]:
    """Yield what a person says, and whether it is the same again."""
    one, used = first, {first.utterance}
    yield one, False
    while True:
        others = [other for other in by_sentence[one.sentence] if other.utterance not in used]
        if not one.is_understood and others and rng.random() < AGAIN:
            one, again = _any(others, rng), True
            used.add(one.utterance)
        elif rng.random() < ON:
            before, one, again = one, _any(by_intent[one.intent] if rng.random() < 0.5 else found, rng), False
            used = {one.utterance}
            if one.sentence == before.sentence:
                return
        else:
            return
        yield one, again


def _events(one: Recording, session: str, query: str, ts: int, *, chosen: bool) -> Iterator[Event]:
    yield Query(
        event_id=f"{query}/q", ts=ts, session_id=session, query_id=query, text=one.text, interpretation=one.form
    )
    shown = (Result("answer", 1),)
    yield Impression(
        event_id=f"{query}/i", ts=ts + 1_000, session_id=session, query_id=query, results=shown, outcome="answered"
    )
    if chosen:
        yield Click(event_id=f"{query}/c", ts=ts + 2_000, session_id=session, query_id=query, entity_id="answer")


def _form(intent: str, entities: Sequence[tuple[str, str]]) -> str:
    return f"{intent}({', '.join(f'{slot}={value}' for slot, value in sorted(entities))})"


def _any(some: Sequence[Any], rng: Generator) -> Any:
    return some[int(rng.integers(len(some)))]
