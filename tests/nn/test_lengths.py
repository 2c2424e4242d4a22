"""Rows of like length together: which rows share a part, and that no result depends on it."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bench import registry
from bench.contract import Subject, training_batches
from bench.nn.lengths import by_length, like_lengths

SIZE = torch.tensor([3, 0, 8, 1, 2, 8, 4, 5])
COLUMN = torch.arange(8)


def test_a_part_ends_where_a_row_is_at_most_half_as_long_as_its_longest() -> None:
    parts = [SIZE[rows].tolist() for rows in like_lengths(SIZE)]
    assert parts == [[8, 8, 5], [4, 3], [2], [1], [0]]


@pytest.mark.parametrize("rows", [0, 1, 7, 64, 100])
def test_every_row_is_in_one_part_and_no_part_is_too_small(rows: int) -> None:
    size = torch.randint(0, 51, (rows,), generator=torch.Generator().manual_seed(rows))
    parts = list(like_lengths(size))
    assert torch.cat(parts).sort().values.tolist() == list(range(rows))
    assert all(8 * len(part) >= rows for part in parts) and len(parts) <= 8


def test_equal_lengths_are_one_part() -> None:
    assert len(list(like_lengths(torch.full((64,), 50)))) == 1


@pytest.mark.parametrize(("padding", "room"), [("left", 0), ("right", 0), ("right", 2), ("left", 2)])
def test_parts_are_cut_to_their_longest_row_and_put_back_in_order(padding: Any, room: int) -> None:
    real = (COLUMN >= 8 - SIZE[:, None]) if padding == "left" else (COLUMN < SIZE[:, None])
    items = torch.where(real, torch.arange(64).view(8, 8) + 1, 0)
    widths: list[int] = []

    def seen(part: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
        widths.append(part.shape[1])
        return torch.stack([part, part + 100], 2), number * 2

    wide, twice = by_length(seen, SIZE, items, torch.arange(8), padding=padding, room=room)
    assert widths == [min(width + room, 8) for width in (8, 4, 2, 1)] + [max(room, 1)]
    assert torch.equal(wide[..., 0], items) and torch.equal(twice, 2 * torch.arange(8))
    assert torch.equal(wide[..., 1][real], items[real] + 100)
    assert torch.equal(by_length(lambda part: part[..., None], SIZE, items, padding=padding)[..., 0], items)


def test_a_batch_without_rows_is_computed() -> None:
    nothing = torch.zeros(0, 4)
    assert by_length(lambda part: part[..., None], torch.zeros(0).long(), nothing).shape == (0, 4, 1)


@pytest.mark.parametrize("name", ["sasrec", "sasrec-ce", "bert4rec", "stosa", "mb_str"])
def test_no_loss_or_gradient_depends_on_the_parts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = registry.select(name)[0]
    kind = entry.load()
    model = (
        Subject(kind, kind.Config(**entry.card.options)).build().eval()
    )  # eval: dropout draws would differ
    stage = model.stages()[0]
    batch = max(training_batches(stage, 0), key=len)
    assert len(list(like_lengths(batch.mask.sum(1)))) > 1

    def result() -> list[Tensor]:
        torch.manual_seed(1)  # negatives
        model.zero_grad()
        loss = model.loss(batch)["loss"]
        loss.backward()
        return [loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]

    def whole(function: Callable[..., Any], size: Tensor, *parts: Tensor) -> Any:
        return function(*parts)

    parts = result()
    monkeypatch.setattr(sys.modules[kind.__module__], "by_length", whole)
    for one, other in zip(parts, result(), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)
