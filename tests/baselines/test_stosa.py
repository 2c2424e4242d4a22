"""STOSA against its paper: distances, squared weights, what a position sees, the two losses."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.baselines.stosa import STOSA, STOSAConfig, ranking_terms, wasserstein
from bench.interface import Batch, DatasetInfo, ItemContent, TrainingEvents
from bench.nn.gaussian import point, variance

ITEMS, USERS = 20, 4
HISTORY = torch.tensor([[0, 0, 0, 5, 9, 2], [0, 3, 8, 8, 1, 7], [4, 6, 2, 9, 10, 11], [0, 0, 0, 0, 0, 12]])
LABELS = torch.tensor([[0, 0, 0, 9, 2, 13], [0, 8, 8, 1, 7, 14], [6, 2, 9, 10, 11, 15], [0, 0, 0, 0, 0, 16]])
BEHAVIOR = torch.where(LABELS % 2 == 0, 1, 2) * (LABELS > 0)


def build(behaviors=("click", "favor"), **options: object) -> STOSA:
    torch.manual_seed(0)
    info = DatasetInfo(USERS, ITEMS, behaviors, ItemContent(ITEMS))
    model = STOSA(STOSAConfig(**{"hidden_size": 8, "num_heads": 2, **options}), info).eval()
    with torch.no_grad():  # starting values of 0.02 would make all distances alike
        for table in (model.means, model.covariances):
            table.weight[1:] = torch.randn(ITEMS, 8)
    users = np.repeat(np.arange(USERS), [4, 6, 7, 2])
    items = np.concatenate([row[row > 0].numpy() for row in torch.cat([HISTORY, LABELS[:, -1:]], 1)])
    ones = np.ones(len(items), np.int8)
    model.set_up(TrainingEvents(users, items.astype(np.int32), ones, np.arange(len(items)), ITEMS))
    return model


def batch(history: Tensor = HISTORY) -> Batch:
    zeros = torch.zeros_like(history)
    return Batch(torch.arange(len(history)), history, zeros, zeros, labels=LABELS, label_behavior=BEHAVIOR)


def elementwise(a: Tensor, s: Tensor, b: Tensor, t: Tensor) -> float:
    """Squared 2-Wasserstein distance of N(a, diag s) and N(b, diag t), coordinate by coordinate."""
    return sum(
        (x - y) ** 2 + v + w - 2 * math.sqrt(v * w)
        for x, y, v, w in zip(a.tolist(), b.tolist(), s.tolist(), t.tolist(), strict=True)
    )


def test_the_distance_is_that_of_wasserstein_between_diagonal_gaussians() -> None:
    torch.manual_seed(1)
    (a, b), (s, t) = torch.randn(2, 5), torch.rand(2, 5) + 0.1
    distance = wasserstein(point(a, s), point(b, t))
    assert distance.item() == pytest.approx(elementwise(a, s, b, t), rel=1e-5)
    assert distance == wasserstein(point(b, t), point(a, s))
    assert wasserstein(point(a, s), point(a, s)) == 0


def test_the_squared_distance_breaks_the_triangle_inequality() -> None:
    one = torch.ones(1)
    first, second, third = (point(mean * one, one) for mean in (0.0, 1.0, 2.0))
    assert wasserstein(first, third) == 4
    assert wasserstein(first, second) + wasserstein(second, third) == 2


def test_attention_weights_are_a_softmax_of_negative_distances() -> None:
    block = build().blocks[0]
    mean, spread = torch.randn(1, 3, 8), torch.rand(1, 3, 8) + 0.1
    allowed = torch.ones(3, 3, dtype=torch.bool).tril()[None, None]
    parts = {
        name: (block.mean[name](mean)[0], variance(block.covariance[name](spread))[0])
        for name in ("query", "key")
    }
    weights = block.weights(mean, spread, allowed)
    for head in range(2):
        own = slice(4 * head, 4 * head + 4)
        for query in range(3):
            a, s = (part[query, own] for part in parts["query"])
            distances = [
                elementwise(a, s, *(part[key, own] for part in parts["key"])) for key in range(query + 1)
            ]
            expected = torch.softmax(-torch.tensor(distances) / 4**0.5, 0)
            assert torch.allclose(weights[0, head, query, : query + 1], expected, atol=1e-5)
            assert not weights[0, head, query, query + 1 :].any()


def test_variances_mix_by_squared_weights() -> None:
    """Uniform attention over four equal variances v gives v / 4."""
    block = build().blocks[0]
    with torch.no_grad():
        for stream in (block.mean, block.covariance):
            for name in ("query", "key"):
                stream[name].weight.zero_()  # all queries and keys are alike
    seen: list[Tensor] = []
    block.covariance["output"].register_forward_hook(lambda module, given, result: seen.append(given[0]))
    spread = torch.full((1, 4, 8), 2.0)
    block(torch.randn(1, 4, 8), spread, torch.ones(1, 1, 4, 4, dtype=torch.bool))
    value = variance(block.covariance["value"](spread))
    assert torch.allclose(seen[0], value / 4, atol=1e-6)


def test_variances_stay_above_zero_for_very_negative_weights() -> None:
    assert (variance(torch.tensor([-1e6, -100.0, -1.0, 0.0, 5.0])) > 0).all()
    model = build()
    with torch.no_grad():
        for block in model.blocks:
            for linear in block.covariance.values():
                linear.bias.fill_(-200.0)
            block.covariance_network.norm.bias.fill_(-200.0)
        model.covariances.weight[1:] = -200.0
    model.train()
    loss = model.loss(batch())["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert (model.item_points()[1:, 8:] > 0).all() and (model.states(HISTORY)[..., 8:] > 0).all()


def test_a_position_does_not_see_later_events_and_padding_changes_nothing() -> None:
    model = build(num_layers=2)
    changed = HISTORY.clone()
    changed[:, 4:] = torch.tensor([17, 18])
    before, after = model.states(HISTORY), model.states(changed)
    assert torch.equal(before[:, :4], after[:, :4]) and not torch.allclose(before[:, 4:], after[:, 4:])
    assert torch.allclose(model.states(F.pad(HISTORY, (5, 0)))[:, -1], before[:, -1], atol=1e-6)
    assert torch.isfinite(model.states(torch.zeros(1, 4, dtype=torch.int64))).all()


def test_padding_gets_no_attention() -> None:
    block = build().blocks[0]
    from bench.nn.transformer import attention_mask

    allowed = attention_mask(HISTORY[:1] > 0, causal=True)
    weights = block.weights(torch.randn(1, 6, 8), torch.rand(1, 6, 8) + 0.1, allowed)
    assert not weights[0, :, 3:, :3].any()
    assert torch.allclose(weights[0, :, 3:, 3:].sum(-1), torch.ones(2, 3))


@pytest.mark.parametrize(("mean_stream", "moves"), [("updated", True), ("passthrough", False)])
def test_an_earlier_item_moves_the_mean_of_the_last_position_where_blocks_update_it(
    mean_stream: str, moves: bool
) -> None:
    model = build(num_layers=2, mean_stream=mean_stream)
    changed = HISTORY.clone()
    changed[:, 3] = 19
    before, after = (model.states(history)[:3, -1] for history in (HISTORY, changed))
    assert bool((before[:, :8] != after[:, :8]).any()) is moves
    assert bool((before[:, 8:] != after[:, 8:]).any())  # variances carry context in both
    model.train().loss(batch())["loss"].backward()
    learned = [model.blocks[0].mean["value"].weight, model.blocks[0].mean_network.inner.weight]
    assert all((weight.grad is not None and bool(weight.grad.any())) is moves for weight in learned)


def test_released_means_are_those_of_the_embedded_items() -> None:
    model = build(num_layers=2, mean_stream="passthrough")
    embedded = F.elu(model.norm(model.means(HISTORY) + model.mean_positions.weight[-6:]))
    assert torch.equal(model.states(HISTORY)[..., :8], embedded)


def test_losses_by_hand() -> None:
    state, positive, negative = (torch.tensor([[x, 1.0]]) for x in (0.0, 1.0, 3.0))
    bpr, hinge = ranking_terms(state, positive, negative)  # distances 1 and 9; between the items 4
    assert bpr.item() == pytest.approx(math.log(1 + math.exp(-8)), rel=1e-5) and hinge.item() == 0
    bpr, hinge = ranking_terms(state, negative, positive)  # 9 and 1; between them 4
    assert bpr.item() == pytest.approx(8 + math.log(1 + math.exp(-8)), rel=1e-5) and hinge.item() == 5
    assert ranking_terms(state, positive, positive)[0].item() == pytest.approx(math.log(2))


def test_positions_are_weighed_by_the_behavior_of_their_label() -> None:
    both = build(loss_weight_pvn=0.0)
    torch.manual_seed(3)
    drawn = both.untouched.draw(torch.repeat_interleave(torch.arange(USERS), (LABELS > 0).sum(1)), (1,))[:, 0]
    row, column = torch.nonzero(LABELS, as_tuple=True)
    state = both.states(HISTORY)[row, column]
    terms, _ = ranking_terms(state, both.item_points(LABELS[row, column]), both.item_points(drawn))
    for auxiliary in (0.0, 0.5, 1.0):
        weights = torch.where(BEHAVIOR[row, column] == 2, 1.0, auxiliary)
        torch.manual_seed(3)
        value = build_with(both, loss_weight_auxiliary=auxiliary).loss(batch())["loss"]
        weights, terms = weights.detach(), terms.detach()
        assert value.item() == pytest.approx(float((weights * terms).sum() / weights.sum()), rel=1e-5)


def build_with(model: STOSA, **options: object) -> STOSA:
    """Return a model with other options and the same weights."""
    torch_state = torch.get_rng_state()
    other = build(loss_weight_pvn=0.0, **options)
    other.load_state_dict(model.state_dict())
    torch.set_rng_state(torch_state)
    return other


def test_scores_are_negative_distances_and_the_state_itself_ranks_first() -> None:
    model = build()
    state, items = model.encode(batch()), model.encode_items()
    candidates = torch.arange(1, ITEMS + 1)
    scores = model.score_encoded(state, candidates, items)
    expected = -wasserstein(state[:, None], model.item_points(candidates)[None])
    assert torch.allclose(scores, expected, atol=1e-4)
    assert torch.allclose(model.score_encoded(state, candidates.expand(USERS, -1), items), scores, atol=1e-4)
    points, _ = items
    points[7] = state[0]
    lengths = points.square().sum(1)
    assert model.score_encoded(state, candidates, (points, lengths))[0].argmax() == 7 - 1


def test_with_equal_variances_the_ranking_is_that_of_the_means() -> None:
    model = build()
    with torch.no_grad():
        model.covariances.weight[1:] = 0.3
    state = model.encode(batch())
    order = model.score_encoded(state, torch.arange(1, ITEMS + 1), model.encode_items()).argsort(1)
    distance = torch.cdist(state[:, :8], model.means.weight[1:])
    assert torch.equal(order, distance.argsort(1, descending=True))


@pytest.mark.parametrize("behaviors", [("favor",), ("click", "cart", "favor"), ("a", "b", "c", "d")])
def test_any_number_of_behaviors_trains(behaviors: tuple[str, ...]) -> None:
    model = build(behaviors).train()
    data = batch()
    data.label_behavior[data.labels > 0] = len(behaviors)
    assert torch.isfinite(model.loss(data)["loss"])
