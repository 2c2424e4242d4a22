"""Blocks of click models against formulas written out."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from bench.nn.ctr import Dice, ItemFields, TargetAttention, group_impressions, perceptron


@dataclass
class Content:
    num_items: int = 4
    attributes: dict = field(default_factory=dict)


def randomize(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()


def test_dice_is_the_formula_of_the_paper_in_training():
    torch.manual_seed(0)
    dice, x = Dice(3), torch.randn(50, 3) * 2 + 1
    randomize(dice)
    p = torch.sigmoid((x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-8).sqrt())
    torch.testing.assert_close(dice(x), p * x + (1 - p) * dice.alpha * x)


def test_dice_uses_running_statistics_in_eval_mode_and_ignores_the_batch():
    dice = Dice(1).eval()
    dice.norm.running_mean.fill_(2.0)
    dice.norm.running_var.fill_(4.0)
    found = dice(torch.tensor([[2.0], [6.0]]))
    assert found[0].item() == pytest.approx(1.0)  # sigmoid(0) * 2, alpha = 0
    assert found[1].item() == pytest.approx(6 / (1 + np.exp(-2.0)), rel=1e-5)
    assert torch.equal(dice(torch.tensor([[6.0]])), found[1:])


def test_perceptron_has_the_layers_asked_for():
    net = perceptron(5, (4, 3), batch_norm=True)
    names = [type(layer).__name__ for layer in net]
    assert names == ["Linear", "BatchNorm1d", "Dice"] * 2 + ["Linear"]
    assert net(torch.randn(7, 5)).shape == (7, 1)
    assert [type(layer).__name__ for layer in perceptron(5, (4,))] == ["Linear", "Dice", "Linear"]


@pytest.mark.parametrize("training", [True, False])
def test_target_attention_equals_the_unit_on_the_four_parts(training):
    torch.manual_seed(1)
    unit = TargetAttention(4, (6, 5)).train(training)
    randomize(unit)
    history, target = torch.randn(3, 5, 4), torch.randn(3, 2, 4)
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 1]]).bool()
    pairs = [(b, p, c) for b in range(3) for p in range(5) if mask[b, p] for c in range(2)]
    parts = [
        torch.cat([target[b, c], history[b, p], target[b, c] - history[b, p], target[b, c] * history[b, p]])
        for b, p, c in pairs
    ]
    weights = unit.rest(unit.first(torch.stack(parts)))[:, 0]
    expected = torch.zeros(3, 2, 4)
    for (b, p, c), weight in zip(pairs, weights, strict=True):
        expected[b, c] += weight * history[b, p]
    torch.testing.assert_close(unit(history, mask, target), expected, atol=1e-5, rtol=1e-4)


def test_target_attention_of_no_event_is_zero():
    unit = TargetAttention(4, (6,))
    found = unit(torch.randn(2, 3, 4), torch.zeros(2, 3, dtype=torch.bool), torch.randn(2, 2, 4))
    assert found.shape == (2, 2, 4) and not found.any()


def test_item_fields_stand_side_by_side_and_item_zero_is_zero():
    content = Content(attributes={"shop": np.array([0, 1, 1, 2, 0]), "brand": np.array([0, 3, 2, 1, 1])})
    fields = ItemFields(content, 2)
    found = fields(torch.tensor([[0, 2]]))
    assert fields.size == 6 and found.shape == (1, 2, 6) and not found[0, 0].any()
    by_hand = [fields.tables[0].weight[2], fields.tables[1].weight[2], fields.tables[2].weight[1]]
    assert torch.equal(found[0, 1], torch.cat(by_hand))  # id 2, brand 2, shop 1: attributes by name


def impressions(users, histories, labels):
    history = torch.tensor(histories)
    target = torch.arange(1, len(users) + 1) * 10
    return group_impressions(torch.tensor(users), history, (history > 0).long(), target, torch.tensor(labels))


def test_a_positive_and_its_negatives_are_one_group():
    groups = impressions([0, 0, 0, 1, 1, 1], [[0, 5]] * 3 + [[6, 7]] * 3, [1.0, 0, 0, 1, 0, 0])
    assert groups.first.tolist() == [0, 3] and groups.items.tolist() == [[10, 20, 30], [40, 50, 60]]
    values = torch.arange(6.0)
    assert groups.spread(values).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert torch.equal(groups.spread(values)[groups.row, groups.column], values)


def test_a_group_ends_where_user_history_or_positive_changes():
    users = [0, 0, 1, 1, 1, 1]
    histories = [[0, 5], [0, 5], [0, 5], [0, 5], [0, 6], [0, 6]]
    found = impressions(users, histories, [0.0, 0, 0, 1, 0, 0])
    assert found.row.tolist() == [0, 0, 1, 2, 3, 3]
    assert found.items.tolist() == [[10, 20], [30, 0], [40, 0], [50, 60]]
    assert found.spread(torch.ones(6), -1.0).tolist() == [[1, 1], [1, -1], [1, -1], [1, 1]]
