"""The knowledge graph of KMCLR: triples (item, relation, entity) from attributes or from click streams.

Letters: U users, N items, E entities, R relations, T triples per item, n items asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.interface import TrainingEvents

WINDOW = 5
"""Clicks of one user no further apart than this window are neighbors."""
LEAST = 2
"""Times that two items must be neighbors."""
ROUNDS = 20
"""Draws after which a false tail is left out."""


@dataclass(frozen=True)
class Triples:
    """Up to T (relation, entity) pairs per item; relation R and entity E stand for none."""

    relation: Tensor
    """(N + 1, T) int64."""
    entity: Tensor
    """(N + 1, T) int64."""
    num_relations: int
    num_entities: int

    @property
    def mask(self) -> Tensor:
        """(N + 1, T) bool, True where there is a triple."""
        return self.relation < self.num_relations

    @property
    def heads(self) -> Tensor:
        """(H,) items that have a triple."""
        return torch.nonzero(self.mask.any(1))[:, 0]

    def to(self, device: torch.device) -> "Triples":
        """Return the triples on a device."""
        relation, entity = self.relation.to(device), self.entity.to(device)
        return Triples(relation, entity, self.num_relations, self.num_entities)

    def draw(self, heads: Tensor) -> tuple[Tensor, Tensor]:
        """Return relation (n,) and entity (n,) of a random triple of each head (n,), which has one."""
        chance = self.mask[heads].float()
        slot = torch.multinomial(chance, 1)[:, 0]
        return self.relation[heads, slot], self.entity[heads, slot]

    def false_tails(self, heads: Tensor, relation: Tensor) -> tuple[Tensor, Tensor]:
        """Return entities (n,) of other items that form no triple with head and relation, and where none was
        met, (n,) False.
        """
        everyone = self.heads
        tail, good = torch.zeros_like(heads), torch.zeros_like(heads, dtype=torch.bool)
        for _ in range(ROUNDS):
            drawn = self.draw(everyone[torch.randint(len(everyone), (len(heads),), device=heads.device)])[1]
            tail = torch.where(good, tail, drawn)
            same = (self.relation[heads] == relation[:, None]) & (self.entity[heads] == tail[:, None])
            good = ~same.any(1)
            if bool(good.all()):
                break
        return tail, good


def from_attributes(attributes: Mapping[str, NDArray[Any]], num_items: int, most: int) -> Triples:
    """Return one relation per attribute, its values as entities of their own.

    Args:
        attributes: name -> (N + 1,) integer ids, 0 where absent.
        num_items: N.
        most: T; further attributes are left out, by name.
    """
    names = sorted(attributes)[:most]
    relation = np.full((num_items + 1, max(len(names), 1)), len(names), np.int64)
    entity = np.zeros_like(relation)
    count = 0
    for column, name in enumerate(names):
        values, index = np.unique(attributes[name].astype(np.int64), return_inverse=True)
        present = attributes[name] > 0
        relation[present, column] = column
        entity[:, column] = count + index
        count += len(values)
    entity[relation == len(names)] = count
    return Triples(torch.from_numpy(relation), torch.from_numpy(entity), len(names), count)


def from_clicks(events: TrainingEvents, shallow: tuple[int, ...], most: int) -> Triples:
    """Return one relation, `often clicked next to`, between items that are neighbors in the training streams.

    Args:
        events: the training part.
        shallow: behavior ids whose events are clicks.
        most: T, the most frequent neighbors; among equals the lower id.
    """
    clicks = np.isin(events.behavior, shallow)
    user, item, width = events.user[clicks], events.item[clicks].astype(np.int64), events.num_items + 1
    keys, counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for gap in range(1, min(WINDOW, len(item))):
        a, b = item[:-gap], item[gap:]
        pair = (user[:-gap] == user[gap:]) & (a != b)
        both = np.concatenate([a[pair] * width + b[pair], b[pair] * width + a[pair]])
        new, number = np.unique(both, return_counts=True)
        keys, where = np.unique(np.concatenate([keys, new]), return_inverse=True)
        counts = np.bincount(where, np.concatenate([counts, number]), len(keys)).astype(np.int64)
    keys, counts = keys[counts >= LEAST], counts[counts >= LEAST]
    order = np.lexsort((keys, -counts, keys // width))  # by head, most frequent first
    head, tail = keys[order] // width, keys[order] % width
    rank = np.arange(len(head)) - np.searchsorted(head, head)
    keep = rank < most
    relation, entity = np.ones((width, most), np.int64), np.full((width, most), width, np.int64)
    relation[head[keep], rank[keep]] = 0
    entity[head[keep], rank[keep]] = tail[keep]
    return Triples(torch.from_numpy(relation), torch.from_numpy(entity), 1, width)
