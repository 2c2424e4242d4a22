"""Trained weights beside a record: written once, loaded into a model that is built anew."""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from bench.config import build_options
from bench.errors import UserError
from bench.experiments.record import Cell
from bench.files import replacing
from bench.interface import Recommender
from bench.registry import Entry
from bench.training.checkpoint import snapshot
from bench.training.data import TrainingData
from bench.training.loop import start_stage

FORMAT = "1"


def save_weights(model: Recommender, path: Path, key: str) -> None:
    """Write the state of a trained model as safetensors: tensors alone, so that loading runs no code."""
    with replacing(path) as partial:
        save_file(snapshot(model), partial, {"format": FORMAT, "key": key})


def load_trained(
    cell: Cell, entry: Entry, data: TrainingData, path: Path, device: torch.device
) -> Recommender:
    """Return the trained model of a cell, in evaluation mode.

    Args:
        cell: what was trained.
        entry: the model.
        data: what it was trained on; graphs and counts are built from it again.
        path: what `save_weights` wrote.
        device: where the model goes.

    Raises:
        UserError: the file is damaged, or of another cell.
    """
    kind = entry.load()
    config: Any = build_options(kind.Config, cell.options, f"model {cell.model}")
    torch.manual_seed(cell.seed)
    model: Recommender = kind(config, data.info).to(device)
    model.set_up(data.events)
    for stage in model.stages():
        start_stage(model, stage, data.events)
    try:
        with safe_open(path, "pt", device=str(device)) as stored:
            if stored.metadata() != {"format": FORMAT, "key": cell.key}:
                raise ValueError("it belongs to another cell")
            model.load_state_dict({name: stored.get_tensor(name) for name in stored.keys()})  # noqa: SIM118
    except Exception as error:  # a cut or foreign file raises whatever its bytes lead to
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        fix = "delete it; the same command trains the cell again"
        raise UserError(f"{path}: weights that cannot be read ({reason}); {fix}") from error
    return model.eval()
