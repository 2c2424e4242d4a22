"""Ratings as the two behaviors click and favor: one rule for every data set that has stars and no behaviors.

`nested`: who rates an item has seen it, so each rating is a click whatever its stars, and a high one a favor
as well, at the same time and right after its click; favors are then a subset of the clicks. `disjoint`: a
rating is a favor or else a click.
"""

from pathlib import Path
from typing import Literal, TypeVar

import polars as pl

from bench.errors import UserError

BEHAVIORS = ("click", "favor")
Rule = Literal["disjoint", "nested"]
Frame = TypeVar("Frame", pl.DataFrame, pl.LazyFrame)


def by_rating(frame: Frame, rating: str, favor_rating: float, rule: Rule) -> Frame:
    """Return the rows with a column `behavior`; under `nested` a high rating gives two rows, click first.

    Args:
        frame: one row a rating.
        rating: numeric column with the stars.
        favor_rating: ratings from here on are a favor, in stars.
        rule: `nested` or `disjoint`.
    """
    favored = pl.col(rating) >= favor_rating
    high, low = (["click", "favor"] if rule == "nested" else ["favor"]), ["click"]
    behavior = pl.when(favored).then(pl.lit(high)).otherwise(pl.lit(low))
    return frame.with_columns(behavior.alias("behavior")).explode("behavior")


def rule_text(favor_rating: float, rule: Rule) -> str:
    """Return the rule in the words that go under every table."""
    if rule == "nested":
        return f"every rating -> click, rating >= {favor_rating:g} -> favor as well, at the same time"
    return f"rating >= {favor_rating:g} -> favor, any other rating -> click"


def require_favor(highest: float, favor_rating: float, source: Path | str) -> None:
    """Raise a UserError unless a rating reaches the threshold.

    Args:
        highest: the highest rating there is, in stars.
        favor_rating: the threshold, in stars.
        source: file or data set, for the message.
    """
    if highest < favor_rating:
        problem = f"favor_rating = {favor_rating:g}: no rating is that high"
        raise UserError(f"{source}: {problem}; take {highest:g} or less")


def check_threshold(favor_rating: float, low: float, high: float) -> None:
    """Raise a UserError unless the threshold lies on the scale of the ratings, from `low` to `high` stars."""
    if not low <= favor_rating <= high:
        raise UserError(f"favor_rating = {favor_rating:g}: expected stars from {low:g} to {high:g}")
