"""Generated events, pictures and texts with planted truth: the knobs plant what M3BSR claims to exploit.

Model. An item has factors z = [s, v, w] (shared, visual, textual): a cluster's center plus a deviation,
each part scaled to a length of its own, the same for all items. Its popularity falls as a power of its
rank. A user has a persistent taste p and an interest that moves over the clusters as a Markov chain: it
stays, goes on to the planted successor of the cluster, or jumps. At an event with behavior b and interest
k the item is drawn, never twice for one user, with

    probability of i ~ popularity_i * exp(preference_strength * <m, a_b * z_i> / |a_b|),
    m = sqrt(1 - drift) * p + sqrt(drift) * c_k,

where a_b weights the coordinates: with `behavior_preference` = 1 clicks look at [s, v] alone, favors at
[s, w]; at 0 both look at all. Accidental clicks are drawn by popularity alone. The image shows [s, v],
the text [s, w], each through a random linear map with noise; `content_strength` mixes these factors with
independent ones of the same law, so that at 0 pictures and texts say nothing of preference. Titles and
picture files are drawn from the same noisy factors as the vectors: the form changes the encoding, not the
information. A brand, where there are any, tells the cluster.

Every part has its own random stream: noise, missing shares, forms and `content_strength` change the
content and leave the events as they are, so two settings are compared on one log.

Defaults. 80,000 events over 3,000 items are 27 per item, 7 of them favors: too few to place an item among
16 factors by its id, while its picture and words show them at once. Popularity has to lie well below the
planted truth.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench.cards import DatasetCard
from bench.data.schema import RawData, RawFeatures
from bench.datasets.synthetic.choice import choose
from bench.datasets.synthetic.content import brands, pictures, show, split_factors, titles, visible_factors

CARD = DatasetCard(
    name="synthetic",
    title="generated clicks and favors with planted tastes, images and texts; any size",
    real=False,
    licence="none needed: generated",
    published="made by this program; see the docstring of datasets/synthetic/__init__.py for the model",
    files="",
    behaviors="click (follows the image's view of an item), favor (follows the text's view)",
    modalities="image and text: vectors, or picture files and titles",
    size="any; default 2,000 users, 3,000 items, about 80,000 events",
    dirt="accidental clicks, noise and missing content are planted by options",
    needs_raw=False,
)

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

COLD_USERS = 0.5  # share of the users whose last favor is an item that nobody met before
STAY, FOLLOW = 0.5, 0.4  # chances of an interest; the rest jumps to any cluster
CENTER_SHARE = 0.5  # of the variance of a factor that lies between clusters
FIRST_TIME, DAY = 1_700_000_000, 86_400  # seconds


@dataclass(frozen=True)
class Options:
    """Size and planted structure."""

    users: int = 2000
    """U, 100 or more."""
    items: int = 3000
    """N, 200 or more."""
    events_per_user: int = 40
    """Mean events of a user; lengths vary from 5 to four times the mean."""
    factors: int = 16
    """F: a quarter is shared, the rest half visual, half textual."""
    clusters: int = 40
    """Number of interests."""
    image_size: int = 64
    """Width of the image vectors."""
    text_size: int = 64
    """Width of the text vectors."""
    seed: int = 0
    """Seed of everything."""
    preference_strength: float = 4.0
    """How sharply users choose: inverse temperature of the softmax, 0 is popularity alone."""
    popularity_skew: float = 0.8
    """Exponent of popularity over rank; 0 is flat."""
    content_strength: float = 1.0
    """Share of the variance of image and text that tells of the item's factors; 0 is without meaning."""
    image_noise: float = 0.5
    """Standard deviation of the noise of an image vector relative to its signal."""
    text_noise: float = 0.5
    """The same for texts."""
    behavior_preference: float = 0.5
    """0: both behaviors look at all factors; 1: clicks at the image's, favors at the text's alone."""
    accidental_clicks: float = 0.2
    """Share of the clicks drawn by popularity alone."""
    drift: float = 0.3
    """0: taste is fixed and order means nothing; 1: only the moving interest counts."""
    favor_share: float = 0.25
    """Share of events that are favors."""
    missing_image: float = 0.0
    """Share of items without an image."""
    missing_text: float = 0.0
    """Share of items without a text."""
    cold_items: float = 0.0
    """Share of items that nobody meets before the end: about half the users take one as their last favor."""
    brand_share: float = 0.0
    """Share of items whose brand is that of their cluster, the others' is any; 0: there are no brands."""
    image_form: Literal["vectors", "files"] = "vectors"
    """`vectors`: ready features. `files`: small PNG pictures in `image_folder`, for an image encoder."""
    text_form: Literal["vectors", "titles"] = "vectors"
    """`vectors`: ready features. `titles`: words alone, for a text encoder. Titles are there in both."""
    image_folder: str = ""
    """Folder for the pictures of `image_form=files`."""

    def __post_init__(self) -> None:
        least = {"users": 100, "items": 200, "events_per_user": 5, "factors": 4, "clusters": 2, "seed": 0}
        least |= {"image_size": 1, "text_size": 1, "preference_strength": 0, "popularity_skew": 0}
        least |= {"image_noise": 0, "text_noise": 0}
        for name, bound in least.items():
            if not bound <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be {bound} or more")
        shares = ("content_strength", "behavior_preference", "accidental_clicks", "drift", "favor_share")
        for name in (*shares, "missing_image", "missing_text", "brand_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1")
        if not 0 <= self.cold_items <= 0.5:
            raise ValueError("cold_items must be from 0 to 0.5")
        if self.image_form == "files" and not self.image_folder:
            raise ValueError("image_form=files needs image_folder=FOLDER")


@dataclass(frozen=True)
class Planted:
    """Items, tastes and the course of interests, before any item is chosen."""

    factors: Floats
    """(N, F) z."""
    centers: Floats
    """(K, F) cluster centers c, variance 1."""
    cluster: Integers
    """(N,) cluster of each item, 0..K-1."""
    popularity: Floats
    """(N,), sums to 1."""
    taste: Floats
    """(U, F) p."""
    lengths: Integers
    """(U,) events of each user."""
    interest: Integers
    """(U, L) cluster of the interest at each event."""
    kind: Integers
    """(U, L): 0 click, 1 favor, 2 accidental click."""


def read(raw: Path | None, options: Options) -> RawData:
    """Generate a data set.

    Args:
        raw: not used, nothing has to be brought.
        options: size and planted structure.

    Returns:
        Events sorted by user and time. `truth` holds item_factors (N, F), item_popularity (N,), item_cluster
        (N,) and cold (N,) bool in the order of `items`, and accidental (E,) bool in the order of `events`.

    Raises:
        UserError: the picture folder cannot be written.
    """
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(options.seed).spawn(8)]
    planted = plant(options, streams[0])
    cold = streams[7].permutation(options.items) < round(options.cold_items * options.items)  # (N,)
    chosen = choose(
        lambda users: log_weights(planted.taste[users], planted, options, 1 - options.drift),
        log_weights(planted.centers, planted, options, options.drift),
        planted.popularity * ~cold,
        (planted.lengths, planted.interest, planted.kind),
        streams[1].random(planted.interest.shape),
    )
    real = np.arange(planted.interest.shape[1]) < planted.lengths[:, None]  # (U, L)
    if cold.any():
        plant_cold(chosen, planted, options, np.flatnonzero(cold), streams[7])
    hidden, _, _ = _factors(options, streams[3])
    items, features = _content(planted, hidden, options, streams[4:7])
    kind = planted.kind[real]
    users = np.repeat(np.arange(options.users), planted.lengths)
    return RawData(
        events=_events(users, chosen[real] + 1, kind, _timestamps(real, streams[2])[real]),
        behaviors=("click", "favor"),
        mapping="generated: click and favor as drawn",
        items=items,
        attributes=("brand",) if options.brand_share else (),
        features=features,
        simulated=True,
        truth={
            "item_factors": planted.factors.astype(np.float32),
            "item_popularity": planted.popularity,
            "item_cluster": planted.cluster,
            "accidental": kind == 2,
            "cold": cold,
        },
    )


def _events(users: Integers, items: Integers, kind: Integers, times: Integers) -> pl.DataFrame:
    """Return the log of E events: users, items, kinds (1 is a favor) and seconds, each (E,)."""
    behavior = np.where(kind == 1, "favor", "click")
    return pl.DataFrame({"user": users, "item": items, "behavior": behavior, "timestamp": times})


def behavior_weights(options: Options) -> Floats:
    """Return (2, F) the unit-length weights of the factors for clicks and favors."""
    weights = np.full((2, options.factors), 1 - options.behavior_preference)
    for row, coordinates in enumerate(visible_factors(options.factors).values()):
        weights[row, coordinates] = 1
    return weights / np.linalg.norm(weights, axis=1, keepdims=True)


def plant(options: Options, rng: np.random.Generator) -> Planted:
    """Draw items, users and the course of their interests."""
    users, items, mean = options.users, options.items, options.events_per_user
    factors, centers, cluster = _factors(options, rng)
    popularity = (rng.permutation(items) + 1.0) ** -options.popularity_skew
    # Mean as asked, long tail to the right; a quarter of the catalog bounds it, for no item is taken twice.
    drawn = 5 + rng.gamma(2.0, (mean - 5) / 2, users).round()
    lengths = drawn.clip(5, min(4 * mean, items // 4)).astype(np.int64)
    shape = (users, int(lengths.max()))
    favors = rng.random(shape) < options.favor_share
    accidental = rng.random(shape) < options.accidental_clicks
    return Planted(
        factors=factors,
        centers=centers,
        cluster=cluster,
        popularity=popularity / popularity.sum(),
        taste=rng.standard_normal((users, options.factors)),
        lengths=lengths,
        interest=_interests(shape, options.clusters, rng),
        kind=np.where(favors, 1, np.where(accidental, 2, 0)),
    )


def _factors(options: Options, rng: np.random.Generator) -> tuple[Floats, Floats, Integers]:
    """Return item factors (N, F), centers (K, F) and clusters (N,)."""
    centers = rng.standard_normal((options.clusters, options.factors))
    cluster = rng.integers(options.clusters, size=options.items)
    deviation = rng.standard_normal((options.items, options.factors))
    factors = math.sqrt(CENTER_SHARE) * centers[cluster] + math.sqrt(1 - CENTER_SHARE) * deviation
    for part in split_factors(options.factors):  # equal lengths, or long z would be a second popularity
        length = np.linalg.norm(factors[:, part], axis=1, keepdims=True)
        factors[:, part] *= math.sqrt(part.stop - part.start) / length
    return factors, centers, cluster


def _interests(shape: tuple[int, int], clusters: int, rng: np.random.Generator) -> Integers:
    """Return (U, L) the Markov chain of interests; successors form one cycle through all clusters."""
    order = rng.permutation(clusters)
    successor = np.roll(order, -1)[np.argsort(order)]
    path = rng.integers(clusters, size=shape)  # where a jump would land
    move = rng.random(shape)
    for position in range(1, shape[1]):
        before, step = path[:, position - 1], move[:, position]
        moved = np.where(step < STAY + FOLLOW, successor[before], path[:, position])
        path[:, position] = np.where(step < STAY, before, moved)
    return path


def plant_cold(
    chosen: Integers, planted: Planted, options: Options, cold: Integers, rng: np.random.Generator
) -> None:
    """Replace the last favor of about half the users in `chosen` (U, L) by one of the cold items (C,), drawn
    by taste and interest as any favor; users whose last favor is their first event keep it.
    """
    positions = np.arange(chosen.shape[1])
    favors = (planted.kind == 1) & (positions < planted.lengths[:, None])
    last = np.where(favors, positions, -1).max(1)  # (U,)
    users = np.flatnonzero((last > 0) & (rng.random(len(last)) < COLD_USERS))
    interest = log_weights(planted.centers, planted, options, options.drift)[1][:, cold]  # (K, C)
    popularity = planted.popularity[cold]
    for part in np.array_split(users, -(-len(users) // 1024) or 1):
        taste = log_weights(planted.taste[part], planted, options, 1 - options.drift)[1][:, cold]
        logs = taste + interest[planted.interest[part, last[part]]] + np.log(popularity)
        summed = np.cumsum(np.exp(logs - logs.max(1, keepdims=True)), 1)
        point = rng.random(len(part)) * summed[:, -1]
        chosen[part, last[part]] = cold[(summed > point[:, None]).argmax(1)]


def log_weights(subjects: Floats, planted: Planted, options: Options, share: float) -> Floats:
    """Return (2, S, N) the log weight that tastes or centers (S, F) give each item, for clicks and favors."""
    scale = options.preference_strength * math.sqrt(share)
    return np.stack([(scale * subjects * a) @ planted.factors.T for a in behavior_weights(options)])


def _timestamps(real: NDArray[np.bool_], rng: np.random.Generator) -> Integers:
    """Return (U, L) seconds, rising inside a user by at least one."""
    gaps = 1 + rng.exponential(DAY / 4, real.shape).astype(np.int64)
    return FIRST_TIME + rng.integers(30 * DAY, size=(len(real), 1)) + np.cumsum(gaps, axis=1)


def _content(
    planted: Planted, hidden: Floats, options: Options, streams: list[np.random.Generator]
) -> tuple[pl.DataFrame, dict[str, RawFeatures]]:
    """Return the item table and the ready vectors; `hidden` are other factors (N, F) of the same law."""
    items = np.arange(1, options.items + 1)
    strength = options.content_strength
    factors = math.sqrt(strength) * planted.factors + math.sqrt(1 - strength) * hidden
    table = pl.DataFrame({"item": items})
    if share := options.brand_share:
        table = table.with_columns(brand=brands(planted.cluster, options.clusters, share, streams[2]))
    features = {}
    for (modality, coordinates), rng in zip(
        visible_factors(options.factors).items(), streams[:2], strict=True
    ):
        size, noise = getattr(options, f"{modality}_size"), getattr(options, f"{modality}_noise")
        vectors, seen = show(factors[:, coordinates], size, noise, rng)
        missing = round(getattr(options, f"missing_{modality}") * options.items)
        present = rng.permutation(options.items) >= missing
        if modality == "text":
            table = table.with_columns(pl.Series("title", titles(seen, present, rng), dtype=pl.String))
        if getattr(options, f"{modality}_form") == "vectors":
            features[modality] = RawFeatures(items[present].tolist(), vectors[present])
        elif modality == "image":
            paths = pictures(seen, present, Path(options.image_folder), rng)
            table = table.with_columns(pl.Series("image", paths, dtype=pl.String))
    return table, features
