"""The kind `ctr`: held-out items against their first negatives, AUC, GAUC, LogLoss."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.evaluation import ctr
from bench.evaluation.kinds.kind import Arrays, Kind
from bench.evaluation.kinds.same import require_same
from bench.evaluation.significance import holm, paired_bootstrap


def spelled(name: str) -> str:
    """Return `LogLoss` for `logloss`, and the like."""
    return {known.upper(): known for known in ctr.METRICS}.get(name.upper(), name.upper())


def measure(
    model: Any, part: Any, protocol: Any, device: Any, batch_size: int, where: str
) -> dict[str, NDArray[Any]]:
    """Return `user`, `label` and `score` of the pairs of a held-out part, (P,) each."""
    from bench.evaluation.pairs import score_pairs  # imports torch

    batches = part.batches(model.max_history, batch_size)
    return score_pairs(model, part.held, protocol.ctr_negatives, batches, device, where)


def compare(done: Mapping[str, Sequence[Arrays]], against: str | None) -> tuple[str, dict[str, float]]:
    """Test the models by a paired bootstrap over users, seeds averaged."""
    require_same({n: [(one["test_user"], one["test_label"]) for one in group] for n, group in done.items()})
    first = next(iter(done.values()))[0]
    users, user_index = np.unique(first["test_user"], return_inverse=True)
    models = {
        name: ctr.WeightedAUC(user_index, first["test_label"], [one["test_score"] for one in group])
        for name, group in done.items()
    }
    once = np.ones((len(users), 1))
    best = against or max(models, key=lambda name: float(models[name](once)[0]))
    others = [name for name in models if name != best]
    if not others:
        return best, {}
    tests = paired_bootstrap(models[best], [models[name] for name in others], len(users))
    return best, dict(zip(others, holm([test.p for test in tests]), strict=True))


def notes(protocol: Mapping[str, Any], known: Mapping[str, float]) -> list[str]:
    """Say what the pairs and the metrics are."""
    negatives = protocol["ctr_negatives"]
    return [
        f"Task ctr: pairs are each held-out event (label 1) and the first {negatives} of its untouched "
        "candidates (label 0), all judged from the history before the event; split by time, never at random",
        "Weights: those of the best validation NDCG@10, as in the ranking table. AUC, GAUC: of raw scores",
        "GAUC: AUC inside each user, weighted by the user's pairs, users of one label skipped",
        "LogLoss (nats, lower is better): after Platt calibration, two parameters fitted on the validation "
        "pairs, the same way for every model; chance is the entropy of the labels",
    ]


KIND = Kind(
    name="ctr",
    arrays="pairs",
    metrics=ctr.METRICS,
    tested="AUC",
    test="paired bootstrap",
    lower_is_better=ctr.LOWER_IS_BETTER,
    needs_validation="no validation event: LogLoss is calibrated on validation pairs; split differently",
    spelled=spelled,
    measure=measure,
    values=ctr.values,
    chance=ctr.chance,
    compare=compare,
    facts=lambda arrays: {},
    notes=notes,
    saturated=lambda names, known: (),
)
