"""What README and docs tell a reader to type: found in the files, so that no command is missed."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SHELLS = ("", "sh", "bash", "console")
"""Languages of fenced blocks whose lines are commands."""
SHOWN = (
    "results/README.md", "results/reference/README.md", "results/reference/parity.md", "CONTRIBUTING.md",
    "models/m3bsr/NOTES.md",
)  # fmt: skip
"""Files elsewhere that the site shows."""


def pages() -> list[Path]:
    """Return the files that tell commands: README, docs, and what else the site shows."""
    docs = ROOT / "docs"
    written = [*docs.rglob("*.md"), *docs.rglob("pages_from_code/*.py")]
    return [ROOT / "README.md", *sorted(written), *(ROOT / name for name in SHOWN)]


def commands() -> list[str]:
    """Return every `bench` command of a fenced block or of a table, once, in the order of the files."""
    found = (one for path in pages() for one in (*_blocks(path, SHELLS), *_cells(path)))
    lines = (part.strip() for text in found for part in text.split("&&"))
    return list(dict.fromkeys(line for line in lines if line.startswith("bench ")))


def python_blocks() -> list[tuple[str, str]]:
    """Return (file and number, code) of every fenced block of Python."""
    return [
        (f"{path.name} {number}", code)
        for path in pages()
        if path.suffix == ".md"
        for number, code in enumerate(_fenced(path, ("python",)))
    ]


def mentions() -> list[str]:
    """Return inline code that begins with `bench` and is no command to be run: names of commands in prose."""
    known = set(commands())
    found = (text for path in pages() for text in re.findall(r"`(bench [^`\n]+)`", _prose(path)))
    return [text for text in dict.fromkeys(found) if text not in known]


def words_of(command: str) -> list[str]:
    """Return the words of a command behind `bench`."""
    return shlex.split(command)[1:]


def _blocks(path: Path, languages: tuple[str, ...]) -> Iterator[str]:
    """Yield the lines of fenced blocks, those that go on behind a backslash joined."""
    for block in _fenced(path, languages):
        yield from re.sub(r"\\\n\s*", " ", block).splitlines()


def _fenced(path: Path, languages: tuple[str, ...]) -> Iterator[str]:
    fence = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
    for indent, language, text in fence.findall(path.read_text(encoding="utf-8")):
        if language in languages:
            yield "\n".join(line.removeprefix(indent) for line in text.splitlines())


def _cells(path: Path) -> Iterator[str]:
    """Yield the cells of tables that are one command and nothing else."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("|"):
            for cell in line.split("|"):
                if match := re.fullmatch(r"`(bench [^`]+)`", cell.strip()):
                    yield match.group(1)


def _prose(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
