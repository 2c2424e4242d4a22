"""What is in a prepared data set, in numbers. Needs no torch."""

from typing import Any

import numpy as np

from bench.data.schema import Dataset
from bench.data.split import split


def statistics(dataset: Dataset) -> dict[str, Any]:
    """Return the sizes and contents of a data set, ready for JSON.

    `interactions` and `behaviors` count what is kept, `raw_behaviors` what the raw files hold after the
    mapping, before any filter; `modalities` and `not_encoded` are fractions of the items; `events_per_user`
    runs over all users, also those without an event of the behavior; times are in the publisher's unit.
    """
    events, metadata = dataset.interactions, dataset.metadata
    counts = np.bincount(events.behavior, minlength=len(dataset.behaviors) + 1)
    has_events = len(events) > 0
    return {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "users": events.num_users,
        "items": dataset.num_items,
        "interactions": len(events),
        "behaviors": {name: int(counts[id_]) for id_, name in enumerate(dataset.behaviors, 1)},
        "raw_behaviors": dict(metadata.get("raw_behaviors", {})),
        "modalities": dataset.content.coverage(),
        "not_encoded": dict(metadata.get("not_encoded", {})),
        "target_in_history": target_in_history(dataset),
        "events_per_user": _events_per_user(dataset),
        "first_timestamp": int(events.timestamp.min()) if has_events else None,
        "last_timestamp": int(events.timestamp.max()) if has_events else None,
        "simulated": bool(metadata.get("simulated", False)),
        "mapping": str(metadata.get("mapping", "")),
        "encoders": dict(metadata.get("encoders", {})),
    }


def target_in_history(dataset: Dataset) -> float | None:
    """Return the fraction of test targets whose item the user has met before, under any behavior.

    Targets are the last target event of each user (leave-last-out); "before" is anywhere earlier among the
    events kept, nothing hidden. None where nobody has a target event.
    """
    events = dataset.interactions
    test = split(events, dataset.target_behavior).test
    if not len(test):
        return None
    pair = events.users() * (dataset.num_items + 1) + events.item
    _, first, which = np.unique(pair, return_index=True, return_inverse=True)
    return float((first[which[test]] < test).mean())


def _events_per_user(dataset: Dataset) -> dict[str, dict[str, float]]:
    events, found = dataset.interactions, {}
    user = events.users()
    for id_, name in enumerate(dataset.behaviors, 1):
        counts = np.bincount(user[events.behavior == id_], minlength=events.num_users)
        found[name] = {
            "mean": float(counts.mean()),
            "median": float(np.median(counts)),
            "max": int(counts.max()),
        }
    return found


def text_report(stats: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what `statistics` found as rows of a name and a text."""
    rows = [("fingerprint", stats["fingerprint"][:16])]
    rows += [(name, f"{stats[name]:,}") for name in ("users", "items", "interactions")]
    for name, count in stats["behaviors"].items():
        each, raw = stats["events_per_user"][name], stats["raw_behaviors"].get(name)
        before = "" if raw is None else f" of {raw:,} raw"
        shape = f"a user: mean {each['mean']:.2f}, median {each['median']:g}, most {each['max']:,}"
        rows.append((name, f"{count:,}{before}; {shape}"))
    for name, coverage in stats["modalities"].items():
        made = stats["encoders"].get(name, {})
        by = f" ({made['name']}, width {made['dim']}, hash {made['hash'][:12]})" if made else ""
        rows.append((name, f"{coverage:.1%} of the items{by}"))
    for name, share in stats["not_encoded"].items():
        encoder = "tfidf-svd" if name == "text" else "clip"
        rows.append((name, f"{share:.1%} of the items have one, not encoded (--set data.{name}={encoder})"))
    met = stats["target_in_history"]
    rows.append(("target in history", "no target" if met is None else f"{met:.1%} of the test targets"))
    rows.append(("timestamps", f"{stats['first_timestamp']} to {stats['last_timestamp']}"))
    rows.append(("mapping", stats["mapping"]))
    rows.append(("simulated", "yes" if stats["simulated"] else "no"))
    return rows
