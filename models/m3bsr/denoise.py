"""The block that CDMD-M and CDMD-B share: the start of the chain, the reverse process (Eq. 8, 12) and the
denoising loss (Eq. 10, 13) in its three readings.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bench.models.m3bsr.cells import Rectangle, cells
from bench.models.m3bsr.config import Denoising, Start
from bench.models.m3bsr.noise import seeded_normal
from bench.models.m3bsr.predictor import PREDICTORS, Condition
from bench.models.m3bsr.schedule import Coefficients, Schedule


@dataclass(frozen=True)
class Chain:
    """What all steps of one call share."""

    table: Coefficients
    condition: Condition
    times: Tensor
    """(k, G, 1, 1, size or 1), of the steps of the path."""
    draw: Callable[[int], Tensor]
    """Standard normal noise of the tokens' shape; its argument numbers the draws of inference."""
    cells: Rectangle
    """The tokens: all cells of the streams, or the real ones."""


class ConditionalDenoising(nn.Module):
    """G streams denoised under a condition.

    Args:
        groups: G.
        size: width of the streams.
        width: D, of the condition and the attention.
        options: of the stage.
        salt: number of the block in its model, so that two blocks do not share the noise of inference.
        packed: the chain runs on the real events alone. Inside the block streams are tokens: (G, B, L, size),
            or packed (G, 1, n, size).
    """

    def __init__(
        self, groups: int, size: int, width: int, options: Denoising, salt: int = 0, packed: bool = False
    ) -> None:
        super().__init__()
        self.options, self.packed = options, packed
        self.norm = size if options.norm == "length" else 1
        self.seed = 10_000 * (options.noise_seed * 16 + salt)  # draws are numbered below 10,000
        self.schedule = Schedule(options)
        self.predictor = PREDICTORS[options.predictor](groups, size, width, options)

    def forward(
        self, clean: Tensor, mask: Tensor, condition: Tensor, seen: Tensor, user: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Denoise streams.

        Args:
            clean: x_0, (G, B, Lq, size).
            mask: (B, Lq) bool.
            condition: (G, B, Lk, D).
            seen: (B, Lq or 1, Lk) bool, which condition positions a query may see.
            user: (B,) int64, whose noise inference draws.

        Returns:
            The denoised streams (G, B, Lq, size), zero where padded, and in training the error of Eq. 10 or
            13, (G, B, Lq), averaged over steps; None in inference.
        """
        chain = self._prepare(clean, mask, condition, seen, user)
        x, keep = chain.cells.pack(clean), chain.cells.keep
        if self.training and self.options.loss != "eps":
            free, error = self._simulated(x, chain)
            return chain.cells.unpack(keep(free)), self._of_events(error * self.norm, chain)
        start = self.options.train_start if self.training else self.options.infer_start
        denoised = chain.cells.unpack(keep(self._reverse(x, start, chain)))
        if not self.training:
            return denoised, None
        if self.options.detach_streams:
            ready = self.predictor.cross.condition(condition.detach(), seen, chain.cells)
            x, chain = x.detach(), replace(chain, condition=ready)
        return denoised, self._of_events(self._error(x, chain) * self.norm, chain)

    def noise_errors(
        self, clean: Tensor, mask: Tensor, condition: Tensor, seen: Tensor, user: Tensor
    ) -> Tensor:
        """Return the squared error of the predicted noise at every step, (T, G, B, Lq).

        The noise is drawn by seed and user: the marginal noise, or that of the last step alone where the loss
        trains for it. Arguments as in `forward`.
        """
        chain = self._prepare(clean, mask, condition, seen, user)
        tokens, keep = chain.cells.pack(clean), chain.cells.keep
        errors = []
        for step in range(1, self.options.diffusion_steps + 1):
            seeds = (self.seed + draw + step for draw in (3000, 6000))
            noise, earlier = (chain.cells.pack(seeded_normal(user, _shape(clean), seed)) for seed in seeds)
            at = torch.tensor([step], device=clean.device)
            x = chain.table.noised(tokens, noise, at[0])
            if self.schedule.one_step:
                x = chain.table.one_step(chain.table.noised(tokens, earlier, at[0] - 1), noise, step)
            errors.append(self._of_events(self._error_at(keep(x), chain, at, noise), chain))
        return torch.stack(errors)

    def _prepare(self, clean: Tensor, mask: Tensor, condition: Tensor, seen: Tensor, user: Tensor) -> Chain:
        tokens = cells(mask, self.packed)

        def draw(number: int) -> Tensor:
            # drawn for the whole rectangle, so that packing changes no number
            if self.training:
                return tokens.pack(torch.randn_like(clean))
            return tokens.pack(seeded_normal(user, _shape(clean), self.seed + number))

        times = self.predictor.times(self.schedule.path).movedim(0, 1)  # (k, G, size)
        ready = self.predictor.cross.condition(condition, seen, tokens)
        return Chain(self.schedule(), ready, times[:, :, None, None], draw, tokens)

    @staticmethod
    def _of_events(error: Tensor, chain: Chain) -> Tensor:
        """Return errors of tokens as (G, B, L)."""
        return chain.cells.unpack(error[..., None])[..., 0]

    def _reverse(self, clean: Tensor, start: Start, chain: Chain) -> Tensor:
        """Start the chain and run it from T to 1.  # Eq. 8, 12"""
        if start == "none":
            return clean
        x = chain.cells.keep(self._start(clean, start, chain))
        for index in range(len(chain.times)):
            x = self._step(x, index, chain)
            if self.options.sampler == "ancestral" and index < len(chain.times) - 1:
                x = x + chain.table.spread[index] * chain.draw(1 + index)
        return x

    def _start(self, clean: Tensor, start: Start, chain: Chain) -> Tensor:
        """Return x_T: a marginal draw, its mean, or x_0 itself."""
        if start == "clean":
            return clean
        noise = chain.draw(0) if start == "noised" else torch.zeros_like(clean)
        return chain.table.noised(clean, noise, self.schedule.path[0])

    def _step(self, x: Tensor, index: int, chain: Chain) -> Tensor:
        """Take a reverse step, by its index in the path, with a gradient where `grad_last` gives one."""
        last = self.options.grad_last
        follow = torch.is_grad_enabled() and (last is None or index >= len(chain.times) - last)

        def once(x: Tensor) -> Tensor:
            noise = self.predictor(x, chain.condition, chain.times[index])
            return chain.table.reverse(x, noise, index)

        with torch.set_grad_enabled(follow):
            if self.options.checkpoint and follow:
                result: Tensor = checkpoint(once, x, use_reentrant=False)
                return result
            return once(x)

    def _error(self, clean: Tensor, chain: Chain) -> Tensor:
        """Return the error of the noise predicted at one random step per row.  # Eq. 10, 13, loss `eps`"""
        rows = len(chain.cells.mask)
        step = torch.randint(1, self.options.diffusion_steps + 1, (rows,), device=clean.device)
        noise = chain.draw(0)
        x = chain.table.noised(clean, noise, chain.cells.of_rows(step[None, :, None, None]))
        return self._error_at(chain.cells.keep(x), chain, step, noise)

    def _error_at(self, x: Tensor, chain: Chain, step: Tensor, noise: Tensor) -> Tensor:
        """Return |e - eps(x_t)|^2 of tokens, averaged over coordinates, for steps (B or 1,)."""
        time = chain.cells.of_rows(self.predictor.times(step)[:, :, None])
        return (noise - self.predictor(x, chain.condition, time)).square().mean(-1)

    def _simulated(self, clean: Tensor, chain: Chain) -> tuple[Tensor, Tensor]:
        """Run the forward chain step by step and back again.

        The error sums two terms, means over coordinates, and averages them over steps: one for a step taken
        from the true state (Eq. 10's hat), one for a step taken from the state recovered before (its bar).
        `trajectory` compares what a step gives with the true state before it. `printed` compares what a step
        gives with what it was given, noised with denoised, which is least where nothing is denoised; in
        CDMD-B it has the first term alone, as Eq. 13 does.

        Returns:
            The end of the free-running chain and the error of its tokens.
        """
        states = [clean]
        for step in range(1, self.options.diffusion_steps + 1):
            state = chain.table.one_step(states[-1], chain.draw(0), step)  # Eq. 7
            states.append(chain.cells.keep(state))
        free, error = states[-1], clean.new_zeros(clean.shape[:-1])
        for index, step in enumerate(range(self.options.diffusion_steps, 0, -1)):
            goals = (states[step], free) if self.options.loss == "printed" else (states[step - 1],) * 2
            forced, free = self._step(states[step], index, chain), self._step(free, index, chain)
            terms = self.options.printed_terms if self.options.loss == "printed" else 2
            for goal, reached in list(zip(goals, (forced, free), strict=True))[:terms]:
                goal = goal.detach() if self.options.detach_target else goal
                error = error + (goal - reached).square().mean(-1)
        return free, error / self.options.diffusion_steps


def _shape(streams: Tensor) -> tuple[int, int, int, int]:
    groups, batch, length, size = streams.shape
    return groups, batch, length, size
