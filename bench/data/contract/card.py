"""Checks of a data set's card and of the names of its behaviors."""

import re

from bench.data.contract.subject import Subject

TEXTS = ("title", "licence", "published", "behaviors", "modalities", "size")
SHALLOW = re.compile(r"view|click|pv|exposure|impression|show|watch", re.IGNORECASE)
DEEP = re.compile(r"buy|bought|purchase|order|transaction|pay|checkout", re.IGNORECASE)


def check_the_card_says_all_there_is_to_say(subject: Subject) -> str:
    """No field of the card is empty, and `files` says what has to be brought where something has."""
    card = subject.reader.card
    wanted = (*TEXTS, "files") if card.needs_raw else TEXTS
    empty = [name for name in wanted if not str(getattr(card, name)).strip()]
    assert not empty, (
        f"read the card and saw nothing in {', '.join(empty)}; look at CARD = DatasetCard(...): terms, "
        "source and files are what `bench data list` shows to whoever has to bring the files"
    )
    lines = [name for name in (*wanted, "dirt") if "\n" in str(getattr(card, name))]
    assert not lines, f"read the card and saw line ends in {', '.join(lines)}; look there: one line each"
    return ""


def check_the_last_behavior_is_the_deepest(subject: Subject) -> str:
    """The target is no view or click where a purchase is among the behaviors, and the mapping is said."""
    raw = subject.first.raw
    *others, target = raw.behaviors
    deeper = [name for name in others if DEEP.search(name)]
    assert not (SHALLOW.search(target) and deeper), (
        f"read the behaviors and saw {' -> '.join(raw.behaviors)}, so that '{target}' is the target and "
        f"'{deeper[0]}' shallower; look at RawData(behaviors=...): shallow to deep, the last one is predicted"
    )
    assert raw.mapping.strip(), (
        "read the mapping and saw nothing; look at RawData(mapping=...): how raw behaviors became "
        f"{', '.join(raw.behaviors)}, in the words that go under every table"
    )
    return " -> ".join(raw.behaviors)
