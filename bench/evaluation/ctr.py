"""Metrics of the CTR task as views of stored pairs: AUC, GAUC, LogLoss, and the calibration LogLoss needs.

AUC compares pairs across users, GAUC inside each user alone. Both read the scores as they are and count a tie
as one half. LogLoss needs probabilities, which a ranker does not give, so the scores of every model pass
through the same two-parameter calibration, fitted on its validation pairs.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

METRICS = ("AUC", "GAUC", "LogLoss")
LOWER_IS_BETTER = ("LogLoss",)
BLOCK = 2_000_000  # numbers held at once in a resample

Pairs = Mapping[str, NDArray[Any]]
"""`{test,validation}_{user,label,score}`, see `bench.evaluation.pairs.score_pairs`."""


def values(pairs: Pairs, names: Sequence[str] = METRICS) -> dict[str, float]:
    """Return metrics of the test pairs by name; LogLoss in nats.

    Raises:
        ValueError: a name is none of `METRICS`.
    """
    from sklearn.metrics import log_loss, roc_auc_score  # takes a second: not needed to show help

    user, label, score = (pairs[f"test_{name}"] for name in ("user", "label", "score"))
    by_name: dict[str, float] = {}
    for name in names:
        if name == "AUC":
            by_name[name] = float(roc_auc_score(label, score))
        elif name == "GAUC":
            by_name[name] = grouped_auc(user, label, score)
        elif name == "LogLoss":
            chances = calibrated(pairs["validation_label"], pairs["validation_score"], score)
            by_name[name] = float(log_loss(label, chances, labels=[0, 1]))
        else:
            raise ValueError(f"metric {name!r}: expected {', '.join(METRICS)}")
    return by_name


def chance(pairs: Pairs, names: Sequence[str] = METRICS) -> dict[str, float]:
    """Return what a scorer that knows nothing gets: one half, and the entropy of the test labels (nats)."""
    share = float(np.mean(pairs["test_label"]))
    entropy = -(share * np.log(share) + (1 - share) * np.log1p(-share))
    return {name: float(entropy) if name == "LogLoss" else 0.5 for name in names}


def grouped_auc(user: NDArray[np.integer], label: NDArray[np.integer], score: NDArray[np.floating]) -> float:
    """Return the mean over users of their AUC, weighted by their pairs; users of one label are skipped.

    The AUC of a user is the Mann-Whitney statistic of the mid-ranks of its scores. Source of the weighting:
    Zhu et al., Optimized Cost per Click in Taobao Display Advertising, KDD 2017.

    Args:
        user: (P,) of each pair, in any order.
        label: (P,) 0 or 1.
        score: (P,).

    Returns:
        A fraction; NaN where no user has both labels.
    """
    order = np.lexsort((score, user))
    score, label = score[order], label[order]
    _, begin, owner = np.unique(user[order], return_index=True, return_inverse=True)
    pairs = np.bincount(owner)
    new = np.ones(len(order) + 1, np.bool_)  # where a group of equal scores of one user begins
    new[1:-1] = (np.diff(owner) != 0) | (np.diff(score) != 0)
    edges = np.flatnonzero(new)
    group = np.cumsum(new[:-1]) - 1
    middle = (edges[:-1] + edges[1:] + 1)[group] / 2 - begin[owner]  # mid-rank from 1 inside the user
    positives = np.bincount(owner, label)
    negatives = pairs - positives
    above = np.bincount(owner, middle * label) - positives * (positives + 1) / 2
    both = (positives > 0) & (negatives > 0)
    if not both.any():
        return float("nan")
    return float(np.average(above[both] / (positives * negatives)[both], weights=pairs[both]))


def calibrated(
    label: NDArray[np.integer], score: NDArray[np.floating], wanted: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return probabilities 1 / (1 + exp(-(a s + b))) of the wanted scores, a and b fitted on the others.

    Fitted by maximum likelihood to the softened labels of Platt (1999), (n1 + 1) / (n1 + 2) and 1 / (n0 + 2),
    which keep the slope finite where the scores part the labels without error.

    Args:
        label: (V,) 0 or 1, both present, of the validation pairs.
        score: (V,) their scores.
        wanted: (P,) scores of the test pairs.

    Returns:
        (P,) probabilities of label 1.
    """
    from sklearn.linear_model import LogisticRegression  # takes a second: not needed to show help

    center, spread = float(np.mean(score, dtype=np.float64)), float(np.std(score, dtype=np.float64)) or 1.0
    ones = np.count_nonzero(label)
    soft = np.where(label == 1, (ones + 1) / (ones + 2), 1 / (len(label) - ones + 2))
    twice = np.tile((score.astype(np.float64) - center) / spread, 2)[:, None]
    sides = np.repeat([1, 0], len(label))
    fitted = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000)
    fitted.fit(twice, sides, sample_weight=np.concatenate([soft, 1 - soft]))
    return fitted.predict_proba(((wanted.astype(np.float64) - center) / spread)[:, None])[:, 1]


class WeightedAUC:
    """AUC of a model where each user counts with a weight, mean over its runs; called by a bootstrap.

    Pairs are sorted once, so that a resample of the users costs sums alone.

    Args:
        user: (P,) 0-based index of the user of each pair among the users that are weighted.
        label: (P,) 0 or 1.
        scores: (P,) of each run (seed) of the model.
    """

    def __init__(
        self,
        user: NDArray[np.integer],
        label: NDArray[np.integer],
        scores: Sequence[NDArray[np.floating]],
    ) -> None:
        self.runs = [self._sorted(user, label, score) for score in scores]

    @staticmethod
    def _sorted(
        user: NDArray[np.integer], label: NDArray[np.integer], score: NDArray[np.floating]
    ) -> tuple[NDArray[np.integer], ...]:
        """Return the users of the positives and of the negatives by ascending score, and how many negatives
        lie below each positive and not above it.
        """
        low, high = score[label == 0], score[label == 1]
        by_low, by_high = np.argsort(low, kind="stable"), np.argsort(high, kind="stable")
        low, high = low[by_low], high[by_high]
        limits = np.searchsorted(low, high, side="left"), np.searchsorted(low, high, side="right")
        return user[label == 1][by_high], user[label == 0][by_low], *limits

    def __call__(self, weights: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return (R,) the AUC under each column of the weights (S users, R)."""
        step = max(1, BLOCK // max(map(len, self.runs[0])))
        blocks = (weights[:, start : start + step] for start in range(0, weights.shape[1], step))
        return np.concatenate([np.mean([_auc(block, *run) for run in self.runs], 0) for block in blocks])


def _auc(
    weights: NDArray[np.floating],
    positive: NDArray[np.integer],
    negative: NDArray[np.integer],
    below: NDArray[np.integer],
    upto: NDArray[np.integer],
) -> NDArray[np.float64]:
    exact = weights.dtype if len(negative) < 2**23 else np.float64  # of sums of counts
    passed = np.zeros((len(negative) + 1, weights.shape[1]), exact)
    np.cumsum(weights.take(negative, 0), axis=0, out=passed[1:])  # weight of the lowest negatives
    own = weights.take(positive, 0)  # (positives, R)
    won = passed.take(below, 0)
    won += passed.take(upto, 0)
    won *= own
    return won.sum(0, dtype=np.float64) / (2.0 * own.sum(0, dtype=np.float64) * passed[-1])
