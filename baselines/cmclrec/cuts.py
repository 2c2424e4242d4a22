"""Windows of CMCLRec cut to prefixes and to short histories.

Letters: B windows, L length.
"""

import torch
from torch import Tensor

from bench.interface import Batch


def random_prefix(batch: Batch, least: int) -> Batch:
    """Return the windows of `least` events or more, each cut at random to a prefix of `least` or more."""
    batch = batch.rows((batch.mask.sum(1) >= least).nonzero()[:, 0])
    length, count = batch.history.shape[1], batch.mask.sum(1)  # (B,)
    drawn = (torch.rand(len(batch), device=count.device) * (count - least + 1)).long()
    source = torch.arange(length, device=count.device) - drawn[:, None]  # (B, L) moved to the right

    def moved(column: Tensor) -> Tensor:
        return column.gather(1, source.clamp(min=0)) * (source >= 0)

    return Batch(batch.user, moved(batch.history), moved(batch.behavior), moved(batch.timestamp))


def cut_short(batch: Batch, most: int = 5) -> Batch:
    """Return windows cut to 0 to `most` events before a random label, which is the newest; labels of the
    events that are left stay. A window of no event keeps its label at the last position.
    """
    assert batch.labels is not None and batch.label_behavior is not None
    rows, length = batch.history.shape
    chance = torch.rand(batch.labels.shape, device=batch.labels.device) * (batch.labels > 0)
    end = chance.argmax(1)[:, None]  # (B, 1) position of the label that is kept
    count = torch.randint(0, most + 1, (rows, 1), device=end.device)
    width = most + 1
    source = end - width + 1 + torch.arange(width, device=end.device)  # (B, width)
    inside = source >= 0
    source = source.clamp(min=0)
    event = inside & (torch.arange(width, device=end.device) >= width - count)
    labelled = event.clone()
    labelled[:, -1] = True

    def take(column: Tensor, keep: Tensor) -> Tensor:
        return column.gather(1, source) * keep

    return Batch(
        batch.user, take(batch.history, event), take(batch.behavior, event), take(batch.timestamp, event),
        labels=take(batch.labels, labelled), label_behavior=take(batch.label_behavior, labelled),
    )  # fmt: skip
