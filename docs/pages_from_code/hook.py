"""Adds the pages that are made from code and from files elsewhere in the repository to the site.

MkDocs calls `on_files` once per build (`hooks` in mkdocs.yml).
"""

from collections.abc import Iterator
from pathlib import Path

import command_pages
import data_pages
import model_pages
import notebook_page
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent.parent
COPIED = {
    "results-format.md": "results/README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "models/m3bsr-measured.md": "models/m3bsr/NOTES.md",
    "parity.md": "results/reference/parity.md",
}
"""Page -> the file of the repository that it shows as it is."""
FIGURES = "results/reference/pictures"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Return the files of the site with the generated ones."""
    for path, text in texts():
        files.append(File.generated(config, path, content=text))
    for picture in sorted((ROOT / FIGURES).glob("*.png")):
        files.append(File.generated(config, f"figures/{picture.name}", abs_src_path=str(picture)))
    return files


def texts() -> Iterator[tuple[str, str]]:
    """Yield the path and the Markdown text of each generated page."""
    yield from model_pages.pages()
    yield from data_pages.pages()
    yield from command_pages.pages()
    for notebook in sorted((ROOT / "docs").glob("*.ipynb")):
        yield f"{notebook.stem}.md", notebook_page.page(notebook)
    for page, source in COPIED.items():
        yield page, (ROOT / source).read_text(encoding="utf-8")
