"""What a commit is: all that partitions of one process bring is learned together, and brought into the ledger."""

from collections import Counter
from collections.abc import Mapping, Sequence

from msgspec import Struct, structs

from backchannel.agents.columns import columns_of
from backchannel.agents.quality.learner import AnswerQuality
from backchannel.agents.sums import Sums
from backchannel.streams.pipeline.learners import Learning
from backchannel.streams.store.ledger import Contribution, Ledger
from backchannel.streams.turns.partition import Batch
from backchannel.streams.turns.position import Claim


class Commit(Struct, frozen=True):
    """What was committed.

    Attributes:
        claims: to commit with the next time; with where the partitions stand now.
        counts: of all batches.
        quality: what `AnswerQuality` has learned of all batches; None: nothing.
    """

    claims: list[Claim]
    counts: Mapping[str, int]
    quality: Sums | None = None


def commit(learning: Learning, ledger: Ledger, batches: Sequence[Batch]) -> Commit:
    """Learn from the batches' turns, and bring it all into the ledger in one transaction.

    To learn from all turns together costs less than from each partition's. The first contribution carries what was
    learned. It makes no difference if the same is committed again, because no answer came the first time.

    Raises:
        FencedError: see `Ledger.commit`.
    """
    turns = [turn for batch in batches for turn in batch.turns]
    outcomes = learning.judge(columns_of(turns))
    delta = learning.learn(outcomes)
    contributions = [Contribution(one.claim, one.position, {}, one.counts) for one in batches]
    contributions[0] = structs.replace(contributions[0], delta=delta, sample=learning.sample(outcomes))
    counts: Counter[str] = Counter()
    for batch in batches:
        counts.update(batch.counts)
    return Commit(ledger.commit(contributions), counts, delta.get(AnswerQuality.name))
