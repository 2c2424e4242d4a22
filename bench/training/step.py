"""One optimizer step: the optimizer over what a stage moves, its learning rate, micro-batches, clipping."""

from typing import Any

import torch
from torch import Tensor

from bench.errors import UserError
from bench.interface import Batch, Recommender, Stage


def train_step(
    model: Recommender, batch: Batch, stage: Stage, optimizer: torch.optim.Optimizer
) -> dict[str, float]:
    """Do one optimizer step, in micro-batches where the stage asks for them; return its loss terms."""
    set_rates(optimizer, stage)
    optimizer.zero_grad(set_to_none=True)
    size = stage.micro_batch or len(batch)
    totals: dict[str, Tensor] = {}
    for start in range(0, len(batch), size):
        part = batch.rows(slice(start, start + size)) if size < len(batch) else batch
        share = len(part) / len(batch)
        terms = model.loss(part)
        if terms["loss"].dim():
            shape = tuple(terms["loss"].shape)
            raise UserError(f"{type(model).__name__}: the loss has shape {shape}, expected one number")
        (terms["loss"] * share).backward()
        totals = {name: totals.get(name, 0.0) + value.detach() * share for name, value in terms.items()}
    if stage.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(
            [p for group in optimizer.param_groups for p in group["params"]], stage.clip_norm
        )
    optimizer.step()
    return {name: float(value) for name, value in totals.items()}


def make_optimizer(model: Recommender, stage: Stage) -> torch.optim.Optimizer:
    """Build the stage's optimizer over the parameters that it moves; weight decay spares biases and norms."""
    own_rates = dict(stage.rates)
    moving: dict[tuple[str, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(stage.frozen) if stage.frozen else True)
        if parameter.requires_grad:
            prefix = next((prefix for prefix in own_rates if name.startswith(prefix)), "")
            moving.setdefault((prefix, parameter.dim() >= 2), []).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": parameters, "lr": own_rates.get(prefix, stage.learning_rate),
         "weight_decay": stage.weight_decay if matrices else 0.0}
        for (prefix, matrices), parameters in sorted(moving.items(), key=lambda part: part[0], reverse=True)
    ]  # fmt: skip
    for group in groups:
        group["rate"] = group["lr"]  # what `set_rates` rises to
    # `fused`: one pass over a large table instead of eight. Its kernels take for granted that a gradient lies
    # in memory as its parameter does, as autograd sees to.
    rate = stage.learning_rate
    if stage.optimizer == "adagrad":
        on_cpu = all(parameter.device.type == "cpu" for group in groups for parameter in group["params"])
        return torch.optim.Adagrad(groups, lr=rate, eps=1e-6, fused=on_cpu)
    adam = torch.optim.AdamW if stage.optimizer == "adamw" else torch.optim.Adam
    return adam(groups, lr=rate, fused=True)


def set_rates(optimizer: torch.optim.Optimizer, stage: Stage) -> None:
    """Raise the learning rate linearly over the first steps of the stage, and let it fall with the root of
    their number after `decay_after`; the count lives in the optimizer's groups.
    """
    for group in optimizer.param_groups:
        group["steps"] = group.get("steps", 0) + 1
        rise = min(1.0, group["steps"] / max(stage.warmup_steps, 1))
        fall = min(1.0, stage.decay_after / group["steps"]) ** 0.5 if stage.decay_after else 1.0
        group["lr"] = group["rate"] * rise * fall
