"""Score the pairs of the CTR task: each held-out item (label 1) and the first of its negatives (label 0).

A pair is judged from the user's history before the held-out event, the same for its negatives. No random
split of pairs exists: a pair belongs to validation or test as its held-out event does, by time.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.errors import UserError
from bench.evaluation.catalog import checked
from bench.evaluation.ranks import Held
from bench.interface import Batch, Recommender


@torch.no_grad()
def score_pairs(
    model: Recommender,
    held: Held,
    negatives: int,
    batches: Iterable[tuple[NDArray[np.int64], Batch]],
    device: torch.device,
    where: str = "",
) -> dict[str, NDArray[Any]]:
    """Return the P pairs of a held-out part with the scores of a model, users ascending.

    Args:
        model: put into eval mode here and left so.
        held: the held-out items, with sampled negatives.
        negatives: pairs of label 0 to one of label 1, the first of the stored ones; fewer where there are
            fewer.
        batches: pairs of (rows of `held`, evaluation batch); the batches carry no target.
        device: where the model lies.
        where: named in errors: model and epoch.

    Returns:
        `user` (P,) int32 0-based, `label` (P,) int32 0 or 1, `score` (P,) float32, higher is likelier.

    Raises:
        UserError: a score is not finite, the scores have another shape than (users, candidates), or there is
            no pair of one of the labels.
        ValueError: the part is ranked against the full catalog, so it has no negatives.
    """
    if held.negatives is None:
        raise ValueError("pairs need sampled negatives; got the full catalog")
    items = np.concatenate([held.items[:, None], held.negatives[:, :negatives].astype(np.int64)], axis=1)
    real = items > 0  # (S, 1 + k); the first column is the held-out item
    if not real[:, 1:].any():
        raise UserError("no held-out event has an untouched item to stand against; split or map differently")
    model.eval()
    table = model.encode_items()
    scores = np.zeros(items.shape, np.float32)
    for rows, batch in batches:
        encoded = model.encode(batch.to(device))
        candidates = torch.from_numpy(items[rows]).to(device)
        block = checked(model, model.score_encoded(encoded, candidates, table), *candidates.shape)
        scores[rows] = block.float().cpu().numpy()
    wrong = ~np.isfinite(scores) & real
    if wrong.any():
        user = held.users[np.flatnonzero(wrong.any(1))[0]]
        name = where or type(model).__name__
        raise UserError(f"{name}: a score of user {user} is NaN or infinite; lower the learning rate")
    label = np.broadcast_to(np.arange(items.shape[1]) == 0, items.shape).astype(np.int32)
    user = np.broadcast_to(held.users[:, None], items.shape).astype(np.int32)
    return {"user": user[real], "label": label[real], "score": scores[real]}
