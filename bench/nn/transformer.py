"""Self-attention over left-padded histories.

Letters: B users, L history length, D hidden size, H heads.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.nn.dropout import Dropout


def attention_mask(mask: Tensor, causal: bool = False) -> Tensor:
    """Return which keys each query may see.

    A position always sees itself. For real events this changes nothing; for padding it keeps the softmax
    defined, so a history of nothing but padding stays finite.

    Args:
        mask: (B, L) bool, True where there is a real event.
        causal: hides later events.

    Returns:
        (B, 1, L, L) bool, queries by keys.
    """
    length = mask.shape[1]
    allowed = mask[:, None, None, :].expand(-1, 1, length, -1)
    if causal:
        allowed = allowed & torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    return allowed | torch.eye(length, dtype=torch.bool, device=mask.device)


def attend(
    query: Tensor, key: Tensor, value: Tensor, allowed: Tensor, num_heads: int, dropout: float = 0.0
) -> Tensor:
    """Return multi-head scaled dot-product attention, heads joined, without an output projection.

    Args:
        query: (B, L, D) float, projected.
        key: (B, K, D) float, projected.
        value: (B, K, D) float, projected.
        allowed: (B, 1, L, K) bool; keys outside get exactly zero weight.
        num_heads: H; divides D.
        dropout: fraction of attention weights dropped; give 0 outside training.

    Returns:
        (B, L, D) float.
    """

    def split(tensor: Tensor) -> Tensor:
        return tensor.unflatten(-1, (num_heads, -1)).transpose(1, 2)  # (B, H, L, D / H)

    joined = F.scaled_dot_product_attention(
        split(query), split(key), split(value), attn_mask=allowed, dropout_p=dropout
    )
    return joined.transpose(1, 2).flatten(2)  # (B, L, D)


class TransformerBlock(nn.Module):
    """One encoder block: self-attention with output projection, then a GELU network, each with residual and
    norm.

    Args:
        hidden_size: D.
        num_heads: H; divides D.
        dropout: on the output of both parts, fraction.
        attention_dropout: on attention weights, fraction.
        inner_size: width of the network; None is 4 D.
        norm: `post` normalises after the residual (Vaswani et al. 2017, BERT), `pre` before each part.
        eps: of the layer norms.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        dropout: float,
        attention_dropout: float,
        inner_size: int | None = None,
        norm: Literal["post", "pre"] = "post",
        eps: float = 1e-12,
    ) -> None:
        super().__init__()
        inner_size = inner_size or 4 * hidden_size
        self.num_heads, self.attention_dropout, self.pre = num_heads, attention_dropout, norm == "pre"
        self.query_key_value = nn.Linear(hidden_size, 3 * hidden_size)
        self.output = nn.Linear(hidden_size, hidden_size)
        self.network = nn.Sequential(
            nn.Linear(hidden_size, inner_size), nn.GELU(), nn.Linear(inner_size, hidden_size)
        )
        self.attention_norm = nn.LayerNorm(hidden_size, eps=eps)
        self.network_norm = nn.LayerNorm(hidden_size, eps=eps)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, allowed: Tensor) -> Tensor:
        """Return (B, L, D) from x (B, L, D) and the keys allowed to each query (B, 1, L, L) bool."""
        query, key, value = self.query_key_value(self._read(x)).chunk(3, dim=-1)
        return self._finish(x, attend(query, key, value, allowed, self.num_heads, self._rate()))

    def at(self, chosen: Tensor, x: Tensor, allowed: Tensor) -> Tensor:
        """Return (n, D), what `forward` gives at the chosen positions, row by row; no other is computed.

        The last block of a model whose loss or score reads few positions costs a part of a whole one.

        Args:
            chosen: (B, L) bool, n of them True.
            x: (B, L, D).
            allowed: (B, 1, L, L) bool.
        """
        size, known = x.shape[-1], self._read(x)
        row, position = chosen.nonzero(as_tuple=True)  # (n,) each
        column = chosen.cumsum(1)[row, position] - 1  # (n,), place among the chosen of the row
        weight, bias = self.query_key_value.weight, self.query_key_value.bias
        key, value = F.linear(known, weight[size:], bias[size:]).chunk(2, dim=-1)
        shape = len(x), int(chosen.sum(1).max()) if len(x) else 0
        query = x.new_zeros(*shape, size)
        query[row, column] = F.linear(known[row, position], weight[:size], bias[:size])
        seen = allowed.new_ones(shape[0], 1, shape[1], x.shape[1])
        seen[row, 0, column] = allowed[row, 0, position]
        attended = attend(query, key, value, seen, self.num_heads, self._rate())
        return self._finish(x[row, position], attended[row, column])

    def _rate(self) -> float:
        return self.attention_dropout if self.training else 0.0

    def _read(self, x: Tensor) -> Tensor:
        return self.attention_norm(x) if self.pre else x

    def _finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """Return the block's output (..., D) from its input and what the heads attended to, (..., D) each."""
        x = x + self.dropout(self.output(attended))
        if self.pre:
            return x + self.dropout(self.network(self.network_norm(x)))
        x = self.attention_norm(x)
        return self.network_norm(x + self.dropout(self.network(x)))
