"""Features permuted over the items: the control that tells whether a model reads their content at all.

`data.shuffle_modality` acts when a data set is opened, so it needs no raw files and holds for any prepared
folder. Events, ids, masks and candidates stay; each item that has the modality gets the vector of another
such item. What is learned of content is then lost, while width, scale and coverage are the same.
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

OPTION = "shuffle_modality"
SEED = 0


def take_shuffle(overrides: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Split `data.*` overrides into those of a preparation and the modalities to be shuffled, ascending."""
    given = overrides.get(OPTION) or ()
    names = given.split(",") if isinstance(given, str) else given
    chosen = {name.strip() for name in names} - {"", "none", "null"}
    return {key: value for key, value in overrides.items() if key != OPTION}, tuple(sorted(chosen))


def shuffled(dataset: Dataset, modalities: tuple[str, ...]) -> Dataset:
    """Return a data set whose features of some modalities are permuted over the items that have them.

    Name, fingerprint, and names and hashes of the encoders tell it from the true one. The permuted vectors
    are held in memory.

    Args:
        dataset: stays as it is.
        modalities: ascending; none gives the data set itself.

    Raises:
        UserError: the data set has no vectors of a modality.
    """
    if not modalities:
        return dataset
    content, made = dataset.content, dict(dataset.metadata.get("encoders", {}))
    features = dict(content.features)
    for modality in modalities:
        if modality not in features:
            known = hint(modality, features) if features else "it has vectors of none"
            fix = f"{known}; prepare it with an encoder, or leave data.{OPTION} out"
            raise UserError(f"{dataset.name}: has no {modality} vectors to be shuffled; {fix}")
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
    name = f"{dataset.name}@shuffled-{'-'.join(modalities)}"
    return replace(dataset, name=name, content=replace(content, features=features), metadata=metadata)


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
