"""NMTR against its paper: the cascade, the labels, the networks, what gradients reach."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.baselines.nmtr import NMTR, NMTRConfig
from bench.interface import Batch, DatasetInfo, ItemContent, TrainingEvents

USERS, ITEMS = 3, 9
USER = np.array([0, 0, 0, 1, 1, 1])
ITEM = np.array([1, 1, 2, 3, 4, 4])
BEHAVIOR = np.array([1, 2, 2, 1, 1, 1])  # (0, 1): both; (0, 2): favor alone; (1, 3) and (1, 4): click alone


def build(behaviors: tuple[str, ...] = ("click", "favor"), **options: object) -> NMTR:
    torch.manual_seed(0)
    info = DatasetInfo(USERS, ITEMS, behaviors, ItemContent(ITEMS))
    model = NMTR(NMTRConfig(embedding_size=4, **options), info)
    events = (USER, ITEM.astype(np.int32), BEHAVIOR.astype(np.int8), np.arange(len(USER)))
    model.set_up(TrainingEvents(*events, ITEMS))
    with torch.no_grad():
        model.users.weight.normal_()
        model.items.weight[1:].normal_()
    return model


def batch(user: list[int], target: list[int], negatives: list[list[int]] | None = None) -> Batch:
    history = torch.zeros(len(user), 1, dtype=torch.int64)
    drawn = torch.tensor(negatives) if negatives else None
    return Batch(torch.tensor(user), history, history, history, target=torch.tensor(target), negatives=drawn)


CANDIDATES = torch.tensor([[1, 5, 9], [2, 3, 4]])
TRAINING = batch([0, 0, 1], [1, 2, 3], [[5, 6], [7, 8], [9, 1]])


def click_and_favor(model: NMTR) -> tuple[Tensor, Tensor]:
    first, second = model.logits(model.users(torch.tensor([0, 1])), CANDIDATES)
    return first, second


@pytest.mark.parametrize(("cascade", "share"), [("mean", 0.5), ("sum", 1.0)])
def test_without_evidence_of_its_own_a_favor_takes_its_share_of_the_click(cascade: str, share: float) -> None:
    model = build(cascade=cascade)
    torch.nn.init.zeros_(model.networks[1].output.weight)
    click, favor = click_and_favor(model)
    assert torch.equal(favor, share * click) and click.abs().min() > 0


def test_the_click_score_feeds_the_favor_score_and_not_the_other_way() -> None:
    model = build()
    click, favor = click_and_favor(model)
    torch.nn.init.ones_(model.networks[1].output.weight)
    same, changed = click_and_favor(model)
    assert torch.equal(same, click) and not torch.allclose(changed, favor)
    torch.nn.init.ones_(model.networks[0].output.weight)
    assert not torch.allclose(click_and_favor(model)[1], changed)


def test_the_favor_loss_reaches_the_click_network() -> None:
    model = build(loss_weight_target=1.0)
    model.loss(TRAINING)["loss"].backward()
    assert model.networks[0].output.weight.grad.abs().sum() > 0


def test_a_weight_of_zero_leaves_the_favor_network_without_gradient() -> None:
    model = build(loss_weight_target=0.0)
    model.loss(TRAINING)["loss"].backward()
    assert all(not p.grad.any() for p in model.networks[1].parameters())
    assert model.networks[0].output.weight.grad.any()


def test_all_behaviors_read_one_pair_of_tables() -> None:
    size = 4
    model = build()
    network = 3 * size * (3 * size // 2) + 3 * size // 2 + 3 * size // 2  # kernel, bias, output
    tables = USERS * size + (ITEMS + 1) * size + (ITEMS + 1)
    assert sum(p.numel() for p in model.parameters()) == tables + 2 * network


@pytest.mark.parametrize("variant", ["gmf", "mlp", "neumf"])
def test_a_network_is_its_formula(variant: str) -> None:
    model = build(variant=variant)
    network = model.networks[0]
    p, q = model.users.weight[1], model.items.weight[3]
    z = {"gmf": p * q, "mlp": torch.cat([p, q]), "neumf": torch.cat([p, q, p * q])}[variant]
    (layer,) = network.tower
    hidden = torch.relu(layer.weight @ z + (0 if variant == "gmf" else layer.bias))
    expected = network.output.weight[0] @ hidden
    assert torch.allclose(click_and_favor(model)[0][1, 1], expected, atol=1e-6)


def test_more_layers_halve_the_width_each_time() -> None:
    widths = [layer.weight.shape for layer in build(num_layers=2).networks[0].tower]
    assert widths == [(6, 12), (3, 6)]


@pytest.mark.parametrize(
    ("mode", "both", "favor_alone"), [("type", [1, 1], [1, 1]), ("count", [1, 1], [1, 0])]
)
def test_labels_follow_the_deepest_behavior_or_the_count(
    mode: str, both: list[int], favor_alone: list[int]
) -> None:
    model = build(label_mode=mode)
    labels = model.labels(torch.tensor([0, 0, 1, 1]), torch.tensor([1, 2, 3, 4]))
    assert labels.T.tolist() == [both, favor_alone, [1, 0], [1, 0]]


def test_the_loss_is_the_weighted_sum_of_cross_entropies_over_positives_and_negatives() -> None:
    model = build(loss_weight_target=0.7)
    rows = [(0, [1, 5, 6], [1, 0, 0], [1, 0, 0]), (0, [2, 7, 8], [1, 0, 0], [1, 0, 0])]
    rows.append((1, [3, 9, 1], [1, 0, 0], [0, 0, 0]))
    totals = [0.0, 0.0]
    for user, items, *labels in rows:
        scores = model.logits(model.users.weight[user][None], torch.tensor([items]))
        for r in range(2):
            for score, label in zip(scores[r][0].tolist(), labels[r], strict=True):
                chance = 1 / (1 + math.exp(-score))
                totals[r] -= math.log(chance if label else 1 - chance) / 9
    expected = 0.3 * totals[0] + 0.7 * totals[1]
    assert model.loss(TRAINING)["loss"].item() == pytest.approx(expected, rel=1e-5)


def test_the_l2_term_is_over_the_rows_of_the_batch() -> None:
    plain, heavy = build(), build(loss_weight_embedding=0.1)
    items = torch.tensor([[1, 5, 6], [2, 7, 8], [3, 9, 1]])
    norms = plain.users.weight[[0, 0, 1]].square().sum() / 3 + plain.items.weight[items].square().sum() / 9
    kernels = sum(p.square().sum() for p in plain.networks.parameters() if p.dim() == 2)
    gap = heavy.loss(TRAINING)["loss"] - plain.loss(TRAINING)["loss"]
    assert gap.item() == pytest.approx(0.1 * (norms + kernels).item(), rel=1e-4)


def test_a_user_without_a_training_event_is_ranked_by_the_bias_alone() -> None:
    model = build()
    torch.nn.init.normal_(model.bias)
    score = model.score(batch([2], [1]), CANDIDATES[:1])
    assert torch.equal(score[0], model.bias[0, CANDIDATES[0]])


def test_the_bias_counts_one_and_a_half_times_in_the_mean_cascade() -> None:
    model = build()
    torch.nn.init.ones_(model.bias)
    for network in model.networks:
        torch.nn.init.zeros_(network.output.weight)
    assert torch.equal(click_and_favor(model)[1], torch.full((2, 3), 1.5))


@pytest.mark.parametrize("behaviors", [("favor",), ("view", "fav", "cart"), ("view", "fav", "cart", "buy")])
def test_one_three_and_four_behaviors_run(behaviors: tuple[str, ...]) -> None:
    model = build(behaviors)
    terms = model.loss(TRAINING)
    assert torch.isfinite(terms["loss"]) and len(terms) == 1 + len(behaviors)
    assert sum(model.weights) == pytest.approx(1) and model.weights[-1] == (0.5 if len(behaviors) > 1 else 1)


def test_a_bias_only_model_learns_popularity() -> None:
    model = build()
    with torch.no_grad():
        model.users.weight.zero_()
        model.items.weight.zero_()
    optimizer = torch.optim.Adam([model.bias], lr=0.05)
    often = batch([0, 0, 0, 1], [1, 1, 2, 3], [[5, 6], [5, 6], [6, 7], [5, 7]])
    for _ in range(200):
        optimizer.zero_grad()
        model.loss(often)["loss"].backward()
        optimizer.step()
    assert model.bias[0, 1] > model.bias[0, 2] > model.bias[0, 5]


def test_unknown_values_are_refused() -> None:
    for wrong in ({"num_layers": 0}, {"loss_weight_target": 1.5}):
        with pytest.raises(ValueError, match="expected"):
            dataclasses.replace(NMTRConfig(), **wrong)
