"""The condition of CDMD-M from context: what the ids up to an event say, not the id of the event alone.

An id tells little of its item until it was met often; the ids before it tell more (the paper has the ids
themselves, Eq. 9).
"""

import torch
from torch import Tensor, nn

from bench.models.m3bsr.cells import cells
from bench.models.m3bsr.config import Experts
from bench.models.m3bsr.experts import Layer
from bench.models.m3bsr.grouped import GroupedNorm


class IdContext(nn.Module):
    """One Transformer layer over the ids of each behavior, read at every event.

    Positions are counted from the newest position of the window, so padding moves nothing.

    Args:
        size: D.
        max_history: L at most.
        options: heads and dropout, those of the experts.
        packed: run on the real events alone.
    """

    def __init__(self, size: int, max_history: int, options: Experts, packed: bool) -> None:
        super().__init__()
        self.packed = packed
        self.positions = nn.Parameter(torch.randn(max_history, size) * 0.02)
        self.layer = Layer(1, size, options)
        self.norm = GroupedNorm(1, size)

    def forward(self, ids: Tensor, mask: Tensor, seen: Tensor) -> Tensor:
        """Return the state at each event, (B, L, D), zero where padded.

        Args:
            ids: X[id], (B, L, D).
            mask: (B, L) bool.
            seen: (B, L, L) bool, the events that each event may see, itself among them.
        """
        events = cells(mask, self.packed)
        itself = torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
        tokens = events.pack((ids + self.positions[-ids.shape[1] :])[None])
        states = self.norm(self.layer.each(tokens, events, seen | itself, events))  # padding sees itself
        return events.unpack(events.keep(states))[0]
