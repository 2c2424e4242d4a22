"""MB-STR against its paper: pair kernels, relative buckets, experts, masks."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.baselines.mb_str import MBSTR, BehaviorHead, Layer, MBSTRConfig, PairKernels, buckets
from bench.interface import Batch, DatasetInfo, ItemContent

ITEMS = 12
HISTORY = torch.tensor([[0, 0, 3, 5, 2, 7], [4, 6, 1, 9, 10, 11], [0, 0, 0, 0, 8, 12]])
BEHAVIOR = torch.tensor([[0, 0, 1, 2, 1, 1], [1, 2, 1, 2, 2, 1], [0, 0, 0, 0, 1, 1]])
MASK = ITEMS + 1


def build(behaviors: int = 2, **options: object) -> MBSTR:
    torch.manual_seed(0)
    names = ("a", "b", "c", "d")[:behaviors]
    config = MBSTRConfig(**{"hidden_size": 8, "dropout": 0.0, "max_history": 8, **options})
    return MBSTR(config, DatasetInfo(3, ITEMS, names, ItemContent(ITEMS))).eval()


def batch(history: Tensor = HISTORY, behavior: Tensor = BEHAVIOR, **fields: Tensor) -> Batch:
    return Batch(torch.arange(len(history)), history, behavior, torch.zeros_like(history), **fields)


def masked(columns: list[int]) -> Batch:
    chosen = torch.zeros_like(HISTORY, dtype=torch.bool)
    chosen[:, columns] = True
    chosen &= HISTORY > 0
    return batch(
        torch.where(chosen, MASK, HISTORY), labels=HISTORY * chosen, label_behavior=BEHAVIOR * chosen
    )


def rows_of(behavior: Tensor, count: int) -> list[Tensor]:
    return [torch.nonzero(behavior.flatten() == b + 1).squeeze(1) for b in range(count)]


@pytest.mark.parametrize(
    ("offset", "bucket"),
    [(0, 0), (1, 1), (7, 7), (8, 8), (12, 10), (20, 12), (30, 14), (39, 15), (49, 15), (-1, 17), (-8, 24)]
    + [(-49, 31)],
)
def test_buckets_are_linear_up_to_eight_then_logarithmic(offset: int, bucket: int) -> None:
    query, key = (offset, 0) if offset >= 0 else (0, -offset)
    assert buckets(50)[query, key] == bucket


def naive_attention(layer: Layer, x: Tensor, behavior: Tensor, count: int) -> Tensor:
    """Loop over every query and key with the kernel of their ordered pair."""
    length, width = x.shape[1], layer.width
    kernels, values = layer.key_kernels(), layer.value_kernels()
    tables = layer.offsets.weight.view(count * count, 32, layer.heads)
    bucket, out = buckets(length), torch.zeros_like(x)
    for b in range(len(x)):
        real = [i for i in range(length) if behavior[b, i] > 0]
        for i in real:
            for h in range(layer.heads):
                part, bi = slice(h * width, (h + 1) * width), int(behavior[b, i]) - 1
                query = (x[b, i] @ layer.query.weight[bi])[part]
                level, summand = [], []
                for j in real:
                    bj = int(behavior[b, j]) - 1
                    key = (x[b, j] @ layer.key.weight[bj])[part]
                    bias = tables[bi * count + bj, bucket[i, j], h]
                    level.append(query @ kernels[bi, bj, h] @ key / width**0.5 + bias)
                    summand.append((x[b, j] @ layer.value.weight[bj])[part] @ values[bi, bj, h])
                out[b, i, part] = torch.stack(level).softmax(0) @ torch.stack(summand)
    return out


@pytest.mark.parametrize("count", [1, 2, 3])
def test_attention_equals_a_loop_over_pairs_and_their_kernels(count: int) -> None:
    layer = build(count).layers[0]
    behavior = (BEHAVIOR % (count + 1)).where(BEHAVIOR > 0, 0)
    behavior = torch.where((BEHAVIOR > 0) & (behavior == 0), 1, behavior)
    x = torch.randn(3, 6, 8)
    found = layer.attention(x.flatten(0, 1), behavior, rows_of(behavior, count)).view_as(x)
    assert torch.allclose(found, naive_attention(layer, x, behavior, count), atol=1e-5)


def test_a_kernel_is_its_mix_of_the_basis_and_pairs_are_ordered() -> None:
    torch.manual_seed(0)
    kernels = PairKernels(2, 3, 4, "normal")
    made = kernels()
    share = kernels.mix[0, 1, :, 2].softmax(0)
    expected = share[0] * kernels.basis[0, 2] + share[1] * kernels.basis[1, 2]
    assert torch.allclose(made[0, 1, 2], expected, atol=1e-6)
    assert not torch.allclose(made[0, 1], made[1, 0])


@pytest.mark.parametrize(("init", "spread"), [("normal", 1.0), ("scaled", 0.125), ("identity", 0.02)])
def test_kernels_start_with_the_spread_that_is_asked_for(init: str, spread: float) -> None:
    torch.manual_seed(0)
    basis = PairKernels(2, 1, 64, init).basis - (torch.eye(64) if init == "identity" else 0)
    assert basis.std().item() == pytest.approx(spread, rel=0.05)


def test_events_before_and_after_a_mask_are_seen() -> None:
    model = build()
    for column in (2, 5):
        changed = HISTORY.clone()
        changed[1, column] = 8
        gap = model.hidden(changed, BEHAVIOR)[1, 3] - model.hidden(HISTORY, BEHAVIOR)[1, 3]
        assert gap.abs().max() > 1e-5


def test_more_padding_changes_nothing() -> None:
    model = build()
    wider = batch(F.pad(HISTORY, (1, 0)), F.pad(BEHAVIOR, (1, 0)))
    assert torch.allclose(model.encode(wider), model.encode(batch()), atol=1e-5)


def test_the_type_of_an_event_matters_unless_all_parts_are_equal_across_behaviors() -> None:
    model = build()
    swapped = BEHAVIOR.clone()
    swapped[0, 2] = 2
    assert not torch.allclose(model.encode(batch(behavior=swapped))[0], model.encode(batch())[0], atol=1e-5)
    with torch.no_grad():
        for layer in model.layers:
            for part in (layer.query, layer.key, layer.value, layer.inner, layer.outer):
                part.weight[1] = part.weight[0]
            for kernels in (layer.key_kernels, layer.value_kernels):
                kernels.mix.zero_()
            tables = layer.offsets.weight.view(4, 32, -1)
            tables[1:] = tables[0].clone()
    assert torch.allclose(model.encode(batch(behavior=swapped)), model.encode(batch()), atol=1e-5)


def test_a_masked_event_keeps_its_behavior() -> None:
    model = build()
    one = masked([3])
    other = torch.where(one.history == MASK, 3 - one.behavior, one.behavior)
    gap = model.hidden(one.history, one.behavior) - model.hidden(one.history, other)
    assert gap[0, 3].abs().max() > 1e-5


def test_gates_weigh_the_shared_experts_and_the_own_one() -> None:
    torch.manual_seed(0)
    head = BehaviorHead(4, 2)
    x = torch.randn(1, 4)
    gate = (x[0] @ head.gates[1]).softmax(0)
    experts = [expert(x[0]) for expert in (*head.shared, head.own[1])]
    mixed = sum(share * expert for share, expert in zip(gate, experts, strict=True))
    assert len(gate) == 4
    assert torch.allclose(head(x, torch.tensor([2]))[0], x[0] + head.norm(mixed), atol=1e-6)


def test_favors_alone_leave_the_other_behaviors_expert_without_gradient() -> None:
    model = build()
    one = masked([3])
    favors = one.label_behavior == 2
    one.labels, one.label_behavior = one.labels * favors, one.label_behavior * favors
    model.loss(one)["loss"].backward()
    assert not model.head.own[0].weight.grad.any() and model.head.own[1].weight.grad.any()


@pytest.mark.parametrize("head", ["experts", "linear"])
def test_the_loss_is_the_mean_over_masked_positions(head: str) -> None:
    model = build(head=head)
    one = masked([3, 5])
    row, column = torch.nonzero(one.labels, as_tuple=True)
    x = model.hidden(one.history, one.behavior)[row, column]
    x = model.read(x, one.label_behavior[row, column])
    bias = 0 if head == "experts" else model.item_bias[1:]
    expected = F.cross_entropy(x @ model.items.weight[1:-1].T + bias, one.labels[row, column] - 1)
    assert torch.allclose(model.loss(one)["loss"], expected, atol=1e-6)


def test_a_batch_without_masks_has_no_loss() -> None:
    zeros = torch.zeros_like(HISTORY)
    assert build().loss(batch(labels=zeros, label_behavior=zeros))["loss"] == 0


def test_the_head_holds_nothing_of_the_size_of_the_catalog() -> None:
    sizes = [p.shape for p in build().parameters() if {ITEMS + 1, ITEMS + 2} & set(p.shape)]
    assert sizes == [(ITEMS + 2, 8)]


def test_a_given_number_of_negatives_is_sampled() -> None:
    model = build(num_negatives=3)
    losses = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        losses.append(model.loss(masked([3]))["loss"].item())
    assert losses[0] != losses[1]


@pytest.mark.parametrize("count", [1, 3, 4])
def test_one_three_and_four_behaviors_run(count: int) -> None:
    model = build(count)
    real = (HISTORY > 0).long()
    behavior = real * (torch.arange(6) % count + 1)
    one = batch(torch.where(HISTORY == 7, MASK, HISTORY), behavior)
    one.labels, one.label_behavior = HISTORY * (HISTORY == 7), behavior * (HISTORY == 7)
    assert torch.isfinite(model.loss(one)["loss"]) and torch.isfinite(model.encode(one)).all()


def test_the_last_click_is_learned_as_the_next_favor() -> None:
    model = build(hidden_size=16, learning_rate=0.01)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    last = torch.full((64,), 2)
    for _ in range(150):
        history = torch.randint(1, ITEMS + 1, (64, 4))
        labels = F.pad(history[:, -1:], (4, 0))
        kinds = torch.cat([torch.ones(64, 4, dtype=torch.int64), last[:, None]], 1)
        asked = torch.cat([history, torch.full((64, 1), MASK)], 1)
        optimizer.zero_grad()
        model.loss(batch(asked, kinds, labels=labels, label_behavior=kinds * (labels > 0)))["loss"].backward()
        optimizer.step()
    history = torch.randint(1, ITEMS + 1, (200, 4))
    scores = model.score(batch(history, torch.ones_like(history)), torch.arange(1, ITEMS + 1).expand(200, -1))
    assert (scores.argmax(1) + 1 == history[:, -1]).float().mean() > 0.9


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="does not divide"):
        MBSTRConfig(hidden_size=10, num_heads=4)
