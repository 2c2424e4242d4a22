"""SASRec against its paper: what each position sees, the residual of the authors' code, the losses."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.baselines.sasrec import Block, SASRec, SASRecConfig
from bench.contract import CHECKS, Subject
from bench.interface import Batch, DatasetInfo, ItemContent, TrainingEvents

ITEMS, USERS = 20, 4
HISTORY = torch.tensor([[0, 0, 0, 5, 9, 2], [0, 3, 8, 8, 1, 7], [4, 6, 2, 9, 10, 11], [0, 0, 0, 0, 0, 12]])
LABELS = torch.tensor([[0, 0, 0, 9, 2, 13], [0, 8, 8, 1, 7, 14], [6, 2, 9, 10, 11, 15], [0, 0, 0, 0, 0, 16]])
BEHAVIOR = torch.where(LABELS % 2 == 0, 1, 2) * (LABELS > 0)


def build(**options: object) -> SASRec:
    torch.manual_seed(0)
    info = DatasetInfo(USERS, ITEMS, ("click", "favor"), ItemContent(ITEMS))
    model = SASRec(SASRecConfig(hidden_size=8, **options), info).eval()
    model.set_up(events())
    return model


def events() -> TrainingEvents:
    users = np.repeat(np.arange(USERS), [4, 6, 7, 2])
    items = np.concatenate([row[row > 0].numpy() for row in torch.cat([HISTORY, LABELS[:, -1:]], 1)])
    ones = np.ones(len(items), np.int8)
    return TrainingEvents(users, items.astype(np.int32), ones, np.arange(len(items)), ITEMS)


def batch(history: Tensor = HISTORY) -> Batch:
    zeros = torch.zeros_like(history)
    return Batch(torch.arange(len(history)), history, zeros, zeros, labels=LABELS, label_behavior=BEHAVIOR)


@pytest.mark.parametrize(
    "options", [{"norm": "original"}, {"norm": "pre"}, {"norm": "post"}, {"block": "bert"}], ids=str
)
def test_a_position_does_not_see_later_events(options: dict[str, str]) -> None:
    model = build(**options)
    changed = HISTORY.clone()
    changed[:, 4:] = torch.tensor([17, 18])
    before, after = model.hidden(HISTORY), model.hidden(changed)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


@pytest.mark.parametrize("block", ["sasrec", "bert"])
def test_a_longer_padding_leaves_the_newest_output_alone(block: str) -> None:
    model = build(block=block)
    assert torch.allclose(
        model.hidden(F.pad(HISTORY, (7, 0)))[:, -1], model.hidden(HISTORY)[:, -1], atol=1e-6
    )


def test_events_beyond_max_history_are_not_read() -> None:
    model = build(max_history=3)
    assert torch.allclose(model.hidden(HISTORY), model.hidden(HISTORY[:, -3:]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("loss", ["ce", "ce_sampled"])
def test_the_loss_of_a_batch_wider_than_max_history_is_that_of_its_newest_part(loss: str) -> None:
    model, narrow = build(max_history=3, loss=loss), batch(HISTORY[:, -3:])
    narrow.labels, narrow.label_behavior = LABELS[:, -3:], BEHAVIOR[:, -3:]
    torch.manual_seed(1)
    wide = model.loss(batch())["loss"]
    torch.manual_seed(1)
    assert torch.allclose(wide, model.loss(narrow)["loss"], rtol=0, atol=1e-6)


def test_padding_gets_no_attention_and_padding_alone_is_finite() -> None:
    model = build()
    hidden = model.hidden(HISTORY[:1])[:, -1].detach()
    with torch.no_grad():
        model.items.weight[0] = 50.0
        model.positions[: 50 - 3] = 50.0  # the positions of padding
    assert torch.allclose(model.hidden(HISTORY[:1])[:, -1], hidden, atol=1e-6)
    assert torch.isfinite(model.hidden(torch.zeros(1, 4, dtype=torch.int64))).all()


def test_padding_row_stays_zero_while_training() -> None:
    model = build(loss="ce").train()
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model.loss(batch())["loss"].backward()
        optimizer.step()
    assert not model.items.weight[0].any()


def test_item_vectors_are_scaled_by_the_root_of_the_size_on_the_input_side_alone() -> None:
    model = build(num_layers=0)
    with torch.no_grad():
        model.last_norm = torch.nn.Identity()
    hidden = model.encode(batch())
    expected = model.items.weight[HISTORY[:, -1]] * 8**0.5 + model.positions[-1]
    assert torch.allclose(hidden, expected)
    candidates = torch.arange(1, 6).repeat(4, 1)
    assert torch.allclose(model.score(batch(), candidates), hidden @ model.items.weight[1:6].T, atol=1e-6)


def test_the_residual_is_the_normalised_tensor_and_keys_and_values_are_raw() -> None:
    """Two positions by hand: all kernels are identity, biases zero, so attention is over raw inputs."""
    block = Block(SASRecConfig(hidden_size=2, dropout=0.0)).eval()
    with torch.no_grad():
        for linear in (block.query, block.key, block.value, block.network[0], block.network[3]):
            linear.weight.copy_(torch.eye(2))
            linear.bias.zero_()
    x = torch.tensor([[[1.0, 3.0], [2.0, 8.0]]])
    found = block(x, torch.ones(2, 2, dtype=torch.bool).tril()[None, None])
    # both positions normalise to (-1, 1); the first sees itself alone, value (1, 3)
    # y = norm((1, 3) + (-1, 1)) = norm((0, 4)) = (-1, 1), and relu(y) + y = (-1, 2)
    # the second: logits (-1 + 3, -2 + 8) / sqrt 2 of values (1, 3), (2, 8); any rising pair has norm (-1, 1)
    assert torch.allclose(found, torch.tensor([[[-1.0, 2.0], [-1.0, 2.0]]]), atol=1e-4)
    everything = torch.ones(1, 1, 2, 2, dtype=torch.bool)
    attended = block.attention(torch.tensor([[[-1.0, 1.0], [-1.0, 1.0]]]), x, everything)
    second = 1 / (1 + np.exp(-4 / 2**0.5))  # logits 2 / sqrt 2 and 6 / sqrt 2
    assert attended[0, 1].tolist() == pytest.approx([1 + second, 3 + 5 * second], abs=1e-5)


def test_norm_variants_follow_their_formulas() -> None:
    torch.manual_seed(1)
    x = torch.randn(1, 3, 8)
    allowed = torch.ones(3, 3, dtype=torch.bool).tril()[None, None]
    for norm in ("pre", "post"):
        block = Block(SASRecConfig(hidden_size=8, norm=norm)).eval()
        first, second = block.attention_norm, block.network_norm
        if norm == "pre":
            y = x + block.attention(first(x), first(x), allowed)
            expected = y + block.network(second(y))
        else:
            y = first(x + block.attention(x, x, allowed))
            expected = second(y + block.network(y))
        assert torch.allclose(block(x, allowed), expected)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract_with_the_block_of_bert(check) -> None:
    check(Subject(SASRec, SASRecConfig(block="bert", loss="ce", num_heads=2)))


def test_the_block_of_bert_follows_its_formula_from_a_normalised_input() -> None:
    """One event sees itself alone, so attention is the output projection of its value."""
    model, item = build(block="bert", num_layers=1), HISTORY[3:, -1:]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(parameter.numel()))
    block = model.blocks[0]
    x = F.layer_norm(model.items.weight[12] + model.positions[-1], (8,), *model.input_norm.parameters())
    value = block.query_key_value.weight[16:] @ x + block.query_key_value.bias[16:]
    y = F.layer_norm(
        x + block.output.weight @ value + block.output.bias, (8,), *block.attention_norm.parameters()
    )
    inner = F.gelu(block.network[0].weight @ y + block.network[0].bias)
    assert inner.shape == (32,)
    z = y + block.network[2].weight @ inner + block.network[2].bias
    expected = F.layer_norm(z, (8,), *block.network_norm.parameters())
    assert torch.allclose(model.hidden(item)[0, 0], expected, atol=1e-5)


def test_exact_softmax_loss_is_the_weighted_mean_over_labelled_positions() -> None:
    model = build(loss="ce", loss_weight_target=2.0, loss_weight_auxiliary=0.5)
    logits = model.hidden(HISTORY) @ model.items.weight[1:].T
    terms = F.cross_entropy(logits.flatten(0, 1), (LABELS - 1).flatten(), ignore_index=-1, reduction="none")
    weights = torch.where(BEHAVIOR == 2, 2.0, 0.5).flatten() * (LABELS > 0).flatten()
    assert torch.allclose(model.loss(batch())["loss"], (terms * weights).sum() / weights.sum())


def test_auxiliary_weight_zero_trains_on_target_events_alone() -> None:
    model = build(loss="ce", loss_weight_auxiliary=0.0)
    part = batch()
    part.labels = torch.where(BEHAVIOR == 2, LABELS, 0)
    assert torch.allclose(model.loss(batch())["loss"], model.loss(part)["loss"])


@pytest.mark.parametrize("loss", ["bce", "gbce", "ce_sampled"])
def test_negatives_are_items_that_the_user_did_not_touch_in_training(
    loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, seen = build(loss=loss, num_negatives=500), {}
    original = model.draw

    def draw(user: Tensor, default: int) -> Tensor:
        seen["users"], seen["drawn"] = user, original(user, default)
        return seen["drawn"]

    monkeypatch.setattr(model, "draw", draw)
    model.loss(batch())
    assert seen["drawn"].shape == (len(seen["users"]), 500)
    log = events()
    for user in range(USERS):
        touched = set(log.item[log.user == user].tolist())
        drawn = seen["drawn"][seen["users"] == user]
        assert set(drawn.flatten().tolist()) == set(range(1, ITEMS + 1)) - touched


def test_calibrated_loss_without_calibration_is_half_of_the_binary_one() -> None:
    model, other = build(loss="bce"), build(loss="gbce", num_negatives=1, gbce_calibration=0.0)
    torch.manual_seed(2)
    binary = model.loss(batch())["loss"]
    torch.manual_seed(2)
    assert torch.allclose(other.loss(batch())["loss"], binary / 2)


def test_embedding_penalty_is_added() -> None:
    plain, held = build(loss="ce"), build(loss="ce", loss_weight_embedding=0.3)
    gap = held.loss(batch())["loss"] - plain.loss(batch())["loss"]
    assert torch.allclose(gap, 0.3 * plain.items.weight.square().sum(), atol=1e-5)


def test_order_of_old_events_matters() -> None:
    model = build()
    swapped = HISTORY[:, [0, 1, 2, 4, 3, 5]]
    assert not torch.allclose(model.hidden(HISTORY)[2, -1], model.hidden(swapped)[2, -1])


@pytest.mark.parametrize("loss", ["ce", "bce"])
def test_fifty_toy_sequences_are_learned_by_heart(loss: str) -> None:
    torch.manual_seed(3)
    start = torch.randint(0, ITEMS, (50, 1))
    walk = (start + 3 * torch.arange(7)) % ITEMS + 1  # the next item is the item + 3
    user, zeros = torch.arange(50), torch.zeros(50, 6, dtype=torch.int64)
    info = DatasetInfo(50, ITEMS, ("click",), ItemContent(ITEMS))
    config = SASRecConfig(hidden_size=32, dropout=0.0, loss=loss)
    model = SASRec(config, info)
    flat = walk.flatten().numpy().astype(np.int32)
    ones = np.ones(350, np.int8)
    model.set_up(TrainingEvents(np.repeat(np.arange(50), 7), flat, ones, np.arange(350), ITEMS))
    train = Batch(user, walk[:, :-1], zeros, zeros, labels=walk[:, 1:], label_behavior=torch.ones_like(zeros))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(120):
        optimizer.zero_grad()
        model.loss(train)["loss"].backward()
        optimizer.step()
    scores = model.eval().score(train, torch.arange(1, ITEMS + 1).repeat(50, 1))
    scores.scatter_(
        1, walk[:, :-1] - 1, -torch.inf
    )  # never negatives of their user, so never pushed down by `bce`
    assert float((scores.argmax(1) + 1 == walk[:, -1]).float().mean()) > 0.95


def test_a_number_of_heads_that_does_not_divide_the_size_is_an_error() -> None:
    with pytest.raises(ValueError, match="num_heads=3"):
        SASRecConfig(num_heads=3)
