"""The text files among the raw ones that hold the events, and altered copies of them."""

from dataclasses import dataclass
from pathlib import Path

from bench.data.contract.subject import Read, Subject
from bench.data.readers.folder import files_of
from bench.errors import UserError

SEPARATORS = (b"\t", b"\x01", b"::", b",", b";", b"|")
FEWEST = 4  # rows of a file that can be altered


@dataclass(frozen=True)
class RawText:
    """A text file with one record per line."""

    path: Path
    header: tuple[bytes, ...]
    """Its first lines up to the header, where it has one."""
    lines: tuple[bytes, ...]
    """All lines after these."""

    @property
    def rows(self) -> int:
        """Number of lines that are not blank, without the header."""
        return sum(bool(line.strip()) for line in self.lines)

    def joined(self, lines: tuple[bytes, ...]) -> bytes:
        """Return the text with other lines after the header."""
        return b"".join(line + b"\n" for line in (*self.header, *lines))

    def reversed(self) -> bytes:
        """Return the text with its rows the other way round."""
        return self.joined(self.lines[::-1])

    def halved(self) -> bytes:
        """Return the text without the second half of its rows."""
        return self.joined(self.lines[: len(self.lines) // 2])

    def with_cut_row(self) -> tuple[int, bytes]:
        """Return the row, from 1, of a line that was put in, and the text: another line up to its first
        separator, or its first half where there is none, as of an object in JSON.
        """
        middle = len(self.lines) // 2
        line = next(line for line in self.lines[middle:] + self.lines if line.strip())
        marks = [mark for mark in SEPARATORS if mark in line]
        whole = line.lstrip()[:1] in (b"{", b"[") or not marks
        cut = line[: len(line) // 2] if whole else line.split(max(marks, key=line.count))[0]
        return len(self.header) + middle + 1, self.joined((*self.lines[:middle], cut, *self.lines[middle:]))


def raw_texts(subject: Subject) -> list[RawText]:
    """Return the text files without whose second half there are other events."""
    assert subject.raw is not None
    paths = files_of(subject.raw) if subject.raw.is_dir() else [subject.raw]
    texts = [text for path in paths if (text := _text_of(path)) is not None]
    return [text for text in texts if _holds_events(text, subject)]


def _holds_events(text: RawText, subject: Subject) -> bool:
    try:
        with subject.altered({text.path: text.halved()}) as copy:
            read: Read = subject.read(copy)
            return not subject.first.same_events(read)
    except UserError:
        return False


def _text_of(path: Path) -> RawText | None:
    """Return a text file by lines; None where it is none, or a short one."""
    data = path.read_bytes()
    if b"\0" in data[:65536] or data[:2] == b"\x1f\x8b" or path.suffix == ".zip":
        return None
    lines = tuple(data.removesuffix(b"\n").split(b"\n"))
    first = next((number for number, line in enumerate(lines) if line.strip()), 0)
    has_header = not any(bytes([sign]).isdigit() for sign in lines[first]) if lines else False
    start = first + 1 if has_header else 0
    text = RawText(path, lines[:start], lines[start:])
    return text if text.rows >= FEWEST else None
