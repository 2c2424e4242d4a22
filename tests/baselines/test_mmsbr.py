"""MMSBR against its spec: pivots, sessions, pseudo vectors, contrast, prices."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench.baselines.mmsbr import MMSBR, modality_contrast
from bench.baselines.mmsbr.config import MMSBRConfig
from bench.baselines.mmsbr.price import levels_of, squared
from bench.baselines.mmsbr.pseudo import Ridge, components, projected, pseudo_vectors
from bench.errors import UserError
from bench.interface import DatasetInfo
from bench.nn.gaussian import point
from tests.baselines.multimodal import (
    HISTORY,
    ITEMS,
    LABELS,
    NO_IMAGE,
    NO_TEXT,
    NOTHING,
    USERS,
    D,
    L,
    batch,
    events,
    info,
)

SMALL = {"hidden_size": D, "max_history": L, "num_rounds": 2}
CANDIDATES = torch.arange(1, ITEMS + 1).expand(USERS, -1)


def priced(modalities: tuple[str, ...] = ("image", "text")) -> DatasetInfo:
    plain = info(modalities)
    price = np.linspace(1, 50, ITEMS + 1).astype(np.float32)
    price[[0, 5]] = np.nan
    category = np.arange(ITEMS + 1, dtype=np.int32) % 3
    content = replace(plain.content, numbers={"price": price}, attributes={"category": category})
    return replace(plain, content=content)


def build(data: DatasetInfo | None = None, **options: object) -> MMSBR:
    torch.manual_seed(0)
    model = MMSBR(MMSBRConfig(**{**SMALL, **options}), info() if data is None else data).eval()
    model.set_up(events())
    return model


def test_the_order_of_a_session_and_padding_change_no_score() -> None:
    model = build()
    before = model.score(batch(), CANDIDATES)
    moved = HISTORY.clone()
    moved[2] = HISTORY[2][[3, 5, 4, 0, 2, 1]]
    assert torch.allclose(model.score(batch(moved), CANDIDATES), before, atol=1e-5)
    assert torch.allclose(model.score(batch(F.pad(HISTORY, (2, 0))), CANDIDATES), before, atol=1e-5)
    assert torch.isfinite(model.score(batch(torch.zeros_like(HISTORY)), CANDIDATES)).all()


def test_item_vectors_are_not_below_zero_and_chunks_agree_with_the_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = build()
    whole = model.encode_items()[0]
    assert (whole >= 0).all() and whole.any()
    monkeypatch.setattr("bench.baselines.mmsbr.ITEMS_AT_ONCE", 3)
    assert torch.allclose(model.encode_items()[0], whole, atol=1e-6)


def test_equal_pivots_and_features_give_equal_items() -> None:
    model = build()
    with torch.no_grad():
        model.pivots.copy_(model.pivots[1].clone())
        for table in model.tables:
            table.copy_(table[1].clone())
    rows = [item for item in range(1, ITEMS + 1) if item not in (NO_IMAGE, NO_TEXT, NOTHING)]
    vectors = model.vectors(torch.tensor(rows))
    assert torch.allclose(vectors, vectors[0].expand_as(vectors), atol=1e-5)


def test_the_image_reaches_the_text_views_from_the_second_round_on() -> None:
    model = build()
    items = torch.tensor([3])
    for rounds, reached in ((1, False), (2, True)):
        image = model.modality(0, items).detach().requires_grad_()
        assert model.held == ("text", "image")
        text, picture = model.modality(0, items).detach(), model.modality(1, items).detach().requires_grad_()
        has = [torch.ones(1, dtype=torch.bool)] * 2
        _, views = model.transformer.rounded(model.pivots[items], [text, picture], has, rounds)
        (grad,) = torch.autograd.grad(views[0].sum() + 0 * image.sum(), picture, allow_unused=True)
        assert (grad is not None and bool(grad.any())) == reached


def test_all_prefixes_in_one_pass_are_those_of_a_loop() -> None:
    model = build()
    h = model.vectors(HISTORY.flatten()).view(*HISTORY.shape, D)
    mask = HISTORY > 0
    found = model.interest(h, mask)
    for row in range(USERS):
        for stop in range(1, 7):
            own = h[row, :stop][mask[row, :stop]]
            if not len(own):
                continue
            gate = torch.sigmoid(model.event(own) + model.session(own.mean(0)))
            expected = (model.level(gate) * own).sum(0)
            assert torch.allclose(found[row, stop - 1], expected, atol=1e-4)
    assert torch.allclose(model.interest(h, mask, last=True)[:, 0], found[:, -1], atol=1e-6)


def test_an_absent_image_does_not_count() -> None:
    model = build()
    before = model.vectors(torch.arange(ITEMS + 1))
    with torch.no_grad():
        model.tables[1][NO_IMAGE] += 4
        model.tables[1][NOTHING] += 4
    assert torch.equal(model.vectors(torch.arange(ITEMS + 1)), before)
    with torch.no_grad():
        model.tables[1][3] += 4
    assert not torch.equal(model.vectors(torch.tensor([3])), before[3:4])


def test_components_are_those_of_numpy_and_of_training_items_alone() -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((40, 6)).astype(np.float32) @ rng.standard_normal((6, 6)).astype(
        np.float32
    )
    fitted = np.arange(1, 30)
    mean, maps = components(features, fitted, 4)
    centered = features[fitted] - features[fitted].mean(0)
    _, singular, rows = np.linalg.svd(centered, full_matrices=False)
    expected = centered @ rows[:4].T
    expected /= np.sqrt((singular[:4] ** 2 / len(fitted)).mean())
    found = projected(features, np.ones(40, bool), mean, maps)[fitted]
    assert np.allclose(np.abs(found), np.abs(expected), atol=1e-4)
    assert np.square(found).mean() == pytest.approx(1, rel=1e-4)
    other = features.copy()
    other[35:] += 100
    assert np.array_equal(components(other, fitted, 4)[1], maps)


def test_features_start_at_their_components_and_by_accident_elsewhere() -> None:
    model = build()
    content = model.info.content
    trained = events().item_counts() > 0
    maps = components(content.features["text"], (trained & content.present["text"]).nonzero()[0], D)
    expected = projected(content.features["text"], content.present["text"], *maps)
    assert np.allclose(model.tables[0].detach().numpy(), expected, atol=1e-6)
    released = build(init="release")
    assert released.tables[0].abs().max() <= D**-0.5 and not np.allclose(
        released.tables[0].detach(), expected
    )


@pytest.mark.parametrize("way", ["retrieval", "ridge"])
def test_a_pseudo_text_does_not_depend_on_the_item_s_own_text(way: str) -> None:
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((40, 4))
    image, text = (hidden @ rng.standard_normal((4, width)) for width in (6, 5))
    image, text = image.astype(np.float32), text.astype(np.float32)
    both = np.ones(40, bool)
    both[0] = False
    fitted = np.arange(1, 40)
    before, known = pseudo_vectors(image, text, (both, both), fitted, way, 2)
    assert known[1:].all() and not known[0]
    changed = text.copy()
    changed[7] += 1e-3  # small: it must not move the means that all share by more than a hair
    after, _ = pseudo_vectors(image, changed, (both, both), fitted, way, 2)
    assert np.allclose(after[7], before[7], atol=1e-4)
    changed[7] = text[7] + 50
    far, _ = pseudo_vectors(image, changed, (both, both), fitted, "retrieval", 2)
    assert not np.allclose(far[7], changed[7], atol=5)
    gap = np.linalg.norm(before[1:] - text[1:], axis=1).mean()
    random = np.linalg.norm(np.roll(text[1:], 7, 0) - text[1:], axis=1).mean()
    assert gap < 0.7 * random  # and yet it tells of it


def test_retrieval_in_one_space_is_the_mean_of_the_nearest_other_texts() -> None:
    rng = np.random.default_rng(1)
    text = rng.standard_normal((12, 5)).astype(np.float32)
    image = text + 0.1 * rng.standard_normal((12, 5)).astype(np.float32)
    has = np.ones(12, bool)
    found, _ = pseudo_vectors(image, text, (has, has), np.arange(12), "retrieval", 2)
    centered = [x - x.mean(0) for x in (image, text)]
    cosine = (centered[0] @ centered[1].T) / np.outer(*(np.linalg.norm(x, axis=1) for x in centered))
    np.fill_diagonal(cosine, -2)
    best = np.argsort(-cosine, 1)[:, :2]
    assert np.allclose(found, text[best].mean(1), atol=1e-5)


def test_ridge_is_that_of_scikit_learn_on_the_other_folds() -> None:
    from sklearn.linear_model import Ridge as Reference

    rng = np.random.default_rng(2)
    source, wanted = (rng.standard_normal((30, width)).astype(np.float32) for width in (4, 3))
    fitted = np.arange(1, 26)
    found = Ridge(source, wanted, fitted).predict(np.array([3]))
    x, y = source - source[fitted].mean(0), wanted - wanted[fitted].mean(0)
    others = fitted[np.arange(25) % 5 != 2]  # item 3 stands third
    penalty = np.trace(x[others].T @ x[others]) / 4
    reference = Reference(alpha=penalty, fit_intercept=False).fit(x[others], y[others])
    assert np.allclose(found, reference.predict(x[3:4]), atol=1e-4)


@pytest.mark.parametrize("code", [False, True])
def test_the_contrast_falls_when_pseudo_vectors_are_the_real_ones(code: bool) -> None:
    torch.manual_seed(0)
    x = F.normalize(torch.randn(200, 16), dim=1)
    own = modality_contrast(x, x, 0.1, 100, code)
    assert own < modality_contrast(x, x[torch.randperm(200)], 0.1, 100, code)


def test_the_contrast_is_its_formula() -> None:
    torch.manual_seed(0)
    v, w = torch.randn(6, 4), torch.randn(6, 4)
    logits = F.normalize(v, dim=1) @ F.normalize(w, dim=1).T / 0.1
    rows = []
    for i in range(6):
        others = sorted((logits[i, j] for j in range(6) if j != i), reverse=True)[:3]
        rows.append(torch.logsumexp(torch.stack([logits[i, i], *others]), 0) - logits[i, i])
    assert torch.allclose(modality_contrast(v, w, 0.1, 3, False), torch.stack(rows).mean(), atol=1e-5)
    released = sum(
        torch.log10((v[i] @ w.T).exp().topk(3).values.sum()) - torch.log10((v[i] @ w[i]).exp())
        for i in range(6)
    )
    assert torch.allclose(modality_contrast(v, w, 0.1, 3, True), released, atol=1e-4)


def test_levels_are_counted_within_a_category() -> None:
    values = np.array([np.nan, 0, 10, 5, 100, 300, np.nan, 7])
    category = np.array([0, 1, 1, 1, 2, 2, 2, 3])
    assert levels_of(values, category, 4).tolist() == [0, 1, 4, 3, 1, 4, 0, 1]


def test_the_distance_of_gaussians_is_that_of_a_loop() -> None:
    torch.manual_seed(0)
    mean, spread = torch.randn(5, 3), torch.rand(5, 3) + 0.1
    found = squared(point(mean, spread), point(mean, spread))
    for i in range(5):
        for j in range(5):
            expected = sum(
                (mean[i, k] - mean[j, k]) ** 2 + (spread[i, k] ** 0.5 - spread[j, k] ** 0.5) ** 2
                for k in range(3)
            )
            assert found[i, j].item() == pytest.approx(float(expected), abs=1e-5)
    assert torch.allclose(found, found.T, atol=1e-5)


@pytest.mark.parametrize("sign", ["code", "similarity"])
def test_prices_modulate_the_score(sign: str) -> None:
    model = build(priced(), price_sign=sign)
    assert model.price is not None and build().price is None and build(priced(), numeric="off").price is None
    u, session = model.encode(batch())
    h, prices = model.encode_items()
    distance = (session[:, None] - prices[1:]).square().sum(-1)
    factor = 1 + (distance if sign == "code" else torch.exp(-distance / (2 * D)))
    expected = (u @ h[1:].T) * factor
    assert torch.allclose(model.score(batch(), CANDIDATES), expected, atol=1e-3, rtol=1e-3)
    row, column = torch.nonzero(LABELS, as_tuple=True)
    loss = model.loss(batch())["prediction"]
    assert torch.isfinite(loss) and len(row) == len(column)


def test_the_priced_loss_at_the_last_position_is_the_softmax_of_the_scores() -> None:
    model = build(priced())
    alone = batch()
    last = torch.zeros_like(LABELS)
    last[:, -1] = LABELS[:, -1]
    alone = replace(alone, labels=last, label_behavior=(last > 0).long())
    logits = model.score(batch(), CANDIDATES)
    expected = F.cross_entropy(logits, LABELS[:, -1] - 1)
    assert torch.allclose(model.loss(alone)["prediction"], expected, atol=1e-3)


def test_over_more_items_than_the_whole_catalog_the_softmax_is_sampled_and_corrected() -> None:
    model, sampled = build(pseudo="off"), build(pseudo="off", whole_catalog=ITEMS - 1)
    row, column = torch.nonzero(LABELS, as_tuple=True)
    labels = LABELS[row, column]
    items, correction = sampled.softmax.columns(labels)  # 2,048 draws leave out none of so few
    assert items.tolist() == list(range(1, ITEMS + 1)) and correction is not None
    u = model.interest(model.vectors(HISTORY.flatten()).view(*HISTORY.shape, D), HISTORY > 0)[row, column]
    logits = u @ model.vectors(items).T
    assert torch.allclose(model.loss(batch())["loss"], F.cross_entropy(logits, labels - 1), atol=1e-5)
    expected = F.cross_entropy(logits + correction, labels - 1)
    assert torch.allclose(sampled.loss(batch())["loss"], expected, atol=1e-5)


def test_an_asked_for_price_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match="numeric=on, but the data set has no number 'price'"):
        build(numeric="on")


def test_what_it_reduces_to_without_content_and_over_large_catalogs() -> None:
    bare = build(info(()))
    assert not bare.held and not bare.contrasted and torch.isfinite(bare.score(batch(), CANDIDATES)).all()
    assert not build(info(("text",))).contrasted
    shared = build(pivot="shared")
    assert shared.pivots.shape == (1, 4, D) and shared.stages()[0].frozen == ("tables.",)
    shared.train().loss(batch())["loss"].backward()
    assert shared.ids.weight.grad.any() and all(one.grad is None for one in shared.tables)
    assert shared.extra_terms() == {"numeric_branch": 0.0, "contrast": 1.0}
