from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from bench.data.preparation.encoders import EncoderOptions
from bench.data.preparation.prepare import PrepareOptions, prepare
from bench.data.readers import blocks as raw_blocks
from bench.data.readers.log import LogFiles
from bench.data.schema import Part, Position, RawData
from bench.data.storage import load
from bench.datasets import rec_tmall
from bench.datasets.rec_tmall import Options, user_hash
from bench.datasets.rec_tmall.simulation import simulate
from tests.datasets.test_rec_tmall import ALL, PART, PRODUCTS, read, sample_with


def by_hand(user: int, seed: int) -> int:
    bits = (user ^ user >> 32 ^ (seed * 0x9E3779B9 + 0x7F4A7C15)) & 0xFFFFFFFF
    bits = (bits ^ bits >> 16) * 0x21F0AAAD & 0xFFFFFFFF
    bits = (bits ^ bits >> 15) * 0x735A2D97 & 0xFFFFFFFF
    return bits ^ bits >> 15


def test_the_hash_of_a_user_is_whole_number_arithmetic_of_32_bits() -> None:
    users = [0, 1, 2, 2625, 9774184, 2**32 - 1, 2**32 + 5, 2**63 - 1]
    frame = pl.DataFrame({"user": users})
    for seed in (0, 1, 2**40):
        found = frame.select(user_hash(pl.col("user"), seed)).to_series().to_list()
        assert found == [by_hand(user, seed) for user in users]


def test_the_hash_spreads_neighboring_users_evenly_and_seeds_apart() -> None:
    users = 100_000
    frame = pl.DataFrame({"user": range(users)})
    hashes = frame.select(user_hash(pl.col("user"), 0), user_hash(pl.col("user"), 1).alias("other"))
    for share in (0.01, 0.1, 0.5):
        taken, other = (column < share * 2**32 for column in hashes)
        assert taken.mean() == pytest.approx(share, abs=4 * (share / users) ** 0.5)
        assert (taken & other).mean() == pytest.approx(share**2, abs=4 * (share**2 / users) ** 0.5)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw") / "rec_tmall"
    simulate(folder, 0.005)
    return folder


def test_sampled_users_have_all_of_their_events_and_a_smaller_share_is_a_part(simulated: Path) -> None:
    whole = read(simulated).events
    half = read(simulated, user_share=0.5)
    users = set(half.events["user"])
    assert 0.4 < len(users) / whole["user"].n_unique() < 0.6
    assert half.events.equals(whole.filter(pl.col("user").is_in(list(users))))
    assert set(read(simulated, user_share=0.1).events["user"]) < users
    assert set(read(simulated, user_share=0.5, sample_seed=1).events["user"]) != users
    assert "50.0000% of the users, sampled with seed 0" in half.mapping


def test_blocks_without_faults_are_read_as_line_by_line(
    simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = "item_id,user_id,action,vtime\n" + "i161,u2625,click,2014/9/18 15:03\r\n" * 3
    folders = (simulated, sample_with(tmp_path, sample))
    quick = [read(folder, behaviors=ALL) for folder in folders]
    assert [len(data.events) > 2 for data in quick] == [True, True]
    monkeypatch.setattr(LogFiles, "_sound", lambda stream, block: None)
    slow = [read(folder, behaviors=ALL) for folder in folders]
    for one, other in zip(quick, slow, strict=True):
        assert isinstance(one.items, pl.DataFrame) and isinstance(other.items, pl.DataFrame)
        assert one.events.equals(other.events) and one.items.equals(other.items)


def prepared(raw: RawData, folder: Path, watch=lambda *told: None) -> Path:
    recorded = {"name": "rec_tmall", "options": {}}
    return prepare(raw, "x", folder, PrepareOptions(), EncoderOptions(text="none"), recorded, watch)


def test_two_preparations_of_the_same_files_agree(simulated: Path, tmp_path: Path) -> None:
    first, second = (
        load(prepared(rec_tmall.read(simulated, Options()), tmp_path / name)) for name in ("one", "two")
    )
    assert first.fingerprint == second.fingerprint
    assert first.metadata["simulated"] is True and set(first.content.attributes) == {
        "category", "brand", "seller",
    }  # fmt: skip


def test_the_order_of_rows_does_not_matter_where_times_differ(simulated: Path, tmp_path: Path) -> None:
    shuffled = tmp_path / "raw"
    shuffled.mkdir()
    lines = [line for path in sorted(simulated.glob("*log_part*")) for line in path.read_text().splitlines()]
    order = pl.Series(lines).sample(fraction=1.0, shuffle=True, seed=1)
    assert order.to_list() != lines
    (shuffled / PART.format("b")).write_text("\n".join(order) + "\n")
    (shuffled / PRODUCTS).write_bytes((simulated / PRODUCTS).read_bytes())
    straight = load(prepared(rec_tmall.read(simulated, Options()), tmp_path / "straight"))
    other = load(prepared(rec_tmall.read(shuffled, Options()), tmp_path / "other"))
    assert other.fingerprint == straight.fingerprint


def test_an_interrupted_preparation_reads_no_finished_part_again(
    simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_blocks.blocks, "__defaults__", (4096,))  # 4 kB at once: many parts
    read_parts: list[Position] = []
    parts = LogFiles.parts

    def counted(stream: LogFiles, start: Position = Position()) -> Iterator[Part]:  # noqa: B008
        for part in parts(stream, start):
            read_parts.append(part.end)
            yield part

    monkeypatch.setattr(LogFiles, "parts", counted)
    straight = load(prepared(rec_tmall.read(simulated, Options()), tmp_path / "straight"))
    number = len(read_parts)
    read_parts.clear()

    def stop(stage: str, done: int, of: int) -> None:
        if stage == "rows read" and done > of / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepared(rec_tmall.read(simulated, Options()), tmp_path / "again", stop)
    assert not (tmp_path / "again").exists()
    assert number / 3 < len(read_parts) < number
    again = load(prepared(rec_tmall.read(simulated, Options()), tmp_path / "again"))
    twice = [end for end, times in Counter(read_parts).items() if times > 1]
    assert len(set(read_parts)) == number and len(twice) <= 1  # the one that was read ahead
    assert again.fingerprint == straight.fingerprint
