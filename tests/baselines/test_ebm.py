"""EBM against its spec: transforms, chunks, both splits of noise, the contrast, the four stages."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.baselines.ebm import EBM
from bench.baselines.ebm.config import EBMConfig
from bench.baselines.ebm.parts import (
    Block,
    ChunkedNetwork,
    HardEliminator,
    SoftFilter,
    compactness,
    inverse,
    transform,
)
from bench.interface import Batch, DatasetInfo, ItemContent, TrainingEvents

ITEMS, USERS, L, D = 20, 4, 8, 8
HISTORY = torch.tensor([[0, 0, 0, 5, 9, 2], [0, 3, 8, 8, 1, 7], [4, 6, 2, 9, 10, 11], [0, 0, 0, 0, 0, 12]])
BEHAVIOR = torch.where(HISTORY % 2 == 0, 1, 2) * (HISTORY > 0)
TARGET, KIND = torch.tensor([13, 14, 15, 16]), torch.tensor([2, 1, 2, 1])
SMALL = {"hidden_size": D, "max_history": L, "num_layers": 1}


def build(behaviors: tuple[str, ...] = ("click", "favor"), stage: str = "all", **options: object) -> EBM:
    torch.manual_seed(0)
    info = DatasetInfo(USERS, ITEMS, behaviors, ItemContent(ITEMS))
    model = EBM(EBMConfig(**{**SMALL, **options}), info).eval()
    model.set_up(events())
    model.stage_name = stage
    return model


def events() -> TrainingEvents:
    users = np.repeat(np.arange(USERS), [4, 6, 7, 2])
    items = np.concatenate([row[row > 0].numpy() for row in torch.cat([HISTORY, TARGET[:, None]], 1)])
    kind = np.concatenate([row[row > 0].numpy() for row in torch.cat([BEHAVIOR, KIND[:, None]], 1)])
    return TrainingEvents(users, items.astype(np.int32), kind.astype(np.int8), np.arange(len(items)), ITEMS)


def batch(history: Tensor = HISTORY, behavior: Tensor = BEHAVIOR) -> Batch:
    users, times = torch.arange(len(history)), torch.zeros_like(history)
    return Batch(users, history, behavior, times, target=TARGET, target_behavior=KIND)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("length", [7, 8])
def test_the_inverse_gives_back_what_was_transformed_and_energy_is_kept(both: bool, length: int) -> None:
    x = torch.randn(3, length, D)
    assert torch.allclose(inverse(transform(x, both), length, D, both), x, atol=1e-6)
    full = torch.fft.fft(x, dim=1, norm="ortho").abs().square().sum()
    assert torch.allclose(full, x.square().sum(), rtol=1e-5)


@pytest.mark.parametrize("length", [7, 8])
def test_gradients_of_the_transforms_are_those_of_torch(length: int) -> None:
    x = torch.randn(2, length, D, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: torch.view_as_real(transform(y)), x)
    spectrum = torch.randn(2, length // 2 + 1, D, dtype=torch.complex128)
    ours, theirs = (spectrum.clone().requires_grad_() for _ in range(2))
    weight = torch.randn(2, length, D, dtype=torch.float64)
    (inverse(ours, length, D) * weight).sum().backward()
    (torch.fft.irfft(theirs, n=length, dim=1, norm="ortho") * weight).sum().backward()
    assert torch.allclose(ours.grad, theirs.grad)


def test_complex_products_of_the_network_are_those_of_complex_matrices() -> None:
    network = ChunkedNetwork(D, 2, 2, F.relu)
    with torch.no_grad():
        network.weights.normal_()
        network.biases.normal_()
    x = torch.randn(3, 5, D, dtype=torch.complex64)
    weights, biases = torch.view_as_complex(network.weights), torch.view_as_complex(network.biases)
    hidden = torch.einsum("bfkc,kcd->bfkd", x.unflatten(-1, (2, -1)), weights[0]) + biases[0]
    hidden = torch.complex(F.relu(hidden.real), F.relu(hidden.imag))
    expected = (torch.einsum("bfkc,kcd->bfkd", hidden, weights[1]) + biases[1]).flatten(2)
    assert torch.allclose(network(x), expected, atol=1e-5)


def test_a_block_with_identity_weights_adds_its_input() -> None:
    block = Block(EBMConfig(**SMALL)).eval()
    with torch.no_grad():
        block.network.weights.zero_()
        block.network.weights[..., 0] = torch.eye(D // 4)
    block.network.function = lambda x: x
    x = torch.randn(2, L, D)
    assert torch.allclose(block.mixed(x), x, atol=1e-6)
    expected = block.norm(2 * x) * torch.ones(2, L, 1)
    assert torch.allclose(block(x, torch.ones(2, L, 1)), expected, atol=1e-5)


def test_the_network_multiplies_complex_numbers_and_cuts_both_parts() -> None:
    network = ChunkedNetwork(1, 1, 2, F.relu)
    with torch.no_grad():
        network.weights[0, 0, 0, 0] = torch.tensor([0.0, 1.0])  # i
        network.weights[1, 0, 0, 0] = torch.tensor([2.0, 0.0])
    x = torch.complex(torch.tensor([[[3.0]]]), torch.tensor([[[-5.0]]]))  # i (3 - 5i) = 5 + 3i
    assert network(x).item() == 10 + 6j
    assert network(-x).item() == 0  # -5 - 3i


@pytest.mark.parametrize("mixer", ["complex", "real", "filter"])
def test_chunks_do_not_mix(mixer: str) -> None:
    block = Block(EBMConfig(**SMALL, mixer=mixer)).eval()
    with torch.no_grad():
        for parameter in block.network.parameters():
            parameter.normal_()
    x = torch.randn(2, L, D)
    changed = x.clone()
    changed[..., :2] += 1  # the first of four chunks
    difference = (block.mixed(changed) - block.mixed(x)).abs().amax((0, 1))
    assert (difference[:2] > 1e-4).all() and (difference[2:] < 1e-5).all()


def test_more_chunks_have_fewer_weights() -> None:
    sizes = [ChunkedNetwork(D, chunks, 2, F.relu).weights.numel() for chunks in (1, 2, 4)]
    assert sizes == [4 * D * D, 2 * D * D, D * D]


@pytest.mark.parametrize(("length", "size"), [(3, 6), (6, 3)])
def test_compactness_is_the_dense_log_determinant_from_either_side(length: int, size: int) -> None:
    x, epsilon = torch.randn(4, length, size), 0.1
    factor = size / (length * epsilon**2)
    dense = [np.linalg.slogdet(np.eye(length) + factor * z @ z.T)[1] / 2 for z in x.double().numpy()]
    other = [np.linalg.slogdet(np.eye(size) + factor * z.T @ z)[1] / 2 for z in x.double().numpy()]
    whole = torch.full((4,), length)
    assert compactness(x, whole, epsilon).item() == pytest.approx(np.mean(dense), rel=1e-5)
    assert np.mean(dense) == pytest.approx(np.mean(other), rel=1e-9)


def test_rows_that_coincide_are_more_compact_than_orthogonal_ones() -> None:
    same, orthogonal = torch.zeros(1, 4, 4), torch.eye(4)[None]
    same[..., 0] = 1
    four = torch.tensor([4])
    assert compactness(same, four, 1e-3) < compactness(orthogonal, four, 1e-3)


@pytest.mark.parametrize(("length", "size"), [(5, 8), (8, 3)])
def test_compactness_of_padded_rows_and_its_gradient(length: int, size: int) -> None:
    real = torch.tensor([length, 2, 0, 1, 4, 3])
    padded = torch.arange(length) < length - real[:, None]
    x = torch.randn(6, length, size, dtype=torch.float64).masked_fill(padded[..., None], 0.0).requires_grad_()
    gram = torch.eye(length) + size / (length * 0.1**2) * x @ x.transpose(1, 2)
    expected = torch.logdet(gram).mean() / 2
    value = compactness(x, real, 0.1)
    assert torch.allclose(value, expected)
    ours, theirs = (torch.autograd.grad(one, x)[0] for one in (value, expected))
    assert torch.allclose(ours, theirs.masked_fill(padded[..., None], 0.0))


@pytest.mark.parametrize("soft", ["freq", "linear"])
def test_parts_add_up_and_padding_is_zero(soft: str) -> None:
    model = build(soft=soft).train()
    history, behavior = model.read(batch())
    x = model.states(history, behavior)
    parts = model.split(x, behavior)
    assert torch.allclose(parts.kept + parts.dropped, x)
    assert torch.allclose(parts.clean + parts.filtered, parts.kept)
    for part in (x, parts.kept, parts.dropped, parts.clean, parts.filtered):
        assert not part[behavior == 0].any()
    assert set(parts.keep.unique().tolist()) <= {0.0, 1.0} and not parts.keep[behavior == 0].any()


def test_keeping_is_drawn_in_training_with_gradients_and_fixed_in_evaluation() -> None:
    model = build().train()
    torch.manual_seed(1)
    x, behavior = torch.randn(64, L, D), torch.randint(1, 3, (64, L))
    keep = model.hard(x, behavior)
    assert 0.5 < keep.mean() < 0.95  # starts at sigmoid(p), p in (1, 2]
    (keep * torch.randn(64, L)).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.hard.parameters())
    model.eval()
    assert torch.equal(model.hard(x, behavior), model.hard(x, behavior))


def test_the_odds_of_keeping_are_preference_less_score() -> None:
    hard = HardEliminator(EBMConfig(**SMALL), 2).eval()
    hard.start(torch.tensor([30.0, 3.0]))
    with torch.no_grad():
        hard.weight.normal_()
    x, behavior = 4 * torch.randn(5, L, D), torch.randint(1, 3, (5, L))
    chance = torch.sigmoid(hard.preference()[behavior - 1] - x @ hard.weight)
    keep = hard(x, behavior)
    some = (chance > 0.5).any(1)
    assert some.any() and torch.equal(keep[some] > 0, (chance > 0.5)[some])


def test_the_preference_falls_with_the_rate_and_starts_at_the_frequencies() -> None:
    hard = HardEliminator(EBMConfig(**SMALL), 3)
    hard.start(torch.tensor([20.0, 2.0, 2.0]))
    rates = [math.log(21), math.log(3), math.log(3)]
    expected = [math.exp(-r) * r**r / math.gamma(r + 1) + 1 for r in rates]
    assert hard.preference().tolist() == pytest.approx(expected, rel=1e-5)
    first, second, third = hard.preference().tolist()
    assert 1 < first < second == third <= 2


def test_where_everything_is_dropped_the_newest_event_stays() -> None:
    model = build()
    with torch.no_grad():
        model.hard.bias.fill_(100.0)  # a high noise score everywhere
    keep = model.hard(torch.randn(4, 6, D), BEHAVIOR)
    assert keep[:, -1].tolist() == [1] * 4 and keep.sum() == 4
    assert not model.hard(torch.randn(1, 6, D), torch.zeros(1, 6, dtype=torch.int64)).any()


@pytest.mark.parametrize("fft2", [False, True])
def test_a_filter_of_ones_returns_its_input_and_behaviors_share_filters_by_their_part(fft2: bool) -> None:
    soft = SoftFilter(EBMConfig(**SMALL, fft2=fft2), 2)
    with torch.no_grad():
        soft.filters.zero_()
        soft.filters[..., 0] = 1
    x, behavior = torch.randn(2, L, D), torch.tensor([[1] * L, [1] * 6 + [2] * 2])
    assert torch.allclose(soft(x, behavior), x, atol=1e-6)
    with torch.no_grad():
        soft.filters[1, ..., 0] = 5  # the filter of favors
    clicks, mixed = soft(x, behavior)
    assert torch.allclose(clicks, x[0], atol=1e-6)  # clicks alone use their own filter
    assert torch.allclose(mixed, (0.75 + 0.25 * 5) * x[1], atol=1e-5)


def test_the_contrast_is_least_where_clean_beats_original_beats_noise() -> None:
    model = build()
    real, wanted = torch.ones(1, 2, dtype=torch.bool), torch.tensor([[1.0] + [0.0] * (D - 1)])

    def parts(*scores: float) -> tuple[Tensor, Tensor, Tensor]:
        return tuple(score * wanted[:, None].expand(1, 2, D) for score in scores)  # type: ignore[return-value]

    yes, no = torch.tensor([True]), torch.tensor([False])
    assert model.contrast(parts(20.0, 0.0, -20.0), wanted, real, yes).item() < 1e-6
    assert model.contrast(parts(0.0, 0.0, 0.0), wanted, real, yes).item() == pytest.approx(2 * math.log(2))
    assert model.contrast(parts(-3.0, 0.0, 2.0), wanted, real, yes) > 5
    assert model.contrast(parts(0.0, 0.0, 0.0), wanted, real, no).item() == pytest.approx(math.log(2))


def test_a_history_from_which_nothing_is_dropped_gives_a_finite_loss() -> None:
    model = build().train()
    with torch.no_grad():
        model.hard.bias.fill_(-100.0)  # everything is kept
    loss = model.loss(batch())
    loss["loss"].backward()
    assert torch.isfinite(loss["loss"])
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


MOVES = {
    "encoder": ("items.", "behaviors.", "positions.", "norm.", "encoder."),
    "hard": ("hard.",),
    "soft": ("soft.", "output."),
    "all": ("items.", "behaviors.", "positions.", "norm.", "encoder.", "hard.", "soft.", "output."),
}


@pytest.mark.parametrize("stage", MOVES)
def test_a_stage_moves_its_own_weights_alone(stage: str) -> None:
    model = build(stage=stage).train()
    chosen = next(one for one in model.stages() if one.name == stage)
    model.start_stage(stage, events())
    free = {name for name, _ in model.named_parameters() if not name.startswith(chosen.frozen or ("-",))}
    assert free == {name for name, _ in model.named_parameters() if name.startswith(MOVES[stage])}
    model.loss(batch())["loss"].backward()
    grads = dict(model.named_parameters())
    assert {name for name in free if grads[name].grad is None or not grads[name].grad.any()} <= {"hard.rates"}


def test_the_stages_read_different_interests() -> None:
    encoded = [build(stage=stage).encode(batch()) for stage in ("encoder", "hard", "soft", "all")]
    assert not torch.allclose(encoded[0], encoded[2]) and torch.equal(encoded[2], encoded[3])
    model = build(stage="hard")
    history, behavior = model.read(batch())
    states = model.states(history, behavior)
    keep = model.split(states, behavior).keep
    newest = [int(row.nonzero()[-1]) for row in keep]
    assert torch.equal(encoded[1], states[torch.arange(4), newest])


def test_the_second_block_starts_as_a_copy_of_the_first() -> None:
    model = build()
    assert not torch.equal(model.output.network.weights, model.encoder[0].network.weights)
    model.start_stage("soft", events())
    assert torch.equal(model.output.network.weights, model.encoder[0].network.weights)


def test_one_stage_without_guidance() -> None:
    assert [stage.name for stage in build(guided=False).stages()] == ["all"]
    guided = build().stages()
    assert [stage.name for stage in guided] == ["encoder", "hard", "soft", "all"]
    assert [stage.name for stage in guided if stage.own_end] == [
        "hard"
    ]  # validation sees nothing that it does


def test_padding_and_batch_mates_change_no_score() -> None:
    model = build()
    scores = model.score(batch(), torch.arange(1, 6).repeat(4, 1))
    wide = batch(F.pad(HISTORY, (2, 0)), F.pad(BEHAVIOR, (2, 0)))
    assert torch.allclose(model.score(wide, torch.arange(1, 6).repeat(4, 1)), scores, atol=1e-6)
    alone = model.score(batch().rows(slice(3, 4)), torch.arange(1, 6)[None])
    assert torch.allclose(alone[0], scores[3], atol=1e-6)


def test_targets_are_weighed_by_behavior() -> None:
    model = build(stage="encoder", loss="bce", loss_weight_compactness=0.0, loss_weight_auxiliary=0.25)
    torch.manual_seed(5)
    value = model.loss(batch())["loss"].item()
    torch.manual_seed(5)
    drawn = model.untouched.draw(torch.arange(4), (1,))[:, 0]
    hidden = model.encode(batch())
    good, bad = ((hidden * model.items(items)).sum(1) for items in (TARGET, drawn))
    each = -(F.logsigmoid(good) + F.logsigmoid(-bad))
    weights = torch.tensor([1.0, 0.25, 1.0, 0.25])
    assert value == pytest.approx(((weights * each).sum() / weights.sum()).item(), rel=1e-5)


@pytest.mark.parametrize("behaviors", [("favor",), ("click", "cart", "favor"), ("a", "b", "c", "d")])
@pytest.mark.parametrize("options", [{}, {"soft": "linear", "similarity": "vector"}, {"mixer": "filter"}])
def test_any_number_of_behaviors_trains(behaviors: tuple[str, ...], options: dict[str, object]) -> None:
    model = build(("click", "favor"), **options)
    info = DatasetInfo(USERS, ITEMS, behaviors, ItemContent(ITEMS))
    model = EBM(EBMConfig(**{**SMALL, **options}), info).train()
    kinds = BEHAVIOR.clamp(max=len(behaviors))
    given = events()
    model.set_up(TrainingEvents(given.user, given.item, given.behavior.clip(max=len(behaviors)),
                                given.timestamp, ITEMS))  # fmt: skip
    loss = model.loss(batch(behavior=kinds))["loss"]
    loss.backward()
    assert torch.isfinite(loss) and model.items.weight.grad.any()


def test_diagnostics_give_the_share_kept_by_behavior() -> None:
    model = build()
    with torch.no_grad():
        model.hard.bias.fill_(1.6)  # between the preferences of the two behaviors
        model.hard.start(torch.tensor([50.0, 0.1]))
    kept = model.diagnostics(batch())["kept"]
    assert kept.rows == ("click", "favor") and kept.values[1] == 1 and kept.values[0] < 1


def test_a_large_catalog_has_a_sampled_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(stage="encoder", loss_weight_compactness=0.0)
    exact = model.loss(batch())["loss"].item()
    monkeypatch.setattr("bench.baselines.ebm.WHOLE_CATALOG", 1)
    torch.manual_seed(0)  # every item stands 4,096 / 20 times in the denominator
    assert model.loss(batch())["loss"].item() == pytest.approx(exact + math.log(4096 / 20), abs=0.1)
