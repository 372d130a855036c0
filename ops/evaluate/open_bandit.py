"""Off-policy evaluation on logs of the Open Bandit Dataset (Saito, Aihara, Matsutani & Narita, arXiv 2008.07146)."""

import csv
import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from backchannel.agents.ope.estimators import Feedback, Model, Terms, weigh
from backchannel.agents.ope.intervals import interval
from backchannel.agents.ope.reward_models import cross_fitted
from backchannel.agents.sums import Floats
from backchannel.ops.evaluate.result import Evaluation, Options, assess
from backchannel.ops.progress import Progress
from backchannel.schemas.errors import BackchannelError

COLUMNS: Final = ("item_id", "position", "click", "propensity_score")
RIDGE: Final = 100.0
FOLDS: Final = 3


class OpenBanditError(BackchannelError, ValueError):
    """A file has the wrong format; the message names the file and the fault."""


class OpenBanditLog(Struct, frozen=True):
    """A log as columns.

    Attributes:
        items: ids of the items, ascending.
        positions: ids of the positions, ascending.
        item: index into `items` of the item shown, (rounds,).
        position: index into `positions` of its position, (rounds,).
        clicks: 1 for a click, else 0, (rounds,).
        propensities: probability with which the item was shown there, (rounds,).
        contexts: a constant 1, and the position and the user's features as zeros and ones, (rounds, d).
    """

    items: list[int]
    positions: list[int]
    item: NDArray[np.int64]
    position: NDArray[np.int64]
    clicks: Floats
    propensities: Floats
    contexts: Floats


def is_open_bandit(path: Path) -> bool:
    """Return whether a file's header is that of an Open Bandit log."""
    try:
        with _open(path) as file:
            return set(COLUMNS) <= set(next(csv.reader(file), ()))
    except (OSError, UnicodeDecodeError, csv.Error):
        return False


def read(path: Path) -> OpenBanditLog:
    """Read a log, plain or gzipped.

    Raises:
        OpenBanditError: the file lacks columns or rows, or has values that are not numbers.
    """
    with _open(path) as file:
        rows = csv.reader(file)
        header = next(rows, [])
        places = [_place(path, header, name) for name in COLUMNS]
        features = [place for place, name in enumerate(header) if name.startswith("user_feature")]
        numbers, users = [], []
        for number, row in enumerate(rows, start=2):
            try:
                numbers.append([float(row[place]) for place in places])
                users.append([row[place] for place in features])
            except (ValueError, IndexError) as error:
                raise OpenBanditError(f"{path}: line {number}: {error}") from None
    if len(numbers) < 2:
        raise OpenBanditError(f"{path}: {len(numbers)} rounds, at least 2 are needed")
    ids, at, clicks, propensities = np.array(numbers).T
    items, item = np.unique(ids.astype(np.int64), return_inverse=True)
    positions, position = np.unique(at.astype(np.int64), return_inverse=True)
    columns = [np.ones((len(numbers), 1)), _ones(position)[:, 1:]]
    columns += [_ones(np.unique(values, return_inverse=True)[1])[:, 1:] for values in zip(*users, strict=True)]
    return OpenBanditLog(
        items.tolist(), positions.tolist(), item, position, clicks, propensities, np.column_stack(columns)
    )


def policy_of(path: Path, log: OpenBanditLog) -> Floats:
    """Return a policy's probabilities of showing each item at each position, (positions, items).

    The file has the columns item_id, position and probability. Or it is another log: the frequency with which it shows
    each item at each position is then an unbiased estimate of its policy, averaged over time and users.

    Raises:
        OpenBanditError: the file lacks columns, or has no probabilities for a position.
    """
    with _open(path) as file:
        rows = csv.reader(file)
        header = next(rows, [])
        places = [_place(path, header, name) for name in ("item_id", "position")]
        if "probability" in header or "propensity_score" not in header:
            places.append(_place(path, header, "probability"))
        try:
            table = np.array([[float(row[place]) for place in places] for row in rows]).reshape(-1, len(places))
        except (ValueError, IndexError) as error:
            raise OpenBanditError(f"{path}: {error}") from None
    table = table[np.isin(table[:, 0], log.items) & np.isin(table[:, 1], log.positions)]
    policy = np.zeros((len(log.positions), len(log.items)))
    cells = np.searchsorted(log.positions, table[:, 1]), np.searchsorted(log.items, table[:, 0])
    np.add.at(policy, cells, table[:, 2] if len(places) > 2 else 1.0)
    totals = policy.sum(axis=1, keepdims=True)
    if not (totals > 0).all():
        lacking = [place for place, total in zip(log.positions, totals[:, 0], strict=True) if total <= 0]
        raise OpenBanditError(f"{path}: no probabilities for the log's positions {lacking}")
    probabilities: Floats = policy / totals
    return probabilities


def evaluate(path: Path, policies: Mapping[str, Path], options: Options, progress: Progress) -> Evaluation:
    """Evaluate the uniform policy, and the given ones, on a log.

    Raises:
        OpenBanditError: see `read` and `policy_of`.
        SupportError: the log has rounds with propensity 0.
    """
    progress("reading", 0.0)
    log = read(path)
    progress("fitting rewards", 0.0)
    rounds, shape = len(log.clicks), (len(log.positions), len(log.items))
    rng = np.random.default_rng(options.seed)
    targets = {"uniform": np.full(shape, 1.0 / shape[1])}
    targets |= {name: policy_of(file, log) for name, file in policies.items()}
    shown = np.zeros((rounds, shape[1]))
    shown[np.arange(rounds), log.item] = 1.0
    folds = np.arange(rounds) % FOLDS
    modelled = cross_fitted(log.contexts[:, np.newaxis], shown, shown * log.clicks[:, np.newaxis], folds, RIDGE)
    predicted = modelled[np.arange(rounds), log.item, np.newaxis]
    logged = Terms(log.clicks, 0.0, 1.0)
    values = []
    for place, (name, target) in enumerate(targets.items()):
        progress(f"evaluating {name}", place / len(targets))
        weights = weigh(
            target[log.position, log.item, np.newaxis],
            log.propensities[:, np.newaxis],
            np.ones((rounds, 1), dtype=bool),
        )
        expected = np.einsum("ik,ik->i", target[log.position], modelled)
        feedback = Feedback(weights, log.clicks[:, np.newaxis], model=Model(expected, predicted))
        values.append(assess(name, feedback, logged, options, rng))
    return Evaluation(
        log=str(path),
        kind="open bandit",
        turns=rounds,
        left_out=0,
        strategies=shape[1],
        logged=interval(logged, options.method, options.confidence, rng),
        options=options,
        policies=values,
        notes=[f"DM, DR and switch-DR: ridge regression per item on position and user, {FOLDS} folds"],
    )


def _ones(values: NDArray[np.int64]) -> Floats:
    """Return `values`, (n,), one-hot encoded, (n, largest value + 1)."""
    columns: Floats = np.eye(int(values.max()) + 1)[values]
    return columns


def _open(path: Path) -> IO[str]:
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        return gzip.open(path, "rt", encoding="utf-8") if packed else path.open(encoding="utf-8")
    except OSError as error:
        raise OpenBanditError(f"{path}: {error.strerror}") from None


def _place(path: Path, header: Sequence[str], name: str) -> int:
    if name not in header:
        raise OpenBanditError(f"{path}: no column {name!r}")
    return header.index(name)
