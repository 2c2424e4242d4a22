"""MMMLP against its spec: mixing over time and channels, depth, padding, what the candidates are."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.baselines.mmmlp import MMMLP, Mixer, MMMLPConfig
from bench.interface import Batch
from tests.baselines.multimodal import (
    HISTORY,
    ITEMS,
    KIND,
    LABELS,
    NO_TEXT,
    NOTHING,
    USERS,
    D,
    L,
    batch,
    events,
    info,
    prefixes,
)

SMALL = {"hidden_size": D, "max_history": L}
WINDOW = F.pad(HISTORY, (L - HISTORY.shape[1], 0))
both_readings = pytest.mark.parametrize("reading", ["causal", "prefix"])


def build(modalities: tuple[str, ...] = ("image", "text"), **options: object) -> MMMLP:
    torch.manual_seed(0)
    model = MMMLP(MMMLPConfig(**{**SMALL, **options}), info(modalities)).eval()
    model.set_up(events())
    with torch.no_grad():  # maps of 0.02 hide what a part does
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
        model.items.weight[0] = 0
    return model


def with_text(model: MMMLP, item: int) -> None:
    model.content[0].features[item] += 3


@both_readings
@pytest.mark.parametrize("variant", ["paper", "release"])
def test_scores_are_dot_products_with_ids_and_candidates_have_no_content(variant: str, reading: str) -> None:
    model = build(variant=variant, reading=reading)
    hidden = model.hidden(HISTORY)
    assert hidden.shape == (USERS, D)
    candidates = torch.arange(1, ITEMS + 1).expand(USERS, -1)
    scores = model.score(prefixes(), candidates)
    assert torch.allclose(scores, hidden @ model.items.weight[1:].T, atol=1e-5)
    with_text(model, 20)  # in no history
    assert torch.equal(model.score(prefixes(), candidates), scores)


def test_candidate_content_is_an_option() -> None:
    model = build(candidate_content=True)
    candidates = torch.arange(1, ITEMS + 1).expand(USERS, -1)
    before = model.score(prefixes(), candidates)
    with_text(model, 20)
    after = model.score(prefixes(), candidates)
    assert torch.equal(before[:, :19], after[:, :19]) and not torch.allclose(before[:, 19], after[:, 19])


@both_readings
def test_content_and_order_of_the_history_matter(reading: str) -> None:
    model = build(reading=reading)
    before = model.hidden(HISTORY)
    with_text(model, 9)
    changed = (model.hidden(HISTORY) - before).abs().amax(1) > 1e-4
    assert changed.tolist() == [(9 in row) for row in HISTORY.tolist()]
    swapped = HISTORY.clone()
    swapped[:, [4, 5]] = swapped[:, [5, 4]]
    assert not torch.allclose(model.hidden(swapped)[:3], model.hidden(HISTORY)[:3], atol=1e-3)


def test_depth_adds_one_block_per_modality_and_matters() -> None:
    one, two, three = (build(num_layers=depth) for depth in (1, 2, 3))
    sizes = [sum(p.numel() for p in model.parameters()) for model in (one, two, three)]
    block = sum(p.numel() for p in Mixer(one.config, D).parameters())
    assert sizes[1] - sizes[0] == sizes[2] - sizes[1] == 3 * block
    x = torch.randn(2, L, D)
    real = torch.ones(2, L, 1)
    stack = two.features[1]
    assert not torch.allclose(stack[1](stack[0](x, real), real), stack[0](x, real), atol=1e-3)


def test_the_release_shares_the_id_block_over_depth_and_applies_content_blocks_once() -> None:
    one, three = build(variant="release", num_layers=1), build(variant="release", num_layers=3)
    assert sum(p.numel() for p in one.parameters()) == sum(p.numel() for p in three.parameters())
    assert not len(one.fusion) and one.output_norm is None
    three.load_state_dict(one.state_dict())
    real = (F.pad(HISTORY, (2, 0)) > 0)[..., None].float()
    history = F.pad(HISTORY, (2, 0))
    text = [model.mixed(1, model.content[0](history), history, real, True) for model in (one, three)]
    assert torch.equal(*text)
    ids = [model.mixed(0, model.items(history), history, real, True) for model in (one, three)]
    assert not torch.allclose(*ids, atol=1e-3)


@both_readings
@pytest.mark.parametrize("variant", ["paper", "release"])
def test_padding_does_not_count_whatever_stands_there(variant: str, reading: str) -> None:
    model = build(variant=variant, reading=reading)
    before = model.hidden(HISTORY)
    with torch.no_grad():
        model.items.weight[0] = 5
    for table in model.content:
        table.features[0] = 7
    assert torch.allclose(model.hidden(HISTORY), before, atol=1e-6)
    assert torch.allclose(model.hidden(F.pad(HISTORY, (2, 0))), before, atol=1e-6)
    assert torch.isfinite(model.hidden(torch.zeros(1, 3, dtype=torch.int64))).all()
    assert torch.isfinite(model.hidden(HISTORY[3:])).all()


def test_a_missing_text_counts_as_zero_not_as_its_row() -> None:
    model = build()
    before = model.hidden(HISTORY)
    with_text(model, NO_TEXT)
    with_text(model, NOTHING)
    assert torch.equal(model.hidden(HISTORY), before)


def test_token_mixing_treats_channels_alike() -> None:
    mixer = Mixer(MMMLPConfig(**SMALL), D).eval()
    mixer.token_norm = torch.nn.Identity()
    with torch.no_grad():
        mixer.channel_out.weight.zero_()
        mixer.channel_out.bias.zero_()
    x, real, order = torch.randn(3, L, D), torch.ones(3, L, 1), torch.randperm(D)
    assert torch.allclose(mixer(x[..., order], real), mixer(x, real)[..., order], atol=1e-6)


def test_a_mixer_without_output_layers_is_the_identity_on_events_and_zero_on_padding() -> None:
    mixer = Mixer(MMMLPConfig(**SMALL), D).eval()
    with torch.no_grad():
        for layer in (mixer.token_out, mixer.channel_out):
            layer.weight.zero_()
            layer.bias.zero_()
    real = (torch.arange(L) > 2).float()[None, :, None].expand(2, -1, -1)
    x = torch.randn(2, L, D)
    assert torch.equal(mixer(x, real), x * real)


def test_the_mixer_is_its_formula() -> None:
    mixer = Mixer(MMMLPConfig(**SMALL, reading="prefix"), D).eval()
    x = torch.randn(1, L, D)

    def through(first: torch.nn.Linear, second: torch.nn.Linear, v: Tensor) -> Tensor:
        return second.weight @ F.gelu(first.weight @ v + first.bias) + second.bias

    normed = F.layer_norm(x[0], (D,), mixer.token_norm.weight, mixer.token_norm.bias)
    y = torch.stack(
        [x[0, :, c] + through(mixer.token_in, mixer.token_out, normed[:, c]) for c in range(D)], 1
    )
    normed = F.layer_norm(y, (D,), mixer.channel_norm.weight, mixer.channel_norm.bias)
    z = torch.stack([y[t] + through(mixer.channel_in, mixer.channel_out, normed[t]) for t in range(L)])
    assert torch.allclose(mixer(x, torch.ones(1, L, 1))[0], z, atol=1e-5)


@both_readings
@pytest.mark.parametrize(
    "options", [{}, {"num_fusion_layers": 2}, {"num_fusion_layers": 0}, {"token_hidden": 3}]
)
def test_computing_the_last_position_alone_changes_nothing(options: dict[str, int], reading: str) -> None:
    model = build(**options, reading=reading)
    before = model.hidden(HISTORY)
    original = Mixer.forward
    calls = []

    def whole(self: Mixer, x: Tensor, real: Tensor, last: bool = False) -> Tensor:
        calls.append(last)
        return original(self, x, real)

    Mixer.forward = whole  # type: ignore[method-assign]
    try:
        assert torch.allclose(model.hidden(HISTORY), before, atol=1e-5)
    finally:
        Mixer.forward = original  # type: ignore[method-assign]
    assert any(calls)


def test_the_fusion_is_three_times_as_wide_and_without_content_once() -> None:
    assert build().join.in_features == 3 * D and build(("text",)).join.in_features == 2 * D
    model = build(())
    assert model.join.in_features == D and torch.isfinite(model.hidden(HISTORY)).all()


def test_pairs_with_one_negative_are_an_option() -> None:
    model = build(loss="bpr", reading="prefix")
    torch.manual_seed(3)
    value = model.loss(prefixes())["loss"]
    torch.manual_seed(3)
    negative = model.untouched.draw(prefixes().user, (1,))[:, 0]
    hidden, table = model.hidden(HISTORY), model.items.weight
    gap = (hidden * (table[negative] - table[prefixes().target])).sum(1)
    assert torch.allclose(value, F.softplus(gap).mean())


def test_the_item_three_steps_back_is_learned() -> None:
    torch.manual_seed(0)
    items = 10
    config = MMMLPConfig(hidden_size=32, max_history=6, num_layers=1, dropout=0.0, reading="prefix")
    model = MMMLP(config, replace(info((), items=ITEMS)))
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(300):
        history = torch.randint(1, items + 1, (128, 6))
        whole = Batch(torch.zeros(128, dtype=torch.int64), history, torch.ones_like(history), history)
        part = replace(whole, target=history[:, -3], target_behavior=torch.ones(128, dtype=torch.int64))
        optimizer.zero_grad()
        model.loss(part)["loss"].backward()
        optimizer.step()
    history = torch.randint(1, items + 1, (500, 6))
    scores = model.eval().hidden(history) @ model.items.weight[1 : items + 1].T
    assert (scores.argmax(1) + 1 == history[:, -3]).float().mean() > 0.9


@pytest.mark.parametrize("options", [{}, {"variant": "release"}, {"token_hidden": 3}, {"token_expansion": 1}])
def test_the_causal_reading_at_each_position_is_that_of_what_came_up_to_it(options: dict) -> None:
    model = build(**options)
    every = model.hidden(HISTORY, last=False)
    assert every.shape == (USERS, L, D)
    assert torch.allclose(every[:, -1], model.hidden(HISTORY), atol=1e-5)
    for position in range(L):
        seen = WINDOW * (torch.arange(L) <= position)  # nothing stands where a later event was
        assert torch.allclose(model.hidden(seen, last=False)[:, position], every[:, position], atol=1e-5)


def test_under_prefixes_a_position_sees_what_follows() -> None:
    model = build(reading="prefix")
    changed = WINDOW.clone()
    changed[:, -1] = 20
    before, after = model.hidden(WINDOW, last=False), model.hidden(changed, last=False)
    assert not torch.allclose(before[2, -2], after[2, -2], atol=1e-3)


def test_masks_belong_to_hidden_units_in_order_of_time() -> None:
    mixer = Mixer(MMMLPConfig(**SMALL, token_expansion=2), D)
    for unit, position in ((0, 0), (1, 0), (2, 1), (15, 7)):
        assert mixer.mask_in[unit].tolist() == [float(place <= position) for place in range(L)]
        assert mixer.mask_out[:, unit].tolist() == [float(place >= position) for place in range(L)]
    assert (mixer.mask_out[-1] == 1).all(), "the newest position reads every hidden unit"


def test_the_causal_loss_is_the_mean_over_labelled_positions() -> None:
    model = build(loss_weight_auxiliary=0.5).requires_grad_(False)
    hidden = model.hidden(HISTORY, last=False)[:, -HISTORY.shape[1] :]
    total, weights = 0.0, 0.0
    for row, position in (LABELS > 0).nonzero().tolist():
        weight = 1.0 if KIND[row, position] == 2 else 0.5
        logits = model.items.weight[1:] @ hidden[row, position]
        total += weight * float(torch.logsumexp(logits, 0) - logits[LABELS[row, position] - 1])
        weights += weight
    assert model.loss(batch())["loss"].item() == pytest.approx(total / weights, rel=1e-5)
    favors = build(targets="target").requires_grad_(False)
    total = [
        F.cross_entropy(favors.items.weight[1:] @ hidden[row, position], LABELS[row, position] - 1)
        for row, position in (KIND == 2).nonzero().tolist()
    ]
    assert favors.loss(batch())["loss"].item() == pytest.approx(float(torch.stack(total).mean()), rel=1e-5)


def test_pairs_under_the_causal_reading_are_drawn_per_position() -> None:
    model = build(loss="bpr")
    torch.manual_seed(3)
    value = model.loss(batch())["loss"]
    torch.manual_seed(3)
    row, position = (LABELS > 0).nonzero(as_tuple=True)
    negative = model.untouched.draw(row, (1,))[:, 0]
    hidden = model.hidden(HISTORY, last=False)[:, -HISTORY.shape[1] :][row, position]
    gap = (hidden * (model.items.weight[negative] - model.items.weight[LABELS[row, position]])).sum(1)
    assert torch.allclose(value, F.softplus(gap).mean())
