"""The base model of click-through rate against its formula written out."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench.baselines.dnn import DNN, DNNConfig
from bench.interface import Batch, DatasetInfo, Impressions, ItemContent

N, ROWS = 12, 3


def build(**options):
    torch.manual_seed(0)
    shop = {"shop": np.arange(N + 1).astype(np.int32) % 4}
    model = DNN(DNNConfig(embedding_size=4, head_hidden=(5,), **options),
                DatasetInfo(5, N, ("buy",), ItemContent(N, {}, {}, shop)))  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
        for table in model.items.tables:
            table.weight[0] = 0
    return model.eval()


def batch():
    history = torch.tensor([[0, 0, 3, 7], [1, 2, 3, 4], [0, 0, 0, 0]])
    return Batch(torch.arange(ROWS), history, (history > 0).long(), torch.zeros_like(history))


def scores(model, data, candidates):
    with torch.no_grad():
        return model.score(data, candidates)


@pytest.mark.parametrize("pooling", ["mean", "sum"])
def test_scores_are_the_net_over_pooled_history_and_target(pooling):
    model, data = build(pooling=pooling), batch()
    found = scores(model, data, torch.arange(1, N + 1).expand(ROWS, -1))
    items, shops = model.items.tables
    vectors = torch.cat([items.weight, shops.weight[torch.arange(N + 1) % 4]], 1)
    for row, seen in enumerate(([3, 7], [1, 2, 3, 4], [])):
        pooled = sum((vectors[item] for item in seen), torch.zeros(8))
        if pooling == "mean":
            pooled = pooled / max(len(seen), 1)
        for target in range(1, N + 1):
            expected = model.head(torch.cat([pooled, vectors[target]])[None])[0, 0]
            torch.testing.assert_close(found[row, target - 1], expected, atol=1e-5, rtol=1e-4)


def test_order_of_the_history_does_not_matter():
    model, data = build(), batch()
    turned = Batch(data.user[1:2], data.history[1:2].flip(1), data.behavior[1:2], data.timestamp[1:2])
    candidates = torch.tensor([[5, 6, 7]])
    expected = scores(model, data.rows(slice(1, 2)), candidates)
    torch.testing.assert_close(scores(model, turned, candidates), expected)


def test_loss_is_binary_cross_entropy_over_positives_and_negatives():
    model, data = build(), batch()
    target, label = torch.tensor([1, 2, 3, 4, 5, 6]), torch.tensor([1.0, 0, 1, 0, 1, 0])
    rows = (x.repeat_interleave(2, 0) for x in (data.user, data.history, data.behavior, data.timestamp))
    shown = Batch(*rows, target=target, label=label)
    expected = F.binary_cross_entropy_with_logits(scores(model, data, target.view(3, 2)).flatten(), label)
    torch.testing.assert_close(model.loss(shown)["loss"].detach(), expected)


def test_it_trains_on_target_events_with_four_negatives_each():
    (stage,) = build().stages()
    assert stage.view == Impressions(50, 4, 10)
