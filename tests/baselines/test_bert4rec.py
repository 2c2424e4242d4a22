"""BERT4Rec against its paper: both directions, what a mask hides, the ranking input, the tied softmax."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.baselines.bert4rec import BERT4Rec, BERT4RecConfig
from bench.data.batches.loader import TrainingBatches
from bench.data.protocol.split import split
from bench.data.schema import Interactions
from bench.interface import Batch, DatasetInfo, ItemContent
from bench.nn.transformer import attention_mask

ITEMS = 20
MASK = ITEMS + 1
HISTORY = torch.tensor([[0, 0, MASK, 5, 9, 2], [0, 3, 8, 8, MASK, 7], [4, MASK, 2, 9, 10, MASK]])
LABELS = torch.tensor([[0, 0, 13, 0, 0, 0], [0, 0, 0, 0, 4, 0], [0, 6, 0, 0, 0, 11]])
BEHAVIOR = torch.where(LABELS % 2 == 0, 1, 2) * (LABELS > 0)


def build(**options: object) -> BERT4Rec:
    torch.manual_seed(0)
    info = DatasetInfo(3, ITEMS, ("click", "favor"), ItemContent(ITEMS))
    return BERT4Rec(BERT4RecConfig(hidden_size=8, **options), info).eval()


def batch(history: Tensor = HISTORY) -> Batch:
    zeros = torch.zeros_like(history)
    return Batch(torch.arange(len(history)), history, zeros, zeros, labels=LABELS, label_behavior=BEHAVIOR)


def states(model: BERT4Rec, history: Tensor) -> Tensor:
    """Return the encoder's output at every position, padding included, (B, L, D)."""
    return model.hidden(history, torch.ones_like(history, dtype=torch.bool))


def test_a_mask_sees_later_events() -> None:
    model, changed = build(), HISTORY.clone()
    changed[1, 5] = 17
    assert not torch.allclose(states(model, HISTORY)[1, 4], states(model, changed)[1, 4])


def test_padding_changes_nothing_and_gets_no_attention() -> None:
    model = build()
    expected = states(model, HISTORY)
    assert torch.allclose(
        states(model, F.pad(HISTORY, (4, 0)))[:, 4:][HISTORY > 0], expected[HISTORY > 0], atol=1e-6
    )
    with torch.no_grad():
        model.items.weight[0] = 50.0
    assert torch.allclose(states(model, HISTORY)[HISTORY > 0], expected[HISTORY > 0], atol=1e-6)


def test_the_last_block_computes_the_chosen_positions_alone() -> None:
    model, chosen = build(), HISTORY % 3 == 1
    x = model.input_norm(model.items(HISTORY) + model.positions[-HISTORY.shape[1] :])
    for block in model.blocks:
        x = block(x, attention_mask(HISTORY > 0))
    assert torch.allclose(model.hidden(HISTORY, chosen), x * chosen[..., None], atol=1e-6)


def test_ranking_appends_one_mask_to_the_newest_events_and_keeps_all_of_a_short_history() -> None:
    model, seen = build(max_history=5), []
    original = model.hidden

    def hidden(history: Tensor, chosen: Tensor) -> Tensor:
        assert chosen.nonzero()[:, 1].tolist() == [4] * len(history)
        seen.append(history)
        return original(history, chosen)

    model.hidden = hidden
    model.score(batch(torch.tensor([[0, 3, 8, 1], [4, 6, 2, 9]])), torch.tensor([[1, 2], [3, 4]]))
    model.score(batch(torch.tensor([[7, 4, 6, 2, 9, 1]])), torch.tensor([[1, 2]]))
    assert seen[0].tolist() == [[0, 3, 8, 1, MASK], [4, 6, 2, 9, MASK]]
    assert seen[1].tolist() == [[6, 2, 9, 1, MASK]]
    assert model.max_history == 4


def test_the_mask_stands_at_the_same_position_in_ranking_as_in_training_on_the_last_event() -> None:
    model = build()
    training = model.head(states(model, torch.tensor([[4, 6, 2, MASK]])))[0, -1]
    assert torch.allclose(model.encode(batch(torch.tensor([[4, 6, 2]])))[0], training)


def test_scores_are_the_head_times_the_item_table_plus_the_bias() -> None:
    model = build()
    hidden = states(model, torch.tensor([[4, 6, 2, MASK]]))[0, -1]
    dense, norm = model.head[0], model.head[2]
    vector = F.layer_norm(F.gelu(dense.weight @ hidden + dense.bias), (8,), norm.weight, norm.bias, 1e-12)
    candidates = torch.tensor([[3, 9, 20]])
    expected = model.items.weight[candidates[0]] @ vector
    scores = model.score(batch(torch.tensor([[4, 6, 2]])), candidates)
    assert torch.allclose(scores[0], expected, atol=1e-6)
    with torch.no_grad():
        model.item_bias[9] += 2.5
    shifted = model.score(batch(torch.tensor([[4, 6, 2]])), candidates)
    assert torch.allclose(shifted - scores, torch.tensor([[0.0, 2.5, 0.0]]), atol=1e-6)


def test_one_table_serves_input_and_softmax() -> None:
    model = build()
    (gradient,) = torch.autograd.grad(model.loss(batch())["loss"], model.items.weight)
    assert gradient[MASK].any() and gradient[5].any() and gradient[19].any() and not gradient[0].any()


def test_exact_loss_is_the_weighted_mean_over_masked_positions() -> None:
    model = build(loss_weight_target=2.0, loss_weight_auxiliary=0.5)
    chosen = LABELS > 0
    logits = model.head(states(model, HISTORY))[chosen] @ model.items.weight[1:MASK].T + model.item_bias[1:]
    terms = F.cross_entropy(logits, LABELS[chosen] - 1, reduction="none")
    weights = torch.where(BEHAVIOR[chosen] == 2, 2.0, 0.5)
    assert torch.allclose(model.loss(batch())["loss"], (terms * weights).sum() / weights.sum())


def test_sampled_loss_with_all_items_as_negatives_equals_the_exact_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exact = build().loss(batch())["loss"]
    model = build(loss="ce_sampled", num_negatives=ITEMS)
    monkeypatch.setattr(torch, "randint", lambda low, high, size, device: torch.arange(low, high))
    assert torch.allclose(model.loss(batch())["loss"], exact)


def test_loss_starts_at_the_logarithm_of_the_number_of_items() -> None:
    assert build().loss(batch())["loss"].item() == pytest.approx(math.log(ITEMS), abs=0.1)


def test_a_label_of_an_unmasked_position_would_count_even_at_the_first_place() -> None:
    model, first = build(), batch()
    first.labels = torch.zeros_like(LABELS)
    first.labels[2, 0] = 4
    row = model.head(states(model, HISTORY))[2, 0] @ model.items.weight[1:MASK].T + model.item_bias[1:]
    assert torch.allclose(model.loss(first)["loss"], F.cross_entropy(row[None], torch.tensor([3])))


def test_patience_covers_two_thousand_steps_where_epochs_are_short() -> None:
    (short,) = build(patience=20, patience_steps=2000, batch_size=4).stages()
    assert short.patience == 2000  # three users: one step an epoch
    info = DatasetInfo(100_000, ITEMS, ("favor",), ItemContent(ITEMS))
    (long,) = BERT4Rec(BERT4RecConfig(batch_size=100), info).stages()
    assert long.patience == 20  # a thousand steps an epoch


def test_kernels_start_small_and_biases_at_zero() -> None:
    model = build()
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2:
            assert 0 < parameter.abs().max().item() <= 0.04, name
        elif "norm" not in name and not name.startswith("head.2"):
            assert not parameter.any(), name


def test_fifty_toy_sequences_are_learned_by_heart() -> None:
    torch.manual_seed(3)
    start = torch.randint(0, ITEMS, (50, 1))
    walk = (start + 3 * torch.arange(9)) % ITEMS + 1  # the next item is the item + 3
    offsets = np.arange(0, 451, 9).astype(np.int64)
    log = Interactions(
        offsets, walk.flatten().numpy().astype(np.int32), np.ones(450, np.int8), np.arange(450)
    )
    options = {"num_layers": 1, "num_heads": 1, "dropout": 0.0, "dropout_attention": 0.0, "mask_ratio": 0.2}
    config = BERT4RecConfig(hidden_size=32, **options)
    model = BERT4Rec(config, DatasetInfo(50, ITEMS, ("click",), ItemContent(ITEMS)))
    (stage,) = model.stages()
    batches = TrainingBatches(log, split(log, 1), stage.view, ITEMS, 1, "none", 0)
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    for epoch in range(140):
        for part in batches.epoch(epoch, 128):
            optimizer.zero_grad()
            model.loss(part)["loss"].backward()
            optimizer.step()
    scores = model.eval().score(batch(walk[:, :6]), torch.arange(1, ITEMS + 1).repeat(50, 1))
    assert float((scores.argmax(1) + 1 == walk[:, 6]).float().mean()) > 0.95  # the last training event
