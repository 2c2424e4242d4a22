"""What a trained M3BSR shows of its inside.

- `norms`: how long the vectors of a stream are after a denoising stage (`kept`), and how long the difference
  to what went in is (`removed`): root of the mean square over events, then mean over users who have any.
- `gates`: how much of y comes from each unique expert u[b, m]. y is a sum of terms: g * h_common, and for
  each unique expert (1 - g) times its part of the projected concatenation (`RoutingFusion.shares`). A gate is
  the length of one term over the sum of the lengths of all, so a user's gates and the share of h_common add
  up to 1. Mean over users with an event of the behavior.
- `shared`: the share of h_common beside the sum of the others, mean over all users.
- `cosines`: between the interest vectors of a user.
- `noise_error`: squared error of the predicted noise a coordinate, at each step; no skill is 1. Of the noise
  that the loss trains for: the marginal one under `eps`, that of one step otherwise.
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.interface import Batch, Diagnostic
from bench.models.m3bsr.disentangle import cosines
from bench.models.m3bsr.fusion import RoutingFusion
from bench.models.m3bsr.layout import Events, Layout, layout

if TYPE_CHECKING:
    from bench.models.m3bsr.model import M3BSR


def tables(model: "M3BSR", batch: Batch) -> dict[str, Diagnostic]:
    """Return the tables of a batch; those of a part that an ablation took away are left out."""
    events = layout(batch, model.target_behavior)
    diagnostics = norms(model, batch, events) | noise_errors(model, batch, events)
    if isinstance(model.fusion, RoutingFusion):
        diagnostics |= interests(model, batch, events, model.fusion)
    return diagnostics


def norms(model: "M3BSR", batch: Batch, events: Layout) -> dict[str, Diagnostic]:
    """Return kept and removed lengths by stage and stream."""
    behaviors, done = model.info.behaviors, model.denoised(batch, events)
    content = model.inputs.finished(model.inputs.content_streams(batch.history), batch.mask)
    rows: dict[str, Tensor] = {}
    for name, each in zip(behaviors, events.each, strict=True):
        before, after = each.of(content), each.of(done.modality[1:])
        for index, modality in enumerate(model.inputs.modalities[1:]):
            rows[f"{name} {modality}, CDMD-M"] = _lengths(before[index], after[index], each)
    for name, each in zip(behaviors[:-1], events.each, strict=False):
        before, after = each.of(done.modality), each.of(done.behavior)
        for index, modality in enumerate(model.inputs.modalities):
            rows[f"{name} {modality}, CDMD-B"] = _lengths(before[index], after[index], each)
    title = "length of the vectors that denoising keeps and removes"
    values = torch.stack(list(rows.values()))
    labels = ("stream", "part")
    return {"norms": Diagnostic(title, values, tuple(rows), ("kept", "removed"), "length", labels, "bars")}


def _lengths(before: Tensor, after: Tensor, events: Events) -> Tensor:
    """Return the length kept and the length removed, (2,), of streams (B, Lb, D)."""
    pair = torch.stack([after, before - after]).square().sum(-1) * events.mask  # (2, B, Lb)
    return _mean_over_users((pair.sum(-1) / events.mask.sum(-1).clamp(min=1)).sqrt(), events.mask)


def _mean_over_users(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of (..., B) over users with an event in the mask (B, Lb); NaN where there is none."""
    held = mask.any(-1)
    return values[..., held].mean(-1)


def interests(model: "M3BSR", batch: Batch, events: Layout, fusion: RoutingFusion) -> dict[str, Diagnostic]:
    """Return gates, the part of the shared expert, and cosines of the interest vectors."""
    common, unique = model.experts(model.denoised(batch, events).behavior, events)
    shares = fusion.shares(common, unique)  # (1 + 3 A, B)
    modalities = model.inputs.modalities
    parts = shares[1:].unflatten(0, (-1, len(modalities)))  # (A, M, B)
    gates = torch.stack([_mean_over_users(p, e.mask) for p, e in zip(parts, events.each, strict=True)])
    behaviors = model.info.behaviors
    title = "share of the interest vector that each unique expert makes up"
    axes = ("behavior", "modality")
    diagnostics = {"gates": Diagnostic(title, gates, behaviors, modalities, "fraction", axes)}
    names = tuple(f"{behavior} {modality}" for behavior in behaviors for modality in modalities)
    vectors = unique
    if common is not None:
        names, vectors = ("shared", *names), torch.cat([common[None], unique])
        both = torch.stack([shares[0].mean(), shares[1:].sum(0).mean()])[None]
        title = "share of the interest vector that the shared expert makes up"
        columns = ("shared", "unique")
        diagnostics["shared"] = Diagnostic(title, both, ("all users",), columns, "fraction", form="bars")
    title = "cosines between the interest vectors of a user"
    axes = ("interest vector", "interest vector")
    diagnostics["cosines"] = Diagnostic(title, cosines(vectors).mean(0), names, names, "cosine", axes)
    return diagnostics


def noise_errors(model: "M3BSR", batch: Batch, events: Layout) -> dict[str, Diagnostic]:
    """Return the error of the predicted noise by predictor and step."""
    ids = model.inputs.id_stream(batch.history, batch.user)
    content = model.inputs.content_streams(batch.history)
    rows: dict[str, Tensor] = {}
    error = model.cdmd_m.noise_errors(content, ids, batch.behavior, batch.user)
    if error is not None:
        rows |= _rows("CDMD-M", model.inputs.modalities[1:], error, batch.mask)
    if model.cdmd_b is not None:
        shallow, deep = events.shallower, events.target
        done = model.denoised(batch, events).modality
        error = model.cdmd_b.noise_errors(
            shallow.of(done), shallow.mask, deep.of(done), shallow.sees(deep, model.causal), batch.user
        )
        if error is not None:
            rows |= _rows("CDMD-B", model.inputs.modalities, error, shallow.mask)
    if not rows:
        return {}
    steps = max(len(line) for line in rows.values())
    # the stages may differ in T: the shorter line ends early
    lines = [F.pad(line, (0, steps - len(line)), value=torch.nan) for line in rows.values()]
    title = "error of the predicted noise, by diffusion step"
    columns = tuple(str(step) for step in range(1, steps + 1))
    axes = ("predictor", "diffusion step")
    unit = "squared error per coordinate"
    return {"noise_error": Diagnostic(title, torch.stack(lines), tuple(rows), columns, unit, axes, "lines")}


def _rows(stage: str, modalities: tuple[str, ...], error: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Return name -> (T,) from errors (T, M, B, Lb), means over events and then users."""
    by_user = (error * mask).sum(-1) / mask.sum(-1).clamp(min=1)  # (T, M, B)
    means = _mean_over_users(by_user, mask)  # (T, M)
    return {f"{stage} {modality}": means[:, index] for index, modality in enumerate(modalities)}
