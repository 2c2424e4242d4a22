"""KMCLR against its spec: triples, attention, TransR and TATEC, views, both contrasts, fusion."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.baselines.kmclr import KMCLR
from bench.baselines.kmclr.behaviors import BehaviorItems, behavior_contrast
from bench.baselines.kmclr.config import KMCLRConfig
from bench.baselines.kmclr.knowledge import KnowledgeModule, info_nce
from bench.interface import Batch, DatasetInfo, ItemContent, TrainingEvents
from bench.nn.graph import BipartiteGraph

USERS, ITEMS = 6, 5
EVENTS = [  # user, item, behavior; user 5 has no clicks
    (0, 1, 1), (0, 2, 1), (0, 1, 1), (0, 2, 1), (0, 3, 2), (1, 1, 1), (1, 2, 1), (1, 4, 2), (2, 5, 1),
    (2, 1, 2), (3, 3, 2), (3, 4, 1), (4, 2, 2), (4, 5, 2), (5, 1, 2), (5, 5, 2),
]  # fmt: skip
ATTRIBUTES = {"brand": np.array([0, 1, 1, 2, 0, 3]), "category": np.array([0, 7, 7, 7, 2, 0])}


def events(behaviors: int = 2) -> TrainingEvents:
    users, items, kinds = (np.array(column) for column in zip(*EVENTS, strict=True))
    kinds = np.where(kinds == 2, behaviors, 1 + np.arange(len(kinds)) % max(behaviors - 1, 1))
    return TrainingEvents(users, items.astype(np.int32), kinds.astype(np.int8), np.arange(len(users)), ITEMS)


def content(attributes: bool) -> ItemContent:
    return ItemContent(ITEMS, attributes=ATTRIBUTES if attributes else {})


def build(behaviors: int = 2, attributes: bool = True, **options: object) -> KMCLR:
    torch.manual_seed(0)
    names = ("a", "b", "c", "d")[:behaviors]
    config = KMCLRConfig(**{"embedding_size": 4, "batch_size": 8, **options})
    model = KMCLR(config, DatasetInfo(USERS, ITEMS, names, content(attributes)))
    model.set_up(events(behaviors))
    model.train().start_epoch(0, events(behaviors))
    return model


def batch() -> Batch:
    pairs = [(user, item) for user, item, kind in EVENTS if kind == 2]
    users, items = torch.tensor(pairs).T
    empty = torch.zeros(len(users), 0, dtype=torch.int64)
    negatives = torch.tensor([4, 5, 2, 5, 1, 3, 2, 4])[: len(users), None]
    return Batch(users, empty, empty, empty, target=items, negatives=negatives)


def test_transr_prefers_a_triple_at_distance_zero() -> None:
    module = build().knowledge
    with torch.no_grad():
        module.projections[0] = torch.eye(4)
        head, link, tail = module.translated(torch.tensor([1]), torch.tensor([0]), torch.tensor([2]))
        module.entities[0, 2] = module.items[0, 1] + module.relations[0, 0]
    head, link, true, false = module.translated(
        torch.tensor([1]), torch.tensor([0]), torch.tensor([2]), torch.tensor([3])
    )
    near, far = ((head + link - end).square().sum(1) for end in (true, false))
    assert near.item() == pytest.approx(0, abs=1e-12) and -F.logsigmoid(far - near) < math.log(2)


def test_projections_are_those_of_the_relation() -> None:
    matrices, values = torch.randn(3, 4, 4), torch.randn(5, 4)
    relation = torch.tensor([2, 0, 1, 2, 0])
    expected = torch.stack([matrices[r] @ v for r, v in zip(relation, values, strict=True)])
    assert torch.allclose(KnowledgeModule.by_relation(matrices, values, relation), expected, atol=1e-6)


@pytest.mark.parametrize(("sign", "rises"), [("correct", True), ("release", False)])
def test_a_step_on_tatec_raises_the_true_similarity_under_the_correct_sign(sign: str, rises: bool) -> None:
    model = build(tatec_sign=sign)
    module, heads = model.knowledge, torch.tensor([1, 2, 3, 4, 5])

    def gap() -> float:
        torch.manual_seed(3)
        relation, tail = module.triples.draw(heads)
        false, _ = module.triples.false_tails(heads, relation)
        return float(
            (module.similarity(heads, relation, tail) - module.similarity(heads, relation, false))
            .mean()
            .detach()
        )

    before = gap()
    optimizer = torch.optim.SGD(module.parameters(), 0.5)
    for _ in range(5):
        torch.manual_seed(3)
        optimizer.zero_grad()
        module.triple_losses(heads)["tatec"].backward()
        optimizer.step()
    assert (gap() > before) is rises


def test_the_similarity_is_the_bilinear_form_by_hand() -> None:
    module = build().knowledge
    h, r, t = module.items[1, 3], module.relations[1, 1], module.entities[1, 2]
    expected = h @ module.projections[1, 1] @ t + h @ r + t @ r + h @ t
    value = module.similarity(torch.tensor([3]), torch.tensor([1]), torch.tensor([2]))
    assert value.item() == pytest.approx(expected.item(), abs=1e-6)


def test_edges_are_dropped_in_training_alone() -> None:
    model = build()
    first, second = (model.loss(batch())["bpr"] for _ in range(2))
    assert first != second
    model.eval()
    candidates = torch.arange(1, ITEMS + 1).repeat(len(batch()), 1)
    assert torch.equal(model.score(batch(), candidates), model.score(batch(), candidates))


def test_chances_of_edges_are_softmax_times_stability_scaled_to_their_range() -> None:
    model = build()
    graph, module = model.target_graph, model.knowledge
    stability = torch.linspace(0.1, 1, ITEMS + 1)
    share = (module.users @ module.items[0][1:].T).softmax(1)
    weight = torch.stack([
        share[u, i - USERS - 1] * stability[i - USERS] for u, i in zip(graph.user, graph.item, strict=True)
    ])  # fmt: skip
    expected = 0.6 + 0.4 * (weight - weight.min()) / (weight.max() - weight.min())
    chances = module.edge_chances(0, graph, stability)
    assert torch.allclose(chances, expected, atol=1e-5)
    assert chances.min().item() == pytest.approx(0.6) and chances.max().item() == pytest.approx(1.0)


def test_items_that_depend_on_single_entities_lose_more_edges() -> None:
    user, item = torch.arange(USERS).repeat(2), torch.tensor([1] * USERS + [2] * USERS)
    graph = BipartiteGraph(user, item, USERS, ITEMS)
    module = build().knowledge
    with torch.no_grad():
        module.items.zero_()  # a uniform softmax
    stability = torch.ones(ITEMS + 1)
    stability[1] = 0.0
    chances = module.edge_chances(0, graph, stability)
    assert chances[:USERS].tolist() == pytest.approx([0.6] * USERS)
    assert chances[USERS:].tolist() == pytest.approx([1.0] * USERS)


def test_the_contrast_of_views_excludes_the_positive_from_its_denominator() -> None:
    first, second = torch.randn(4, 3), torch.randn(4, 3)
    cosine = F.cosine_similarity(first[:, None], second[None], dim=2) / 0.2
    expected = [
        -math.log(math.exp(cosine[k, k]) / sum(math.exp(cosine[k, j]) for j in range(4) if j != k))
        for k in range(4)
    ]
    assert info_nce(first, second, 0.2).item() == pytest.approx(np.mean(expected), rel=1e-5)
    assert info_nce(first, first, 0.2) < info_nce(first, second, 0.2)
    assert info_nce(first[:1], second[:1], 0.2) == 0


def test_the_contrast_of_behaviors_falls_with_alignment_and_spares_the_chunk() -> None:
    torch.manual_seed(0)
    target, other = torch.randn(40, 4), torch.randn(40, 4)
    logits = target @ other.T / 4
    expected = []
    for user in range(40):
        outside = [v for v in range(40) if v // 18 != user // 18]
        expected.append(torch.logsumexp(logits[user, outside], 0) - logits[user, user])
    assert behavior_contrast(target, other).item() == pytest.approx(
        torch.stack(expected).mean().item(), rel=1e-5
    )
    assert behavior_contrast(3 * target, 3 * target) < behavior_contrast(3 * target, 3 * other)
    assert behavior_contrast(target[:1], other[:1]) == 0


def test_auxiliary_positives_are_the_users_own_or_left_out() -> None:
    owned = BehaviorItems(torch.tensor([0, 0, 2]), torch.tensor([3, 4, 5]), 4)
    torch.manual_seed(0)
    items, exists = owned.draw(torch.tensor([0, 1, 2, 3]).repeat(30))
    assert exists.tolist() == [True, False, True, False] * 30
    assert set(items[0::4].tolist()) == {3, 4} and set(items[2::4].tolist()) == {5}
    assert set(items[1::2].tolist()) == {0}


def test_no_gradient_of_the_behavior_module_reaches_the_knowledge_module() -> None:
    model = build()
    vectors, _ = model.knowledge_terms(batch().user, batch().target, batch().negatives[:, 0])
    terms = model.behavior_terms(batch().user, batch().target, vectors.detach())
    torch.stack(list(terms.values())).sum().backward()
    assert all(p.grad is None for p in model.knowledge.parameters())
    assert all(p.grad is not None for p in model.behavior.parameters())


def test_without_a_share_of_knowledge_scores_do_not_depend_on_it() -> None:
    model = build(knowledge_share=0.0).eval()
    before = model.encode_items()
    with torch.no_grad():
        model.knowledge.entities.add_(1.0)
    assert torch.equal(model.encode_items(), before)
    mixed = build().eval()
    before = mixed.encode_items()
    with torch.no_grad():
        mixed.knowledge.entities.add_(1.0)
    assert not torch.allclose(mixed.encode_items(), before)


def test_every_item_with_triples_is_asked_once_per_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = build(batch_size=3), []
    triple_losses = model.knowledge.triple_losses
    monkeypatch.setattr(
        model.knowledge, "triple_losses", lambda heads: asked.append(heads) or triple_losses(heads)
    )
    for _ in range(model.steps):
        model.loss(batch())
    assert sorted(torch.cat(asked).tolist()) == [1, 2, 3, 4, 5]


def dense(graph: Tensor) -> Tensor:
    return graph.to_dense()


def test_the_behavior_module_is_the_dense_convolution() -> None:
    model = build(norm="none")
    module, graphs = model.behavior, [graph.to_dense() for graph in model.graphs]
    clicks = {(user, item) for user, item, kind in EVENTS if kind == 1}
    assert graphs[0][:USERS, USERS:].count_nonzero() == len(clicks) and graphs[0].max() == 1
    x, outputs = module.tables, []
    for weights in module.layers:
        mean = (graphs[0] @ x + graphs[1] @ x) / 2
        x = torch.sigmoid(torch.cat([mean[:USERS] @ weights[0], mean[USERS:] @ weights[1]]))
        outputs.append(x)
    wide = torch.cat(outputs, 1)
    expected = torch.cat([wide[:USERS] @ module.joins[0], wide[USERS:] @ module.joins[1]])
    main, messages = module(model.graphs)
    assert torch.allclose(main, expected, atol=1e-5)
    some, inputs = torch.tensor([USERS - 1, 0]), [module.tables, *outputs[:-1]]
    single = module.over_each(messages, some)
    for graph, vectors in zip(graphs, single, strict=True):
        parts = zip(inputs, module.layers, strict=True)
        wide = torch.cat([torch.sigmoid((graph @ x)[:USERS] @ weights[0]) for x, weights in parts], 1)
        assert torch.allclose(vectors, (wide @ module.joins[0])[some], atol=1e-5)


def test_block_structured_data_are_learned() -> None:
    """Two groups of users with items of their own: items of the own group rank first."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(20):
        own = rng.permutation(10)[:8] + 1 + 10 * (user % 2)
        rows += [(user, item, 1 + (index >= 4)) for index, item in enumerate(own)]
    users, items, kinds = (np.array(column) for column in zip(*rows, strict=True))
    log = TrainingEvents(users, items.astype(np.int32), kinds.astype(np.int8), np.arange(len(users)), 20)
    torch.manual_seed(0)
    model = KMCLR(
        KMCLRConfig(embedding_size=8, batch_size=32, learning_rate=1e-2),
        DatasetInfo(20, 20, ("click", "favor"), ItemContent(20)),
    )
    model.set_up(log)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    pairs = torch.tensor([(user, item) for user, item, kind in rows if kind == 2])
    for epoch in range(40):
        model.train().start_epoch(epoch, log)
        for part in torch.randperm(len(pairs)).split(32):
            user, item = pairs[part].T
            empty = torch.zeros(len(user), 0, dtype=torch.int64)
            data = Batch(user, empty, empty, empty, target=item, negatives=model.untouched.draw(user, (1,)))
            optimizer.zero_grad()
            model.loss(data)["loss"].backward()
            optimizer.step()
    everyone = torch.arange(20)
    empty = torch.zeros(20, 0, dtype=torch.int64)
    scores = model.eval().score(Batch(everyone, empty, empty, empty), torch.arange(1, 21).repeat(20, 1))
    own = scores.view(20, 2, 10)[everyone, everyone % 2].mean(1)
    other = scores.view(20, 2, 10)[everyone, 1 - everyone % 2].mean(1)
    assert (own > other).all()
