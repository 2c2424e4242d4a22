"""What a trained model shows of its inside, averaged over the validation users, as plain JSON values."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.diagnostic import Diagnostic
from bench.interface import Batch, Recommender
from bench.training.data import HeldPart

OfBatch = tuple[int, str, Diagnostic]
"""Users of the batch, name, what the model showed of them."""


def diagnose(model: Recommender, part: HeldPart, device: torch.device, batch_size: int) -> dict[str, Any]:
    """Return `{"diagnostics": {name: ...}}` for the record, or nothing where the model shows nothing.

    Values are means over the batches, each weighted by its users; a batch in which a value is NaN does not
    count for that value, and one that is NaN everywhere is None. Training is paid for by now, so a fault in
    `Recommender.diagnostics` costs the figure and not the cell: it is stored as `diagnostics_error`.

    Args:
        model: trained; put into eval mode.
        part: validation events.
        device: where the model lies.
        batch_size: users at once.
    """
    if type(model).diagnostics is Recommender.diagnostics:
        return {}
    try:
        diagnostics = average(_by_batch(model, part.batches(model.max_history, batch_size), device))
    except Exception as error:  # a user's model may raise anything
        return {"diagnostics_error": f"{type(error).__name__}: {error}"}
    return {"diagnostics": diagnostics} if diagnostics else {}


@torch.no_grad()
def _by_batch(
    model: Recommender, batches: Iterable[tuple[NDArray[np.int64], Batch]], device: torch.device
) -> Iterator[OfBatch]:
    """Yield what the model shows of each batch; the state of the random numbers is left as it was."""
    model.eval()
    devices = [device] if device.type == "cuda" else []
    for number, (_, batch) in enumerate(batches):
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(number)
            diagnostics = model.diagnostics(batch.to(device))
        yield from ((len(batch), name, one) for name, one in diagnostics.items())


def average(batches: Iterable[OfBatch]) -> dict[str, dict[str, Any]]:
    """Return name -> title, labels and values of each diagnostic, averaged over batches.

    Raises:
        ValueError: a diagnostic has other labels in another batch, or an infinite value.
    """
    first: dict[str, Diagnostic] = {}
    sums: dict[str, NDArray[np.float64]] = {}
    weights: dict[str, NDArray[np.float64]] = {}
    for users, name, one in batches:
        labels = first.setdefault(name, one)
        if (labels.rows, labels.columns) != (one.rows, one.columns):
            raise ValueError(f"diagnostic '{name}': labels differ between batches")
        values = one.values.detach().double().cpu().numpy()
        if np.isinf(values).any():
            raise ValueError(f"diagnostic '{name}': a value is infinite")
        sums[name] = sums.get(name, 0.0) + users * np.nan_to_num(values)
        weights[name] = weights.get(name, 0.0) + users * ~np.isnan(values)
    return {name: _plain(one, sums[name], weights[name]) for name, one in first.items()}


def _plain(one: Diagnostic, sums: NDArray[np.float64], weights: NDArray[np.float64]) -> dict[str, Any]:
    means = [
        [total / weight if weight else None for total, weight in zip(*pair, strict=True)]
        for pair in zip(sums.tolist(), weights.tolist(), strict=True)
    ]
    return {
        "title": one.title,
        "values": means,
        "rows": list(one.rows),
        "columns": list(one.columns),
        "unit": one.unit,
        "axes": list(one.axes),
        "form": one.form,
    }
