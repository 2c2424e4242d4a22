"""The data sets at hand: what `bench.data.sources` finds, and prepared folders under `home()`.

Listing and finding import no reader: cards are read from the source.
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import bench
from bench.cards import DatasetCard
from bench.config import build_options, flatten, text_of
from bench.data.protocol.shuffle import DROP, OPTION, shuffled, take_shuffle
from bench.data.schema import Dataset
from bench.data.sources import NAME, Reader, find, import_module, registered
from bench.data.storage import FORMAT, METADATA, load, read_metadata
from bench.errors import UserError, hint
from bench.files import require_writable


def home() -> Path:
    """Return the folder of prepared data sets: `$BENCH_DATA`, else `m3bench` in the user's cache folder."""
    if given := os.environ.get("BENCH_DATA"):
        return Path(given).expanduser()
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "m3bench"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "m3bench"
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "m3bench"


def readers() -> dict[str, DatasetCard]:
    """Return the cards of the readers by data set name, in the order of the names.

    Raises:
        UserError: a card cannot be read, or two have one name.
    """
    return {name: reader.card for name, reader in registered().items()}


def prepared() -> dict[str, Path]:
    """Return the complete prepared folders under `home()` by name, in the order of the names."""
    folders = sorted(home().iterdir()) if home().is_dir() else []
    return {path.name: path for path in folders if NAME.fullmatch(path.name) and _complete(path)}


def _complete(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / METADATA).read_text(encoding="utf-8")).get("format") == FORMAT)
    except (OSError, ValueError):
        return False


def folder(name: str, overrides: Mapping[str, Any]) -> Path:
    """Return where a data set, or its variant with changed `data.*` options, is or will be prepared."""
    if not overrides:
        return home() / name
    text = json.dumps({key: text_of(overrides[key]) for key in sorted(overrides)})
    return home() / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def prepare_named(
    reader: str,
    *,
    raw: Path | None,
    name: str | None,
    overrides: Mapping[str, Any],
    on_bad_row: str = "error",
    watch: Callable[[str, int, int], None] = lambda stage, done, of: None,
) -> Path:
    """Read and prepare a data set, also where it is prepared already, and return its folder.

    Args:
        reader: a name of `readers()`, or the path of a Python file with a card and a `read`.
        raw: folder of the publisher's files; None where the reader needs none.
        name: of the result; None takes the reader's, with a digest of the overrides where there are any.
        overrides: option -> value, text or typed, of the reader's `Options`, `PrepareOptions` or
            `EncoderOptions`. A name that several of them have is set in all.
        on_bad_row: `error` or `skip`, of readers that can skip malformed rows; no part of the name.
        watch: progress callback (stage, done, total).

    Raises:
        UserError: no such reader or option, files are missing, or the data are faulty.
    """
    from bench.data.preparation.prepare import prepare

    source = find(reader)
    target = _target(source, name, overrides)
    _require_own(target, source)
    require_writable(target.parent, "data folder (BENCH_DATA)")
    raw_data, options, filters, encoders = read_raw(source, raw, overrides, on_bad_row)
    recorded = {"name": source.card.name, "options": flatten(options), "code": source.code_hash()}
    recorded |= {"file": str(source.path)} if source.by_path else {}
    asked = [name for name in ("image", "text") if name in overrides]  # with `none` it is not looked for
    with source.blamed():
        return prepare(raw_data, target.name, target, filters, encoders, recorded, watch, asked)


def read_raw(
    reader: str | Reader, raw: Path | None, overrides: Mapping[str, Any], on_bad_row: str = "error"
) -> tuple[Any, Any, Any, Any]:
    """Open a publisher's files; the arguments are those of `prepare_named`.

    Returns:
        RawData, and the options of the reader, of the filters (`PrepareOptions`) and of the encoders.

    Raises:
        UserError: no such reader or option, or files are missing.
    """
    source = find(reader) if isinstance(reader, str) else reader
    card = source.card
    options, filters, encoders = options_of(source, overrides, on_bad_row)
    if raw is None and card.needs_raw:
        raise UserError(_missing(source, overrides))
    if raw is not None and not raw.exists():
        raise UserError(f"--raw {raw}: nothing there; expected: {card.files}")
    return source.read(raw, options), options, filters, encoders


def options_of(
    source: Reader, overrides: Mapping[str, Any], on_bad_row: str = "error"
) -> tuple[Any, Any, Any]:
    """Return the options of a reader, of the filters and of the encoders; arguments as in `prepare_named`.

    Raises:
        UserError: the reader cannot be loaded, or there is no such option or value.
    """
    from bench.data.preparation.encoders import EncoderOptions
    from bench.data.preparation.prepare import PrepareOptions

    kinds = (source.load().Options, PrepareOptions, EncoderOptions)
    options, filters, encoders = _split_options(kinds, source.card, overrides)
    if on_bad_row != "error":
        options = _skipping(options, source.card, on_bad_row)
        encoders = replace(encoders, on_bad_row=on_bad_row)
    return options, filters, encoders


def simulators() -> dict[str, str]:
    """Return data set -> module that writes raw files in its publisher's layout."""
    names = {
        path.parent.name for root in bench.__path__ for path in Path(root).glob("datasets/*/simulation.py")
    }
    return {name: f"bench.datasets.{name}.simulation" for name in sorted(names)}


def simulate(reader: str, out: Path, scale: float, seed: int, watch: Callable[[str, int, int], None]) -> None:
    """Write raw files in the layout of a publisher, with the published marginals.

    Args:
        reader: a name of `simulators()`.
        out: new or empty folder.
        scale: 1 is the size that the paper keeps.
        seed: of everything.
        watch: progress callback (stage, done, total).

    Raises:
        UserError: no simulator of this name, a scale out of range, or the folder cannot be written.
    """
    known = simulators()
    if reader not in known:
        raise UserError(f"{reader}: no simulator of this name; {hint(reader, known)}")
    import_module(known[reader]).simulate(out, scale, seed, watch)


def edited(folder: Path) -> list[str]:
    """Return a warning where the reader that a folder was prepared by has changed since; none where that is
    not known, as of a file that is gone.
    """
    metadata = read_metadata(folder)
    try:
        source = find(metadata.get("reader_file") or metadata.get("reader", ""))
    except UserError:
        return []
    if metadata.get("reader_code", "") in ("", source.code_hash()):
        return []
    again = f"bench data prepare {source.spec} brings it up to date"
    return [f"warning: {source.path}: the reader has changed since this was prepared; {again}"]


def _skipping(options: Any, card: DatasetCard, on_bad_row: str) -> Any:
    """Return a reader's options with its rule for malformed rows.

    Raises:
        UserError: the reader has none, or not this one.
    """
    if not hasattr(options, "on_bad_row"):
        raise UserError(f"--on-bad-row {on_bad_row}: data set {card.name} has no rows that could be skipped")
    return build_options(
        type(options), {**flatten(options), "on_bad_row": on_bad_row}, f"data set {card.name}"
    )


def _require_own(target: Path, source: Reader) -> None:
    """Refuse to replace what another reader has prepared under the same name.

    Raises:
        UserError: `target` is such a folder.
    """
    if not _complete(target):
        return
    made = read_metadata(target)
    name, file = made.get("reader", ""), made.get("reader_file", "")
    if name and (name != source.card.name or bool(file) != source.by_path):
        fix = f"choose another name by --name, or remove {target}"
        raise UserError(f"{target.name}: was prepared by another reader, {file or name}; {fix}")


def _target(source: Reader, name: str | None, overrides: Mapping[str, Any]) -> Path:
    """Return the folder to prepare into.

    Raises:
        UserError: the name is no file name, or is that of another data set or of the usual preparation.
    """
    usual = source.card.name
    if name is None:
        return folder(usual, overrides)
    if not NAME.fullmatch(name):
        raise UserError(
            f"--name {name}: expected letters, digits, '.', '_' and '-', beginning with one of the former"
        )
    if (name in readers() or name == usual) and (name != usual or overrides):
        raise UserError(
            f"--name {name}: stands for data set '{name}' with its usual options; choose another name"
        )
    return home() / name


def _split_options(
    kinds: tuple[type, ...], card: DatasetCard, overrides: Mapping[str, Any]
) -> tuple[Any, ...]:
    """Return one instance a kind: its defaults, changed by the card, changed by the overrides.

    Raises:
        UserError: an option that none has, or a value of another type.
    """
    known = [set(flatten(kind())) for kind in kinds]
    for key in overrides:
        if key in (OPTION, DROP):
            fix = f"give it where models are run: bench run --set data.{key}={text_of(overrides[key])}"
            raise UserError(f"{key}: acts when a prepared data set is opened; {fix}")
        if key not in set().union(*known):
            raise UserError(f"data set {card.name}: no option '{key}'; {hint(key, set().union(*known))}")
    changed = {**card.options, **overrides}
    return tuple(
        build_options(kind, {k: v for k, v in changed.items() if k in names}, f"data set {card.name}")
        for kind, names in zip(kinds, known, strict=True)
    )


def open_dataset(name: str, overrides: Mapping[str, Any]) -> Dataset:
    """Return a prepared data set; one whose reader needs no files is prepared first where it has to be.

    Args:
        name: of a reader or of a prepared folder.
        overrides: `data.*` options of a variant; `shuffle_modality` is one of any prepared data set.

    Raises:
        UserError: it is not prepared and its files have to be brought, or there is no data set of this name.
    """
    options, shuffle = take_shuffle(overrides)
    return shuffled(load(resolve(name, options)), shuffle)


def resolve(name: str, overrides: Mapping[str, Any]) -> Path:
    """Return the prepared folder of a data set without opening it; otherwise like `open_dataset`."""
    path = folder(name, overrides)
    if NAME.fullmatch(name) and _complete(path):
        return path
    if name.endswith(".py"):
        source = find(name)
        fix = f"prepare it by: bench data prepare {name} --raw DIR, then give its name, {source.card.name}"
        raise UserError(f"{name}: a reader, expected the name of a prepared data set; {fix}")
    sources, known = registered(), prepared()
    cards = {one: source.card for one, source in sources.items()}
    if name in cards and not cards[name].needs_raw:
        return prepare_named(name, raw=None, name=None, overrides=overrides)
    if name in cards:
        raise UserError(_missing(sources[name], overrides, known))
    if name in known:
        raise UserError(
            f"{name}: is prepared already, so data.{next(iter(overrides))} cannot change it; leave it out"
        )
    raise UserError(f"{name}: no such data set; {hint(name, [*cards, *known])}")


def _missing(source: Reader, overrides: Mapping[str, Any], known: Mapping[str, Path] | None = None) -> str:
    """Say what a data set is, where it is published, and how to get it here."""
    card = source.card
    changed = "".join(f" --set {key}={text_of(value)}" for key, value in overrides.items())
    variants = [name for name in known or {} if name.startswith(f"{card.name}-")]
    others = f" (prepared with other options: {', '.join(variants)})" if variants else ""
    simulated = (
        f"; or without them, SIMULATED: bench data simulate {card.name} --out DIR --scale 0.01, then the same"
        if card.name in simulators()
        else ""
    )
    return (
        f"{card.name}: not prepared here{others}; it is {card.title}, published at {card.published}; "
        f"put into a folder DIR: {card.files}; then run: bench data prepare {source.spec} --raw DIR{changed}"
        f"{simulated}"
    )
