"""Options of a run, its protocol and its models: typed, frozen, set by `--set key=value`."""

import ast
import csv
import inspect
import textwrap
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from bench.bounds import fault, renamed
from bench.errors import UserError, hint

if TYPE_CHECKING:
    from bench.registry import Entry

T = TypeVar("T")


@dataclass(frozen=True)
class ProtocolOptions:
    """What is held out, what it is ranked against, what a history shows. Part of a cell's key."""

    candidates: str = "uniform99"
    """Rank the held-out item against 99 uniform or 99 popularity-weighted negatives, or the full catalog."""
    split: Literal["leave-last-out", "global-time"] = "leave-last-out"
    """Test on each user's last target event, or on what follows one point in time for everybody."""
    drop_target_click: Literal["same_timestamp", "none", "all"] = "same_timestamp"
    """Hide shallow events on the held-out item: those of the very time of the target, none, or all."""
    history: Literal["merged", "target"] = "merged"
    """Histories hold the events of all behaviors, or those of the target behavior alone."""
    candidates_seed: int = 0
    """Seed of the negatives and of the tie draws."""
    task: Literal["rank", "ctr"] = "rank"
    """Rank the held-out item among its candidates, or judge it and its first negatives one by one."""
    ctr_negatives: int = 1
    """Negatives of each held-out item in the task `ctr`, 1 to 99: the first of its candidates."""

    def __post_init__(self) -> None:
        from bench.data.protocol.candidates import PROTOCOLS  # numpy is not needed to show help

        if self.candidates not in PROTOCOLS:
            raise ValueError(f"candidates: expected one of {', '.join(PROTOCOLS)}")
        if self.task == "ctr" and self.candidates == "full":
            raise ValueError("the task ctr needs sampled negatives: candidates uniform99 or popular99")
        if self.task == "rank" and self.ctr_negatives != 1:
            raise ValueError("ctr_negatives is read by the task ctr alone: --task ctr")
        if not 1 <= self.ctr_negatives <= 99:
            raise ValueError("ctr_negatives must be from 1 to 99")


@dataclass(frozen=True)
class TrainingOptions:
    """Limits of the training of one cell, and where it runs."""

    epochs: int | None = None
    """Most epochs of each stage; null takes the model's own. Part of a cell's key."""
    max_minutes: float | None = None
    """Training stops there, in minutes, and the row says so; null is no limit. Part of a cell's key."""
    total_minutes: float | None = None
    """Minutes for all trainings of a command together; each gets a share, and what it leaves goes to the
    others. Part of a cell's key."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`, `mps`. Not part of a cell's key."""
    evaluation_batch: int = 256
    """Users encoded at once in validation and test. Not part of a cell's key."""
    keep_model: bool = False
    """The trained weights are kept beside the record. Not part of a cell's key."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if expected := fault(name, value):
                raise ValueError(f"{name} must be {expected}")


@dataclass(frozen=True)
class Settings:
    """The `--set` pairs, sorted by what they are for; values are still text."""

    data: dict[str, str] = field(default_factory=dict)
    """`data.X`: preparation options."""
    protocol: dict[str, str] = field(default_factory=dict)
    """`protocol.X`."""
    training: dict[str, str] = field(default_factory=dict)
    """`training.X`."""
    models: dict[str, dict[str, str]] = field(default_factory=dict)
    """`MODEL.X`: model name -> option -> value."""
    shared: dict[str, str] = field(default_factory=dict)
    """Any other key: an option of every chosen model that has it."""


def parse_settings(pairs: Sequence[str], names: Iterable[str] = ()) -> Settings:
    """Sort `key=value` pairs into sections; a later pair wins over an earlier one of the same key.

    Args:
        pairs: as given to `--set`.
        names: registry names; a key that begins with one of them, or with NAME:VARIANT, and a dot goes to
            that model alone.

    Raises:
        UserError: a pair has no `=`, or no key before it.
    """
    settings, known = Settings(), set(names)
    for pair in pairs:
        key, equals, value = pair.partition("=")
        head, rest = _split_key(key.strip(), known)
        model = head.partition(":")[0]  # of a variant
        if not equals or not head:
            raise UserError(f"--set {pair}: expected key=value, for example --set hidden_size=128")
        if head in ("data", "protocol", "training") and rest:
            getattr(settings, head)[rest] = value.strip()
        elif rest and (head in known or model in known):
            settings.models.setdefault(head, {})[rest] = value.strip()
        else:
            settings.shared[key.strip()] = value.strip()
    return settings


def _split_key(key: str, names: set[str]) -> tuple[str, str]:
    """Return what a key is for and the option: cut behind the longest model name, else at the first dot."""
    for name in sorted(names, key=len, reverse=True):  # a name may hold a dot itself
        if key.startswith((f"{name}.", f"{name}:")):
            variant, _, rest = key[len(name) :].partition(".")
            return name + variant, rest
    head, _, rest = key.partition(".")
    return head, rest


def model_overrides(settings: Settings, entries: Sequence["Entry"]) -> dict[str, dict[str, Any]]:
    """Return model name -> options that the user changed, typed.

    Model classes are loaded only where there is an option to check. An option set to the value that it has
    anyway is left out, so that it names the same cell. Options of a model go to its variants too, all but
    those that make the variant: an ablation is compared at equal options.

    Raises:
        UserError: an option that no chosen model has, a value of another type, or a model that is not chosen.
    """
    overrides: dict[str, dict[str, Any]] = {entry.card.name: {} for entry in entries}
    models = overrides.keys() | {entry.base for entry in entries}
    for name, options in settings.models.items():
        if name not in models:
            where = f"--set {name}.{next(iter(options))}"
            raise UserError(f"{where}: {name} is not among the chosen models; {hint(name, overrides)}")
    if not settings.shared and not settings.models:
        return overrides
    known: set[str] = set()
    for entry in entries:
        name, kind = entry.card.name, entry.load().Config
        usual = flatten(build_options(kind, entry.card.options, f"card of {name}"))
        known |= usual.keys()
        shared = {key: value for key, value in settings.shared.items() if key in usual}
        shared |= settings.models.get(entry.base, {})
        wanted = {key: value for key, value in shared.items() if key not in entry.changed}
        wanted |= settings.models.get(name, {})
        typed = flatten(build_options(kind, {**entry.card.options, **wanted}, f"model {name}"))
        overrides[name] = {key: typed[key] for key in wanted if typed[key] != usual[key]}
    for key in settings.shared.keys() - known:
        new = renamed(key, known)
        close = f"it is '{new}' now" if new else hint(key, known)
        raise UserError(f"--set {key}: no chosen model has this option; {close}")
    return overrides


def build_options(kind: type[T], overrides: Mapping[str, Any], where: str) -> T:
    """Build a frozen, possibly nested, dataclass from its defaults and some changed options.

    Args:
        kind: a dataclass whose fields all have defaults.
        overrides: dotted option name -> value, text or of the option's type. Text is read as that type: `a,b`
            as a tuple, `null` or `none` as None where the option may be None.
        where: named in errors, for example `model sasrec`.

    Raises:
        UserError: no such option, or a value of another type.
    """
    options = kind()
    known = flatten(options)
    for key in overrides:
        if key not in known:
            new = renamed(key, known)
            close = f"it is '{new}' now" if new else hint(key, known)
            raise UserError(f"{where}: no option '{key}'; {close}")
    return _replaced(options, overrides, where)


def _replaced(options: T, overrides: Mapping[str, Any], where: str) -> T:
    """Return the options with all changes of a level made at once: checks between fields see the end."""
    kinds = get_type_hints(type(options))
    changes = {k: _coerce(kinds[k], value, where, k) for k, value in overrides.items() if "." not in k}
    for name in dict.fromkeys(key.partition(".")[0] for key in overrides if "." in key):
        inner = {k[len(name) + 1 :]: value for k, value in overrides.items() if k.startswith(f"{name}.")}
        changes[name] = _replaced(getattr(options, name), inner, f"{where}: {name}")
    try:
        return replace(options, **changes)  # type: ignore[type-var]
    except ValueError as error:  # from __post_init__
        given = ", ".join(f"{key} = {value}" for key, value in overrides.items())
        raise UserError(f"{where}: {given}: {error}") from error


def _coerce(kind: Any, value: Any, where: str, option: str) -> Any:
    from pydantic import TypeAdapter, ValidationError  # not needed to show help

    read = _read_text(kind, value) if isinstance(value, str) else value
    try:
        typed = TypeAdapter(kind).validate_python(read)
    except ValidationError as error:
        raise UserError(f"{where}: {option} = {value!r}: expected {_describe(kind)}") from error
    if expected := fault(option, typed):
        raise UserError(f"{where}: {option} = {value!r}: expected {_describe(kind)}, {expected}")
    return typed


def _read_text(kind: Any, text: str) -> Any:
    """Turn text into what pydantic cannot make of it: None and tuples."""
    members = _members(kind)
    choices = [choice for member in members if get_origin(member) is Literal for choice in get_args(member)]
    if text.lower() in ("null", "none") and type(None) in members and text not in choices:
        return None
    if any(get_origin(member) in (tuple, list) for member in members) and str not in members:
        return split_list(text)
    numbers = {str(choice): choice for choice in choices if not isinstance(choice, str)}
    return numbers.get(text, text)


def split_list(text: str) -> tuple[str, ...]:
    """Return the parts of `a,b` or `[a,b]`; a part with a comma of its own stands in double quotes."""
    text = text.strip()
    if _enclosed(text):
        text = text[1:-1]
    parts = next(csv.reader([text], skipinitialspace=True), [])
    return tuple(part.strip() for part in parts if part.strip())


def join_list(parts: Iterable[str]) -> str:
    """Return the text that `split_list` reads as these parts."""
    listed = list(parts)
    quoted = [f'"{part.replace(chr(34), chr(34) * 2)}"' if set(part) & set(',"') else part for part in listed]
    joined = ",".join(quoted)
    return f"[{joined}]" if _enclosed(joined) else joined


def text_of(value: Any) -> str:
    """Return an option as it is written on the command line, so that 4 and "4" name one variant."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return join_list(map(text_of, value)) if isinstance(value, tuple | list) else str(value)


def _enclosed(text: str) -> bool:
    """Return whether one pair of brackets holds the whole text, as in `(a,b)` but not in `[a],[b]`."""
    pairs = {"(": ")", "[": "]"}
    if not text or text[0] not in pairs or text[-1] != pairs[text[0]]:
        return False
    depth = 0
    for index, letter in enumerate(text):
        depth += (letter == text[0]) - (letter == pairs[text[0]])
        if depth == 0:
            return index == len(text) - 1
    return False


def _members(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _describe(kind: Any) -> str:
    """Say a type in words."""
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    members = _members(kind)
    if len(members) > 1:
        return " or ".join(_describe(member) for member in members)
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(str(choice) for choice in get_args(kind))
    if get_origin(kind) in (tuple, list):
        return f"a list a,b,... of {_describe(get_args(kind)[0])}"
    return words.get(kind, getattr(kind, "__name__", str(kind)))


def flatten(options: Any, prefix: str = "") -> dict[str, Any]:
    """Return dotted option name -> value of a dataclass instance, nested ones included, in their order."""
    flat: dict[str, Any] = {}
    for part in fields(options):
        value = getattr(options, part.name)
        name = f"{prefix}{part.name}"
        flat.update(flatten(value, f"{name}.") if is_dataclass(value) else {name: value})
    return flat


def option_names(kind: type) -> dict[str, str]:
    """Return dotted option name -> its doc line, the string under the field in the source; "" without one."""
    return dict(_documented(kind(), ""))


def _documented(options: Any, prefix: str) -> Iterator[tuple[str, str]]:
    lines = _doc_lines(type(options))
    for part in fields(options):
        value = getattr(options, part.name)
        if is_dataclass(value):
            yield from _documented(value, f"{prefix}{part.name}.")
        else:
            yield f"{prefix}{part.name}", lines.get(part.name, "")


def _doc_lines(kind: type) -> dict[str, str]:
    lines: dict[str, str] = {}
    for owner in reversed([base for base in kind.__mro__ if is_dataclass(base)]):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        except (OSError, TypeError):  # made at run time: there is no source
            continue
        body = tree.body if isinstance(tree, ast.ClassDef) else []
        for statement, after in zip(body, body[1:], strict=False):
            if isinstance(statement, ast.AnnAssign) and isinstance(after, ast.Expr):
                text = after.value.value if isinstance(after.value, ast.Constant) else None
                if isinstance(statement.target, ast.Name) and isinstance(text, str):
                    lines[statement.target.id] = " ".join(text.split())
    return lines
