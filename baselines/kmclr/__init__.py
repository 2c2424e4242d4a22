"""Xuan, Liu, Li, Yin: Knowledge Enhancement for Contrastive Multi-Behavior Recommendation. WSDM 2023,
doi:10.1145/3539597.3570386, arXiv:2301.05403.

Two modules. A knowledge module enriches items with the entities of a knowledge graph (`triples`, `knowledge`)
and runs LightGCN over the pairs of the target behavior, with a contrast of two views that leave out edges of
items that depend on single entities. A behavior module (`behaviors`) convolves the graph of every behavior,
and contrasts the target behavior with the others. Users and items are 0.9 of the one and 0.1 of the other.
It reads users, items, behavior types and attributes; no order, image or text.

Letters: U users, N items, A behaviors, D width, B target pairs of a batch.

Readings taken
- All passes of an epoch run side by side: a step has a batch of target pairs and its share of the items that
  have triples, so that every such item is asked once per epoch. No gradient reaches the knowledge module from
  the behavior module.
- Losses are means over the batch where the release has sums; their ratios are kept.
- Users and items of a batch are contrasted once each; a repeated one would be a negative of itself.
- Where the data have no attributes, an item's entities are its neighbors in the click streams.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.baselines.kmclr.behaviors import SHARE, BehaviorItems, BehaviorModule, behavior_contrast
from bench.baselines.kmclr.config import KMCLRConfig
from bench.baselines.kmclr.knowledge import KnowledgeModule, info_nce
from bench.baselines.kmclr.triples import Triples, from_attributes, from_clicks
from bench.cards import Card
from bench.errors import UserError
from bench.interface import Batch, DatasetInfo, Pairs, Recommender, Stage, TrainingEvents
from bench.nn.graph import BipartiteGraph
from bench.nn.negatives import UntouchedItems
from bench.nn.scoring import dot_scores

CARD = Card(
    name="kmclr",
    label="KMCLR",
    model="KMCLR",
    family="multibehavior",
    paper="Xuan et al.: Knowledge Enhancement for Contrastive Multi-Behavior Recommendation. WSDM 2023, "
    "doi:10.1145/3539597.3570386",
    year=2023,
    inputs="distinct user-item pairs of each behavior, item attributes; no order or modality; pairs view",
    deviations=(
        "without attributes the entities of an item are its neighbors in the click streams (kg)",
        "adjacency of the behavior module is raw, as in the release, which meant to normalise it (norm)",
        "TATEC is trained as the similarity that it is; the release has the sign of a distance (tatec_sign)",
        "one AdamW for both modules and all passes side by side; the release alternates four optimizers",
        "negatives are untouched under every behavior; the contrast of a behavior with itself is left out",
        "softmax behind the views is summed in blocks and scaled over observed edges, not over all pairs",
        "D = 64 instead of 32; learning rate 5e-3 instead of 1e-3, chosen on validation",
    ),
    notes="Trains on 21,500 targets per second and core where SASRec does on 92,800"
    "; pairs of the target behavior, three graphs per step.",
    search={
        "learning_rate": (0.001, 0.003, 0.005, 0.01),
        "embedding_size": (32, 64, 128),
        "knowledge_share": (0.05, 0.1, 0.2, 0.5),
        "norm": ("none", "sym"),
    },
)


class KMCLR(Recommender):
    """Knowledge-enhanced contrastive multi-behavior recommendation."""

    Config = KMCLRConfig
    max_history = 1
    config: KMCLRConfig

    def __init__(self, config: KMCLRConfig, info: DatasetInfo) -> None:
        super().__init__(config, info)
        users, items = info.num_users, info.num_items
        self.behavior = BehaviorModule(config, users, items)
        self.knowledge = KnowledgeModule(config, users, items, self.empty_triples())
        self.graphs: list[Tensor] = []
        self.target_graph: BipartiteGraph | None = None
        self.views: list[Tensor] = []
        self.owned: list[BehaviorItems] = []
        self.heads = torch.zeros(0, dtype=torch.int64)
        self.steps, self.step = 1, 0
        self.untouched: UntouchedItems | None = None

    @property
    def source(self) -> str:
        """What the knowledge graph is made of: `attributes`, `coclick` or `none`."""
        if self.config.kg == "auto":
            return "attributes" if self.info.content.attributes else "coclick"
        return self.config.kg

    def empty_triples(self) -> Triples | None:
        """Return the triples of the attributes; click streams give some of known size, which come later.

        Raises:
            UserError: attributes are asked for, and there are none.
        """
        count, most = self.info.num_items, self.config.num_entities
        if self.source == "attributes":
            if not self.info.content.attributes:
                raise UserError(
                    "kmclr: kg=attributes, but the data set has no item attributes; use kg=coclick"
                )
            return from_attributes(self.info.content.attributes, count, most)
        none = torch.full((count + 1, most), count + 1)
        return Triples(torch.ones_like(none), none, 1, count + 1) if self.source == "coclick" else None

    def set_up(self, events: TrainingEvents) -> None:
        """Build the graphs of all behaviors, the knowledge graph and what negatives are drawn from."""
        device, count = self.behavior.tables.device, len(self.info.behaviors)
        users, items = self.info.num_users, self.info.num_items
        user, item = torch.from_numpy(events.user), torch.from_numpy(events.item).long()
        self.untouched = UntouchedItems(user, item, users, items).to(device)
        kind = torch.from_numpy(events.behavior)
        self.graphs, self.owned = [], []
        for behavior in range(1, count + 1):
            keys = torch.unique((user * (items + 1) + item)[kind == behavior]).to(device)
            graph = BipartiteGraph(keys // (items + 1), keys % (items + 1), users, items)
            values = graph.normalised() if self.config.norm == "sym" else torch.ones(len(keys), device=device)
            self.graphs.append(graph.matrix(values))
            self.owned.append(BehaviorItems(keys // (items + 1), keys % (items + 1), users))
        self.target_graph = graph
        self.steps = max(-(-len(keys) // self.config.batch_size), 1)
        if self.source == "coclick":
            shallow = tuple(range(1, count)) or (1,)
            self.knowledge.triples = from_clicks(events, shallow, self.config.num_entities)
        if self.knowledge.triples is not None:
            self.knowledge.triples = self.knowledge.triples.to(device)
            self.heads = self.knowledge.triples.heads

    def stages(self) -> tuple[Stage, ...]:
        """Return the one stage: distinct pairs of the target behavior."""
        c, triples = self.config, self.knowledge.triples
        alone = triples is not None and triples.relation.shape[1] == 1  # attention has nothing to choose
        return (
            Stage(
                Pairs((len(self.info.behaviors),), negatives=1, distinct=True),
                c.learning_rate,
                c.batch_size,
                optimizer="adamw",
                weight_decay=c.weight_decay,
                epochs=c.epochs,
                patience=c.patience,
                clip_norm=20.0,
                frozen=("knowledge.attention.",) if alone else (),
            ),
        )

    def start_epoch(self, epoch: int, events: TrainingEvents) -> None:
        """Draw the two views and the order in which items with triples are asked."""
        assert self.target_graph is not None
        self.views = [self.knowledge.view(part, self.target_graph) for part in (0, 1)]
        self.heads = self.heads[torch.randperm(len(self.heads), device=self.heads.device)]
        self.step = 0

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the sum of both modules' losses and its terms."""
        assert batch.target is not None and batch.negatives is not None
        vectors, terms = self.knowledge_terms(batch.user, batch.target, batch.negatives[:, 0])
        terms |= self.behavior_terms(batch.user, batch.target, vectors.detach())
        return {"loss": torch.stack(list(terms.values())).sum(), **terms}

    def knowledge_terms(
        self, user: Tensor, item: Tensor, negative: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the knowledge vectors (U + N + 1, D) and the module's losses on pairs (B,)."""
        c, graph, module = self.config, self.target_graph, self.knowledge
        assert graph is not None
        sets = [module.item_vectors(part) for part in (0, 1)]
        items = (sets[0] + sets[1]) / 2
        keep = torch.rand(len(graph.user), device=items.device) >= c.dropout_edge
        values = graph.normalised() * keep / (1 - c.dropout_edge)
        vectors = module.propagated(items, graph.matrix(values))
        positive, other = (vectors[nodes + self.info.num_users] for nodes in (item, negative))
        bpr = F.softplus((vectors[user] * (other - positive)).sum(1)).mean()
        rows = (module.users[user], items[item], items[negative])
        decay = torch.stack([part.square().sum(1).mean() for part in rows]).sum()
        terms = {"bpr": bpr + c.loss_weight_decay / 2 * decay}
        first, second = (module.propagated(part, view) for part, view in zip(sets, self.views, strict=True))
        nodes = (torch.unique(user), torch.unique(item) + self.info.num_users)
        contrast = [info_nce(first[part], second[part], c.temperature) for part in nodes]
        terms["views"] = c.loss_weight_contrast * torch.stack(contrast).sum()
        if len(self.heads):
            size = -(-len(self.heads) // self.steps)
            start = self.step % self.steps * size
            if len(heads := self.heads[start : start + size]):
                terms |= module.triple_losses(heads)
            self.step += 1
        return vectors, terms

    def behavior_terms(self, user: Tensor, item: Tensor, knowledge: Tensor) -> dict[str, Tensor]:
        """Return the behavior module's losses on target pairs (B,), given the knowledge vectors."""
        assert self.untouched is not None
        c, offset = self.config, self.info.num_users
        main, messages = self.behavior(self.graphs)
        fused = (1 - c.knowledge_share) * main + c.knowledge_share * knowledge
        losses = []
        for behavior, owned in enumerate(self.owned, start=1):
            last = behavior == len(self.owned)
            positive, exists = (item, torch.ones_like(item, dtype=torch.bool)) if last else owned.draw(user)
            negative = self.untouched.draw(user, (1,))[:, 0]
            rows = (fused[user], fused[positive + offset], fused[negative + offset])  # (B, D) each
            each = F.softplus((rows[0] * (rows[2] - rows[1])).sum(1))
            losses.append((each * exists).mean())
        squares = torch.stack([part.square().sum(1).mean() for part in rows]).sum()
        terms = {"behaviors": torch.stack(losses).mean(), "norms": c.loss_weight_embedding * squares}
        if len(self.graphs) > 1:
            asked = torch.unique(user)
            asked = asked[torch.randperm(len(asked), device=user.device)]
            asked = asked[: max(round(SHARE * len(asked)), 2)]
            *others, target = self.behavior.over_each(messages, asked)
            contrast = [behavior_contrast(target, other) for other in others]
            terms["contrast"] = c.loss_weight_behavior_contrast * torch.stack(contrast).mean()
        return terms

    def encode(self, batch: Batch) -> Tensor:
        """Return (B,) user ids: nothing else of a batch is read."""
        return batch.user

    def encode_items(self) -> Tensor:
        """Return the final vectors of users and items, (U + N + 1, D)."""
        share, module = self.config.knowledge_share, self.knowledge
        main, _ = self.behavior(self.graphs)
        items = (module.item_vectors(0) + module.item_vectors(1)) / 2
        assert self.target_graph is not None
        graph = self.target_graph.matrix(self.target_graph.normalised())
        return (1 - share) * main + share * module.propagated(items, graph)

    def score_encoded(self, encoded: Tensor, candidates: Tensor, items: Tensor) -> Tensor:
        """Return dot products, (B, C)."""
        return dot_scores(items[encoded], items[self.info.num_users :], candidates)

    def extra_terms(self) -> dict[str, float]:
        """Return what the knowledge graph is made of and how many triples it has."""
        triples = self.knowledge.triples
        return {f"kg_{self.source}": 1.0, "triples": float(triples.mask.sum()) if triples else 0.0}
