"""Words that stand for a value that is missing: one list for ids, titles, brands and categories.

Databases, pandas, R and spreadsheets write a gap as such a word. As an id it would be one very busy user, as
a title or brand something that items share; so an id of this kind makes a malformed row, and whatever
describes an item counts as absent.
"""

import polars as pl

WORDS = ("nan", "none", "null", "na", "n/a", "#n/a", "<na>", "nat", r"\n")
"""Lower case, since case does not matter. The last two are a missing time in pandas and MySQL's NULL."""
MISSING = ("", *WORDS)


def stands_for_nothing(text: str) -> bool:
    """Return whether a text is blank or such a word, in any case and with blanks around it."""
    return text.strip().lower() in MISSING


def is_missing(text: pl.Expr) -> pl.Expr:
    """Return the same of a column; null where it is null."""
    return text.str.strip_chars().str.to_lowercase().is_in(MISSING)


def is_word(text: pl.Expr) -> pl.Expr:
    """Return the same, but False where the text is blank: where a blank means something else."""
    return text.str.strip_chars().str.to_lowercase().is_in(WORDS)


def present(text: pl.Expr) -> pl.Expr:
    """Return the text as it is, null where it stands for a missing value."""
    return pl.when(~is_missing(text)).then(text)
