"""What a linear probe gains by the denoising block of M3BSR alone, without a recommender around it.

    python tests/benchmarks/denoising_block.py

A stream is the signal of a few factors and noise, nine tenths of its variance; the condition is another view
of the same factors, with noise of its own. The block is trained by its own loss (Eq. 10) and no other.
Printed: the error of the predicted noise at step T (no skill is 1), and R2 of the true factors by ridge
regression, judged on items that it was not fitted on, from the condition and from the stream before and after
the block. There are items enough to meet each a few times, or 2,000, whose noise can be learned by heart.
About 4 minutes on one core.
"""

import math

import torch
import torch.nn.functional as F
from planted_noise import probe
from torch import Tensor

from bench.models.m3bsr.config import Denoising
from bench.models.m3bsr.denoise import ConditionalDenoising

SIZE, ROWS, LENGTH, STEPS = 32, 64, 8, 1500
SHARE = 0.9
MANY, FEW = 200_000, 2000


def world(condition_noise: float, items: int, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return factors (N, rank), and stream and condition, each (N, SIZE)."""
    basis, view = torch.randn(2, rank, SIZE, generator=torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(3)
    factors = torch.randn(items, rank, generator=generator)
    mixed = []
    for shown, share in ((basis, SHARE), (view, condition_noise)):
        noise = torch.randn(items, SIZE, generator=generator)
        signal = F.layer_norm(factors @ shown, (SIZE,))
        mixed.append(F.layer_norm(math.sqrt(1 - share) * signal + math.sqrt(share) * noise, (SIZE,)))
    return factors, mixed[0], mixed[1]


def measured(condition_noise: float, items: int, rank: int) -> str:
    """Train a block and return what it does, as one line."""
    factors, stream, condition = world(condition_noise, items, rank)
    torch.manual_seed(0)
    block = ConditionalDenoising(1, SIZE, SIZE, Denoising())
    optimizer = torch.optim.Adam(block.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(1)

    def arguments(item: Tensor) -> tuple[Tensor, ...]:
        seen = torch.eye(LENGTH, dtype=torch.bool).expand(len(item), -1, -1)
        mask = torch.ones(item.shape, dtype=torch.bool)
        return stream[item][None], mask, condition[item][None], seen, torch.arange(len(item))

    for _ in range(STEPS):
        optimizer.zero_grad()
        block.train()(*arguments(torch.randint(items, (ROWS, LENGTH), generator=generator)))[
            1
        ].mean().backward()
        optimizer.step()
    judged = torch.randperm(items, generator=generator)[:FEW].view(-1, LENGTH)
    with torch.no_grad():
        denoised, _ = block.eval()(*arguments(judged))
        error = block.noise_errors(*arguments(judged)).flatten()[-1].item()
    item = judged.flatten()
    streams = condition[item], stream[item], denoised[0].flatten(0, 1)
    told, before, after = (probe(x.double().numpy(), factors[item].numpy(), item.numpy()) for x in streams)
    r2 = f"R2 of the condition {told:.3f}, of the stream {before:.3f} -> {after:.3f}"
    return f"{rank} factors, {items:,} items: noise error {error:.2f}; {r2}"


def main() -> None:
    """Print a line a world."""
    torch.set_num_threads(1)
    for items in (MANY, FEW):
        for condition_noise in (1.0, 0.9, 0.5, 0.0):
            print(measured(condition_noise, items, 4), flush=True)
    for condition_noise in (1.0, 0.5, 0.0):
        print(measured(condition_noise, FEW, 16), flush=True)


if __name__ == "__main__":
    main()
