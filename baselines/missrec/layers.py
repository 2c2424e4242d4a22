"""The decoder of MISSRec: events attend to events, then to interests.

Letters: B histories, L queries, K keys, Q interests, D width.
"""

import torch
from torch import Tensor, nn

from bench.nn.dropout import Dropout
from bench.nn.transformer import attend


class Attention(nn.Module):
    """Multi-head attention with output projection, without residual or norm."""

    def __init__(self, size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key_value = nn.Linear(size, size), nn.Linear(size, 2 * size)
        self.output = nn.Linear(size, size)

    def forward(self, query: Tensor, source: Tensor, allowed: Tensor) -> Tensor:
        """Return (B, L, D) from queries (B, L, D), a source (B, K, D), allowed (B, 1, L, K) bool."""
        key, value = self.key_value(source).chunk(2, -1)
        return self.output(attend(self.query(query), key, value, allowed, self.num_heads))


class Decoder(nn.Module):
    """One post-norm layer: attention to events, attention to interests, feed-forward; a norm at the end.

    Args:
        size: D.
        num_heads: H; divides D.
        inner_size: width of the feed-forward network.
        dropout: on the output of each part, fraction.
        interests: whether there is anything to attend to beside the events.
    """

    def __init__(self, size: int, num_heads: int, inner_size: int, dropout: float, interests: bool) -> None:
        super().__init__()
        self.events = Attention(size, num_heads)
        self.interests = Attention(size, num_heads) if interests else None
        self.network = nn.Sequential(nn.Linear(size, inner_size), nn.GELU(), nn.Linear(inner_size, size))
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(4 if interests else 3))
        self.dropout = Dropout(dropout)

    def forward(
        self, query: Tensor, events: Tensor, allowed: Tensor, interests: Tensor | None, seen: Tensor
    ) -> Tensor:
        """Return (B, L, D).

        Args:
            query: (B, L, D).
            events: (B, K, D).
            allowed: (B, 1, L, K) bool, the events that each query may see.
            interests: (B, Q, D); None where the model has none.
            seen: (B, L, Q) bool, the interests that each query may see.
        """
        x = self.norms[0](query + self.dropout(self.events(query, events, allowed)))
        if interests is not None:
            assert self.interests is not None
            # a query before the first interest sees a zero, and so the learned biases
            memory = torch.nn.functional.pad(interests, (0, 0, 1, 0))
            mask = torch.cat([~seen.any(-1, keepdim=True), seen], -1)[:, None]  # (B, 1, L, 1 + Q)
            x = self.norms[-3](x + self.dropout(self.interests(x, memory, mask)))
        x = self.norms[-2](x + self.dropout(self.network(x)))
        last: Tensor = self.norms[-1](x)
        return last
