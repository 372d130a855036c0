"""From sums per time bucket to posteriors: what still counts, how strong the prior is, and whether the world changed.

Each bucket was once the future. In their order, every model (a half-life and a prior precision) predicts the bucket
from those before it, and is weighed by the likelihood of what came: Bayesian model
averaging by progressive predictive likelihood (Dawid, "Statistical theory: the prequential approach", JRSS A 1984). A
fixed share goes back to the prior weights, so that the best may change (Herbster & Warmuth, "Tracking the best
expert", Machine Learning 1998). All of it is a function of the sums.

Where reward falls below prediction, earlier evidence is cut down. Whether that was right turns out later: for a while
there are two courses of events, with the cut and without it, and averaging goes on in both until one has predicted
better. So a
false alarm costs little, and the test may be quick to raise one. It is ADWIN's (Bifet & Gavaldà, "Learning from
time-changing data with adaptive windowing", SDM 2007) on the signed residual. ADWIN keeps its window as an exponential
histogram of buckets, and so does the ledger: the test runs on the ledger's own buckets and needs no second window. A
reward that is credited to several strategies enters the sum of the residuals that many times, so its variance grows.
"""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final

import numpy as np
from msgspec import Struct, structs

from backchannel.agents.sums import Floats

STEADY: Final = 0.7
"""Prior weight of never forgetting; the half-lives share the rest."""
SHARE: Final = 0.01
"""Share of the weights that goes back to the prior with each bucket."""
CONFIDENCE: Final = 0.1
"""ADWIN's delta: about the probability of a false alarm."""
CUT: Final = 0.05
"""What is left of the evidence from before a change."""
BELIEVED: Final = 0.8
"""Initial weight of the course of events with the cut."""
SETTLED: Final = 0.98
"""Weight at which one of the two courses is taken as settled."""
OPTIMISM: Final = 0.5
"""By how much the prediction for a chosen strategy may be too high, in its standard deviations.

What is chosen because most is expected of it disappoints: the best of several estimates is one that errs upwards (the
optimizer's curse; Smith & Winkler, Management Science 2006). In the simulated worlds it was 0.3 to 0.9 at first.
"""
PAST: Final = -1
"""Start of the bucket that holds everything from before the last change."""
_TINY: Final = 2.0**-20  # the square of the grid that rewards lie on


class Exposures(Struct, frozen=True):
    """The sums of one encoding.

    Attributes:
        starts: starts of the buckets, (buckets,), ms, rising; the first may be PAST.
        sums: Z'Z, (buckets, strategies, d + 1, d + 1), a row of Z being a context and its reward.
        turns: turns, once for each strategy that was asked, (buckets,): the number of observations. A turn that
            asks for several candidates is one of them, though it is more exposure in the sums.
        shared: the number of strategies that are credited with a reward, on average: their residuals add up.
    """

    starts: Floats
    sums: Floats
    turns: Floats
    shared: float = 1.0


class Posterior(Struct, frozen=True):
    """The posterior of the strategies' weights.

    Attributes:
        theta: the means of the weights, (strategies, d).
        whitener: (strategies, d, d); W'W is the covariance in units of the residual's variance.
        deviation: the residual's standard deviation.
        discounts: the discount of each bucket, (buckets,), 0 to 1.
        weights: weights of the half-lives, the first for no forgetting, (1 + half-lives,); they add up to 1.
        changes: starts of the buckets, ms, from which on rewards fell below prediction, if that is settled.
        changed: the last of them, settled or not, ms; None: there is none.
    """

    theta: Floats
    whitener: Floats
    deviation: float
    discounts: Floats
    weights: Floats
    changes: tuple[int, ...]
    changed: int | None = None


class ModelAverage:
    """Bayesian linear models over the same sums: every half-life, and no forgetting, with every ridge.

    Strategies share a prior mean: the weights that fit all of them pooled, so that a strategy of which little is known
    is expected to do what strategies do in general. `ridge` is its precision, in observations.

    Args:
        half_lives_ms: half-lives to try besides no forgetting, ms.
        ridges: prior precisions, in observations; at least one.
    """

    def __init__(self, half_lives_ms: Sequence[float], ridges: Sequence[float]) -> None:
        self._half_lives: Final = np.array([np.inf, *half_lives_ms])
        self._ridges: Final = np.array(ridges)[:, np.newaxis, np.newaxis]
        count = len(half_lives_ms)
        steady = STEADY if count else 1.0
        by_half_life = np.array([steady, *[(1.0 - steady) / count for _ in range(count)]])
        self._prior: Final = np.outer(by_half_life, np.full(len(ridges), 1.0 / len(ridges)))
        nothing = np.zeros((0, 1, *self._prior.shape))
        self._passed = [_Passed(b"", np.zeros((1, 0)), np.zeros(0), nothing, self._prior[np.newaxis], (), (), None)]

    def infer(self, evidence: Exposures, at: int) -> Posterior:
        """Return the posterior at event time `at` (ms).

        Unchanged buckets, which most are, are cached.
        """
        known, passed = self._passed, self._passed[:1]
        shared = np.float64(evidence.shared).tobytes()
        for bucket, row in enumerate(zip(evidence.starts, evidence.sums, evidence.turns, strict=True), 1):
            digest = blake2b(
                b"".join((passed[-1].digest, shared, *(each.tobytes() for each in row))), digest_size=16
            ).digest()
            same = bucket < len(known) and known[bucket].digest == digest
            passed.append(known[bucket] if same else self._pass(passed[-1], evidence, digest))
        self._passed = passed
        last = passed[-1]
        discounts = self._discounts(evidence.starts, last.kept, at)
        precision, moment = self._models(evidence.sums, discounts)
        # Averaged in natural parameters (a logarithmic opinion pool), so that the result is normal again.
        precision = np.tensordot(last.weights, precision, axes=3)
        moment = np.tensordot(last.weights, moment, axes=3)
        whitener = np.linalg.inv(np.linalg.cholesky(precision))
        by_half_life = last.weights.sum(axis=2)
        return Posterior(
            theta=(whitener.swapaxes(-1, -2) @ (whitener @ moment[..., np.newaxis]))[..., 0],
            whitener=whitener,
            deviation=float(np.sqrt(self._variance(last.weights, discounts, last.counts, last.losses))),
            discounts=np.tensordot(by_half_life, discounts, axes=2),
            weights=by_half_life.sum(axis=0),
            changes=last.changes,
            changed=max((*last.changes, *(() if last.doubted is None else (last.doubted,))), default=None),
        )

    def _pass(self, before: "_Passed", evidence: Exposures, digest: bytes) -> "_Passed":
        """Return the state after one more bucket."""
        bucket = len(before.counts)
        starts, sums = evidence.starts[: bucket + 1], evidence.sums[bucket]
        start = starts[bucket]
        kept = np.pad(before.kept, ((0, 0), (0, 1)), constant_values=CUT if start == PAST else 1.0)
        counts = np.append(before.counts, evidence.turns[bucket])
        exposure = sums[:, 0, 0].sum()
        discounts = self._discounts(starts, kept, start)
        predicted = _predict(*self._models(evidence.sums[:bucket], discounts[..., :-1]), sums)
        losses = np.concatenate((before.losses, predicted.loss[np.newaxis]))
        noise = max(2.0 * float((before.weights * predicted.loss).sum()) / counts[bucket], _TINY)
        weights = self._reweighed(before.weights, -predicted.loss / noise - predicted.spread)
        passed = _Passed(digest, kept, counts, losses, weights, before.window, before.changes, before.doubted)
        if weights.sum(axis=(1, 2)).max() > SETTLED:
            passed = passed.settled()
        if start == PAST:
            return passed
        variance = evidence.shared * self._variance(before.weights, discounts, counts, losses)
        observed = (
            exposure,
            float((before.weights * predicted.residual).sum()),
            variance * (exposure + float((before.weights * predicted.doubt).sum())),
            float(np.sqrt(variance * exposure * (before.weights * predicted.width).sum())),
        )
        window = (*before.window, observed)
        since = _fall(window)
        if since is None:
            return structs.replace(passed, window=window)
        changed = bucket + 1 - since
        return passed.settled().doubting(changed, int(starts[changed]))

    def _discounts(self, starts: Floats, kept: Floats, at: float) -> Floats:
        """Return the discounts of buckets at time `at`, (courses, half-lives, buckets)."""
        ages = np.maximum(at - starts, 0.0)
        discounts: Floats = kept[:, np.newaxis] * np.exp2(-ages / self._half_lives[:, np.newaxis])
        return discounts

    def _models(self, sums: Floats, discounts: Floats) -> tuple[Floats, Floats]:
        """Return precisions, (courses, half-lives, ridges, strategies, d, d), in units of the noise; those x means."""
        total = np.tensordot(discounts, sums, axes=1)
        gram, moment = total[..., :-1, :-1], total[..., :-1, -1]
        identity = np.eye(gram.shape[-1])
        pooled = np.linalg.solve(
            gram.sum(axis=-3) + self._ridges.min() * identity, moment.sum(axis=-2)[..., np.newaxis]
        ).swapaxes(-1, -2)
        # A ridge that would be lost in large sums grows with them.
        traces = np.trace(gram, axis1=-2, axis2=-1)[..., np.newaxis, :, np.newaxis]
        ridges = np.maximum(self._ridges, 1e-12 * traces)
        return (
            gram[..., np.newaxis, :, :, :] + ridges[..., np.newaxis] * identity,
            moment[..., np.newaxis, :, :] + ridges * pooled[..., np.newaxis, :, :],
        )

    def _variance(self, weights: Floats, discounts: Floats, counts: Floats, losses: Floats) -> float:
        """Return the residual's variance. One turn of mean squared reward 1/4 stands in until there are residuals."""
        squares = 0.25 + 2.0 * np.einsum("chb,bchr->chr", discounts, losses)
        return float((weights * squares / (1.0 + discounts @ counts)[..., np.newaxis]).sum())

    def _reweighed(self, weights: Floats, log_likelihood: Floats) -> Floats:
        likelihood: Floats = weights * np.exp(log_likelihood - log_likelihood.max())
        reweighed: Floats = (1.0 - SHARE) * likelihood / likelihood.sum() + SHARE / len(weights) * self._prior
        return reweighed


def coarsen(
    starts: Iterable[int], changes: Sequence[int], bucket_ms: int, at: int, changed: int | None = None
) -> dict[int, int]:
    """Return which buckets to coarsen at event time `at` (ms): old start -> new start.

    A bucket is at most about an eighth of its age long, so their number stays small. What it becomes depends on `at`
    only, not on when it was compacted before. But in coarser buckets a change might no longer show. So everything from
    before the last of `changes` becomes the PAST, and none reaches across `changed`, which may be doubted.
    """
    change = max(changes, default=PAST)
    together: dict[int, int] = {}
    for start in starts:
        became, length = start, 2 * bucket_ms
        if start < change:
            became = PAST
        elif start != PAST:
            while at - (coarser := start - start % length) >= 8 * length:
                if changed is not None and coarser < changed < coarser + length:
                    break
                became, length = coarser, 2 * length
        if became != start:
            together[start] = became
    return together


class _Passed(Struct, frozen=True):
    """What is known after some buckets, in one course of events, or in two while a change is doubted.

    Attributes:
        digest: of these buckets.
        kept: what cuts have left of each, (courses, buckets).
        counts: their observations, (buckets,).
        losses: half of the squared residuals, (buckets, courses, half-lives, ridges).
        weights: of the models, (courses, half-lives, ridges).
        window: see `_fall`.
        changes: see `Posterior`.
        doubted: start of the bucket, ms, from which on rewards may have fallen; if so, the first course is right.
    """

    digest: bytes
    kept: Floats
    counts: Floats
    losses: Floats
    weights: Floats
    window: tuple[tuple[float, float, float, float], ...]
    changes: tuple[int, ...]
    doubted: int | None

    def doubting(self, bucket: int, start: int) -> "_Passed":
        """Go on in two courses: in the first one what came before `bucket`, which starts at `start`, is cut."""
        cut = self.kept.copy()
        cut[:, :bucket] *= CUT
        return structs.replace(
            self,
            kept=np.concatenate((cut, self.kept)),
            losses=np.concatenate((self.losses, self.losses), axis=1),
            weights=np.concatenate((BELIEVED * self.weights, (1.0 - BELIEVED) * self.weights)),
            window=(),
            doubted=start,
        )

    def settled(self) -> "_Passed":
        """Go on in the likelier course."""
        if self.doubted is None:
            return self
        weights = self.weights.sum(axis=(1, 2))
        course = int(weights.argmax())
        return structs.replace(
            self,
            kept=self.kept[[course]],
            losses=self.losses[:, [course]],
            weights=self.weights[[course]] / weights[course],
            changes=self.changes if course else (*self.changes, self.doubted),
            doubted=None,
        )


class _Prediction(Struct, frozen=True):
    """What the models, (courses, half-lives, ridges), made of a bucket that they had not seen.

    Attributes:
        loss: half of the squared residuals, each predicted from everything before it.
        spread: half of the logarithm of how much wider than the noise the predictions were.
        residual: rewards less predictions from before the bucket, added up.
        doubt: the part of the variance of that sum that is due to the weights, in units of the noise.
        width: the same variances of the single predictions, added up.
    """

    loss: Floats
    spread: Floats
    residual: Floats
    doubt: Floats
    width: Floats


def _predict(precision: Floats, moment: Floats, sums: Floats) -> _Prediction:
    """Predict a bucket with `sums`, (strategies, d + 1, d + 1), from models with `precision` and `moment`."""
    gram, rewarded, squares = sums[..., :-1, :-1], sums[..., :-1, -1], sums[..., -1, -1]
    before = np.linalg.cholesky(precision)
    after = np.linalg.cholesky(precision + gram)
    whitener = np.linalg.inv(before)
    theta = (whitener.swapaxes(-1, -2) @ (whitener @ moment[..., np.newaxis]))[..., 0]
    error = rewarded - (gram @ theta[..., np.newaxis])[..., 0]
    learned = (np.linalg.solve(after, error[..., np.newaxis])[..., 0] ** 2).sum(axis=-1)
    loss = 0.5 * np.maximum(squares - (theta * (rewarded + error)).sum(axis=-1) - learned, 0.0)
    widened = np.log(np.diagonal(after, axis1=-2, axis2=-1)) - np.log(np.diagonal(before, axis1=-2, axis2=-1))
    return _Prediction(
        loss=loss.sum(axis=-1),
        spread=widened.sum(axis=(-1, -2)),
        residual=error[..., 0].sum(axis=-1),  # the first column is the constant 1
        doubt=((whitener @ gram[..., :1]) ** 2).sum(axis=(-1, -2, -3)),
        width=(whitener * (whitener @ gram)).sum(axis=(-1, -2, -3)),
    )


def _fall(window: Sequence[tuple[float, float, float, float]]) -> int | None:
    """Return for how many buckets rewards have been below prediction, or None if they have not.

    That they are below what they were is not enough: a model that has been learning, too, leaves ever smaller
    residuals. So the newer part must also be below zero, by more than it is when the best looking one was chosen; both
    by more than chance allows.

    Args:
        window: the buckets since the last change: observations; the sum of their residuals; the variance that this
            was to have; and the standard deviations of the predictions, added up.
    """
    if len(window) < 2:
        return None
    count, residual, variance, width = np.cumsum(window, axis=0).T
    older, newer = count[:-1], count[-1] - count[:-1]
    below = -(residual[-1] - residual[:-1]) / newer
    drop = residual[:-1] / older + below
    newer_variance = (variance[-1] - variance[:-1]) / newer**2
    confidence = np.log(2.0 * np.log(count[-1]) / CONFIDENCE)
    bound = np.sqrt(2.0 * confidence * (variance[:-1] / older**2 + newer_variance))
    bound += 2.0 / 3.0 * confidence * (1.0 / older + 1.0 / newer)
    optimism = OPTIMISM * (width[-1] - width[:-1]) / newer
    fallen = (drop > bound) & (below > optimism + np.sqrt(2.0 * confidence * newer_variance))
    if not fallen.any():
        return None
    return len(older) - int(np.where(fallen, drop / bound, 0.0).argmax())
