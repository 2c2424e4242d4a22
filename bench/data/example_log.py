"""A small made-up log, to try a reader on: the raw files that the reader of `bench new dataset` reads."""

import json
from pathlib import Path
from random import Random

USERS, ITEMS, EVENTS = 60, 150, 15
FIRST_TIME = 1_700_000_000  # seconds
COLORS = ("red", "green", "blue", "white", "black")
THINGS = ("lamp", "chair", "table", "shelf", "mirror", "clock", "vase", "rug")
MARKER = "SIMULATED.json"


def write_example(folder: Path) -> None:
    """Write events.csv, items.csv and the marker of made-up files into a new folder.

    A user goes through items of one color and likes every third; carts are there to be left out. The same
    on every machine.
    """
    draw = Random(0)
    folder.mkdir(parents=True)
    rows = []
    for user in range(1, USERS + 1):
        color, time = draw.randrange(len(COLORS)), FIRST_TIME + draw.randrange(10**6)
        for number in range(EVENTS):
            item = draw.randrange(ITEMS // len(COLORS)) * len(COLORS) + color + 1
            behavior = "like" if number % 3 == 2 else "cart" if draw.random() < 0.1 else "view"
            time += draw.randrange(60, 7200)
            rows.append((time, f"u{user},i{item},{behavior},{time}"))
    lines = [line for _, line in sorted(rows)]
    _write(folder / "events.csv", ["user,item,behavior,timestamp", *lines])
    _write(folder / "items.csv", ["item,title", *(f'i{item + 1},"{_title(item)}"' for item in range(ITEMS))])
    marker = {"made by": "bench new dataset", "seed": 0}
    (folder / MARKER).write_text(json.dumps(marker) + "\n", encoding="utf-8")


def _title(item: int) -> str:
    color, thing = COLORS[item % len(COLORS)], THINGS[item // len(COLORS) % len(THINGS)]
    return f"{color} {thing}, no. {item + 1}"


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
