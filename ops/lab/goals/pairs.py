"""Two queries in a row, with whether the second begins a goal, from public logs.

- SGD, the Schema-Guided Dialogues (Rastogi et al., AAAI 2020), written and played: a goal begins where a user's active
  intents gain one. First queries of a dialogue are left out: they begin one by definition. Acts and intents of users
  are not evidence, as the labels are made from them; the system's act is the `outcome`.
- SLURP, spoken commands as a recogniser heard them. It has no sessions, so its pairs are simulated: a command and one
  with another intent, which begins a goal; or another recording of the same sentence, which does not.
- DSTC2, real callers, with one task a call: no query after the first begins a goal.

None has what tells most about real use: times between goals, and people who go on to the next thing by themselves. Two
logs are never learned from, only tried:

- SNIPS, written commands: pairs of two intents, simulated; the second always begins a goal.
- TREC Session Track, real searchers with one topic a session: no query after the first begins a goal.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

import msgspec
from msgspec import Struct
from numpy.random import Generator, default_rng

from backchannel.ops.lab.convert import ConversionError, trec_session
from backchannel.ops.lab.rephrases.pairs import assembled, dialogues, hypotheses, open_log
from backchannel.schemas.events import Impression, Query
from backchannel.schemas.turn import Turn

FOLDS: Final = 5
COMMANDS: Final = 4_000
"""Commands of SLURP and of SNIPS that begin a simulated pair."""

_OUTCOMES: Final = {
    "NOTIFY_FAILURE": "failed",
    "NOTIFY_SUCCESS": "answered",
    "INFORM": "answered",
    "OFFER": "offered",
    "OFFER_INTENT": "offered",
    "CONFIRM": "confirmed",
    "REQUEST": "asked",
    "REQ_MORE": "asked",
}
"""The system's act -> the outcome; the first one in this order counts."""


class Pair(NamedTuple):
    """Two queries in a row.

    Attributes:
        log: sgd, slurp, dstc2, snips or trec.
        group: the dialogue, sentence or caller: with all of its pairs on one side of every evaluation.
        fold: the group's fold.
        turn: the turn of the first query; its next query is the second.
        begins: whether that begins a goal.
        services: the services of the dialogue, in SGD.
    """

    log: str
    group: str
    fold: int
    turn: Turn
    begins: bool
    services: frozenset[str] = frozenset()


class _Utterance(Struct):
    speaker: str
    text: str
    acts: list[str]
    intents: list[str] = []


class _Dialogue(Struct):
    dialogue_id: str
    services: list[str]
    turns: list[_Utterance]


class _Command(Struct):
    intent: str
    text: str


def learned(folder: Path, salt: str = "") -> list[Pair]:
    """Return the pairs to learn from.

    Args:
        folder: the folder with `sgd_goals`, `slurp_asr` and `dstc2`.
        salt: changes the division into folds.

    Raises:
        ConversionError: a line is not a dialogue.
    """
    heard = [(one.intent, str(one.slurp_id), one.asr_text) for one in hypotheses(folder)]
    rng = default_rng(0)
    return [
        *_dialogues(folder / "sgd_goals" / "dialogues.jsonl.gz", salt),
        *_commands("slurp", heard, salt, rng),
        *_recordings(heard, salt, rng),
        *_one_task("dstc2", assembled(dialogues(folder / "dstc2")), salt),
    ]


def tried(folder: Path) -> list[Pair]:
    """Return the pairs that are never learned from, of the folder's `snips_nlu_2017` and `trec_session_2013`."""
    with open_log(folder / "snips_nlu_2017" / "utterances.jsonl.gz") as lines:
        commands = [(one.intent, one.text, one.text) for one in map(msgspec.json.Decoder(_Command).decode, lines)]
    with open_log(folder / "trec_session_2013" / "sessiontrack2013.xml.gz") as log:
        searches = assembled(trec_session.events(log, 0))
    return [*_commands("snips", commands, "", default_rng(1)), *_one_task("trec", searches, "")]


def _fold(group: str, salt: str) -> int:
    return crc32(f"{salt}{group}".encode()) % FOLDS


def _dialogues(path: Path, salt: str) -> Iterator[Pair]:
    decode = msgspec.json.Decoder(_Dialogue).decode
    with open_log(path) as lines:
        for number, line in enumerate(lines, 1):
            try:
                dialogue = decode(line)
            except msgspec.MsgspecError as error:
                raise ConversionError(f"{path.name}, line {number}: not a dialogue of SGD: {error}") from error
            name = dialogue.dialogue_id
            services = frozenset(dialogue.services)
            for turn, begins in _in_a_row(dialogue):
                yield Pair("sgd", name, _fold(name, salt), turn, begins, services)


def _in_a_row(dialogue: _Dialogue) -> Iterator[tuple[Turn, bool]]:
    before: str | None = None
    active: set[str] = set()
    outcome: str | None = None
    for one in dialogue.turns:
        if one.speaker == "SYSTEM":
            outcome = next((name for act, name in _OUTCOMES.items() if act in one.acts), None)
            continue
        if before is not None:
            yield _turn(before, one.text, outcome), not active.issuperset(one.intents)
        before, active = one.text, set(one.intents)


def _commands(log: str, commands: Sequence[tuple[str, str, str]], salt: str, rng: Generator) -> Iterator[Pair]:
    """Yield pairs of commands, each its intent, its group and its text, with two intents and of one fold."""
    by_fold = defaultdict[int, list[tuple[str, str, str]]](list)
    for one in commands:
        by_fold[_fold(one[1], salt)].append(one)
    for place in rng.permutation(len(commands))[:COMMANDS].tolist():
        intent, group, text = commands[place]
        others = by_fold[_fold(group, salt)]
        other = others[rng.integers(len(others))]
        if other[0] != intent:
            yield Pair(log, group, _fold(group, salt), _turn(text, other[2]), True)


def _recordings(heard: Sequence[tuple[str, str, str]], salt: str, rng: Generator) -> Iterator[Pair]:
    by_sentence = defaultdict[str, list[str]](list)
    for _, group, text in heard:
        by_sentence[group].append(text)
    for group, texts in sorted(by_sentence.items()):
        if len(texts) > 1:
            one, other = rng.choice(len(texts), 2, replace=False).tolist()
            yield Pair("slurp", group, _fold(group, salt), _turn(texts[one], texts[other]), False)


def _one_task(log: str, turns: Iterable[Turn], salt: str) -> Iterator[Pair]:
    for turn in turns:
        if turn.next is not None:
            group = turn.query.user_id or turn.query.session_id
            yield Pair(log, group, _fold(group, salt), turn, False)


def _turn(text: str, following: str, outcome: str | None = None) -> Turn:
    queries = [
        Query(event_id=name, ts=ts, session_id="s", query_id=name, text=said)
        for name, ts, said in (("q1", 0, text), ("q2", 10_000, following))
    ]
    shown = Impression(event_id="i1", ts=0, session_id="s", query_id="q1", results=(), outcome=outcome)
    return Turn.of(queries[0], [shown], queries[1])
