"""M3SRec against its spec: causality by time, experts, gates, balance, fusion, pre-training."""

import math

import pytest
import torch
import torch.nn.functional as F

from bench.baselines.m3srec import M3SRec, contrast
from bench.baselines.m3srec.config import M3SRecConfig
from bench.baselines.m3srec.experts import Layer, Mixture, ModalityAttention, token_mask
from bench.errors import UserError
from tests.baselines.multimodal import (
    HISTORY,
    ITEMS,
    NO_IMAGE,
    NOTHING,
    USERS,
    D,
    L,
    batch,
    events,
    info,
)

SMALL = {"hidden_size": D, "max_history": L, "inner_size": 16}


def build(modalities: tuple[str, ...] = ("image", "text"), **options: object) -> M3SRec:
    torch.manual_seed(0)
    model = M3SRec(M3SRecConfig(**{**SMALL, **options}), info(modalities)).eval()
    model.set_up(events())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
        model.items.weight[0] = 0
    return model


def mixture(**options: object) -> Mixture:
    torch.manual_seed(0)
    return Mixture(M3SRecConfig(**{**SMALL, **options}), D).eval()


@pytest.mark.parametrize("what", ["item", "text", "image"])
def test_no_position_sees_a_later_event_in_any_modality(what: str) -> None:
    model = build()
    before, _ = model.states(HISTORY)
    changed = HISTORY.clone()
    if what == "item":
        changed[:, 4] = 18
    else:
        table = model.content[0 if what == "text" else 1]
        table.features[HISTORY[2, 4]] += 3  # item 10, in window 2 alone
    after, _ = model.states(changed)
    assert torch.allclose(before[:, :4], after[:, :4], rtol=0, atol=1e-6)
    assert not torch.allclose(before[2, 4:], after[2, 4:], atol=1e-3)


def test_padding_does_not_change_a_state() -> None:
    model = build()
    wide = model.states(F.pad(HISTORY, (2, 0)))[0][:, -1]
    assert torch.allclose(wide, model.states(HISTORY)[0][:, -1], atol=1e-5)
    assert torch.isfinite(model.states(torch.zeros(1, 3, dtype=torch.int64))[0]).all()


def test_the_mask_is_causal_by_time_within_and_across_modalities() -> None:
    present = torch.ones(1, 2, 3, dtype=torch.bool)
    present[0, 1, 1] = False  # the second event has no second modality
    allowed = token_mask(present)[0, 0]
    for query in range(6):
        for key in range(6):
            earlier = key % 3 <= query % 3 and bool(present[0, key // 3, key % 3])
            assert bool(allowed[query, key]) == (earlier or query == key), (query, key)


@pytest.mark.parametrize(("count", "active"), [(4, 1), (4, 2), (4, 4), (1, 1)])
def test_gates_are_a_distribution_over_k_experts(count: int, active: int) -> None:
    module = mixture(num_experts=count, num_active=active)
    gates, _ = module.gates(torch.randn(50, D))
    assert (gates >= 0).all() and torch.allclose(gates.sum(1), torch.ones(50))
    assert ((gates > 0).sum(1) == active).all()


def test_experts_on_the_tokens_sent_to_them_are_the_dense_sum() -> None:
    for active in (2, 4):
        module = mixture(num_active=active)
        x = torch.randn(30, D)
        gates, _ = module.gates(x)
        dense = torch.stack([expert(x) for expert in module.experts], 1)
        assert torch.allclose(module(x, x)[0], (gates[..., None] * dense).sum(1), atol=1e-6)
    one, x = mixture(num_experts=1, num_active=1), torch.randn(9, D)
    assert torch.allclose(one(x, x)[0], one.experts[0](x))


def test_balance_is_one_for_equal_use_and_the_number_of_experts_for_collapse() -> None:
    module, x = mixture(), torch.zeros(64, D)
    x[torch.arange(64), torch.arange(64) % 4] = 1
    with torch.no_grad():
        module.router.weight.zero_()
        module.router.weight[:4, :4] = 1e-4 * torch.eye(4)
    assert module(x, x)[1].item() == pytest.approx(1, abs=1e-3)  # a quarter each, nearly equal gates
    with torch.no_grad():
        module.router.weight.zero_()
        module.router.weight[2] = 100
    assert module(x, x)[1].item() == pytest.approx(4, abs=1e-3)


def test_balance_does_not_see_padding() -> None:
    model = build()
    assert torch.allclose(model.states(F.pad(HISTORY, (2, 0)))[1], model.states(HISTORY)[1], atol=1e-6)


def test_experts_of_a_modality_leave_the_others_alone_and_cross_experts_do_not() -> None:
    model = build()
    x = torch.randn(2, 3, 5, D)
    present = torch.ones(2, 3, 5, dtype=torch.bool)
    layer = model.layers[0]
    assert isinstance(layer, Layer) and not layer.shared and model.layers[1].shared
    before, _ = layer(x, present, token_mask(present), [0, 1, 2])
    with torch.no_grad():
        layer.mixtures[1].experts[0][3].bias += 1
        layer.mixtures[1].experts[1][3].bias += 1
        layer.mixtures[1].experts[2][3].bias += 1
        layer.mixtures[1].experts[3][3].bias += torch.arange(D) / D + 1
    after, _ = layer(x, present, token_mask(present), [0, 1, 2])
    assert torch.equal(before[:, [0, 2]], after[:, [0, 2]])
    assert not torch.allclose(before[:, 1], after[:, 1])


def test_an_image_reaches_the_text_tokens_of_later_positions() -> None:
    model = build()
    before, _, _ = model.tokens(HISTORY, [0, 1, 2])
    model.content[1].features[6] += 3  # window 2, position 1
    after, _, _ = model.tokens(HISTORY, [0, 1, 2])
    moved = (after - before)[2, 1].abs().amax(-1) > 1e-5  # text tokens
    assert moved.tolist() == [False, True, True, True, True, True]


def test_an_absent_image_has_no_weight_and_no_influence() -> None:
    model = build()
    before, _ = model.states(HISTORY)
    candidates = model.vectors(torch.arange(ITEMS + 1))
    for item in (NO_IMAGE, NOTHING):
        model.content[1].features[item] += 5
    assert torch.equal(model.states(HISTORY)[0], before)
    assert torch.equal(model.vectors(torch.arange(ITEMS + 1)), candidates)
    x, present, _ = model.tokens(HISTORY, [0, 1, 2])
    _, weight = model.fusion(x.transpose(1, 2), present.transpose(1, 2))
    assert weight[0, 4, 2] == 0 and weight[0, 3, 2] > 0  # item 9 has no image, item 5 has
    assert torch.allclose(weight[0, 3:].sum(-1), torch.ones(3))


def test_the_fusion_is_its_formula() -> None:
    torch.manual_seed(0)
    module, x = ModalityAttention(D), torch.randn(3, 2, D)
    level = torch.tanh(x @ module.hidden.weight.T + module.hidden.bias) @ module.level.weight[0]
    expected = torch.softmax(level, 1)
    mixed, weight = module(x, torch.ones(3, 2, dtype=torch.bool))
    assert torch.allclose(weight, expected) and torch.allclose(mixed, (expected[..., None] * x).sum(1))
    mixed, weight = module(x, torch.zeros(3, 2, dtype=torch.bool))
    assert not mixed.any() and not weight.any()


def test_scores_are_cosines_over_the_temperature() -> None:
    model = build(temperature=0.5)
    candidates = torch.arange(1, ITEMS + 1).expand(USERS, -1)
    scores = model.score(batch(), candidates)
    assert scores.abs().max() <= 2 + 1e-5
    z = F.normalize(model.states(HISTORY)[0][:, -1], dim=-1)
    assert torch.allclose(scores, z @ model.vectors(candidates[0]).T, atol=1e-5)
    assert torch.allclose(model.vectors(candidates[0]).norm(dim=1), torch.full((ITEMS,), 2.0))
    by_id = build(score="id")
    expected = by_id.states(HISTORY)[0][:, -1] @ by_id.items.weight[1:].T
    assert torch.allclose(by_id.score(batch(), candidates), expected, atol=1e-5)


def test_noise_is_for_training_alone() -> None:
    model = build()
    assert torch.equal(model.states(HISTORY)[0], model.states(HISTORY)[0])
    model.train()
    assert not torch.equal(model.states(HISTORY)[0], model.states(HISTORY)[0])


def test_pretraining_never_reads_ids_nor_moves_them() -> None:
    model = build().train()
    model.stage_name = "pretrain"
    torch.manual_seed(0)
    terms = model.loss(batch())
    assert {"item", "text_to_image", "image_to_text", "align", "balance"} < set(terms)
    terms["loss"].backward()
    assert model.items.weight.grad is None
    before = model.eval().score(batch(), torch.arange(1, ITEMS + 1).expand(USERS, -1))
    with torch.no_grad():
        model.items.weight.normal_()
    assert torch.equal(model.score(batch(), torch.arange(1, ITEMS + 1).expand(USERS, -1)), before)


def test_stages_by_what_there_is() -> None:
    assert [stage.name for stage in build().stages()] == ["pretrain", "train"]
    assert [stage.name for stage in build(pretrain=False).stages()] == ["train"]
    assert [stage.name for stage in build(()).stages()] == ["train"]
    text = build(("text",)).train()
    text.stage_name = "pretrain"
    assert set(text.loss(batch())) == {"loss", "item", "balance"}
    with pytest.raises(UserError, match="no item has an image or a text"):
        build((), use_id=False)


def test_equal_next_items_are_one_candidate_and_items_without_the_modality_are_left_out() -> None:
    model = build()
    states, wanted = torch.randn(5, D), torch.tensor([3, 4, 3, NO_IMAGE, NOTHING])
    found = model.next_item(states, wanted, [2])
    vectors = F.normalize(model.vector(2, torch.tensor([3, 4])), dim=1)
    logits = F.normalize(states[:3], dim=1) @ vectors.T / 0.07
    assert torch.allclose(found, F.cross_entropy(logits, torch.tensor([0, 1, 0])), atol=1e-5)


def test_alignment_is_learned_on_paired_features_and_not_on_shuffled_targets() -> None:
    def trained(shuffled: bool) -> float:
        torch.manual_seed(0)
        first = torch.randn(64, 16)
        other = first.roll(1, 1)
        maps = [torch.nn.Linear(16, 16) for _ in range(2)]
        optimizer = torch.optim.Adam([p for one in maps for p in one.parameters()], 1e-2)
        for _ in range(300):
            own = torch.randperm(64) if shuffled else torch.arange(64)
            loss = contrast(maps[0](first), maps[1](other), own, 0.07)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.item()

    assert trained(shuffled=False) < 0.5 * math.log(64)
    assert trained(shuffled=True) > 0.9 * math.log(64)
