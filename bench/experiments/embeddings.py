"""What items look like at the stages of a trained model, and whether items of a kind lie together there.

A picture of t-SNE is one draw of many: what decides are numbers in the full space (silhouette, purity of the
nearest neighbors), and how much the numbers of the picture vary with the seed of the projection.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bench.data.protocol.task import Task
from bench.data.schema import Dataset
from bench.errors import UserError, hint
from bench.experiments.kept import load_trained
from bench.experiments.record import Record
from bench.experiments.store import Store
from bench.registry import Entry, select
from bench.training.data import training_data
from bench.training.device import pick

KINDS = 10
"""Most kinds that are colored; the others are `other`."""
NEIGHBORS = 10
OTHER, UNKNOWN = "other", "unknown"


@dataclass(frozen=True)
class View:
    """Items at one stage of a model."""

    name: str
    items: NDArray[np.int64]
    """(n,) ascending."""
    vectors: NDArray[np.float32]
    """(n, D) mean over the events of an item."""


@dataclass(frozen=True)
class Spread:
    """How well kinds lie together."""

    silhouette: float
    """From -1 to 1, over items of a kind, in the full space."""
    purity: float
    """Share of the 10 nearest neighbors that are of the same kind, in the full space."""
    chance: float
    """Purity where neighbors are drawn at random."""
    flat_silhouettes: tuple[float, ...]
    """Silhouette of each projection, one per seed."""
    flat_purities: tuple[float, ...]


@torch.no_grad()
def views_of(record: Record, entry: Entry, task: Task, store: Store, batches: int = 20) -> list[View]:
    """Return the views that a trained model offers of the items in the histories of the validation users.

    Raises:
        UserError: its weights were not kept, or it offers no views.
    """
    path = store.weights_path(record.cell)
    who = f"{record.label}, seed {record.cell.seed}"
    if not path.is_file():
        fix = f"bench run --models {record.cell.model} --dataset {record.cell.dataset} --keep-model"
        raise UserError(f"{who}: its weights were not kept; run it again: {fix}")
    device, data = pick("cpu"), training_data(task)
    model = load_trained(record.cell, entry, data, path, device)
    sums: dict[str, NDArray[np.float64]] = {}
    counts: dict[str, NDArray[np.int64]] = {}
    torch.manual_seed(0)
    for number, (_, batch) in enumerate(data.validation.batches(model.max_history, 128)):
        if number == batches:
            break
        for name, (items, vectors) in model.item_views(batch).items():
            rows = vectors.double().numpy()
            total = sums.setdefault(name, np.zeros((data.info.num_items + 1, rows.shape[1])))
            count = counts.setdefault(name, np.zeros(data.info.num_items + 1, np.int64))
            np.add.at(total, items.numpy(), rows)
            np.add.at(count, items.numpy(), 1)
    if not sums:
        raise UserError(f"{who}: the model offers no views of its items (Recommender.item_views)")
    made = []
    for name, total in sums.items():
        seen = np.flatnonzero(counts[name])
        made.append(View(name, seen, (total[seen] / counts[name][seen][:, None]).astype(np.float32)))
    return made


def named_views(records: Sequence[Record], task: Task, store: Store) -> dict[str, View]:
    """Return the views of several trained models by name; raw inputs, the same for all, stand once.

    Raises:
        UserError: as `views_of`.
    """
    views: dict[str, View] = {}
    for record in records:
        (entry,) = select(record.cell.model)
        for view in views_of(record, entry, task, store):
            prefix = f"{record.label}: " if len(records) > 1 else ""
            views.setdefault(view.name if view.name.endswith("raw") else prefix + view.name, view)
    return views


def kinds_of(dataset: Dataset, color: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return (N + 1,) the kind of each item and the names of the kinds, the most frequent first.

    The last names are `other` and `unknown`, which are not counted in any figure.

    Args:
        dataset: the data set.
        color: an attribute; `cluster`, the planted one of generated data; or words of the titles joined by
            commas, of which an item takes the first that its title has.

    Raises:
        UserError: there is none of these.
    """
    known = [*dataset.content.attributes, *(["cluster"] if _planted(dataset) is not None else [])]
    if color in dataset.content.attributes:
        raw = dataset.items[color].cast(str).fill_null("").to_list()
        labels = [""] + [str(value) for value in raw]
    elif color == "cluster" and (planted := _planted(dataset)) is not None:
        labels = [""] + [f"cluster {value}" for value in planted[1:]]
    elif "title" in dataset.items.columns and ("," in color or color not in ("cluster",)):
        words = [word.strip() for word in color.split(",") if word.strip()]
        titles = [f" {title or ''} ".lower() for title in dataset.items["title"].to_list()]
        found = [next((word for word in words if f" {word.lower()} " in title), OTHER) for title in titles]
        if len(words) < 2 or set(found) <= {OTHER}:
            fix = f"{hint(color, known)}; or words of the titles, such as Comedy,Drama" if known else \
                "give words of the titles joined by commas, such as Comedy,Drama"  # fmt: skip
            raise UserError(f"--color {color}: no such attribute, and not two words of the titles; {fix}")
        labels = ["", *found]
    else:
        fix = hint(color, known) if known else "it has neither attributes, planted clusters nor titles"
        raise UserError(f"--color {color}: {dataset.name} has no such attribute; {fix}")
    names, counts = np.unique([label for label in labels if label not in ("", OTHER)], return_counts=True)
    kept = [str(name) for name in names[np.argsort(-counts, kind="stable")][:KINDS]]
    order = (*kept, OTHER, UNKNOWN)
    place = {name: number for number, name in enumerate(order)}
    ids = [place[UNKNOWN] if not label else place.get(label, place[OTHER]) for label in labels]
    return np.array(ids, np.int64), order


def _planted(dataset: Dataset) -> NDArray[np.int64] | None:
    path = None if dataset.folder is None else dataset.folder / "truth.npz"
    if path is None or not path.is_file():
        return None
    with np.load(path) as truth:
        return np.asarray(truth["item_cluster"], np.int64) if "item_cluster" in truth else None


def sample(view: View, kinds: NDArray[np.int64], most: int, colored: int) -> View:
    """Return at most `most` items of a view, of the colored kinds first, drawn with a fixed seed."""
    rng = np.random.default_rng(0)
    order = rng.permutation(len(view.items))
    order = order[np.argsort(kinds[view.items[order]] >= colored, kind="stable")][:most]
    order = np.sort(order)
    return View(view.name, view.items[order], view.vectors[order])


def project(vectors: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Return (n, 2) t-SNE of vectors (n, D), standardised."""
    from sklearn.manifold import TSNE

    scaled = standardised(vectors)
    perplexity = min(30.0, max((len(vectors) - 1) / 3, 1.0))
    flat: NDArray[np.float32] = TSNE(
        perplexity=perplexity, init="random", random_state=seed, max_iter=500
    ).fit_transform(scaled)
    return flat


def standardised(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return vectors with mean 0 and variance 1 in each coordinate."""
    scaled: NDArray[np.float32] = (vectors - vectors.mean(0)) / np.maximum(vectors.std(0), 1e-6)
    return scaled


def together(vectors: NDArray[np.float32], kinds: NDArray[np.int64]) -> tuple[float, float]:
    """Return silhouette and neighbor purity of vectors (n, D) of kinds (n,).

    Raises:
        UserError: fewer than two kinds with two items.
    """
    from sklearn.metrics import silhouette_score
    from sklearn.neighbors import NearestNeighbors

    counts = np.bincount(kinds)
    if (counts > 1).sum() < 2:
        raise UserError("fewer than two kinds with two items each are seen; choose another --color")
    near = NearestNeighbors(n_neighbors=min(NEIGHBORS + 1, len(vectors))).fit(vectors)
    index = near.kneighbors(return_distance=False, n_neighbors=min(NEIGHBORS, len(vectors) - 1))
    purity = float((kinds[index] == kinds[:, None]).mean())
    return float(silhouette_score(vectors, kinds)), purity


def spread(
    view: View, kinds: NDArray[np.int64], colored: int, flats: Sequence[NDArray[np.float32]]
) -> Spread:
    """Return how well the colored kinds lie together in a view and in its projections."""
    own = kinds[view.items]
    shown = own < colored
    silhouette, purity = together(standardised(view.vectors)[shown], own[shown])
    share = np.bincount(own[shown]) / max(int(shown.sum()), 1)
    flat = [together(part[shown], own[shown]) for part in flats]
    return Spread(
        silhouette, purity, float((share**2).sum()),
        tuple(one[0] for one in flat), tuple(one[1] for one in flat),
    )  # fmt: skip
