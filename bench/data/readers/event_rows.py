"""Where an event of a log stands: its file and row, found by reading one block again."""

from bench.data.readers.blocks import blocks
from bench.data.readers.log import GOOD, ROW, LogFiles
from bench.data.schema import EventStream, Position


def row_of(stream: EventStream, start: Position, number: int) -> str:
    """Return file and row of an event in words; of another stream than `LogFiles` the number of the event.

    Args:
        stream: the log.
        start: of the part that holds the event.
        number: of the event inside the part, from 0.
    """
    if not isinstance(stream, LogFiles):
        return f"event {number + 1}"
    block = next(blocks(stream.files, start))
    _, rows = stream.checked(block)
    good = rows.filter(GOOD)
    # Each row gives its events in order, so the row asked for is the first whose head gives enough of them.
    low, high = 0, len(good) - 1
    while low < high:
        middle = (low + high) // 2
        events = stream.select(good.head(middle + 1).drop(ROW, GOOD).lazy()).collect()
        low, high = (low, middle) if len(events) > number else (middle + 1, high)
    return f"{block.path}: row {good[ROW][low]}"
