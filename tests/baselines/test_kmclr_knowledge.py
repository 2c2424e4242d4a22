import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench.baselines.kmclr.triples import Triples, from_attributes, from_clicks
from bench.errors import UserError
from bench.interface import TrainingEvents
from tests.baselines.test_kmclr import ATTRIBUTES, ITEMS, batch, build, events


def test_attributes_make_a_relation_each_with_entities_of_their_own() -> None:
    triples = from_attributes(ATTRIBUTES, ITEMS, 10)
    assert triples.num_relations == 2 and triples.heads.tolist() == [1, 2, 3, 4, 5]
    found = {
        item: sorted(zip(relation[mask].tolist(), entity[mask].tolist(), strict=True))
        for item, (relation, entity, mask) in enumerate(
            zip(triples.relation, triples.entity, triples.mask, strict=True)
        )
    }
    assert found[1] == found[2] and found[0] == [] and len(found[4]) == len(found[5]) == 1
    brands = {entity for row in found.values() for relation, entity in row if relation == 0}
    categories = {entity for row in found.values() for relation, entity in row if relation == 1}
    assert len(brands) == 3 and len(categories) == 2 and not brands & categories
    assert max(brands | categories) < triples.num_entities


def test_an_item_has_no_more_triples_than_asked_for() -> None:
    many = {f"a{number:02}": np.array([0, 1, 1, 1, 1, 1]) for number in range(12)}
    assert from_attributes(many, ITEMS, 10).relation.shape == (ITEMS + 1, 10)


def test_neighbors_are_counted_in_click_streams_within_the_window() -> None:
    """User 0 clicks 1 2 1 2: the pair has gaps 1, 1, 1 and 3; user 1 clicks 1 2 once more."""
    triples = from_clicks(events(), (1,), 3)
    assert triples.num_relations == 1 and triples.heads.tolist() == [1, 2]
    assert triples.entity[1][triples.mask[1]].tolist() == [2]
    assert triples.entity[2][triples.mask[2]].tolist() == [1]
    users = np.zeros(12, np.int64)
    stream = np.array([1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 4], np.int32)
    log = TrainingEvents(users, stream, np.ones(12, np.int8), users, ITEMS)
    counts = {}
    for start in range(12):  # by hand: every pair of different items at most four steps apart
        for stop in range(start + 1, min(start + 5, 12)):
            a, b = sorted((int(stream[start]), int(stream[stop])))
            counts[a, b] = counts.get((a, b), 0) + (a != b)
    triples = from_clicks(log, (1,), 2)
    for item in (1, 2, 3):
        near = {other: counts[tuple(sorted((item, other)))] for other in range(1, 5)
                if counts.get(tuple(sorted((item, other))), 0) >= 2}  # fmt: skip
        best = sorted(near, key=lambda other: (-near[other], other))[:2]
        assert triples.entity[item][triples.mask[item]].tolist() == best


def test_false_tails_never_form_a_triple() -> None:
    triples = from_attributes(ATTRIBUTES, ITEMS, 10)
    torch.manual_seed(0)
    heads = torch.tensor([1, 2, 3, 4, 5]).repeat(40)
    relation, true = triples.draw(heads)
    assert bool(
        ((triples.relation[heads] == relation[:, None]) & (triples.entity[heads] == true[:, None]))
        .any(1)
        .all()
    )
    tail, good = triples.false_tails(heads, relation)
    wrong = ((triples.relation[heads] == relation[:, None]) & (triples.entity[heads] == tail[:, None])).any(1)
    assert bool(good.all()) and not wrong.any()


def test_where_every_tail_is_true_the_item_is_left_out() -> None:
    one = Triples(torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2, 1, dtype=torch.int64), 1, 1)
    _, good = one.false_tails(torch.tensor([0, 1]), torch.tensor([0, 0]))
    assert not good.any()


def test_attention_is_a_softmax_over_real_triples_and_their_order_does_not_matter() -> None:
    model = build().eval()
    module = model.knowledge
    weights = module.weights(0)
    mask = module.triples.mask
    assert torch.allclose(weights.sum(1), mask.any(1).float()) and not weights[~mask].any()
    item, size = 1, 4
    head, relation, tail = module.attention.weight[0].split(size)
    scores = torch.stack([
        F.leaky_relu(module.items[0, item] @ head + module.relations[0, r] @ relation
                     + module.entities[0, t] @ tail + module.attention.bias[0], 0.2)
        for r, t in zip(module.triples.relation[item], module.triples.entity[item], strict=True)
    ])  # fmt: skip
    assert torch.allclose(weights[item], scores.softmax(0), atol=1e-6)
    before = module.item_vectors(0)
    added = weights[item] @ module.entities[0][module.triples.entity[item]]
    expected = F.relu(module.output(added + module.items[0, item]))
    assert torch.allclose(before[item], expected, atol=1e-6)
    triples = module.triples
    module.triples = Triples(
        triples.relation.flip(1), triples.entity.flip(1), triples.num_relations, triples.num_entities
    )
    assert torch.allclose(module.item_vectors(0), before, atol=1e-6)


@pytest.mark.parametrize("kg", ["auto", "attributes", "coclick", "none"])
def test_every_knowledge_graph_trains_and_scores(kg: str) -> None:
    model = build(kg=kg)
    loss = model.loss(batch())
    loss["loss"].backward()
    assert torch.isfinite(loss["loss"]) and ("transr" in loss) is (kg != "none")
    scores = model.eval().score(batch(), torch.arange(1, ITEMS + 1).repeat(len(batch()), 1))
    assert torch.isfinite(scores).all()
    names = {"auto": "attributes"}
    assert model.extra_terms()[f"kg_{names.get(kg, kg)}"] == 1.0


def test_without_attributes_click_streams_are_read_and_asking_for_attributes_is_an_error() -> None:
    model = build(attributes=False)
    assert model.source == "coclick" and model.knowledge.triples.heads.tolist() == [1, 2]
    assert torch.isfinite(model.loss(batch())["loss"])
    with pytest.raises(UserError, match="no item attributes"):
        build(attributes=False, kg="attributes")


@pytest.mark.parametrize("behaviors", [1, 3, 4])
@pytest.mark.parametrize("kg", ["attributes", "coclick"])
def test_any_number_of_behaviors_trains(behaviors: int, kg: str) -> None:
    model = build(behaviors, kg=kg)
    terms = model.loss(batch())
    terms["loss"].backward()
    assert torch.isfinite(terms["loss"]) and ("contrast" in terms) is (behaviors > 1)
