"""Does a trained model look at its pictures? Its ranks where items show the content of others, or none.

The weights stay; only what stands behind an item id changes, at test time. `ids permuted` is the reverse: an
item keeps its image and text and takes the id of another one, in histories and candidates alike.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bench.code_hash import statements
from bench.data.protocol.shuffle import permutation
from bench.data.protocol.task import Task
from bench.data.schema import ItemContent, Touched
from bench.evaluation.ranks import Held, rank
from bench.experiments.kept import load_trained
from bench.experiments.record import Cell
from bench.experiments.store import Store
from bench.files import replacing
from bench.interface import Batch
from bench.registry import Entry
from bench.training.data import held_part, training_data
from bench.training.device import pick

EVERYTHING = "everything"
IDS = "ids permuted"
NAMES = {"image": ("no image", "images permuted"), "text": ("no text", "texts permuted")}
SEED = 1


@dataclass(frozen=True)
class Condition:
    """What items show."""

    owner: Mapping[str, NDArray[np.int64]]
    """Modality -> (N + 1,) the item whose vector each item shows; 0 is none."""
    label: NDArray[np.int64] | None = None
    """(N + 1,) the id that each item takes; None is its own."""


def conditions(content: ItemContent) -> dict[str, Condition]:
    """Return the conditions that the modalities of a data set allow, by name, the unchanged one first.

    A permutation moves the vectors of a modality among the items that have it; ids move among all items.
    """
    held = [name for name in NAMES if name in content.present and content.present[name].any()]
    rows = content.num_items + 1
    made = {EVERYTHING: Condition({})}
    for name in held:
        made[NAMES[name][0]] = Condition({name: np.zeros(rows, np.int64)})
    for name in held:
        made[NAMES[name][1]] = Condition({name: permutation(content.present[name], name)})
    if held:
        label = np.zeros(rows, np.int64)
        label[1:] = np.random.default_rng(SEED).permutation(content.num_items) + 1
        owner = np.zeros(rows, np.int64)
        owner[label] = np.arange(rows)  # the item that took this id shows its own content under it
        made[IDS] = Condition(dict.fromkeys(held, owner), label)
    return made


def stressed(
    cell: Cell, entry: Entry, task: Task, store: Store, device: str, evaluation_batch: int
) -> dict[str, NDArray[np.int32]]:
    """Return condition -> (S,) test ranks of a trained cell, from the store or measured and stored.

    Raises:
        UserError: the weights of the cell cannot be read.
    """
    path = store.stress_path(cell, code())
    wanted = conditions(task.dataset.content)
    if path.is_file():
        with np.load(path) as stored:
            return {name: stored[name] for name in wanted}
    on, data = pick(device), training_data(task)
    test = held_part(task, task.interactions, task.split.test, task.test)
    ranks = {}
    for name, condition in wanted.items():
        model = load_trained(cell, entry, data, store.weights_path(cell), on)
        owner = {modality: torch.from_numpy(rows).to(on) for modality, rows in condition.owner.items()}
        with torch.no_grad():
            model.exchange_content(owner)
        batches = test.batches(model.max_history, evaluation_batch)
        where = f"{cell.model}, {name}"
        ranks[name] = rank(model, relabelled(test.held, condition.label),
                           relabelled_batches(batches, condition.label), on, where)  # fmt: skip
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **ranks)
    return ranks


def relabelled(held: Held, label: NDArray[np.int64] | None) -> Held:
    """Return held-out items and candidates under other ids; the draws of ties stay."""
    if label is None:
        return held
    touched = label[held.touched.item]
    user = np.repeat(np.arange(len(held.touched.offsets) - 1), np.diff(held.touched.offsets))
    order = np.lexsort((touched, user))
    return replace(
        held,
        items=label[held.items],
        negatives=None if held.negatives is None else label[held.negatives].astype(np.int32),
        touched=Touched(held.touched.offsets, touched[order].astype(np.int32)),
    )


def relabelled_batches(
    batches: Iterator[tuple[NDArray[np.int64], Batch]], label: NDArray[np.int64] | None
) -> Iterator[tuple[NDArray[np.int64], Batch]]:
    """Yield the batches with their histories under other ids."""
    table = None if label is None else torch.from_numpy(label)
    for rows, batch in batches:
        yield rows, batch if table is None else replace(batch, history=table[batch.history])


def code() -> str:
    """Return the hash of this file: ranks made by other code are measured again."""
    return hashlib.sha256(statements(Path(__file__)).encode()).hexdigest()
