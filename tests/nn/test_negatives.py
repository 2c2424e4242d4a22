"""Draws from the items that a user has not touched."""

import torch

from bench.nn.negatives import UntouchedItems


def test_untouched_items_are_drawn_uniformly_and_never_from_the_training_set() -> None:
    torch.manual_seed(4)
    user = torch.tensor([0, 0, 0, 0, 2, 2, 3, 3, 3, 3, 3, 3, 3])
    item = torch.tensor([1, 2, 2, 8, 4, 5, 1, 2, 3, 4, 5, 6, 7])
    drawn = UntouchedItems(user, item, num_users=4, num_items=8).draw(torch.arange(4), (20_000,))
    free = [[3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 6, 7, 8], [8]]
    for row, expected in zip(drawn, free, strict=True):
        items, counts = row.unique(return_counts=True)
        assert items.tolist() == expected
        statistic = ((counts - 20_000 / len(expected)) ** 2 / (20_000 / len(expected))).sum()
        assert float(statistic) < 30  # chi-square, 7 degrees of freedom: p about 1e-4


def test_a_user_who_touched_everything_still_gets_items() -> None:
    sampler = UntouchedItems(
        torch.zeros(3, dtype=torch.int64), torch.tensor([1, 2, 3]), num_users=1, num_items=3
    )
    drawn = sampler.draw(torch.tensor([0]), (50,))
    assert drawn.min() >= 1 and drawn.max() <= 3
