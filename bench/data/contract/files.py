"""Checks on altered copies of the raw files: a file less, a row cut off, the rows the other way round."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.data.contract.raw_text import RawText
from bench.data.contract.subject import Read, Subject
from bench.data.preparation.check import check_events, check_raw
from bench.data.readers.folder import files_of
from bench.data.readers.log import BAD
from bench.data.sources import ReaderError
from bench.errors import UserError

FILE_NAME = re.compile(r"[\w-]+\.(?:[A-Za-z]\w*|\*)")
MOST_FILES = 20  # left out one after another
SAME = 12  # letters by which a file's name is known: log_standard_*.csv stands for several


def check_a_missing_file_is_named(subject: Subject) -> str:
    """An empty folder, and each missing file that is needed, give one line that names the file."""
    if not subject.reader.card.needs_raw or subject.raw is None:
        return "not checked: no files are needed"
    with TemporaryDirectory(prefix="bench-test-") as empty:
        said = _refusal(subject, Path(empty))
        assert said, "read an empty folder and saw no error; raise a UserError that names the missing file"
        _require_name(said, subject, "read an empty folder", Path(empty).name, Path(empty))
    if not subject.raw.is_dir():
        return "an empty folder alone: --raw is a file"
    if not _small(subject):
        return "an empty folder alone: the files are large, try a folder with a part of each"
    needed: dict[str, UserError] = {}
    optional: list[str] = []
    for path in files_of(subject.raw)[:MOST_FILES]:
        with subject.altered({path: None}) as copy:
            said = _refusal(subject, copy)
            if said:
                _require_name(said, subject, f"left out {path.name}", path.name, copy)
                needed[path.name] = said
            else:
                optional.append(path.name)
    for name in _optional(subject.reader.card.files) & needed.keys():
        raise AssertionError(
            f"left out {name}, which the card calls optional, and saw: {_line(needed[name])}; look at where "
            "`read` opens it"
        )
    return f"needed: {', '.join(needed) or 'none alone'}; optional: {', '.join(optional) or 'none'}"


def _optional(files: str) -> set[str]:
    """Return the files that a card's `files` names behind the word optional."""
    parts = files.split("optional")[1:]
    return {name for part in parts for name in FILE_NAME.findall(part.partition(";")[0])}


def _refusal(subject: Subject, raw: Path, on_bad_row: str = "error") -> UserError | None:
    """Return what a reader, or the harness after it, says of raw files; None where they are read."""
    try:
        with subject.reader.blamed():
            read = subject.read(raw, on_bad_row)
            check_raw(read.raw)
            check_events(read.events, read.raw.behaviors)
            _ = read.items
            return None
    except UserError as error:
        return error


def _require_name(said: UserError, subject: Subject, done: str, name: str, folder: Path) -> None:
    """Check that a refusal is one line that names a file, or a file of the card."""
    names = {name, *FILE_NAME.findall(subject.reader.card.files)}
    words = names | {stem for one in names if len(stem := one.partition(".")[0]) > 2}
    text = str(said).replace(str(folder), "").lower()
    named = any(word.lower()[:SAME] in text for word in words)
    assert named and not _is_mistake(said), (
        f"{done} and saw: {_line(said)}; raise a UserError of one line that names the file "
        "and says where to get it (`log_file` does)"
    )


def _is_mistake(said: UserError) -> bool:
    """Return whether a refusal is a mistake of the reader's code, or more than one line."""
    return isinstance(said, ReaderError) or "\n" in str(said)


def _line(said: UserError) -> str:
    return " ".join(str(said).split())


def check_a_malformed_row_is_refused(subject: Subject) -> str:
    """A row that ends after its first field is refused by file and row."""
    texts = _texts(subject)
    if isinstance(texts, str):
        return texts
    for text in texts:
        row, broken = text.with_cut_row()
        done = f"cut row {row} of {text.path.name} off after its first field"
        with subject.altered({text.path: broken}) as copy:
            said = _refusal(subject, copy)
        assert said, (
            f"{done} and saw no word of it; refuse such a row by file and row, as LogFiles does: readers of "
            "tables fill short lines with nulls"
        )
        named = text.path.name in str(said) and re.search(rf"\brow {row}\b", str(said))
        assert named and not _is_mistake(said), (
            f"{done} and saw: {_line(said)}; name file and row, as LogFiles does"
        )
    return ", ".join(text.path.name for text in texts)


def check_malformed_rows_are_skipped_and_counted(subject: Subject) -> str:
    """With `--on-bad-row skip` the other rows are read as before, and the malformed one is counted."""
    if not hasattr(subject.reader.load().Options, "on_bad_row"):
        return "not checked: no option on_bad_row; Options(LogOptions) has one"
    texts = _texts(subject)
    if isinstance(texts, str):
        return texts
    for text in texts:
        row, broken = text.with_cut_row()
        done = f"cut row {row} of {text.path.name} off, read with --on-bad-row skip"
        with subject.altered({text.path: broken}) as copy:
            said = _refusal(subject, copy, "skip")
            assert said is None, f"{done} and saw: {_line(said)}; look at what is done with on_bad_row"
            read = subject.read(copy, "skip")
        assert subject.first.same_events(read), (
            f"{done} and saw {len(read.events):,} events, not the {len(subject.first.events):,} of the sound "
            "rows; look at what `skip` leaves out"
        )
        counted = read.left_out.get(BAD, 0) - subject.first.left_out.get(BAD, 0)
        assert counted == 1, (
            f"{done} and saw {counted} rows counted as '{BAD}'; count what is left out in Part.dropped, as "
            "LogFiles does"
        )
    return ""


def check_the_order_of_rows_does_not_matter(subject: Subject) -> str:
    """The rows of a file the other way round give the same events; only ties of time follow the file."""
    texts = _texts(subject)
    if isinstance(texts, str):
        return texts
    for text in texts:
        with subject.altered({text.path: text.reversed()}) as copy:
            said = _refusal(subject, copy)
            read = None if said else subject.read(copy)
        done = f"turned the rows of {text.path.name} round"
        assert read is not None, f"{done} and saw: {said}; look for what takes its rows to be in an order"
        assert subject.first.same_events(read), (
            f"{done} and saw {_first_other(subject.first, read)}; look for rows that are taken from the top, "
            "times or users that are carried on from the row before, times that are row numbers"
        )
    return ""


def check_every_row_is_accounted_for(subject: Subject) -> str:
    """Each row is an event, a touched item or counted as left out."""
    texts = _texts(subject)
    if isinstance(texts, str):
        return texts
    rows = sum(text.rows for text in texts)
    read = subject.first
    left_out = sum(read.left_out.values())
    missing = rows - len(read.events) - left_out
    assert missing <= 0, (
        f"counted {rows:,} rows in {', '.join(text.path.name for text in texts)} and saw "
        f"{len(read.events):,} events and touched items, {left_out:,} rows counted as left out: "
        f"{missing:,} vanish without a word; give rows outside the mapping the behavior TOUCHED "
        "(`behaviors.events` does), since no negative may be an item that its user has met; count others in "
        "Part.dropped (LogFiles(dropped=...))"
    )
    return f"{rows:,} rows"


def _first_other(first: Read, second: Read) -> str:
    """Return how the events of two reads differ, in whatever order they stand."""
    if len(first.events) != len(second.events):
        return f"{len(second.events):,} events, not {len(first.events):,}"
    other = second.events.join(first.events, on=first.events.columns, how="anti")
    return f"other events, such as {other.row(0)}" if len(other) else "other events"


def _texts(subject: Subject) -> list[RawText] | str:
    """Return the text files that hold the events, or why there are none to try on."""
    if subject.raw is None:
        return "not checked: no raw files were given"
    if not _small(subject):
        return "not checked: the files are large, try a folder with a part of each"
    return subject.texts or "not checked: no text file holds the events"


def _small(subject: Subject) -> bool:
    """Return whether the raw files can be read again and again."""
    assert subject.raw is not None
    files = files_of(subject.raw) if subject.raw.is_dir() else [subject.raw]
    return sum(path.stat().st_size for path in files) < 2**25
