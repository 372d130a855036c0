"""From sums to posteriors: rates by rank, how contexts change them, and what strategies have in common.

The rate of strategy s in rank bucket k is the weight of clicks expected from the bucket if it is drawn whole:

    rate_sk(x) = c_sk (1 + phi_s . x)

c_sk is a gamma posterior whose prior mean is what strategies in general get in bucket k, times the level of s over all
buckets. So a newcomer starts from what strategies get in general, and a bucket never drawn from what the strategy gets
elsewhere. Both posteriors are wide, not low. How far single buckets depart from a strategy's level is learned, too
(empirical Bayes): each of STRENGTHS of their prior is weighed by the likelihood of the fold of queries that it was not
fitted to. phi_s is the step of a quasi-Poisson regression (McCullagh & Nelder,
Generalized Linear Models, 1989, ch. 9) from there: with the dispersions W_k, A_s = sum_k c_sk G_sk / W_k and
r_s = sum_k (b_sk - c_sk g_sk) / W_k, g being the first column of G,

    phi_0 = (sum_s A_s + a I)^-1 sum_s r_s,    phi_s = phi_0 + (A_s + l I)^-1 (r_s - A_s phi_0).

l follows in the same way: each of RIDGES is weighed by the likelihood of the other fold.

Most columns of a context may mean nothing, and plans that follow them waste candidates. So there is a second mean of
phi, for pages: there each column has a prior variance of its own, the mean of those that RELEVANCES give, weighed by
the marginal likelihood of the column given all others (automatic relevance determination; Tipping & Faul, "Fast
marginal likelihood maximisation for sparse Bayesian models", AISTATS 2003). A single candidate is chosen by the first
one: there, only the chosen strategy is learned, and it takes errors of weights to have others tried.

An item of s in bucket k is met in bucket j of t with the discrete hazard h_stkj = event / risk. Lists have their tops
in common and differ further down, but little is seen of deep ranks. So it is shrunk to what all pairs have in the same
buckets, at the pair's own level, by which all its hazards differ from theirs in proportion (Cox, "Regression models and
life-tables", 1972).
"""

from typing import Final

import numpy as np

from backchannel.agents.bandit.belief import LEVEL_PRIOR, Belief
from backchannel.agents.bandit.evidence import FOLDS, Pairs, StrategySums
from backchannel.agents.bandit.posterior import Exposures
from backchannel.agents.bandit.ranks import BUCKETS, WIDTH
from backchannel.agents.sums import Floats

STRENGTHS: Final = np.array([2.0, 8.0, 32.0])
"""Strengths of the prior of a bucket's rate, in clicks."""
RIDGES: Final = np.array([0.1, 0.3, 1.0, 3.0, 10.0])
"""Prior precisions of the difference between a strategy's context weights and the common ones."""
RELEVANCES: Final = np.array([1.0, 10.0, 1000.0])[:, np.newaxis, np.newaxis]
"""Prior precisions of such a difference in one column; the last is all but certain that there is none."""
COMMON_RIDGE: Final = 1.0
"""Prior precision of the common context weights."""
POOLED: Final = 0.5 * 0.8 ** np.arange(BUCKETS)
"""Prior rates of strategies in general, worth one turn."""
MET: Final = 40.0
"""Strength of the priors of hazards, as weight of searched items."""
TYPICAL: Final = 5.0
"""Weight of clicks that the dispersion of all buckets counts for in that of each."""
OVERLAP: Final = 0.05
"""Prior mean of the hazards of all pairs, of strength MET."""
_SUREST: Final = 0.999
_SWEEPS: Final = 3


def believe(evidence: StrategySums) -> Belief:
    """Return the posterior of rates.

    Args:
        evidence: discounted sums, (strategies, ...), of all rank buckets or of the first ones.
    """
    drawn, weight = evidence.drawn, np.maximum(evidence.weight, 0.0)
    pooled = (weight.sum(axis=0) + POOLED[: drawn.shape[-1]]) / (drawn.sum(axis=0) + 1.0)
    dispersion = _dispersion(evidence.squares.sum(axis=0), weight.sum(axis=0), pooled)
    clicks, exposed = weight / dispersion, drawn / dispersion
    strength = _strength(evidence, pooled, dispersion)
    prior = _priors(clicks, exposed, pooled, strength)
    rates = (clicks + strength) / (exposed + prior)
    gram = np.einsum("sk,skfij->sfij", rates / dispersion, evidence.gram)
    left = evidence.moment - rates[..., np.newaxis, np.newaxis] * evidence.gram[..., 0]
    moment = np.einsum("k,skfi->sfi", 1.0 / dispersion, left)
    theta, precision = _contexts(gram, moment)
    return Belief(
        clicks=clicks,
        rates=rates,
        prior=prior / (exposed + prior),
        theta=theta,
        whitener=np.linalg.inv(np.linalg.cholesky(precision)),
        evident=_evident(gram.sum(axis=1), moment.sum(axis=1)),
    )


def exposures(starts: Floats, evidence: StrategySums, shared: float = 1.0) -> Exposures:
    """Return the sums for model averaging.

    A row of Z is a context and the weight of clicks per unit of exposure. What was drawn counts as exposure by what
    strategies in general have got at such ranks until then, relative to the first rank. Both are divided by the
    dispersion of their rank bucket, relative to the first one's: the rarer clicks are and the more each weighs, the
    less an observation tells. Where one candidate is drawn, exposure is 1, and these are the plain sums of a linear
    regression.

    Args:
        starts: starts of time buckets, ms, (time buckets,).
        evidence: sums by time bucket, (time buckets, strategies, ...).
        shared: the number of strategies that a click is credited to, see `producers`.
    """
    known = evidence.drawn, np.maximum(evidence.weight, 0.0), evidence.squares
    drawn, weight, squares = (each.sum(axis=1).cumsum(axis=0) for each in known)
    pooled = (weight + POOLED[: drawn.shape[-1]]) / (drawn + 1.0)
    dispersion = _dispersion(squares, weight, pooled)
    told = dispersion[:, :1] / dispersion
    worth = pooled / pooled[:, :1] * told
    d = evidence.gram.shape[-1]
    sums = np.empty((*evidence.gram.shape[:2], d + 1, d + 1))
    sums[..., :d, :d] = np.einsum("tk,tskfij->tsij", worth, evidence.gram)
    sums[..., :d, d] = sums[..., d, :d] = np.einsum("tk,tskfi->tsi", told, evidence.moment)
    exposed = np.maximum(np.einsum("tk,tsk->ts", worth, evidence.drawn), 1e-9)
    squared = np.einsum("tk,tsk->ts", told**2, evidence.squares)
    sums[..., d, d] = squared * np.minimum(evidence.drawn[..., 0] / exposed, 1.0)
    return Exposures(starts, sums, evidence.drawn[..., 0].sum(axis=1), shared)


def producers(clicked: Pairs) -> float:
    """Return how many strategies bring a clicked item on average: a power of the square root of 2, at least 1.

    It is rounded, because model averaging begins anew whenever it changes.

    Args:
        clicked: the pair sums of clicked items: each is met once in its own list.
    """
    met = clicked.event.sum(axis=(2, 3))
    mean = met.sum() / max(float(met.trace()), 1e-9)
    return float(2.0 ** (np.rint(2.0 * np.log2(np.clip(mean, 1.0, len(met)))) / 2.0))


def hazards(pairs: Pairs) -> Floats:
    """Return the hazards h, of the shape of the pair sums, below 1."""
    between = 1.0 - np.eye(len(pairs.risk))[:, :, np.newaxis, np.newaxis]
    risk, event = pairs.risk * between, pairs.event * between
    overall = (event.sum() + OVERLAP * MET) / (risk.sum() + MET)
    pooled = np.minimum((event.sum(axis=(0, 1)) + MET * overall) / (risk.sum(axis=(0, 1)) + MET), _SUREST)
    expected = (risk * pooled).sum(axis=(2, 3), keepdims=True)
    level = (event.sum(axis=(2, 3), keepdims=True) + MET * overall) / (expected + MET * overall)
    prior = 1.0 - (1.0 - pooled) ** level
    return np.asarray(np.minimum((event + MET * prior) / (risk + MET), _SUREST) * between)


def available(shown: Pairs) -> Floats:
    """Return how many candidates lists have in each bucket, (strategies, BUCKETS): the diagonal of the shown pairs."""
    own = np.arange(len(shown.risk))
    risk = np.diagonal(shown.risk[own, own], axis1=1, axis2=2)
    event = np.diagonal(shown.event[own, own], axis1=1, axis2=2)
    return np.asarray(np.clip((event + 5.0 * WIDTH) / (risk + 5.0), 0.05 * WIDTH, WIDTH))


def _dispersion(squares: Floats, weight: Floats, pooled: Floats) -> Floats:
    """Return W, the variance of weights over their mean in each bucket, (..., BUCKETS): 1 for rare clicks of weight 1.

    Positions further down are seldom examined, so the few clicks there weigh more: each tells less than one at the top.

    Args:
        squares: squares of weights, of all strategies, (..., BUCKETS).
        weight: the weights, (..., BUCKETS).
        pooled: what strategies in general get, (..., BUCKETS).
    """
    variance = np.maximum(squares - pooled * weight, 0.1 * squares)
    overall = (variance.sum(axis=-1, keepdims=True) + 1.0) / (weight.sum(axis=-1, keepdims=True) + 1.0)
    return np.asarray((variance + TYPICAL * overall) / (weight + TYPICAL))


def _priors(clicks: Floats, exposed: Floats, pooled: Floats, strength: float) -> Floats:
    """Return what the priors of rates count as exposure, (strategies, BUCKETS).

    Args:
        clicks: clicks seen, in units of the dispersion, (strategies, BUCKETS).
        exposed: how often buckets were drawn, in the same units, (strategies, BUCKETS).
        pooled: what strategies in general get, (BUCKETS,).
        strength: what they count as clicks.
    """
    level = (clicks.sum(axis=1) + LEVEL_PRIOR) / ((exposed * pooled).sum(axis=1) + LEVEL_PRIOR)
    return np.asarray(strength / (pooled * level[:, np.newaxis]))


def _strength(evidence: StrategySums, pooled: Floats, dispersion: Floats) -> float:
    """Return the strength of the priors of rates, in clicks."""
    clicks = np.maximum(evidence.moment[..., 0], 0.0) / dispersion[:, np.newaxis]
    exposed = evidence.gram[..., 0, 0] / dispersion[:, np.newaxis]
    scores = np.zeros(len(STRENGTHS))
    for fold in range(FOLDS):
        own, drawn = clicks[..., 1 - fold], exposed[..., 1 - fold]
        for place, strength in enumerate(STRENGTHS.tolist()):
            rates = (own + strength) / (drawn + _priors(own, drawn, pooled, strength))
            scores[place] += (clicks[..., fold] * np.log(rates) - exposed[..., fold] * rates).sum()
    return float(np.exp(_weights(scores) @ np.log(STRENGTHS)))


def _weights(scores: Floats) -> Floats:
    """Return the weights that logarithms of likelihoods give, which add up to 1 along the first axis."""
    weights = np.exp(scores - scores.max(axis=0))
    return np.asarray(weights / weights.sum(axis=0))


def _contexts(gram: Floats, moment: Floats) -> tuple[Floats, Floats]:
    """Return the mean of phi, (strategies, d), and its precision, (strategies, d, d).

    Args:
        gram: A by fold, (strategies, FOLDS, d, d).
        moment: r by fold, (strategies, FOLDS, d).
    """
    scores = np.zeros(len(RIDGES))
    for fold in range(FOLDS):
        phi = _regress(gram[:, fold], moment[:, fold])
        other = gram[:, 1 - fold], moment[:, 1 - fold]
        fitted = np.einsum("lsd,sde->lse", phi, other[0])
        scores += (phi * (other[1] - 0.5 * fitted)).sum(axis=(1, 2))
    gram, moment = gram.sum(axis=1), moment.sum(axis=1)
    identity = np.eye(gram.shape[-1])
    common = _common(gram, moment)
    precision = gram + np.exp(_weights(scores) @ np.log(RIDGES)) * identity
    left = moment - gram @ common
    return common + np.linalg.solve(precision, left[..., np.newaxis])[..., 0], precision


def _evident(gram: Floats, moment: Floats) -> Floats:
    """Return the mean of phi for pages, (strategies, d), from A, (strategies, d, d), and r, (strategies, d).

    Contexts are taken less the mean of those that a strategy was asked in, so that what they tell does not move its
    rate there.
    """
    means, gram, moment = _centered(gram, moment)
    common, identity = _common(gram, moment), np.eye(gram.shape[-1])
    left = (moment - gram @ common)[..., np.newaxis]
    prior = np.full(len(identity), (1.0 / RELEVANCES).mean())
    for _ in range(_SWEEPS):
        covariance = np.linalg.inv(gram + identity / prior)
        variance = np.diagonal(covariance, axis1=1, axis2=2)
        # What is known of a column without its prior: the precision, and that times the mean.
        known, slope = np.maximum(1.0 / variance - 1.0 / prior, 0.0), (covariance @ left)[..., 0] / variance
        wide = RELEVANCES + known
        scores = 0.5 * (np.log(RELEVANCES / wide) + slope**2 / wide).sum(axis=1)
        prior = (_weights(scores) / RELEVANCES[:, 0]).sum(axis=0)
    phi = np.asarray(common + np.linalg.solve(gram + identity / prior, left)[..., 0])
    phi[:, 0] -= (phi * means)[:, 1:].sum(axis=1)
    return phi


def _centered(gram: Floats, moment: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the mean contexts, (strategies, d), and A and r of contexts less these, but for the constant."""
    turns, total = gram[:, :1, 0], gram.sum(axis=0)[0]
    means = np.where(turns > 0.0, gram[:, 0], total) / np.maximum(np.where(turns > 0.0, turns, total[0]), 1e-300)
    shift = means * (np.arange(means.shape[1]) > 0)
    centered = gram - turns[..., np.newaxis] * (means[:, :, np.newaxis] * means[:, np.newaxis])
    centered[:, 0, 0] = turns[:, 0]
    return means, centered, moment - moment[:, :1] * shift


def _regress(gram: Floats, moment: Floats) -> Floats:
    """Return phi with each of RIDGES, (ridges, strategies, d)."""
    common = _common(gram, moment)
    left = (moment - gram @ common)[..., np.newaxis]
    precision = gram + RIDGES[:, np.newaxis, np.newaxis, np.newaxis] * np.eye(gram.shape[-1])
    return np.asarray(common + np.linalg.solve(precision, left)[..., 0])


def _common(gram: Floats, moment: Floats) -> Floats:
    identity = np.eye(gram.shape[-1])
    return np.asarray(np.linalg.solve(gram.sum(axis=0) + COMMON_RIDGE * identity, moment.sum(axis=0)))
