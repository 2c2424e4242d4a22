"""The reader of the page "A data set of your own" does what the page says."""

import pytest

from bench.data.preparation.encoders import EncoderOptions
from bench.data.preparation.prepare import PrepareOptions, prepare
from bench.data.schema import TOUCHED
from bench.data.storage import load
from bench.errors import UserError
from tests.files import tiny_shop

LOG = """visitor,product,action,second
7,lamp,view,10
7,lamp,buy,20
7,shade,compare,30
8,lamp,view,40
8,cord,buy,50
"""


def test_views_and_purchases_are_events_and_other_rows_only_touch(tmp_path):
    (tmp_path / "log.csv").write_text(LOG)
    raw = tiny_shop.read(tmp_path, tiny_shop.Options())
    assert raw.events["behavior"].to_list() == ["click", "favor", TOUCHED, "click", "favor"]
    prepare(raw, "shop", tmp_path / "shop", PrepareOptions(min_events=1), EncoderOptions(), {})
    shop = load(tmp_path / "shop")
    assert shop.behaviors == ("click", "favor") and shop.interactions.num_users == 2
    assert len(shop.interactions) == 4


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"log\.csv: no such file; put log\.csv with the columns"):
        tiny_shop.read(tmp_path, tiny_shop.Options())
