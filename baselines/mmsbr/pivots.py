"""The hierarchical pivot transformer: text and image of an item meet through its pivots alone.

Letters: n items, P pivots, F views of a modality, D width.
"""

import torch
from torch import Tensor, nn

from bench.baselines.mmsbr.config import MMSBRConfig
from bench.nn.dropout import Dropout
from bench.nn.transformer import attend


class Views(nn.Module):
    """F networks of two layers, each with tanh and dropout, of one modality."""

    def __init__(self, config: MMSBRConfig) -> None:
        super().__init__()
        count, size = config.num_features, config.hidden_size
        self.weights = nn.ParameterList(torch.empty(count, size, size) for _ in range(2))
        self.biases = nn.ParameterList(torch.empty(count, 1, size) for _ in range(2))
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, F, D) from x (n, D)."""
        views = x.expand(len(self.weights[0]), -1, -1)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            views = self.dropout(torch.tanh(torch.baddbmm(bias, views, weight)))
        return views.transpose(0, 1)


class PivotBlock(nn.Module):
    """Attention among pivots and views, then a network; one norm serves both."""

    def __init__(self, config: MMSBRConfig) -> None:
        super().__init__()
        size, self.num_heads = config.hidden_size, config.num_heads
        self.query_key_value = nn.Linear(size, 3 * size)
        self.output = nn.Linear(size, size, bias=False)
        self.network = nn.Sequential(nn.Linear(size, 4 * size), nn.ReLU(), nn.Linear(4 * size, size))
        self.norm, self.dropout = nn.LayerNorm(size), Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, P + F, D) from x (n, P + F, D)."""
        query, key, value = self.query_key_value(x).chunk(3, -1)
        everything = torch.ones(1, 1, x.shape[1], x.shape[1], dtype=torch.bool, device=x.device)
        attended = self.output(attend(query, key, value, everything, self.num_heads))
        y = self.norm(x + self.dropout(attended))
        out: Tensor = self.norm(y + self.dropout(self.network(y)))
        return out


class PivotTransformer(nn.Module):
    """Rounds of a block per modality, text first; an item without a modality skips its block.

    Args:
        config: sizes.
        streams: number of modalities.
    """

    def __init__(self, config: MMSBRConfig, streams: int) -> None:
        super().__init__()
        size, self.num_pivots = config.hidden_size, config.num_pivots
        self.views = nn.ModuleList(Views(config) for _ in range(streams))
        self.rounds = nn.ModuleList(
            nn.ModuleList(PivotBlock(config) for _ in range(streams)) for _ in range(config.num_rounds)
        )
        self.join = nn.Sequential(
            Dropout(config.item_dropout), nn.Linear(config.num_pivots * size, size), nn.ReLU(),
            Dropout(config.item_dropout), nn.Linear(size, size), nn.ReLU(), Dropout(config.item_dropout),
        )  # fmt: skip

    def forward(self, pivots: Tensor, content: list[Tensor], present: list[Tensor]) -> Tensor:
        """Return h (n, D), not below zero.

        Args:
            pivots: (n, P, D).
            content: (n, D) of each modality.
            present: (n,) bool of each.
        """
        joined: Tensor = self.join(self.rounded(pivots, content, present)[0].flatten(1))
        return joined

    def rounded(
        self, pivots: Tensor, content: list[Tensor], present: list[Tensor], most: int | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Return pivots (n, P, D) and views (n, F, D) of each modality after all or `most` rounds."""
        views = [make(x) for make, x in zip(self.views, content, strict=True)]
        count = self.num_pivots
        for blocks in list(self.rounds)[:most]:
            assert isinstance(blocks, nn.ModuleList)
            for stream, block in enumerate(blocks):
                out = block(torch.cat([pivots, views[stream]], 1))
                has = present[stream][:, None, None]
                pivots = torch.where(has, (out[:, :count] + pivots) / 2, pivots)
                views[stream] = torch.where(has, out[:, count:] + views[stream], views[stream])
        return pivots, views
