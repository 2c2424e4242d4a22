"""DIPN: what each position sees, the two attentions, the tasks, and views without events."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.baselines.dipn import DIPN, DIPNConfig
from bench.interface import Batch, DatasetInfo, ItemContent

ITEMS = 12
ROW = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2])
HISTORY = torch.tensor([[0, 0, 3, 5, 2, 7], [4, 6, 1, 9, 10, 11], [0, 0, 0, 0, 8, 12]])
BEHAVIOR = torch.tensor([[0, 0, 1, 2, 1, 1], [1, 2, 1, 2, 2, 1], [0, 0, 0, 0, 1, 1]])
TIME = torch.tensor([[0, 0, 10, 11, 15, 40], [1, 1, 9, 30, 31, 100], [0, 0, 0, 0, 7, 7]])


TWO = ("click", "favor")


def build(encoder: str = "causal", behaviors: tuple[str, ...] = TWO, **options: object) -> DIPN:
    torch.manual_seed(0)
    category = np.arange(ITEMS + 1, dtype=np.int32) % 4
    content = ItemContent(ITEMS, attributes={"category": category})
    config = DIPNConfig(hidden_size=8, attribute_size=4, dropout=0.0, encoder=encoder, **options)
    return DIPN(config, DatasetInfo(3, ITEMS, behaviors, content)).eval()


def batch(
    history: Tensor = HISTORY, behavior: Tensor = BEHAVIOR, time: Tensor = TIME, **fields: Tensor
) -> Batch:
    return Batch(torch.arange(len(history)), history, behavior, time, **fields)


def labelled() -> Batch:
    labels = F.pad(HISTORY[:, 1:], (0, 1), value=1)
    kinds = F.pad(BEHAVIOR[:, 1:], (0, 1), value=2)
    real = HISTORY > 0
    return batch(labels=labels * real, label_behavior=kinds * real)


def test_a_causal_position_equals_the_end_of_its_own_prefix() -> None:
    model = build()
    for row, column in [(0, 2), (0, 4), (1, 0), (1, 3), (2, 4), (2, 5)]:
        whole = model.hidden(batch(), torch.tensor([row]), torch.tensor([column]))
        end = slice(0, column + 1)
        prefix = batch(HISTORY[row : row + 1, end], BEHAVIOR[row : row + 1, end], TIME[row : row + 1, end])
        assert torch.allclose(whole, model.encode(prefix), atol=1e-5), (row, column)


def test_no_later_event_reaches_a_position() -> None:
    model = build()
    changed, times = HISTORY.clone(), TIME.clone()
    changed[:, 4:], times[:, 4:] = torch.tensor([9, 9]), 500
    places = torch.tensor([0, 1]), torch.tensor([3, 3])
    assert torch.equal(model.hidden(batch(), *places), model.hidden(batch(changed, time=times), *places))


@pytest.mark.parametrize("encoder", ["causal", "bidirectional"])
def test_bottom_weights_sum_to_one_over_real_events_and_are_zero_elsewhere(encoder: str) -> None:
    model = build(encoder)
    view, lengths = model.views[0], torch.tensor([3, 1])
    states = torch.randn(2, 4, 8)
    weights = view.weights(states, lengths)
    assert torch.allclose(weights[0].sum(1), torch.ones(4)) and not weights[0, :, 3].any()
    assert torch.allclose(weights[1].sum(1), torch.ones(4)) and not weights[1, :, 1:].any()
    level = view.score(torch.tanh(view.hidden(states)))[0, :3, 0].exp()
    expected = level / level.sum()
    assert torch.allclose(weights[0, 2, :3], expected, atol=1e-6)
    if encoder == "causal":
        assert torch.allclose(weights[0, 1, :2], level[:2] / level[:2].sum(), atol=1e-6)


def test_top_weights_sum_to_one_over_the_views_that_exist() -> None:
    model = build()
    exists = torch.tensor([[True, True], [True, False], [False, True], [False, False]])
    weights = model.top_weights(torch.randn(4, 2, 8), exists)
    assert torch.allclose(weights.sum(1), torch.ones(4))
    assert weights[1:].tolist() == [[1, 0], [0, 1], [1, 0]]


@pytest.mark.parametrize("encoder", ["causal", "bidirectional"])
def test_users_without_favors_and_without_events_are_finite_forward_and_backward(encoder: str) -> None:
    model = build(encoder)
    clicks = batch(HISTORY, (HISTORY > 0).long())
    blank = torch.zeros_like(HISTORY)
    for one in (clicks, batch(blank, blank, blank), batch(*[blank[:, :0]] * 3)):
        model.zero_grad()
        z = model.encode(one)
        z.sum().backward()
        assert torch.isfinite(z).all()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("encoder", ["causal", "bidirectional"])
def test_more_padding_changes_nothing(encoder: str) -> None:
    model = build(encoder)
    wider = batch(*(F.pad(part, (3, 0)) for part in (HISTORY, BEHAVIOR, TIME)))
    assert torch.allclose(model.encode(wider), model.encode(batch()), atol=1e-6)


@pytest.mark.parametrize("encoder", ["causal", "bidirectional"])
def test_the_order_of_clicks_and_of_favors_matters(encoder: str) -> None:
    model = build(encoder)
    z = model.encode(batch())
    clicks, favors = HISTORY.clone(), HISTORY.clone()
    clicks[0, [2, 4]] = clicks[0, [4, 2]]
    favors[1, [3, 4]] = favors[1, [4, 3]]
    assert not torch.allclose(model.encode(batch(clicks))[0], z[0], atol=1e-5)
    assert not torch.allclose(model.encode(batch(favors))[1], z[1], atol=1e-5)


def test_gaps_are_powers_of_two_within_the_view_and_other_events_are_counted() -> None:
    model = build()
    gaps, between = [], []
    model.gap.register_forward_hook(lambda _, inputs, __: gaps.append(inputs[0]))
    model.between.register_forward_hook(lambda _, inputs, __: between.append(inputs[0]))
    model.encode(batch())
    assert gaps[0][0].tolist() == [16, 2, 4]  # clicks at 10, 15, 40 seconds: first, 2^2 <= 5, 2^4 <= 25
    assert between[0][0].tolist() == [0, 1, 0]  # one favor stands between the first two clicks
    assert gaps[0][1].tolist() == [16, 3, 6] and between[0][1].tolist() == [0, 1, 2]


def test_weights_of_zero_leave_the_other_heads_without_gradient() -> None:
    model = build(loss_weight_type=0.0, loss_weight_auxiliary=0.0)
    model.loss(labelled())["loss"].backward()
    assert not model.next_type.weight.grad.any() and not model.other.weight.grad.any()
    assert model.items.weight.grad[HISTORY[0, 2]].any()  # a row of the history; all rows are candidates too


def test_each_weight_scales_its_own_term() -> None:
    model = build(loss_weight_type=0.3, loss_weight_auxiliary=0.7)
    terms = {name: value.item() for name, value in model.loss(labelled()).items()}
    expected = terms["target"] + 0.3 * terms["type"] + 0.7 * terms["auxiliary"]
    assert terms["loss"] == pytest.approx(expected, rel=1e-6)


def test_both_item_heads_rank_alike_before_training() -> None:
    model = build()
    z = torch.randn(4, 8)
    assert torch.equal(model.other(z), z)


def test_the_terms_are_their_formulas() -> None:
    model = build()
    torch.nn.init.normal_(model.other.weight)
    one = labelled()
    row, column = torch.nonzero(one.labels, as_tuple=True)
    z, items = model.hidden(one, row, column), one.labels[row, column]
    favor = one.label_behavior[row, column] == 2
    terms = model.loss(one)
    table, bias = model.items.weight[1:], model.bias[1:]
    expected = F.cross_entropy(z[favor] @ table.T + bias, items[favor] - 1)
    assert torch.allclose(terms["target"], expected, atol=1e-6)
    other = F.cross_entropy((z @ model.other.weight.T)[~favor] @ table.T + bias, items[~favor] - 1)
    assert torch.allclose(terms["auxiliary"], other, atol=1e-6)
    chance = torch.sigmoid(z @ model.next_type.weight[0] + model.next_type.bias)
    kind = -torch.where(favor, chance.log(), (1 - chance).log()).mean()
    assert torch.allclose(terms["type"], kind, atol=1e-6)


def test_a_huge_catalog_is_sampled_and_a_given_number_is_taken() -> None:
    model = build(num_negatives=5)
    torch.manual_seed(1)
    first = model.loss(labelled())["target"]
    torch.manual_seed(2)
    assert not torch.equal(first, model.loss(labelled())["target"])


def test_the_form_of_one_target_per_history_trains() -> None:
    model = build("bidirectional", ("view", "fav", "cart", "buy"))
    one = batch(target=torch.tensor([1, 2, 3]), target_behavior=torch.tensor([4, 1, 4]))
    model.loss(one)["loss"].backward()
    assert model.items.weight.grad.any() and len(model.views) == 4


def test_one_behavior_is_one_view() -> None:
    model = build(behaviors=("favor",))
    real = (HISTORY > 0).long()
    terms = model.loss(batch(HISTORY, real, labels=HISTORY, label_behavior=real))
    assert torch.isfinite(model.encode(batch(HISTORY, real))).all() and terms["auxiliary"] == 0


def test_thirty_two_users_are_learned_by_heart() -> None:
    torch.manual_seed(0)
    info = DatasetInfo(32, 60, TWO, ItemContent(60))
    model = DIPN(DIPNConfig(hidden_size=32, dropout=0.0), info)
    history, behavior = torch.randint(1, 61, (32, 6)), torch.randint(1, 3, (32, 6))
    time = torch.arange(6).expand(32, 6)
    target = torch.randperm(60)[:32] + 1
    labels = F.pad(target[:, None], (5, 0))
    kinds = 2 * (labels > 0).long()
    one = Batch(torch.arange(32), history, behavior, time, labels=labels, label_behavior=kinds)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        model.loss(one)["loss"].backward()
        optimizer.step()
    scores = model.score(one, torch.arange(1, 61).expand(32, -1))
    assert torch.equal(scores.argmax(1) + 1, target)


def test_an_odd_width_is_refused() -> None:
    with pytest.raises(ValueError, match="expected an even number"):
        DIPNConfig(hidden_size=7)
