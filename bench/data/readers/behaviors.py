"""Raw behaviors of a log and what they are called, shallow -> deep: the option `behaviors` of its reader."""

from collections.abc import Callable, Mapping, Sequence

import polars as pl

from bench.data.schema import TOUCHED
from bench.errors import UserError, hint


def events(names: Mapping[str, str], column: str = "behavior") -> Callable[[pl.LazyFrame], pl.LazyFrame]:
    """Return the usual `select`: raw behaviors become their names, those without one `TOUCHED`.

    Args:
        names: raw value -> behavior.
        column: typed column of the raw behavior.
    """

    def select(typed: pl.LazyFrame) -> pl.LazyFrame:
        behavior = pl.col(column).replace_strict(names, default=TOUCHED, return_dtype=pl.String)
        return typed.select("user", "item", behavior.alias("behavior"), "timestamp")

    return select


def behavior_names(entries: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """Return raw value -> behavior, shallow -> deep, of entries such as `pv=click` or `pv`.

    Args:
        entries: the option `behaviors`.
        known: raw values of the log.

    Raises:
        UserError: an entry is malformed, given twice, or names a value that the log does not have.
    """
    names: dict[str, str] = {}
    for entry in entries:
        value, _, name = (part.strip() for part in entry.rpartition("="))
        value = value or name
        if not name or value in names:
            example = f"{known[0]}=click,{known[-1]}=favor"
            raise UserError(f"behaviors: '{entry}': expected each value once, as in {example}")
        if value not in known:
            raise UserError(f"behaviors: '{entry}': no raw behavior '{value}'; {hint(value, known)}")
        names[value] = name
    if not names:
        expected = f"expected raw=name, shallow to deep; known: {', '.join(known)}"
        raise UserError(f"behaviors: nothing given; {expected}")
    return names


def mapping_text(names: Mapping[str, str], known: Sequence[str]) -> str:
    """Return the mapping in words: what became what, and what is no event."""
    words = [f"{value} -> {name}" for value, name in names.items()]
    return ", ".join(words + [f"{value} dropped" for value in known if value not in names])
