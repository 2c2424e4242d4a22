import polars as pl
import pytest

from bench.data.readers.ratings import by_rating, check_threshold, require_favor, rule_text
from bench.errors import UserError

STARS = pl.DataFrame({"item": [7, 8, 9], "stars": [3.5, 4.0, 1.0]})


@pytest.mark.parametrize("kind", [pl.DataFrame, pl.LazyFrame])
def test_nested_gives_a_click_a_rating_and_a_favor_right_after_a_high_one(kind) -> None:
    events = by_rating(kind(STARS), "stars", 4, "nested").lazy().collect()
    assert events.select("item", "behavior").rows() == [
        (7, "click"),
        (8, "click"),
        (8, "favor"),
        (9, "click"),
    ]


def test_disjoint_gives_one_event_a_rating_and_keeps_the_order() -> None:
    events = by_rating(STARS, "stars", 3.5, "disjoint")
    assert events.select("item", "behavior").rows() == [(7, "favor"), (8, "favor"), (9, "click")]
    assert events["behavior"].dtype == pl.String


def test_no_rating_at_all_gives_no_event() -> None:
    assert by_rating(STARS.clear(), "stars", 4, "nested").is_empty()


def test_the_rule_in_words_names_the_threshold() -> None:
    assert rule_text(4.0, "nested") == "every rating -> click, rating >= 4 -> favor as well, at the same time"
    assert rule_text(4.5, "disjoint") == "rating >= 4.5 -> favor, any other rating -> click"


def test_a_threshold_above_all_ratings_is_refused_with_the_highest_of_them() -> None:
    require_favor(4.0, 4, "ratings.csv")
    with pytest.raises(UserError, match=r"^ratings.csv: favor_rating = 4.5: .* take 4 or less$"):
        require_favor(4.0, 4.5, "ratings.csv")


def test_a_threshold_beside_the_scale_is_refused() -> None:
    check_threshold(1, 1, 5)
    check_threshold(5, 1, 5)
    for wrong in (0.5, 5.5, float("nan")):
        with pytest.raises(UserError, match="expected stars from 1 to 5"):
            check_threshold(wrong, 1, 5)
