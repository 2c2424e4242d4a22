"""The site is built as a reader gets it: warnings are errors, and nothing is fetched from elsewhere."""

import re
from html import unescape
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.config import option_names
from bench.data import library
from bench.registry import entries
from tests.docs.documented import ROOT

pytest.importorskip("material", reason="the part [docs] is not installed")

LOADED = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=\"?(?:https?:)?//[^\s\">]+")
"""What a browser would fetch from another host."""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The folder of the built site."""
    from mkdocs.__main__ import cli

    folder = tmp_path_factory.mktemp("site")
    words = ["build", "--strict", "--config-file", str(ROOT / "mkdocs.yml"), "--site-dir", str(folder)]
    done = CliRunner().invoke(cli, words, env={"NO_MKDOCS_2_WARNING": "1"})
    assert done.exit_code == 0, f"{done.output}\n{done.exception}"
    return folder


def article(path: Path) -> str:
    """Return the content of a page."""
    text = path.read_text(encoding="utf-8")
    return text[text.index("<article") : text.index("</article>")]


def words(html: str) -> str:
    """Return the text of a page, in single spaces."""
    return " ".join(unescape(re.sub(r"<[^>]+>", "", html)).split())


def test_no_page_loads_anything_from_another_host(site):
    loads = {path.name: LOADED.findall(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    assert len(loads) > 25
    assert {name: found for name, found in loads.items() if found} == {}


def test_tables_are_tables(site):
    for path in site.rglob("*.html"):
        if path.name != "404.html":
            shown = re.sub(r"<pre.*?</pre>", "", article(path), flags=re.DOTALL)
            assert "|---" not in shown and "| ---" not in shown, path


@pytest.mark.parametrize("name", entries())
def test_a_model_has_its_card_with_every_option_and_deviation(site, name):
    entry = entries()[name]
    page = article(site / "models" / f"{entry.card.family}.html")
    start = page.index(f'id="card-{name.replace("_", "-")}"')
    end = page.find("<h2", start)
    text = words(page[start : end if end > 0 else None])
    assert " ".join(entry.card.paper.split()) in text
    for option in option_names(entry.load().Config):
        assert option in text
    for deviation in entry.card.deviations:
        assert " ".join(deviation.replace("`", "").split()) in text
    assert ("Reconstruction" in text) == entry.card.reconstruction


@pytest.mark.parametrize("name", library.readers())
def test_a_data_set_has_its_card(site, name):
    text = words(article(site / "data-sets.html"))
    card = library.readers()[name]
    assert card.licence.replace("`", "") in text and card.files.replace("`", "") in text


def test_every_command_has_its_help_page(site):
    text = words(article(site / "command-help.html"))
    for command in ("run", "data prepare", "figure embeddings", "new model", "stress"):
        assert f"Usage: bench {command} [OPTIONS]" in text


def test_the_notebook_and_the_pictures_are_shown(site):
    notebook = article(site / "first-comparison.html")
    assert "behaviors, shallow to deep: ('click', 'favor')" in words(notebook) and "<table" in notebook
    for picture in re.findall(r'src="(figures/[^"]+)"', article(site / "analysis.html")):
        assert (site / picture).is_file()
