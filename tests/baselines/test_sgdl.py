"""SGDL against its spec: propagation, memory, estimate of clean pairs, scheduler, meta gradients."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.baselines.sgdl import SGDL
from bench.baselines.sgdl.config import SGDLConfig
from bench.baselines.sgdl.parts import (
    LossWeight,
    Scheduler,
    clean_share,
    in_upper_half,
    pair_gradients,
    pair_loss,
)
from bench.interface import Batch, DatasetInfo, ItemContent, TrainingEvents
from bench.training.step import make_optimizer, train_step

USERS, ITEMS = 6, 5
PAIRS = [(0, 1), (0, 2), (1, 1), (1, 3), (2, 4), (3, 2), (3, 5), (4, 1)]  # user 5 has none


def events(behaviors: int = 2) -> TrainingEvents:
    users, items = (np.array(column) for column in zip(*PAIRS, strict=True))
    kinds = np.arange(len(PAIRS)) % behaviors + 1
    return TrainingEvents(users, items.astype(np.int32), kinds.astype(np.int8), np.arange(len(PAIRS)), ITEMS)


def build(behaviors: int = 2, stage: str = "memory", **options: object) -> SGDL:
    torch.manual_seed(0)
    names = ("a", "b", "c", "d")[:behaviors]
    config = SGDLConfig(**{"embedding_size": 4, "batch_size": 4, **options})
    model = SGDL(config, DatasetInfo(USERS, ITEMS, names, ItemContent(ITEMS)))
    model.set_up(events(behaviors))
    model.stage_name = stage
    if stage == "guided":
        model.bits[:5, ::2] = True
        model.start_epoch(0, events(behaviors))
    return model


def batch() -> Batch:
    users, items = torch.tensor(PAIRS).T
    empty = torch.zeros(len(users), 0, dtype=torch.int64)
    negatives = torch.tensor([4, 5, 2, 5, 1, 3, 1, 4])[:, None]
    return Batch(users, empty, empty, empty, target=items, negatives=negatives)


def nodes_of(model: SGDL, data: Batch) -> Tensor:
    return model.nodes(data.user, data.target, data.negatives[:, 0])


def dense_graph() -> Tensor:
    adjacency = torch.zeros(USERS + ITEMS + 1, USERS + ITEMS + 1)
    for user, item in PAIRS:
        adjacency[user, USERS + item] = adjacency[USERS + item, user] = 1
    scale = adjacency.sum(1).clamp(min=1).rsqrt()
    return scale[:, None] * adjacency * scale


def test_propagation_is_the_dense_mean_of_powers_and_without_layers_the_tables() -> None:
    model, dense = build(num_layers=2), dense_graph()
    x = model.tables.detach()
    expected = (x + dense @ x + dense @ dense @ x) / 3
    assert torch.allclose(model.propagated(), expected, atol=1e-6)
    plain = build(num_layers=0)
    assert torch.equal(plain.propagated(), plain.tables)


def test_the_gradient_of_propagation_is_that_of_the_dense_product() -> None:
    model, dense = build(num_layers=3), dense_graph()
    weight = torch.randn_like(model.tables)
    (model.propagated() * weight).sum().backward()
    x = model.tables.detach().clone().requires_grad_()
    powers = x + dense @ x + dense @ (dense @ x) + dense @ (dense @ (dense @ x))
    (powers / 4 * weight).sum().backward()
    assert torch.allclose(model.tables.grad, x.grad, atol=1e-6)


def test_closed_gradients_of_a_pair_are_those_of_autograd() -> None:
    model = build()
    vectors, nodes = model.tables.detach(), nodes_of(model, batch())
    for pair in range(nodes.shape[1]):
        rows = vectors[nodes[:, pair]].clone().requires_grad_()
        pair_loss(rows, torch.arange(3)[:, None]).sum().backward()
        assert torch.allclose(pair_gradients(vectors, nodes)[:, pair], rows.grad, atol=1e-6)


def test_a_trial_step_is_plain_descent_in_the_tables() -> None:
    model, data = build(learning_rate=0.5), batch()
    weights = torch.rand(len(data))
    tables = model.tables.detach().clone().requires_grad_()
    (weights * pair_loss(model.propagated(tables), nodes_of(model, data))).mean().backward()
    expected = model.propagated((tables - 0.5 * tables.grad).detach())
    vectors = model.propagated().detach()
    assert torch.allclose(model.after_step(vectors, nodes_of(model, data), weights), expected, atol=1e-6)


def test_weights_lie_between_0_and_1_and_losses_get_no_gradient_through_them() -> None:
    weigh, loss = LossWeight(7), torch.tensor([-50.0, 0.0, 3.0, 50.0], requires_grad=True)
    weights = weigh(loss)
    assert ((weights > 0) & (weights < 1)).all()
    weights.sum().backward()
    assert loss.grad is None and all(p.grad is not None for p in weigh.parameters())


def test_a_pair_is_noted_where_it_is_in_the_upper_half_of_its_user() -> None:
    user = torch.tensor([0, 0, 0, 2])
    positive, negative = torch.tensor([3.0, 1.0, -1.0, 0.5]), torch.tensor([2.0, 0.0, -2.0, 0.4])
    # user 0 by score: 3 (pair), 2, 1 (pair), 0, -1 (pair), -2: the first three are in
    assert in_upper_half(user, positive, negative).tolist() == [True, True, False, True]
    assert in_upper_half(user[3:], positive[3:], torch.tensor([0.6])).tolist() == [False]


def test_five_of_the_last_ten_epochs_make_a_pair_memorised_and_the_eleventh_replaces_the_first() -> None:
    model = build(memory_epochs=10, batch_size=2)
    model.bits[:5, 0] = True
    model.bits[:4, 1] = True
    model.bits[5:, 2] = True
    assert model.memorised().tolist() == [True, False, True] + [False] * 5
    model.bits[:, 1:] = True
    model.noted += 10
    model.tables.data.zero_()
    model.tables.data[:USERS] = -1.0  # scores of pairs: below their negatives
    for pair_item in model.pairs[1]:
        model.tables.data[USERS + pair_item] = 1.0
    before = model.bits.clone()
    model.stage_is_over()
    assert torch.equal(model.bits[1:], before[1:]) and int(model.noted) == 11


def test_too_few_memorised_pairs_give_way_to_the_fifth_memorised_most_often() -> None:
    model = build(batch_size=4)
    model.bits[:3, 6] = True
    model.bits[:1, 2] = True
    assert model.memorised().nonzero().flatten().tolist() == [6]  # 8 // 5 = 1 pair


def test_the_first_stage_ends_when_memory_reaches_the_clean_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.baselines.sgdl.clean_share", lambda user, loss: 0.6)
    model = build(memory_epochs=10)
    with torch.no_grad():  # pairs far above everything else
        model.tables.zero_()
        model.graph = None
        for user, item in PAIRS[:6]:
            model.tables[user] = 1.0
            model.tables[USERS + item] = 1.0
    monkeypatch.setattr(model, "drawn", lambda: torch.zeros(len(PAIRS), dtype=torch.int64))
    over = [model.stage_is_over() for _ in range(6)]
    assert over == [False] * 4 + [True] * 2  # nothing is memorised before the fifth epoch


def test_the_clean_share_of_a_known_mixture() -> None:
    rng = np.random.default_rng(0)
    noisy = rng.random(20_000) < 0.3
    loss = np.where(noisy, rng.normal(0.9, 0.05, 20_000), rng.normal(0.2, 0.05, 20_000))
    user = np.repeat(np.arange(20), 1_000)
    assert clean_share(torch.from_numpy(user), torch.from_numpy(loss)) == pytest.approx(0.7, abs=0.03)


def test_gumbel_rows_are_one_hot_and_follow_the_probabilities() -> None:
    torch.manual_seed(0)
    share = torch.tensor([0.6, 0.3, 0.1])
    rows = F.gumbel_softmax(share.log().expand(20_000, -1), 1.0, hard=True)
    assert ((rows == 0) | ((rows - 1).abs() < 1e-6)).all() and torch.allclose(rows.sum(1), torch.ones(20_000))
    assert torch.allclose(rows.mean(0), share, atol=0.02)


def test_the_scheduler_gives_log_probabilities_of_each_pair_by_itself() -> None:
    torch.manual_seed(0)
    scheduler = Scheduler()
    loss, cosines = torch.rand(5), torch.rand(5, 2)
    log_share = scheduler(loss, cosines)
    assert log_share.exp().sum().item() == pytest.approx(1)
    order = torch.tensor([3, 1, 4, 0, 2])
    assert torch.allclose(scheduler(loss[order], cosines[order]), log_share[order], atol=1e-6)
    gap = log_share[0] - log_share[1]  # does not depend on the rest of the batch
    assert torch.allclose(scheduler(loss[:2], cosines[:2]).diff().neg(), gap, atol=1e-5)


def test_exact_and_final_cosines_agree_without_layers() -> None:
    model = build(num_layers=0, learning_rate=5.0)
    vectors, nodes = model.propagated().detach(), nodes_of(model, batch())
    after = model.after_step(vectors, nodes, torch.ones(nodes.shape[1]))
    final = model.cosines(vectors, after, nodes)
    model.config = dataclasses.replace(model.config, scheduler_grad="exact")
    assert torch.allclose(model.cosines(vectors, after, nodes), final, atol=1e-5)
    assert (final < 1 - 1e-4).any()


def test_exact_cosines_are_those_of_autograd_gradients_in_the_tables() -> None:
    model = build(num_layers=2, learning_rate=2.0, scheduler_grad="exact")
    vectors, nodes = model.propagated().detach(), nodes_of(model, batch())
    after = model.after_step(vectors, nodes, torch.ones(nodes.shape[1]))
    tables = model.tables.detach().clone().requires_grad_()
    for pair in range(nodes.shape[1]):
        value = pair_loss(model.propagated(tables), nodes[:, pair : pair + 1]).sum()
        (grad,) = torch.autograd.grad(value, tables)
        moved = model.table_gradients(pair_gradients(after, nodes), nodes)
        users = F.cosine_similarity(grad[:USERS].flatten(), moved[0][pair], dim=0)
        items = F.cosine_similarity(grad[USERS:].flatten(), moved[1][pair], dim=0)
        assert torch.allclose(
            model.cosines(vectors, after, nodes)[pair], torch.stack([users, items]), atol=1e-5
        )


@pytest.mark.parametrize("selection", ["gumbel", "reinforce"])
def test_the_meta_loss_moves_weights_and_scheduler_and_not_the_tables(selection: str) -> None:
    model = build(stage="guided", learning_rate=0.5, selection=selection)
    model.loss(batch())["meta"].backward()
    parts = [
        *model.weigh.parameters(),
        *model.scheduler.outer.parameters(),
        *model.scheduler.inner.parameters(),
    ]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in parts)
    assert any(p.grad.any() for p in model.weigh.parameters())
    assert model.scheduler.inner.weight.grad.any()
    assert model.tables.grad is None


def test_the_meta_gradient_of_the_weights_agrees_with_finite_differences() -> None:
    model = build(stage="guided", learning_rate=3.0, num_layers=1).double()
    model.graph = model.graph.to(torch.float64)
    vectors, nodes = model.propagated().detach(), nodes_of(model, batch())
    weights = torch.rand(nodes.shape[1], dtype=torch.float64).requires_grad_()

    def value(at: Tensor) -> Tensor:
        torch.manual_seed(1)
        return model.meta_loss(vectors, nodes, at)

    (gradient,) = torch.autograd.grad(value(weights), weights)
    for index in range(len(weights)):
        step = torch.zeros_like(weights)
        step[index] = 1e-5
        slope = (value(weights.detach() + step) - value(weights.detach() - step)) / 2e-5
        assert gradient[index].item() == pytest.approx(slope.item(), rel=1e-4, abs=1e-9)


def test_the_second_stage_weighs_losses_and_its_networks_have_their_own_rates() -> None:
    model = build(stage="guided")
    terms = model.loss(batch())
    each = pair_loss(model.propagated(), nodes_of(model, batch()))
    assert torch.allclose(terms["weighed"], (model.weigh(each) * each).mean())
    memory, guided = model.stages()
    assert (memory.learning_rate, guided.learning_rate) == (1e-3, 5e-3) and memory.own_end
    assert dict(guided.rates) == {"weigh.": 5e-4, "scheduler.": 5e-3}


def test_the_scheduler_begins_anew_in_every_epoch_where_the_release_is_followed() -> None:
    kept, anew = (build(stage="guided", faithful_reset=reset) for reset in (False, True))
    for model, same in ((kept, True), (anew, False)):
        before = model.scheduler.inner.weight.detach().clone()
        model.start_epoch(1, events())
        assert torch.equal(model.scheduler.inner.weight, before) is same
    assert [stage.new_optimizer for stage in anew.stages()] == [False, True]


@pytest.mark.parametrize(("choice", "expected"), [("union", 8), ("target", 4), ("auxiliary", 4)])
def test_pairs_of_the_chosen_behaviors_make_the_graph(choice: str, expected: int) -> None:
    model = build(input=choice)
    assert (
        model.pairs.shape[1] == expected
        and model.graph is not None
        and model.graph.values().numel() == 2 * expected
    )


@pytest.mark.parametrize("behaviors", [1, 3, 4])
@pytest.mark.parametrize("choice", ["union", "target", "auxiliary"])
def test_any_number_of_behaviors_trains(behaviors: int, choice: str) -> None:
    model = build(behaviors, "guided", input=choice)
    model.loss(batch())["loss"].backward()
    assert torch.isfinite(model.tables.grad).all()


def test_users_without_pairs_get_the_degree_of_the_items() -> None:
    model = build()
    data = dataclasses.replace(batch(), user=torch.tensor([5] * 8))
    scores = model.score(data, torch.arange(1, ITEMS + 1).repeat(8, 1))
    assert scores[0].tolist() == [3, 2, 1, 1, 1]


def train(model: SGDL, stage: int, epochs: int) -> None:
    """Train a stage on all pairs, with its own optimizer and its own end."""
    chosen = model.stages()[stage]
    model.stage_name = chosen.name
    optimizer = make_optimizer(model, chosen)
    for epoch in range(epochs):
        model.start_epoch(epoch, events())
        for part in torch.randperm(model.pairs.shape[1]).split(chosen.batch_size):
            user, item = model.pairs[:, part]
            empty = torch.zeros(len(user), 0, dtype=torch.int64)
            data = Batch(user, empty, empty, empty, target=item, negatives=model.untouched.draw(user, (1,)))
            train_step(model, data, chosen, optimizer)
        if chosen.own_end and model.stage_is_over():
            break


def test_noise_gets_smaller_weights_and_is_memorised_less() -> None:
    """Two tastes of 100 users and 50 items each; 30 % of the pairs go to items of the other taste."""
    rng, users, items, each = np.random.default_rng(1), 200, 100, 20
    user = np.repeat(np.arange(users), each)
    noisy = rng.random(len(user)) < 0.3
    other = (user >= users // 2) ^ noisy
    item = np.concatenate([rng.permutation(items // 2)[:each] for _ in range(users)]) + items // 2 * other + 1
    torch.manual_seed(0)
    rates = {"learning_rate": 0.05, "learning_rate_weights": 0.01}
    config = SGDLConfig(embedding_size=16, batch_size=256, num_layers=2, **rates)
    model = SGDL(config, DatasetInfo(users, items, ("favor",), ItemContent(items)))
    model.set_up(TrainingEvents(user, item.astype(np.int32), np.ones(len(user), np.int8), user, items))
    is_noise = torch.from_numpy(noisy[np.argsort(user * (items + 1) + item)])  # in the order of the pairs
    train(model, 0, 50)
    assert int(model.noted) < 50  # it ended by itself
    assert is_noise[model.memorised()].float().mean() < 0.6 * is_noise.float().mean()
    train(model, 1, 30)
    loss = pair_loss(model.propagated(), model.nodes(model.pairs[0], model.pairs[1], model.drawn()))
    weights = model.weigh(loss).detach()
    assert weights[is_noise].mean() < weights[~is_noise].mean() - 0.03
