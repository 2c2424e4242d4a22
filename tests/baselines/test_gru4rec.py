"""GRU4Rec against its papers: the state, the shared item table, the columns, the losses."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.baselines.gru4rec import GRU4Rec, GRU4RecConfig, bpr_max, top1
from bench.contract import CHECKS, Subject
from bench.interface import Batch, DatasetInfo, ItemContent, TrainingEvents

ITEMS, USERS = 20, 4
HISTORY = torch.tensor([[0, 0, 0, 5, 9, 2], [0, 3, 8, 8, 1, 7], [4, 6, 2, 9, 10, 11], [0, 0, 0, 0, 0, 12]])
LABELS = torch.tensor([[0, 0, 0, 9, 2, 13], [0, 8, 8, 1, 7, 14], [6, 2, 9, 10, 11, 15], [0, 0, 0, 0, 0, 16]])
BEHAVIOR = torch.where(LABELS % 2 == 0, 1, 2) * (LABELS > 0)
COUNTS = np.array([0, 16, 9, 4, 1, 0, *[2] * 15])


def build(**options: object) -> GRU4Rec:
    torch.manual_seed(0)
    info = DatasetInfo(USERS, ITEMS, ("click", "favor"), ItemContent(ITEMS))
    model = GRU4Rec(GRU4RecConfig(hidden_size=8, **options), info).eval()
    item = np.repeat(np.arange(ITEMS + 1), COUNTS).astype(np.int32)
    ones = np.ones(len(item), np.int64)
    model.set_up(TrainingEvents(ones * 0, item, ones.astype(np.int8), ones, ITEMS))
    return model


def batch(history: Tensor = HISTORY) -> Batch:
    zeros = torch.zeros_like(history)
    return Batch(torch.arange(len(history)), history, zeros, zeros, labels=LABELS, label_behavior=BEHAVIOR)


def outputs(model: GRU4Rec, history: Tensor) -> Tensor:
    """Return the states in the places of `history`."""
    states, order = model.states(history)
    return torch.zeros_like(states).scatter(1, order[..., None].expand_as(states), states)


def test_states_equal_the_gru_written_out_from_a_zero_state() -> None:
    model = build()
    w, u = model.gru.weight_ih_l0.chunk(3), model.gru.weight_hh_l0.chunk(3)  # reset, update, candidate
    state = torch.zeros(8)
    for item in (5, 9, 2):
        x = model.items.weight[item]
        reset, update = torch.sigmoid(w[0] @ x + u[0] @ state), torch.sigmoid(w[1] @ x + u[1] @ state)
        state = (1 - update) * torch.tanh(w[2] @ x + reset * (u[2] @ state)) + update * state
    assert torch.allclose(model.encode(batch())[0], state, atol=1e-6)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract_with_item_vectors_of_their_own_width_and_without_biases(check) -> None:
    config = GRU4RecConfig(embedding_size=32, bias=False, optimizer="adam", learning_rate=0.01)
    check(Subject(GRU4Rec, config))


def test_item_vectors_of_their_own_width_are_met_by_a_linear_layer() -> None:
    model = build(embedding_size=6, dropout=0.0)
    assert model.items.weight.shape == (ITEMS + 1, 6) and model.gru.hidden_size == 8
    states, _ = model.gru(model.items(HISTORY[2:3]))
    expected = model.projection.weight @ states[0, -1] + model.projection.bias
    assert torch.allclose(model.encode(batch())[2], expected, atol=1e-6)
    candidates = torch.arange(1, 6).expand(4, -1)
    assert torch.allclose(model.score(batch(), candidates)[2], model.items.weight[1:6] @ expected, atol=1e-6)


@pytest.mark.parametrize("loss", ["ce", "bpr_max", "top1"])
@pytest.mark.parametrize("num_negatives", [7, 2048], ids=["sampled", "whole"])
def test_without_biases_the_loss_is_that_of_biases_of_zero(loss: str, num_negatives: int) -> None:
    plain = build(loss=loss, num_negatives=num_negatives)
    bare = build(loss=loss, num_negatives=num_negatives, bias=False)
    assert not any("bias" in name for name in bare.state_dict())
    zero = {name: value for name, value in plain.state_dict().items() if "bias" in name}
    assert zero and not any(value.any() for value in zero.values())
    bare.load_state_dict({name: value for name, value in plain.state_dict().items() if name not in zero})
    torch.manual_seed(1)
    expected = plain.loss(batch())["loss"]
    torch.manual_seed(1)
    assert torch.allclose(bare.loss(batch())["loss"], expected, atol=1e-6)


def test_a_state_does_not_see_later_events() -> None:
    model, changed = build(), HISTORY.clone()
    changed[:, 4:] = torch.tensor([17, 18])
    before, after = outputs(model, HISTORY), outputs(model, changed)
    real = (HISTORY > 0)[:, :4]
    assert torch.equal(before[:, :4][real], after[:, :4][real])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


def test_padding_and_batch_mates_change_nothing() -> None:
    model = build(num_layers=2)
    expected = model.encode(batch())
    assert torch.allclose(model.encode(batch(F.pad(HISTORY, (5, 0)))), expected, atol=1e-6)
    for row in range(USERS):
        assert torch.allclose(model.encode(batch(HISTORY[row : row + 1])), expected[row : row + 1], atol=1e-6)


def test_no_event_is_the_zero_state_scored_by_item_bias_alone() -> None:
    model = build()
    with torch.no_grad():
        model.item_bias.copy_(torch.arange(ITEMS + 1.0))
    scores = model.score(batch(torch.zeros(4, 3, dtype=torch.int64)), torch.tensor([[2, 7]]).repeat(4, 1))
    assert scores.tolist() == [[2.0, 7.0]] * 4


def test_one_table_serves_input_and_output_and_gets_both_gradients() -> None:
    model = build()
    encoded = model.encode(batch())
    score = model.score_encoded(encoded, torch.tensor([17]), model.encode_items())
    (gradient,) = torch.autograd.grad(score.sum(), model.items.weight)
    assert gradient[17].any() and gradient[5].any() and not gradient[18].any()
    assert torch.allclose(gradient[17], encoded.sum(0))
    separate = build(constrained=False)
    assert separate.inputs is not None and separate.inputs.weight is not separate.items.weight


def test_exact_loss_equals_softmax_over_all_items_with_bias() -> None:
    model = build(loss_weight_target=3.0)
    with torch.no_grad():
        model.item_bias.normal_()
    logits = outputs(model, HISTORY) @ model.items.weight[1:].T + model.item_bias[1:]
    terms = F.cross_entropy(logits.flatten(0, 1), (LABELS - 1).flatten(), ignore_index=-1, reduction="none")
    weights = torch.where(BEHAVIOR == 2, 3.0, 1.0).flatten() * (LABELS > 0).flatten()
    assert torch.allclose(model.loss(batch())["loss"], (terms * weights).sum() / weights.sum(), atol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_samples_follow_powers_of_the_counts(alpha: float) -> None:
    model = build(num_negatives=10, sample_alpha=alpha)
    found = torch.bincount(torch.cat([model.sample() for _ in range(4000)]), minlength=ITEMS + 1).double()
    share = torch.from_numpy(np.where(COUNTS > 0, COUNTS.astype(float) ** alpha, 0.0))
    expected = 40_000 * share / share.sum()
    assert not found[expected == 0].any()
    statistic = ((found - expected)[expected > 0] ** 2 / expected[expected > 0]).sum()
    assert float(statistic) < 45  # chi-square, 18 degrees of freedom: p about 4e-4


def test_expected_columns_add_samples_and_distinct_labels() -> None:
    model = build(num_negatives=10, sample_alpha=1.0)
    share = COUNTS[1] / COUNTS.sum()
    assert float(model.log_expected(7)[1]) == pytest.approx(
        math.log(10 * share + 1 - (1 - share) ** 7), abs=1e-5
    )


def test_correction_steers_training_only_and_moves_it_only_where_items_are_sampled() -> None:
    def value(**options: object) -> float:
        model = build(**options)
        torch.manual_seed(1)
        return model.loss(batch())["loss"].item()

    assert value(num_negatives=10, logq=0.0) != value(num_negatives=10, logq=1.0)
    assert value(logq=0.0) == value(logq=1.0)
    candidates = torch.arange(1, 9).repeat(4, 1)
    corrected, raw = build(num_negatives=10, logq=1.0), build(num_negatives=10, logq=0.0)
    assert torch.equal(corrected.score(batch(), candidates), raw.score(batch(), candidates))


def test_top1_by_hand_on_two_rows_of_three_columns() -> None:
    scores, target = torch.tensor([[1.0, 0.5, -1.0], [0.0, 2.0, 0.3]]), torch.tensor([1.0, 2.0])
    negative = torch.tensor([[False, True, True], [True, False, True]])

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    first = (sigmoid(-0.5) + sigmoid(0.25) + sigmoid(-2.0) + sigmoid(1.0)) / 2
    second = (sigmoid(-2.0) + sigmoid(0.0) + sigmoid(-1.7) + sigmoid(0.09)) / 2
    assert top1(target, scores, negative).tolist() == pytest.approx([first, second], abs=1e-6)


def test_bpr_max_by_hand() -> None:
    scores, negative = torch.tensor([[0.7, 0.2, -0.4]]), torch.tensor([[False, True, True]])
    shares = [math.exp(0.2), math.exp(-0.4)]
    shares = [s / sum(shares) for s in shares]
    gain = shares[0] / (1 + math.exp(-0.5)) + shares[1] / (1 + math.exp(-1.1))
    expected = -math.log(gain) + 0.9 * (shares[0] * 0.04 + shares[1] * 0.16)
    assert bpr_max(torch.tensor([0.7]), scores, negative, 0.9).item() == pytest.approx(expected, abs=1e-6)


def test_bpr_max_with_one_negative_is_bpr_and_gives_the_target_no_share() -> None:
    scores, negative = torch.tensor([[5.0, -0.3]], requires_grad=True), torch.tensor([[False, True]])
    loss = bpr_max(torch.tensor([0.6]), scores, negative, 0.0)
    assert loss.item() == pytest.approx(-math.log(1 / (1 + math.exp(-0.9))), abs=1e-6)
    (gradient,) = torch.autograd.grad(loss.sum(), scores)
    assert float(gradient[0, 0]) == 0.0 and float(gradient[0, 1]) > 0


def test_bpr_max_penalty_grows_with_the_scores_of_negatives() -> None:
    negative = torch.tensor([[True, True]])
    values = [
        (bpr_max(torch.tensor([9.0]), torch.full((1, 2), s), negative, 1.0)
         - bpr_max(torch.tensor([9.0]), torch.full((1, 2), s), negative, 0.0)).item()
        for s in (0.0, 1.0, 2.0)
    ]  # fmt: skip
    assert values == pytest.approx([0.0, 1.0, 4.0], abs=1e-5)


def test_matrices_start_within_the_bound_of_their_gate_and_biases_at_zero() -> None:
    model = build()
    bound = math.sqrt(6 / 16)
    for name in ("weight_ih_l0", "weight_hh_l0"):
        largest = getattr(model.gru, name).abs().max().item()
        assert 0.9 * bound < largest <= bound
    assert model.items.weight.abs().max().item() <= math.sqrt(6 / (ITEMS + 1 + 8))
    assert not model.gru.bias_ih_l0.any() and not model.item_bias.any() and not model.items.weight[0].any()


@pytest.mark.parametrize(
    "options", [{}, {"num_negatives": 12}, {"loss": "bpr_max"}, {"loss": "top1"}], ids=str
)
def test_fifty_toy_sequences_are_learned_by_heart(options: dict[str, object]) -> None:
    torch.manual_seed(3)
    start = torch.randint(0, ITEMS, (50, 1))
    walk = (start + 3 * torch.arange(7)) % ITEMS + 1  # the next item is the item + 3
    zeros = torch.zeros(50, 6, dtype=torch.int64)
    config = GRU4RecConfig(hidden_size=32, dropout=0.0, dropout_embedding=0.0, **options)
    model = GRU4Rec(config, DatasetInfo(50, ITEMS, ("click",), ItemContent(ITEMS)))
    flat, ones = walk.flatten().numpy().astype(np.int32), np.ones(350, np.int8)
    model.set_up(TrainingEvents(np.repeat(np.arange(50), 7), flat, ones, np.arange(350), ITEMS))
    labels = walk[:, 1:]
    train = Batch(
        torch.arange(50), walk[:, :-1], zeros, zeros, labels=labels, label_behavior=torch.ones_like(zeros)
    )
    optimizer = torch.optim.Adagrad(model.parameters(), 0.1, eps=1e-6)
    for _ in range(120):
        optimizer.zero_grad()
        model.loss(train)["loss"].backward()
        optimizer.step()
    scores = model.eval().score(train, torch.arange(1, ITEMS + 1).repeat(50, 1))
    assert float((scores.argmax(1) + 1 == walk[:, -1]).float().mean()) > 0.95
