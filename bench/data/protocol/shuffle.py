"""Features permuted over the items, or taken away: the controls that tell whether a model reads them at all.

`data.shuffle_modality` and `data.drop_modality` act when a data set is opened, so they need no raw files and
hold for any prepared folder. Events, ids and candidates stay. Permuted, each item that has the modality gets
the vector of another such item: what is learned of content is lost, while width, scale and coverage are the
same. Taken away, no item has it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.schema import Dataset
from bench.errors import UserError, hint

OPTION, DROP = "shuffle_modality", "drop_modality"
GONE = "-"
"""Stands before a modality that is taken away."""
SHUFFLED, WITHOUT = "@shuffled-", "@without-"
SEED = 0


def take_shuffle(overrides: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Split `data.*` overrides into those of a preparation and the modalities to be shuffled, ascending; one
    that is to be taken away has a minus before it.
    """
    chosen = []
    for option, sign in ((OPTION, ""), (DROP, GONE)):
        given = overrides.get(option) or ()
        names = given.split(",") if isinstance(given, str) else given
        chosen += [sign + name for name in {name.strip() for name in names} - {"", "none", "null"}]
    rest = {key: value for key, value in overrides.items() if key not in (OPTION, DROP)}
    return rest, tuple(sorted(chosen))


def changes_of(name: str) -> tuple[str, tuple[str, ...]]:
    """Return the name of the true data set, and what was changed, as `take_shuffle` gives it."""
    base, _, without = name.partition(WITHOUT)
    base, _, permuted = base.partition(SHUFFLED)
    gone = [GONE + part for part in without.split("-") if part]
    return base, tuple(sorted([*(part for part in permuted.split("-") if part), *gone]))


def shuffled(dataset: Dataset, modalities: tuple[str, ...]) -> Dataset:
    """Return a data set whose features of some modalities are permuted over the items that have them, or
    gone.

    Name, fingerprint, and names and hashes of the encoders tell it from the true one. The permuted vectors
    are held in memory.

    Args:
        dataset: stays as it is.
        modalities: as `take_shuffle` gives them; none gives the data set itself.

    Raises:
        UserError: the data set has no vectors of a modality.
    """
    if not modalities:
        return dataset
    content, made = dataset.content, dict(dataset.metadata.get("encoders", {}))
    features, present = dict(content.features), dict(content.present)
    for modality in [name.removeprefix(GONE) for name in modalities]:
        if modality not in features:
            known = hint(modality, features) if features else "it has vectors of none"
            fix = f"{known}; prepare it with an encoder, or leave data.{OPTION} and data.{DROP} out"
            raise UserError(f"{dataset.name}: has no {modality} vectors to be shuffled; {fix}")
        if GONE + modality in modalities:
            for held in (features, present, made):
                held.pop(modality, None)
            continue
        order = permutation(content.present[modality], modality)
        features[modality] = np.asarray(features[modality][order])
        known = made.get(modality, {"name": "given features"})
        made[modality] = {
            **known,
            "name": f"{known['name']}, SHUFFLED over the items (control)",
            "hash": _changed(str(known.get("hash", "")), modalities),
        }
    fingerprint = _changed(dataset.fingerprint, modalities)
    metadata = {**dataset.metadata, "encoders": made, "fingerprint": fingerprint, "shuffled": modalities}
    permuted = [name for name in modalities if not name.startswith(GONE)]
    gone = [name.removeprefix(GONE) for name in modalities if name.startswith(GONE)]
    name = dataset.name + (SHUFFLED + "-".join(permuted) if permuted else "")
    name += WITHOUT + "-".join(gone) if gone else ""
    content = replace(content, features=features, present=present)
    return replace(dataset, name=name, content=content, metadata=metadata)


def permutation(present: NDArray[np.bool_], modality: str) -> NDArray[np.int64]:
    """Return (N + 1,) the row whose vector each row gets: a permutation of the present rows, the same for
    the same mask and modality; other rows keep their own.
    """
    seed = int.from_bytes(hashlib.sha256(modality.encode()).digest()[:8])
    order, rows = np.arange(len(present)), np.flatnonzero(present)
    order[rows] = np.random.default_rng([SEED, seed]).permutation(rows)
    return order


def _changed(digest: str, modalities: tuple[str, ...]) -> str:
    return hashlib.sha256(json.dumps([digest, "shuffled", SEED, *modalities]).encode()).hexdigest()
