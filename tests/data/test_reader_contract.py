"""What every reader of a data set must do: correct ones pass, each fault is found by its check."""

import importlib.resources
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.data import library
from bench.data.contract import CHECKS, run_checks
from bench.data.contract.subject import Subject
from bench.data.example_log import write_example
from bench.data.sources import find, registered

TEMPLATE = importlib.resources.files("bench.templates").joinpath("new_dataset.py").read_text(encoding="utf-8")
EVENTS = "select=events(names),"
RETURNED = "    return RawData(log, order, mapping_text(names, RAW_BEHAVIORS), items, "
LAST_LINES = TEMPLATE[TEMPLATE.index("    order = tuple") : TEMPLATE.index("def items_of")].rstrip()
MORE = """
def changed(typed: pl.LazyFrame, names: dict[str, str]) -> pl.LazyFrame:
    return events(names)(typed){}


class Beginning(LogFiles):
    def parts(self, start=None):
        from bench.data.schema import Position
        yield from super().parts(Position())


def vectors(value: float):
    import numpy as np
    from bench.data.schema import RawFeatures
    return {{"image": RawFeatures(["i1", "i2"], np.full((2, 3), value, np.float32))}}
"""


def with_select(change: str) -> dict[str, str]:
    """Return what changes the typed rows of the reader."""
    text = "select=lambda typed: changed(typed, names),"
    return {EVENTS: text, LAST_LINES: LAST_LINES + "\n\n" + MORE.format(change)}


def with_return(text: str) -> dict[str, str]:
    """Return what changes what the reader returns."""
    end = LAST_LINES.replace(
        "    return RawData(log, order, mapping_text(names, RAW_BEHAVIORS), items, ", text
    )
    assert end != LAST_LINES
    return {LAST_LINES: end + "\n\n" + MORE.format("")}


def same(text: str) -> str:
    return text


def one_like_per_user(text: str) -> str:
    seen: set[str] = set()
    lines = []
    for line in text.splitlines():
        user = line.partition(",")[0]
        lines.append(line.replace(",like,", ",view,") if user in seen else line)
        seen |= {user} if ",like," in line else set()
    return "\n".join(lines) + "\n"


FAULTS: dict[str, tuple[dict[str, str], Callable[[str], str], str, str]] = {
    "not read": (
        {"    names = ": "    options.colour\n    names = "}, same, "the_raw_files_are_read",
        r"my_set.py: line \d+: AttributeError: .* has no attribute 'colour'",
    ),
    "empty card": (
        {'licence="the terms of use, as the publisher states them"': 'licence=" "'}, same,
        "the_card_says_all_there_is_to_say", "saw nothing in licence; look at CARD",
    ),
    "column": (
        with_select(".rename({'user': 'visitor'})"), same, "events_have_their_four_columns",
        "and saw: events: no column 'user'.*rename or add it; look at `select`",
    ),
    "missing id": (
        {'present(pl.col("user"))': 'pl.col("user")'}, lambda text: text.replace("u7,", "nan,"),
        "no_id_is_missing",
        "saw: events, row .*: user is 'nan', expected an id.*; look at the field of the user",
    ),
    "undeclared behavior": (
        {"order = tuple(dict.fromkeys(names.values()))": 'order = ("view", "favor")'}, same,
        "behaviors_are_those_declared",
        "behavior is 'click', expected view, favor.*; look at the names in RawData",
    ),
    "no target": (
        {"order = tuple(dict.fromkeys(names.values()))": 'order = ("click", "favor", "buy")'}, same,
        "behaviors_are_those_declared", r"saw no 'buy', the target, but .*click \(5\d\d\)",
    ),
    "shallow target": (
        {'("view=click", "like=favor")': '("like=purchase", "view=click")'}, same,
        "the_last_behavior_is_the_deepest", "purchase -> click, so that 'click' is the target",
    ),
    "milliseconds": (
        with_select(".with_columns(pl.col('timestamp') * 1000)"), same,
        "times_are_seconds_or_say_their_unit", "saw milliseconds, .* divide to whole seconds, or say",
    ),
    "two units": (
        with_select(
            ".with_columns(pl.col('timestamp') * pl.when(pl.col('user') == 'u1').then(1000).otherwise(1))"
        ), same, "times_are_seconds_or_say_their_unit", r"saw several units: 8\d\d in s, 1\d in milliseconds",
    ),
    "dates as text": (
        with_select(".with_columns(pl.from_epoch('timestamp').cast(pl.String))"), same,
        "times_are_seconds_or_say_their_unit",
        "'timestamp' has type String; turn times into whole numbers.*; look at the field",
    ),
    "far future": (
        with_select(".with_columns(pl.col('timestamp') * 3)"), same,
        "times_are_seconds_or_say_their_unit", "after the year 2100; look at the field of the timestamp",
    ),
    "one time": (
        with_select(".with_columns(pl.lit(1_700_000_000).alias('timestamp'))"), same,
        "times_put_the_events_of_a_user_in_order", "saw one time for all events of each of 60 users",
    ),
    "twice": (
        {"files=(path,)": "files=(path, path)"}, same, "events_are_not_read_twice",
        r"saw that \d+ repeat an earlier one .* look for a file that is read twice",
    ),
    "one target event": (
        {}, one_like_per_user, "users_have_two_target_events",
        r"saw none with two events of 'favor', the target \(60 with one\).* order of the behaviors",
    ),
    "other items": (
        {'table.select("item",': 'table.select(("x" + pl.col("item")).alias("item"),'}, same,
        "items_are_those_of_the_events",
        "saw none of them: 'i1', .* in the events, 'xi1', .* in the table; look at the column of the id",
    ),
    "vectors": (
        with_return(f"{RETURNED}features=vectors(float('nan')), "), same,
        "vectors_are_finite_and_fit_their_items",
        "image features, row 1 .item i1.: NaN or infinite.*; look at `features`",
    ),
    "pictures": (
        {'table.select("item",': 'table.select("item", pl.lit("no.jpg").alias("image"),'},
        same, "pictures_are_where_the_items_say", "saw none, the first at no.jpg; look at the column 'image'",
    ),
    "random order": (
        with_return(f"    log = log.collect().sample(fraction=1.0, shuffle=True)\n{RETURNED}"), same,
        "every_read_gives_the_same", "read the events twice and saw row 1 as .*, then as .* look for",
    ),
    "order of a set": (
        with_return(
            "    rows = log.collect()\n"
            f"    log = pl.DataFrame(list(set(rows.rows())), schema=rows.schema, orient='row')\n{RETURNED}"
        ), same, "another_process_reads_the_same",
        "text has other hashes, and saw other events .* look for sets",
    ),
    "stream": (
        {"log = LogFiles(": "log = Beginning(", LAST_LINES: LAST_LINES + "\n\n" + MORE.format("")}, same,
        "a_stream_goes_on_from_any_part", "began after part 1 of 1 and saw 900 events in place of 0; look at",
    ),
    "missing file": (
        {'log_file(raw, CARD.name, ("events.csv",))': "sorted(raw.glob('e*.csv'))[0]"}, same,
        "a_missing_file_is_named",
        "an empty folder and saw: .*IndexError.*raise a UserError of one line that",
    ),
    "optional file": (
        {"    if not path.is_file():\n        return None\n": ""}, same,
        "a_missing_file_is_named", "left out items.csv, which the card calls optional, and saw: .*items.csv",
    ),
    "swallowed row": (
        {"on_bad_row=options.on_bad_row": 'on_bad_row="skip"'}, same, "a_malformed_row_is_refused",
        r"cut row 452 of events.csv off after its first field and saw no word of it; refuse such a row",
    ),
    "row without its file": (
        with_return(
            "    text = pl.read_csv(path, truncate_ragged_lines=True)\n"
            f"    log = events(names)(text.lazy()).collect()\n{RETURNED}"
        ), same, "a_malformed_row_is_refused",
        "saw: events, row 451: item is None.*name file and row, as LogFiles does",
    ),
    "uncounted row": (
        with_return(f"    log = log.collect()\n{RETURNED}"), same,
        "malformed_rows_are_skipped_and_counted", "saw 0 rows counted as 'malformed rows'; count",
    ),
    "first rows": (
        with_select(".head(500)"), same, "the_order_of_rows_does_not_matter",
        "turned the rows of events.csv round and saw other events, such as .* taken from the top",
    ),
    "not touched": (
        with_select(".filter(pl.col('behavior') != '(outside the mapping)')"), same,
        "every_row_is_accounted_for",
        r"counted 900 rows in events.csv and saw 831 .* 69 vanish without a word; .* the behavior TOUCHED",
    ),
}  # fmt: skip


@pytest.fixture
def own(tmp_path: Path) -> Callable[..., Subject]:
    """Return a function that writes the template with changes, and its log, for the checks."""

    def make(changes: dict[str, str], edit: Callable[[str], str] = same) -> Subject:
        text = TEMPLATE
        for old, new in changes.items():
            assert old in text, old
            text = text.replace(old, new)
        (tmp_path / "my_set.py").write_text(text)
        write_example(tmp_path / "raw")
        log = tmp_path / "raw" / "events.csv"
        log.write_text(edit(log.read_text()))
        return Subject(find(str(tmp_path / "my_set.py")), tmp_path / "raw", {})

    return make


def check_named(name: str):
    return next(check for check in CHECKS if check.__name__ == f"check_{name}")


def test_the_template_passes_every_check(own) -> None:
    outcomes = list(run_checks(own({})))
    assert [outcome.check for outcome in outcomes if outcome.fault] == []
    assert len(outcomes) == len(CHECKS)
    passed = {outcome.check for outcome in outcomes if not outcome.words.startswith("not checked")}
    assert len(passed) == len(CHECKS) - 2  # neither pictures nor vectors


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_reader_is_found(fault: str, own) -> None:
    changes, edit, check, message = FAULTS[fault]
    (outcome,) = run_checks(own(changes, edit), (check_named(check),))
    assert re.search(message, outcome.fault), outcome
    assert "\n" not in outcome.fault


def test_every_check_has_its_fault() -> None:
    assert {check for *_, check, _ in FAULTS.values()} == {
        check.__name__.removeprefix("check_") for check in CHECKS
    }


def test_nothing_more_is_checked_where_nothing_is_read(own) -> None:
    changes, *_ = FAULTS["not read"]
    assert len(list(run_checks(own(changes)))) == 1


def test_a_unit_that_the_card_names_is_right(own) -> None:
    changes = with_select(".with_columns(pl.col('timestamp') * 1000)") | {
        "times are seconds since": "times are milliseconds since"
    }
    (outcome,) = run_checks(own(changes), (check_named("times_are_seconds_or_say_their_unit"),))
    assert outcome.words == "holds: milliseconds, as the card says"


FIRST = 1_511_600_000  # seconds


def log(*columns: str, users: int = 12, separator: str = ",", header: str = "") -> str:
    """Return rows of 12 events each of some users; columns are formats of u, i, n and t (seconds)."""
    rows = [
        separator.join(columns).format(
            u=user, i=(5 * user + n) % 40 + 1, n=n % 4, t=1_511_600_000 + 60 * n + user
        )
        for n in range(12)
        for user in range(1, users + 1)
    ]
    return "\n".join(([header] if header else []) + rows) + "\n"


def of_behaviors(text: str, *behaviors: str) -> str:
    return re.sub(r"<(\d)>", lambda match: behaviors[int(match[1])], text)


REVIEW = '{{"overall": <{n}>, "reviewerID": "A{u}", "asin": "B{i}", "unixReviewTime": {t}}}'
FILES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "taobao": (
        {"UserBehavior.csv": of_behaviors(
            log("{u}", "{i}", "7", "<{n}>", "{t}"), "pv", "cart", "pv", "fav"
        )}, {},
    ),
    "tmall": (
        {"user_log_format1.csv": log(
            "{u}", "{i}", "1", "2", "3", "11{n}1", "{n}",
            header="user_id,item_id,cat_id,seller_id,brand_id,time_stamp,action_type",
        )}, {},
    ),
    "retailrocket": (
        {"events.csv": of_behaviors(
            log("{t}000", "{u}", "<{n}>", "{i}", "", header="timestamp,visitorid,event,itemid,transactionid"),
            "view", "addtocart", "view", "transaction",
        )}, {},
    ),
    "table": (
        {"events.csv": of_behaviors(
            log("{u}", "{i}", "<{n}>", "{t}", header="user,item,behavior,timestamp"),
            "see", "buy", "see", "cart"),
         "goods.csv": "item,title\n" + "".join(f'{item},"Lamp, no. {item}"\n' for item in range(1, 41))},
        {"behaviors": "see,buy", "unlisted": "drop", "items": "goods.csv"},
    ),
    "movielens": (
        {"ratings.csv": log("{u}", "{i}", "{n}.5", "{t}", header="userId,movieId,rating,timestamp"),
         "movies.csv": "movieId,title,genres\n" + "".join(f"{i},Film {i},Drama\n" for i in range(1, 41))},
        {"favor_rating": "3"},
    ),
    "atomic": (
        {"tiny.inter": log("{u}", "{i}", "{n}", "{t}", separator="\t",
                           header="user_id:token\titem_id:token\trating:float\ttimestamp:float")},
        {"favor_rating": "3"},
    ),
    "amazon": ({"Books.json": of_behaviors(log(REVIEW), "1.0", "5.0", "3.0", "4.0")}, {}),
    "ml-100k": (
        {"u.data": of_behaviors(log("{u}", "{i}", "<{n}>", "{t}", separator="\t"), "1", "5", "3", "4"),
         "u.item": "".join(f"{i}|Film {i} (1999)||||{'|'.join('0' * 19)}\n" for i in range(1, 41))}, {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_the_readers_of_the_room_pass_on_a_small_log(name: str, tmp_path: Path) -> None:
    files, options = FILES[name]
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    quick = tuple(check for check in CHECKS if "another_process" not in check.__name__)
    outcomes = {
        one.check: one.words for one in run_checks(Subject(find(name), tmp_path, options), quick) if one.fault
    }
    assert outcomes == {}


@pytest.mark.parametrize("name", ["kuaishou", "rec_tmall"])
def test_the_readers_of_simulated_files_pass(name: str, tmp_path: Path) -> None:
    library.simulate(name, tmp_path / "raw", 0.005, 0, lambda *_: None)
    for path in (tmp_path / "raw").glob("train_interaction.txt"):  # a part, to be quick
        path.write_text("".join(path.read_text().splitlines(keepends=True)[::5]))
    quick = tuple(check for check in CHECKS if "another_process" not in check.__name__)
    subject = Subject(find(name), tmp_path / "raw", {})
    assert {one.check: one.words for one in run_checks(subject, quick) if one.fault} == {}


SMALL = {"synthetic": {"users": "100", "items": "200"}}


@pytest.mark.parametrize("name", [name for name, reader in registered().items() if not reader.card.needs_raw])
def test_the_data_sets_that_need_no_files_pass(name: str) -> None:
    subject = Subject(find(name), None, SMALL.get(name, {}))
    assert {one.check: one.words for one in run_checks(subject) if one.fault} == {}


def test_raw_files_are_left_as_they_are(own) -> None:
    subject = own({})
    before = {path.name: path.read_bytes() for path in subject.raw.iterdir()}
    list(run_checks(subject, CHECKS[-6:]))
    assert {path.name: path.read_bytes() for path in subject.raw.iterdir()} == before
    assert json.loads(before["SIMULATED.json"])["seed"] == 0
