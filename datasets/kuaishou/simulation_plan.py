"""Who clicks and favors what in a simulated Kuaishou log: sizes of the paper, long tails, planted tastes.

Model. A photo belongs to one of K topics. A user has four interests, topics that attract 32, 24, 16 and 8 %
of the clicks; the other fifth goes to any topic. Each interest has its own time, so clicks on a topic lie
close together. Clicks per user (gamma) and per photo (log-normal, so that most photos are clicked a few
times and few photos often) are fixed beforehand; topics get as many photos as their clicks need, and clicks
of users and photos of one topic are then matched at random, no pair twice. Favors are drawn among the pairs,
more of them on better photos and on the first interest.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

USERS, PHOTOS, PAIRS, CLICKS, FAVORS = 22_793, 618_529, 5_852_725, 255.02, 40.96  # M3BSR, Table 1
CLICK_RATE = 0.2024  # clicks over rows in the raw release
SKIPPED_PHOTOS = 0.05  # photos that are shown and never clicked, beside each one that is
SMALLEST = 0.005  # below, users click on a large part of all photos
INTERESTS = (0.32, 0.24, 0.16, 0.08)
USER_SHAPE, PHOTO_SIGMA = 2.0, 1.7  # of the gamma and the log-normal law
LEAST_PAIRS = 10  # of a user; 5 would do for the paper's filter
QUALITY, FIRST_INTEREST = 0.7, 1.0  # log-odds of a favor: deviation over photos, extra of the first interest
ROUNDS = 60  # of swaps; the second half looks for a partner in all topics

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Sizes:
    """Whole numbers at one scale."""

    users: int
    photos: int
    """That somebody clicks or favors."""
    skipped: int
    """Photos that are shown only."""
    pairs: int
    """Distinct pairs of user and photo with a click or favor: the paper's interactions."""
    clicks: int
    favors: int
    rows: int
    """Exposures, with or without click."""
    topics: int


@dataclass(frozen=True)
class Plan:
    """All pairs in the order of time, and the topics that they follow."""

    sizes: Sizes
    user: NDArray[np.int32]
    """(P,) 0-based user."""
    photo: NDArray[np.int32]
    """(P,) 0-based photo."""
    when: Floats
    """(P,) ascending, 0 to 1."""
    favored: NDArray[np.bool_]
    """(P,)."""
    clicked: NDArray[np.bool_]
    """(P,); False where a photo was favored without a click."""
    topic: NDArray[np.int32]
    """(photos + skipped,) 0-based topic of each photo."""


def sizes(scale: float) -> Sizes:
    """Return the paper's sizes times `scale`; averages per user stay."""
    users, photos = round(USERS * scale), round(PHOTOS * scale)
    return Sizes(
        users=users,
        photos=photos,
        skipped=round(photos * SKIPPED_PHOTOS),
        pairs=round(PAIRS / USERS * users),
        clicks=round(CLICKS * users),
        favors=round(FAVORS * users),
        rows=round(CLICKS * users / CLICK_RATE),
        topics=int(np.clip(round(users**0.5 / 2), 8, 64)),
    )


def plan(size: Sizes, rng: np.random.Generator) -> Plan:
    """Draw all clicks and favors.

    Args:
        size: what `sizes` returned for a scale of `SMALLEST` or more.
        rng: source of everything.
    """
    most = max(size.users // 8, 3 * size.pairs // size.photos)
    weights = rng.lognormal(sigma=PHOTO_SIGMA, size=size.photos)
    of_photo = apportion(weights, size.pairs, 1, most)
    weights = rng.gamma(USER_SHAPE, size=size.users)
    of_user = apportion(weights, size.pairs, LEAST_PAIRS, size.photos // 3)
    owner = np.repeat(np.arange(size.users), of_user)  # of each click to be matched, (P,)
    interest, topic, when = _wishes(owner, size, rng)
    photo_topic = _supply(of_photo, np.bincount(topic, minlength=size.topics))
    photo = np.repeat(np.arange(size.photos), of_photo)  # ascending by topic
    wish, keep = match(owner, topic, photo, photo_topic[photo], rng)
    wish, photo = wish[keep], photo[keep]
    order = np.argsort(when[wish], kind="stable")
    wish, photo = wish[order], photo[order]
    favored, clicked = _favors(photo, interest[wish] == 0, size, rng)
    skipped = rng.integers(size.topics, size=size.skipped)
    return Plan(
        size, owner[wish].astype(np.int32), photo.astype(np.int32), when[wish], favored, clicked,
        np.concatenate([photo_topic, skipped]).astype(np.int32),
    )  # fmt: skip


def apportion(weights: Floats, total: int, least: int, most: int) -> Integers:
    """Return whole numbers from `least` to `most`, about in proportion to (n,) weights, that sum to `total`.

    `total` lies between n * least and n * most.
    """
    counts = np.full(len(weights), least, np.int64)
    while left := total - int(counts.sum()):
        share = np.where(counts < most, weights, 0)
        share *= left / share.sum()
        added = np.minimum(share.astype(np.int64), most - counts)
        if not added.any():
            room = np.flatnonzero(counts < most)
            added[room[np.argsort(-share[room], kind="stable")[:left]]] = 1
        counts += added
    return counts


def _wishes(owner: Integers, size: Sizes, rng: np.random.Generator) -> tuple[Integers, Integers, Floats]:
    """Return (P,) which interest a click follows (4: none), its topic, and its time from 0 to 1."""
    interests = np.argsort(rng.random((size.users, size.topics)), axis=1)[:, : len(INTERESTS)]
    interest = np.searchsorted(np.cumsum(INTERESTS), rng.random(len(owner)), side="right")
    topic = rng.integers(size.topics, size=len(owner))
    follows = interest < len(INTERESTS)
    topic[follows] = interests[owner[follows], interest[follows]]
    phase = rng.random((size.users, len(INTERESTS) + 1))
    when = (phase[owner, interest] + rng.random(len(owner))) / 2
    return interest, topic, when


def _supply(of_photo: Integers, demand: Integers) -> Integers:
    """Return (N,) the topic of each photo, ascending, so that topics have about as many clicks as wished."""
    return np.searchsorted(np.cumsum(demand), np.cumsum(of_photo), side="left").clip(max=len(demand) - 1)


def match(
    owner: Integers, topic: Integers, photo: Integers, photo_topic: Integers, rng: np.random.Generator
) -> tuple[Integers, NDArray[np.bool_]]:
    """Give each click of a photo to a wish of the same topic, as far as no user gets a photo twice.

    Args:
        owner: (P,) user of each wish.
        topic: (P,) its topic.
        photo: (P,) photo of each click, ascending by topic.
        photo_topic: (P,) its topic.
        rng: of the random order and of swaps.

    Returns:
        (P,) the wish of each click, and True but for the rare pairs that no swap could make distinct.
    """
    wish = np.lexsort((rng.random(len(owner)), topic))
    bounds = np.searchsorted(photo_topic, np.arange(photo_topic[-1] + 2))
    for turn in range(ROUNDS):
        again = repeated(owner[wish], photo)
        if not len(again):
            break
        at = photo_topic[again] if turn < ROUNDS // 2 else None
        low, high = (0, len(wish)) if at is None else (bounds[at], bounds[at + 1])
        partner, first = np.unique(rng.integers(low, high, size=len(again)), return_index=True)
        free = ~np.isin(partner, again)
        one, other = again[first][free], partner[free]
        wish[one], wish[other] = wish[other], wish[one]
    keep = np.ones(len(wish), np.bool_)
    keep[repeated(owner[wish], photo)] = False
    return wish, keep


def repeated(user: Integers, photo: Integers) -> Integers:
    """Return the indices whose pair of user and photo occurs at an earlier index too."""
    key = user * (int(photo.max()) + 1) + photo  # (P,) one number per (user, photo)
    order = np.argsort(key, kind="stable")  # (P,) equal pairs side by side, the earliest first
    return order[1:][key[order[1:]] == key[order[:-1]]]


def _favors(
    photo: Integers, first: NDArray[np.bool_], size: Sizes, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return (P,) which pairs are favored, and which are clicked: all but some of those favored."""
    quality = rng.normal(scale=QUALITY, size=size.photos)
    liking = quality[photo] + FIRST_INTEREST * first + rng.gumbel(size=len(photo))
    chosen = np.argpartition(-liking, size.favors)[: size.favors]
    favored, clicked = np.zeros((2, len(photo)), np.bool_)
    favored[chosen] = True
    clicked[:] = True
    clicked[rng.permutation(chosen)[: max(0, len(photo) - size.clicks)]] = False
    return favored, clicked
