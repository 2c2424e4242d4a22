"""The global relation encoder of SSDRec: vectors of users and items from all relation graphs.

Letters: U users, N items, D hidden size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.baselines.ssdrec.graphs import Graphs
from bench.nn.dropout import Dropout
from bench.nn.graph import SparseRows


class Maps:
    """The graphs, whose rows are multiplied with tables.

    Args:
        graphs: as scipy matrices.
        device: where they lie.
    """

    def __init__(self, graphs: Graphs, device: torch.device) -> None:
        self.bought, self.bought_by = (SparseRows(part, device) for part in (graphs.bought, graphs.bought.T))
        self.following, self.preceding = (SparseRows(g, device) for g in (graphs.following, graphs.preceding))
        self.incompatible = SparseRows(graphs.incompatible, device)
        self.similar, self.dissimilar = (SparseRows(g, device) for g in (graphs.similar, graphs.dissimilar))


class Mix(nn.Module):
    """a x + b y + c with learned numbers, then dropout."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.numbers, self.dropout = nn.Parameter(torch.tensor([0.5, 0.5, 0.0])), Dropout(dropout)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return what x and y, of one shape, are mixed to."""
        a, b, c = self.numbers
        mixed: Tensor = self.dropout(a * x + b * y + c)
        return mixed


class RelationEncoder(nn.Module):
    """One layer over all graphs.

    Args:
        size: D.
        dropout: on what the graphs give, fraction.
    """

    def __init__(self, size: int, dropout: float) -> None:
        super().__init__()
        self.user_mix, self.item_mix = Mix(dropout), Mix(dropout)
        self.incoming, self.outgoing = (nn.Parameter(torch.empty(size, size)) for _ in range(2))
        self.user_join, self.item_join = (nn.Parameter(torch.empty(2 * size, size)) for _ in range(2))
        self.user_gate, self.item_gate = (nn.Parameter(torch.empty(size, size)) for _ in range(2))
        self.user_out, self.item_out = (nn.Parameter(torch.empty(size, size)) for _ in range(2))
        for matrix in self.parameters():
            if matrix.dim() == 2:
                nn.init.xavier_uniform_(matrix)

    def forward(
        self, users: Tensor, items: Tensor, maps: Maps, these: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return H_u (m, D) and H_i (n, D) of some users and items.

        Args:
            users: their table (U, D).
            items: their table (N + 1, D).
            maps: the graphs.
            these: (m,) users and (n,) items, int64.
        """
        of_users, of_items = these
        user, item = users[of_users], items[of_items]
        bought, bought_by = maps.bought(items, of_users), maps.bought_by(users, of_items)
        near = self.user_mix(maps.similar(users, of_users), user)
        far = self.user_mix(maps.dissimilar(users, of_users), user)
        before, after = (part(items, of_items) for part in (maps.preceding, maps.following))
        apart = maps.incompatible(items, of_items)
        around, against = self.item_neighbors(item, before, after), self.item_neighbors(item, apart, apart)
        user = self.joined(bought, near, far, self.user_join) @ self.user_gate
        item = self.joined(bought_by, around, against, self.item_join) @ self.item_gate
        return torch.sigmoid(user) @ self.user_out, torch.sigmoid(item) @ self.item_out

    def item_neighbors(self, items: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """Return items (n, D) with what stands before and after them, by a softmax of two scores."""
        scale = items.shape[1] ** -0.5
        scores = [
            F.leaky_relu((items * part) @ weight, 0.2).sum(1) * scale
            for part, weight in ((before, self.incoming), (after, self.outgoing))
        ]
        share = torch.stack(scores, 1).softmax(1)  # (n, 2)
        mixed: Tensor = self.item_mix(items, share[:, :1] * before + share[:, 1:] * after)
        return mixed

    @staticmethod
    def joined(own: Tensor, good: Tensor, bad: Tensor, join: Tensor) -> Tensor:
        """Return the mean over both relations of [own ; relation] W."""
        return (torch.cat([own, good], 1) @ join + torch.cat([own, bad], 1) @ join) / 2
