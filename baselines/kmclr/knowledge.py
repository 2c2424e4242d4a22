"""The knowledge module of KMCLR: attention over entities, TransR, TATEC, LightGCN and its two views.

Two sets of item, entity and relation tables run side by side: set 0 learns TransR, set 1 TATEC.
Letters: U users, N items, E entities, R relations, T triples per item, D width, P target pairs, n heads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.baselines.kmclr.config import KMCLRConfig
from bench.baselines.kmclr.triples import Triples
from bench.nn.dropout import Dropout
from bench.nn.graph import BipartiteGraph, propagate

ROWS = 2048
"""Users whose scores of all items are held at a time."""
LEAST_KEPT = 0.6
"""Chance that the least certain edge is kept in a view; without knowledge every edge has 0.8."""


class KnowledgeModule(nn.Module):
    """Vectors of users and items that know the entities of the items.

    Args:
        config: options.
        num_users: U.
        num_items: N.
        triples: the knowledge graph, or None.
    """

    def __init__(self, config: KMCLRConfig, num_users: int, num_items: int, triples: Triples | None) -> None:
        super().__init__()
        size, self.config, self.triples = config.embedding_size, config, triples
        relations, entities = (triples.num_relations, triples.num_entities) if triples else (0, 0)
        self.users = nn.Parameter(0.1 * torch.randn(num_users, size))
        self.items = nn.Parameter(0.1 * torch.randn(2, num_items + 1, size))
        self.output, self.dropout = nn.Linear(size, size), Dropout(config.dropout)
        if triples is None:
            return
        self.entities = nn.Parameter(0.1 * torch.randn(2, entities + 1, size))
        self.relations = nn.Parameter(0.1 * torch.randn(2, relations + 1, size))
        self.attention = nn.Linear(3 * size, 1)
        self.projections = nn.Parameter(torch.empty(2, relations, size, size))  # M_r and N_r
        for matrix in self.projections.flatten(0, 1):
            nn.init.xavier_uniform_(matrix.detach(), nn.init.calculate_gain("relu"))

    def weights(self, part: int, keep: Tensor | None = None) -> Tensor:
        """Return attention weights (N + 1, T), 0 where there is no triple.

        Args:
            part: 0 or 1, the set of tables.
            keep: (N + 1, T) bool, triples that are read; None reads all.
        """
        assert self.triples is not None
        mask = self.triples.mask if keep is None else self.triples.mask & keep
        size = self.config.embedding_size
        head, relation, tail = self.attention.weight[0].split(size)
        scores = (  # w [v ; r ; t] + b, each table multiplied once
            (self.items[part] @ head)[:, None]
            + (self.relations[part] @ relation)[self.triples.relation]
            + (self.entities[part] @ tail)[self.triples.entity]
            + self.attention.bias
        )
        scores = F.leaky_relu(scores, 0.2).masked_fill(~mask, -torch.inf)
        weights = torch.where(mask.any(1, keepdim=True), scores, 0.0).softmax(1)
        return weights * mask

    def item_vectors(self, part: int, keep: Tensor | None = None) -> Tensor:
        """Return (N + 1, D) vectors of the items with what their entities add."""
        if self.triples is None:
            return self.dropout(F.relu(self.output(self.items[part])))
        weights = self.dropout(self.weights(part, keep))
        entities = self.dropout(self.entities[part])
        added = F.embedding_bag(self.triples.entity, entities, mode="sum", per_sample_weights=weights)
        return self.dropout(F.relu(self.output(added + self.items[part])))

    def propagated(self, items: Tensor, graph: Tensor) -> Tensor:
        """Return (U + N + 1, D), users and items (N + 1, D) after LightGCN over a graph."""
        return propagate(graph, torch.cat([self.users, items]), self.config.num_layers)

    def triple_losses(self, heads: Tensor) -> dict[str, Tensor]:
        """Return the losses of TransR and TATEC on a random triple of each head (n,)."""
        assert self.triples is not None
        c, (relation, tail) = self.config, self.triples.draw(heads)
        false, good = self.triples.false_tails(heads, relation)
        share = good / good.sum().clamp(min=1)  # heads for which no false tail was met are left out
        head, link, true, other = self.translated(heads, relation, tail, false)
        near, far = ((head + link - end).square().sum(1) for end in (true, other))
        norms = sum((part.square().sum(1) for part in (head, link, true, other)), torch.zeros_like(near))
        matrices = self.projections[0].square().sum().sqrt()
        transr = -(share * F.logsigmoid(far - near)).sum()
        transr = transr + c.loss_weight_translation * ((share * norms).sum() + matrices)
        right, wrong = (self.similarity(heads, relation, end) for end in (tail, false))
        gap = right - wrong if c.tatec_sign == "correct" else wrong - right
        return {"transr": transr, "tatec": -(share * F.logsigmoid(gap)).sum()}

    def translated(self, heads: Tensor, relation: Tensor, *tails: Tensor) -> tuple[Tensor, ...]:
        """Return M_r h, r and M_r t for each of the tails, (n, D) each, of set 0."""
        parts = (self.items[0][heads], *(self.entities[0][tail] for tail in tails))
        head, *ends = (self.by_relation(self.projections[0], part, relation) for part in parts)
        return head, self.relations[0][relation], *ends

    def similarity(self, heads: Tensor, relation: Tensor, tails: Tensor) -> Tensor:
        """Return h N_r t + h r + t r + h t, (n,), of set 1."""
        head, link, tail = self.items[1][heads], self.relations[1][relation], self.entities[1][tails]
        turned = self.by_relation(self.projections[1], tail, relation)
        return (head * turned + head * link + tail * link + head * tail).sum(1)

    @staticmethod
    def by_relation(matrices: Tensor, values: Tensor, relation: Tensor) -> Tensor:
        """Return (n, D), each row of values multiplied by the matrix of its relation (n,)."""
        result = torch.zeros_like(values)
        for index, matrix in enumerate(matrices):
            rows = torch.nonzero(relation == index)[:, 0]
            result = result.index_copy(0, rows, values[rows] @ matrix.T)
        return result

    @torch.no_grad()
    def view(self, part: int, graph: BipartiteGraph) -> Tensor:
        """Draw a target graph that leaves out edges of items whose vector depends on single entities.

        Args:
            part: set of tables whose view it is.
            graph: the target graph.

        Returns:
            Its normalised sparse matrix.
        """
        chance = torch.full((len(graph.user),), 0.8, device=self.users.device)
        if self.triples is not None:
            chance = self.edge_chances(part, graph, self.stability(part))
        return graph.matrix(graph.normalised(torch.rand_like(chance) < chance))

    def stability(self, part: int) -> Tensor:
        """Return (N + 1,) cosines of item vectors under two graphs with triples left out at random."""
        assert self.triples is not None
        training, drawn = self.training, []
        self.eval()  # no other dropout
        for _ in range(2):
            keep = torch.rand(self.triples.mask.shape, device=self.users.device) > self.config.dropout_entity
            drawn.append(self.item_vectors(part, keep))
        self.train(training)
        return F.cosine_similarity(drawn[0], drawn[1], dim=1)

    def edge_chances(self, part: int, graph: BipartiteGraph, stability: Tensor) -> Tensor:
        """Return (P,) chances of the edges to be kept: softmax_i(P_u V_i) c_i, scaled to 0.6..1 over edges.

        The softmax over all items is summed in blocks of users.
        """
        items = self.items[part][1:]
        rows = (self.users[block] @ items.T for block in torch.arange(len(self.users)).split(ROWS))
        total = torch.cat([scores.logsumexp(1) for scores in rows])  # (U,)
        item = graph.item - len(self.users)
        weight = ((self.users[graph.user] * self.items[part][item]).sum(1) - total[graph.user]).exp()
        weight = weight * stability[item]
        low, high = weight.min(), weight.max()
        return LEAST_KEPT + (1 - LEAST_KEPT) * (weight - low) / (high - low).clamp(min=1e-12)


def info_nce(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Return the mean over rows of -log(exp(z1_k z2_k / t) / sum over j != k of exp(z1_k z2_j / t)), cosines.

    Args:
        first: (n, D).
        second: (n, D).
        temperature: t.
    """
    if len(first) < 2:
        return first.sum() * 0.0
    logits = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T / temperature  # (n, n)
    others = logits.masked_fill(torch.eye(len(first), dtype=torch.bool, device=first.device), -torch.inf)
    return (others.logsumexp(1) - logits.diagonal()).mean()
