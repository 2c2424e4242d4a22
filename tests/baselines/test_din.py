"""DIN against its formulas written out."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench.baselines.din import DIN, DINConfig
from bench.interface import Batch, DatasetInfo, Impressions, ItemContent

N, ROWS = 12, 3


def build(attributes=False, **options):
    torch.manual_seed(0)
    shop = {"shop": np.arange(N + 1).astype(np.int32) % 4} if attributes else {}
    config = DINConfig(embedding_size=4, attention_hidden=(6, 3), head_hidden=(5,), **options)
    model = DIN(config, DatasetInfo(5, N, ("buy",), ItemContent(N, {}, {}, shop)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
        for table in model.items.tables:
            table.weight[0] = 0
    return model.eval()


def batch():
    history = torch.tensor([[0, 0, 3, 7], [1, 2, 3, 4], [0, 0, 0, 0]])
    return Batch(torch.arange(ROWS), history, (history > 0).long(), torch.zeros_like(history))


def by_hand(model, items, target):
    """Logit of one target under a list of items: Eq. 4 and the perceptron."""
    t = model.items(torch.tensor(target))
    interest = torch.zeros_like(t)
    for item in items:
        h = model.items(torch.tensor(item))
        hidden = model.attention.first(torch.cat([t, h, t - h, t * h]))
        interest = interest + model.attention.rest(hidden[None])[0, 0] * h
    return model.head(torch.cat([interest, t])[None])[0, 0]


@pytest.mark.parametrize("attributes", [False, True])
@pytest.mark.parametrize("chunk", [1, 5, 1000])
def test_scores_are_the_formula_of_the_paper_for_any_chunk(attributes, chunk):
    model, data = build(attributes, score_chunk=chunk), batch()
    with torch.no_grad():
        found = model.score(data, torch.arange(1, N + 1).expand(ROWS, -1))
        expected = torch.stack(
            [
                torch.stack([by_hand(model, [i for i in row if i], t) for t in range(1, N + 1)])
                for row in data.history.tolist()
            ]
        )
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_loss_is_binary_cross_entropy_over_positives_and_negatives():
    model, data = build(), batch()
    target, label = torch.tensor([1, 2, 3, 4, 5, 6]), torch.tensor([1.0, 0, 1, 0, 1, 0])
    rows = (x.repeat_interleave(2, 0) for x in (data.user, data.history, data.behavior, data.timestamp))
    shown = Batch(*rows, target=target, label=label)
    with torch.no_grad():
        logits = model.score(data, target.view(3, 2)).flatten()
        found = model.loss(shown)["loss"]
    torch.testing.assert_close(found, F.binary_cross_entropy_with_logits(logits, label))


def test_the_weight_of_an_event_depends_on_the_target():
    model, data = build(), batch()
    history = model.items(data.history)
    found = model.attention(history, data.mask, model.items(torch.tensor([[5, 6]] * ROWS)))
    assert not torch.allclose(found[0, 0], found[0, 1]) and not found[2].any()


def test_it_trains_on_target_events_with_four_negatives_each():
    (stage,) = build().stages()
    assert stage.view == Impressions(50, 4, 10) and stage.batch_size % 5 == 0
