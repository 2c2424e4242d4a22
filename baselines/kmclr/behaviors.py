"""The behavior module of KMCLR: a graph convolution per behavior, averaged, and the contrast between them.

Letters: U users, N items, A behaviors, D width, K layers, B pairs of a batch, S users asked.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.baselines.kmclr.config import KMCLRConfig
from bench.nn.graph import product

CHUNK = 18
"""Users of one chunk are no negatives of each other."""
SHARE = 0.1
"""Users of a batch whose behaviors are contrasted, fraction."""


class BehaviorModule(nn.Module):
    """Vectors of users and items over all behaviors, and over each of them.

    Args:
        config: options.
        num_users: U.
        num_items: N.
    """

    def __init__(self, config: KMCLRConfig, num_users: int, num_items: int) -> None:
        super().__init__()
        size, layers = config.embedding_size, config.num_behavior_layers
        self.num_users = num_users
        self.tables = nn.Parameter(torch.empty(num_users + num_items + 1, size))
        self.layers = nn.Parameter(torch.empty(layers, 2, size, size))  # of users and of items
        self.joins = nn.Parameter(torch.empty(2, layers * size, size))
        nn.init.xavier_uniform_(self.tables)
        for matrix in (*self.layers.flatten(0, 1), *self.joins):
            nn.init.xavier_uniform_(matrix.detach())

    def forward(self, graphs: list[Tensor]) -> tuple[Tensor, list[list[Tensor]]]:
        """Return (U + N + 1, D) vectors over all behaviors, and what each layer gathers over each of them.

        Args:
            graphs: per behavior, the symmetric sparse matrix of its pairs.

        Returns:
            The vectors, and per layer and behavior the messages (U + N + 1, D), for `over_each`.
        """
        x: Tensor = self.tables
        outputs: list[Tensor] = []
        messages: list[list[Tensor]] = []
        for weights in self.layers:
            gathered = [product(graph, x) for graph in graphs]
            x = torch.sigmoid(self.each(sum(gathered[1:], gathered[0]).div(len(gathered)), weights))
            outputs.append(x)
            messages.append(gathered)
        return self.each(torch.cat(outputs, 1), self.joins), messages

    def over_each(self, messages: list[list[Tensor]], users: Tensor) -> list[Tensor]:
        """Return vectors (S, D) of some users (S,) over each behavior, from the messages of all layers."""
        single = []
        for gathered in zip(*messages, strict=True):  # the layers of one behavior
            layers = [
                torch.sigmoid(part[users] @ weights[0])
                for part, weights in zip(gathered, self.layers, strict=True)
            ]
            single.append(torch.cat(layers, 1) @ self.joins[0])
        return single

    def each(self, x: Tensor, weights: Tensor) -> Tensor:
        """Return users times the first matrix, items times the second, (U + N + 1, D)."""
        users, items = x.split([self.num_users, len(x) - self.num_users])
        return torch.cat([users @ weights[0], items @ weights[1]])


def behavior_contrast(target: Tensor, other: Tensor) -> Tensor:
    """Return the mean over users of -log(exp(t_u o_u / D) / sum over v of exp(t_u o_v / D)), v outside the
    chunk of u; 0 where there is nobody else.

    Args:
        target: (S, D) vectors under the target behavior.
        other: (S, D) vectors of the same users under another behavior.
    """
    size, count = target.shape[1], len(target)
    chunk = torch.arange(count, device=target.device) // (CHUNK if count > CHUNK else 1)
    if count < 2:
        return target.sum() * 0.0
    logits = target @ other.T / size  # (S, S)
    others = logits.masked_fill(chunk[:, None] == chunk, -torch.inf)
    return (others.logsumexp(1) - logits.diagonal()).mean()


class BehaviorItems:
    """Draws an item of each user under one behavior.

    Args:
        user: (P,) int64 of the distinct pairs.
        item: (P,) int64.
        num_users: U.
    """

    def __init__(self, user: Tensor, item: Tensor, num_users: int) -> None:
        order = user.argsort(stable=True)
        self.items = F.pad(item[order], (0, 1))  # the last entry stands for none
        self.count = torch.bincount(user, minlength=num_users)
        self.start = self.count.cumsum(0) - self.count

    def draw(self, user: Tensor) -> tuple[Tensor, Tensor]:
        """Return an item (B,) of each user (B,) and whether there is one, (B,) bool."""
        count = self.count[user]
        chosen = self.start[user] + torch.randint(2**62, user.shape, device=user.device) % count.clamp(min=1)
        return torch.where(count > 0, self.items[chosen.clamp(max=len(self.items) - 1)], 0), count > 0
