"""A commit: the batches of all partitions of a process are learned together and added to the ledger."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from msgspec import Struct, structs

from backchannel.agents.columnar.columns import Columns
from backchannel.agents.goals.learner import Goals
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.quality.learner import AnswerQuality
from backchannel.agents.sums import Delta, Sums, merge
from backchannel.streams.pipeline.learners import Learning
from backchannel.streams.store.ledger import Contribution, Ledger
from backchannel.streams.turns.partition import Batch
from backchannel.streams.turns.position import Claim


class Commit(Struct, frozen=True):
    """The result of a commit.

    Attributes:
        claims: the claims for the next commit, with the partitions' new positions.
        counts: the counts of all batches, added up.
        quality: the sums that `AnswerQuality` learned from all batches; None if there are none.
        goals: those that `Goals` learned.
    """

    claims: list[Claim]
    counts: Mapping[str, int]
    quality: Sums | None = None
    goals: Sums | None = None


def commit(learning: Learning, ledger: Ledger, batches: Sequence[Batch]) -> Commit:
    """Learn from the batches' turns, and add the result to the ledger in one transaction.

    Learning from the turns of all partitions together costs less than per partition, so the first contribution carries
    the whole delta; it is learned in portions, to bound memory. Committing the same batches again, after a lost answer,
    changes nothing.

    Raises:
        FencedError: see `Ledger.commit`.
    """
    judged, unconfigured = list[Outcomes](), Counter[str]()

    def learned() -> Iterator[Delta]:
        for columns in Columns.portions(chain.from_iterable(one.columns for one in batches)):
            outcomes = learning.judge(columns)
            judged.append(outcomes)
            unconfigured.update(learning.unconfigured(outcomes))
            yield learning.learn(outcomes)

    delta = merge(learned())
    contributions = [Contribution(one.claim, one.position, {}, one.counts) for one in batches]
    contributions[0] = structs.replace(
        contributions[0],
        delta=delta,
        counts={**contributions[0].counts, **unconfigured},
        sample=learning.sample(judged),
    )
    counts = Counter(unconfigured)
    for batch in batches:
        counts.update(batch.counts)
    return Commit(ledger.commit(contributions), counts, delta.get(AnswerQuality.name), delta.get(Goals.name))
