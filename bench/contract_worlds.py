"""Checks of a model on logs that are unlike the usual one: one behavior, no images, one item, more items.

They join those of `bench.contract`. A model may refuse such a log by a UserError that says why; it must not
break, nor give scores that are no numbers.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.data.batches.loader import TrainingBatches, evaluation_batches, training_events
from bench.data.protocol.split import Split, split
from bench.data.schema import Interactions, ItemContent
from bench.errors import UserError
from bench.example import HISTORY, USERS, example_info, example_log
from bench.interface import Batch, DatasetInfo, Recommender, Stage, TrainingEvents
from bench.training.loop import start_stage
from bench.training.step import make_optimizer, train_step

if TYPE_CHECKING:
    from bench.contract import Subject

FEW, MANY = 400, 1600
"""Items of the two catalogs between which memory may grow as much as they do."""


@dataclass(frozen=True)
class World:
    """A log and what a model is told of it."""

    log: Interactions
    info: DatasetInfo

    @property
    def target(self) -> int:
        """Behavior id of the target."""
        return len(self.info.behaviors)

    @property
    def split(self) -> Split:
        """Which events train."""
        return split(self.log, self.target)

    def events(self) -> TrainingEvents:
        """Return the training part."""
        return training_events(self.log, self.split, self.info.num_items)

    def batches(self, stage: Stage) -> Iterator[Batch]:
        """Yield the batches of a stage's first epoch."""
        items = self.info.num_items
        source = TrainingBatches(self.log, self.split, stage.view, items, self.target, "same_timestamp", 0)
        return source.epoch(0, min(stage.batch_size, 64))

    def test_batch(self) -> Batch:
        """Return the histories before the test events."""
        batches = evaluation_batches(
            self.log, self.split.test, max_history=HISTORY, batch_size=USERS, target_behavior=self.target,
            drop_target_click="same_timestamp",
        )  # fmt: skip
        return next(batches)[1]


def one_behavior() -> World:
    """Return the usual log as one behavior alone."""
    log = replace(example_log(), behavior=np.ones_like(example_log().behavior))
    return World(log, replace(example_info(), behaviors=("favor",)))


def without_content() -> World:
    """Return the usual log without images, texts and attributes."""
    return World(example_log(), replace(example_info(), content=ItemContent(example_info().num_items)))


def one_item() -> World:
    """Return a log of a single item."""
    log = example_log()
    info = replace(example_info(), num_items=1, content=ItemContent(1))
    return World(replace(log, item=np.ones_like(log.item)), info)


def of_size(items: int) -> World:
    """Return the usual events among more items, with images and texts of all of them."""
    rng = np.random.default_rng(5)
    present = {name: np.arange(items + 1) > 0 for name in ("image", "text")}
    features = {name: rng.standard_normal((items + 1, 8)).astype(np.float32) for name in present}
    info = replace(example_info(), num_items=items, content=ItemContent(items, features, present))
    return World(example_log(), info)


def build(subject: "Subject", world: World) -> Recommender:
    """Return the model on a world, prepared as for a run."""
    torch.manual_seed(0)
    model = subject.kind(subject.config, world.info)
    model.set_up(world.events())
    return model


def check_one_behavior_is_enough(subject: "Subject") -> None:
    """It trains and scores on a log of one behavior."""
    _trains_and_scores(subject, one_behavior(), "a log of one behavior")


def check_images_and_texts_may_be_absent(subject: "Subject") -> None:
    """It trains and scores on a log whose items have neither images nor texts nor attributes."""
    _trains_and_scores(subject, without_content(), "items without image, text and attributes")


def check_a_catalog_of_one_item_is_enough(subject: "Subject") -> None:
    """It trains and scores on a log of one item."""
    _trains_and_scores(subject, one_item(), "a catalog of one item")


def check_an_empty_target_history_is_scored(subject: "Subject") -> None:
    """Users without an event of the target behavior get finite scores."""
    world = World(example_log(), example_info())
    model, batch = build(subject, world).eval(), world.test_batch()
    shallow = Batch(batch.user, batch.history, batch.mask.long(), batch.timestamp)
    with torch.no_grad():
        scores = model.score(shallow, _candidates(len(batch), world.info.num_items))
    assert torch.isfinite(scores).all(), (
        "a score of a user without an event of the target behavior is NaN or infinite; look at means and "
        "softmaxes over that behavior's events alone"
    )


def check_memory_grows_no_faster_than_the_catalog(subject: "Subject") -> None:
    """What a model holds, per item, is no more with four times as many items."""
    few, many = (held_bytes(build(subject, of_size(items))) for items in (FEW, MANY))
    allowed = few * MANY / FEW * 1.05
    assert many <= allowed, (
        f"holds {few:,} bytes for {FEW} items and {many:,} for {MANY}, more than {MANY // FEW} times that; "
        "look for an array of items by items"
    )


def check_parameters_are_registered(subject: "Subject") -> None:
    """No module or parameter lies in a plain list or dict, where training and saving do not find it."""
    model = build(subject, World(example_log(), example_info()))
    known = {id(part) for part in (*model.modules(), *model.parameters())}
    for owner_name, owner in model.named_modules():
        for name, value in vars(owner).items():
            if name.startswith("_") or not isinstance(value, list | tuple | dict):
                continue
            members = value.values() if isinstance(value, dict) else value
            if any(isinstance(part, nn.Module | nn.Parameter) and id(part) not in known for part in members):
                where = f"{owner_name}.{name}" if owner_name else name
                raise AssertionError(
                    f"self.{where} is a {type(value).__name__} with modules or parameters, which are not "
                    "trained and not saved; use nn.ModuleList, nn.ModuleDict or nn.ParameterList"
                )


def _trains_and_scores(subject: "Subject", world: World, what: str) -> None:
    """Take one step of every stage and score; a refusal by UserError is right, too."""
    try:
        model = build(subject, world)
        for stage in model.stages():
            start_stage(model, stage, world.events())
            model.train().start_epoch(0, world.events())
            optimizer = make_optimizer(model, stage)
            for batch in world.batches(stage):
                terms = train_step(model, batch, replace(stage, warmup_steps=0), optimizer)
                finite = np.isfinite(list(terms.values())).all()
                assert finite, f"{what}: stage {stage.name}: loss terms {terms}"
                break
        batch = world.test_batch()
        with torch.no_grad():
            scores = model.eval().score(batch, _candidates(len(batch), world.info.num_items))
    except UserError:
        return  # refused, with its reason
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"breaks on {what}: {type(error).__name__}: {error}") from error
    assert torch.isfinite(scores).all(), f"a score is NaN or infinite on {what}"


def _candidates(users: int, items: int) -> Tensor:
    return torch.arange(1, min(items, 12) + 1).expand(users, -1)


def held_bytes(value: Any, seen: set[int] | None = None) -> int:
    """Return the bytes of all arrays and tensors that an object holds, wherever they lie in it."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return 0
    seen.add(id(value))
    if isinstance(value, Tensor):
        if value.is_sparse:
            return held_bytes(value._indices(), seen) + held_bytes(value._values(), seen)
        if value.layout != torch.strided:
            return value.values().nbytes + value.crow_indices().nbytes + value.col_indices().nbytes
        return value.untyped_storage().nbytes()
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, DatasetInfo):
        return 0  # what it was told
    if isinstance(value, dict):
        return sum(held_bytes(member, seen) for member in value.values())
    if isinstance(value, list | tuple | set):
        return sum(held_bytes(member, seen) for member in value)
    return held_bytes(vars(value), seen) if hasattr(value, "__dict__") and not isinstance(value, type) else 0
