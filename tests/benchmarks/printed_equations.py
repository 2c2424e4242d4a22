"""What each printed equation of M3BSR does, in numbers; `models/m3bsr/NOTES.md` states them.

Run: python tests/benchmarks/printed_equations.py (about a minute on one core).
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.models.m3bsr.config import Denoising, Disentanglement
from bench.models.m3bsr.denoise import ConditionalDenoising
from bench.models.m3bsr.disentangle import cosines, disentanglement
from bench.models.m3bsr.schedule import Schedule

SIZE, ROWS, LENGTH = 32, 64, 8
READINGS = ("self_infonce", "mean_cos", "sq_cos", "printed")


def equation_6() -> Iterator[str]:
    """Print what the mean (1 - beta) h does to unit variance, and what becomes of raw CLIP vectors."""
    torch.manual_seed(0)
    beta = Schedule(Denoising())().beta[1:]
    start = torch.randn(200_000)
    printed, repaired = start, start
    for step in beta:
        noise = torch.randn(200_000)
        printed = (1 - step) * printed + step.sqrt() * noise
        repaired = (1 - step).sqrt() * repaired + step.sqrt() * noise
    for name, x in (("printed", printed), ("repaired", repaired)):
        kept = ((x * start).mean() / start.square().mean()).item()
        yield f"Eq. 6, {name}: variance after 10 steps {x.var().item():.3f}, signal kept {kept:.3f}"
    abar = Schedule(Denoising())().abar[-1].item()
    raw = F.normalize(torch.randn(10_000, 512), dim=-1)
    for name, x in (("raw vectors of length 1, 512 wide", raw), ("unit variance", raw * math.sqrt(512))):
        ratio = abar * x.square().mean().item() / (1 - abar)
        yield f"Eq. 6, {name}: signal to noise after 10 steps {ratio:.4f}"


def alpha_reading() -> Iterator[str]:
    """Print what the range [0.001, 0.1] gives when it is read as alpha."""
    abar = math.prod(torch.linspace(0.001, 0.1, 10, dtype=torch.float64).tolist())
    yield f"[0.001, 0.1] as alpha: abar_10 {abar:.1e}, reverse chain multiplies by {abar**-0.5:.1e}"


def equation_8() -> Iterator[str]:
    """Print what the root without the bar does with the marginal noise, under the best predictor there is.

    For unit Gaussian x_0 the expected noise of x_t is sqrt(1 - abar_t) x_t.
    """
    torch.manual_seed(0)
    bar, one_step = Schedule(Denoising())(), Schedule(Denoising(loss="trajectory"))()
    over = (one_step.shift[0] / bar.shift[0]).item()
    yield f"Eq. 8, no bar and marginal noise: the step from T subtracts {over:.2f} times the noise"
    clean = torch.randn(200_000)
    noised = bar.noised(clean, torch.randn_like(clean), torch.tensor(10))
    for name, table in (("bar", bar), ("no bar", one_step)):
        x = noised
        for place, step in enumerate(range(10, 0, -1)):
            x = table.reverse(x, (1 - table.abar[step]).sqrt() * x, place)
        error = (x - clean).square().mean().item()
        yield f"Eq. 8, {name}: mean squared error of x_0 {error:.3f}, variance {x.var().item():.3f}"


def toy(generator: torch.Generator, share: float, foreign: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return signal, stream and condition, each (1, ROWS, LENGTH, SIZE).

    The stream is the signal of four factors and noise, `share` of its unit variance; the condition is another
    view of the factors, of which it has `foreign` replaced by its own.
    """
    basis, view = torch.randn(2, 4, SIZE, generator=torch.Generator().manual_seed(7))
    factors = torch.randn(1, ROWS, LENGTH, 4, generator=generator)
    signal = F.layer_norm(factors @ basis, (SIZE,)) * math.sqrt(1 - share)
    stream = signal + math.sqrt(share) * torch.randn(signal.shape, generator=generator)
    factors[..., :foreign] = torch.randn(factors[..., :foreign].shape, generator=generator)
    return signal, stream, F.layer_norm(factors @ view, (SIZE,))


def trained(options: Denoising, steps: int, share: float, foreign: int = 0) -> tuple[float, float, float]:
    """Train a block on its own loss alone; return noise error, and squared distance of stream and denoised
    stream to the signal, all a coordinate.
    """
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    block = ConditionalDenoising(1, SIZE, SIZE, options)
    optimizer = torch.optim.Adam(block.parameters(), lr=3e-3)
    mask = torch.ones(ROWS, LENGTH, dtype=torch.bool)
    seen = torch.eye(LENGTH, dtype=torch.bool).expand(ROWS, -1, -1)
    user = torch.arange(ROWS)
    for _ in range(steps):
        _, stream, condition = toy(generator, share, foreign)
        optimizer.zero_grad()
        block.train()(stream, mask, condition, seen, user)[1].mean().backward()
        optimizer.step()
    signal, stream, condition = toy(torch.Generator().manual_seed(2), share, foreign)
    with torch.no_grad():
        denoised, _ = block.eval()(stream, mask, condition, seen, user)
        error = block.noise_errors(stream, mask, condition, seen, user).mean().item()
    before, after = ((x - signal).square().mean().item() for x in (stream, denoised))
    return error, before, after


def equation_9() -> Iterator[str]:
    """Print the noise error of the three predictors; no skill is 1."""
    for predictor in ("decoupled", "residual", "printed"):
        error, _, _ = trained(Denoising(predictor=predictor), 600, 0.0)
        yield f"Eq. 9, {predictor}: error of the predicted noise {error:.3f}"


def equation_10() -> Iterator[str]:
    """Print how much nearer to the signal each reading of the loss brings a stream."""
    for loss in ("eps", "trajectory", "printed"):
        _, before, after = trained(Denoising(loss=loss), 300, 0.5)
        yield f"Eq. 10, {loss}: distance to the signal {before:.3f} -> {after:.3f}"


def equation_12() -> Iterator[str]:
    """Print the noise error under the same modality and under one that shares half of its factors."""
    for name, foreign in (("same modality", 0), ("image, sharing two of four factors", 2)):
        error, _, _ = trained(Denoising(), 600, 0.0, foreign)
        yield f"Eq. 12, condition {name}: error of the predicted noise {error:.3f}"


def equation_23() -> Iterator[str]:
    """Print how much of a free matrix no target ever reaches, and of the targets one a user leaves.

    From the sizes in the paper's Table 1. Favors spread evenly over the catalog reach most rows; any real
    popularity reaches fewer.
    """
    for name, users, items, favors in (
        ("Rec-Tmall", 72_051, 93_466, 72_051 * 0.73),  # 1.73 a user, one of them tested
        ("Kuaishou", 22_793, 618_529, 22_793 * (295.98 - 255.02 - 2)),  # less test and validation
    ):
        yield f"Eq. 23, {name}: at least {math.exp(-favors / items):.2f} of the rows are never a target"
        yield f"Eq. 24, {name}: one target a user is at most {min(users / favors, 1):.3f} of the favors"


def equation_20() -> Iterator[str]:
    """Print the printed loss at equal cosines, its gradient at collapse, and where each reading ends."""
    n, size = 7, 16
    options = Disentanglement(loss="printed")
    for name, x in (("orthogonal", torch.eye(n, size)), ("collapsed", torch.ones(n, size))):
        vectors = x[:, None].double().clone().requires_grad_()
        value = disentanglement(vectors, options)
        value.backward()
        total, slope = value.item() * n * (n - 1), vectors.grad.norm().item()
        yield f"Eq. 20, {name}: {total:.3f}, gradient {slope:.0e}; lower bound {n * 6 * math.log(6):.3f}"
    for reading in READINGS:
        ends = [descended(start, reading) for start in starts(n, size)]
        shown = ", ".join(f"{name} {low:.3f}..{high:.3f}" for name, low, high in ends)
        yield f"Eq. 20, {reading}: cosines after descent from {shown}"


def starts(n: int, size: int) -> Iterator[tuple[str, Tensor]]:
    """Yield named starts, (n, 1, size): near collapse, random, two clusters."""
    torch.manual_seed(0)
    yield "collapse", (torch.ones(n, 1, size) + 0.25 * torch.randn(n, 1, size)).double()
    yield "random", torch.randn(n, 1, size).double()
    centers = torch.randn(2, 1, size)[[0, 0, 0, 0, 1, 1, 1]]
    yield "two clusters", (centers + 0.25 * torch.randn(n, 1, size)).double()


def descended(start: tuple[str, Tensor], reading: str) -> tuple[str, float, float]:
    """Return the start's name and the smallest and largest cosine after gradient descent on unit vectors."""
    name, vectors = start[0], start[1].clone().requires_grad_()
    options = Disentanglement(loss=reading)
    for _ in range(4000):
        (slope,) = torch.autograd.grad(disentanglement(vectors, options), vectors)
        with torch.no_grad():
            vectors.copy_(F.normalize(vectors - 0.5 * slope, dim=-1))
    pairs = cosines(vectors.detach())[0][~torch.eye(len(vectors), dtype=torch.bool)]
    return name, pairs.min().item(), pairs.max().item()


def main() -> None:
    """Print all of it."""
    torch.set_num_threads(1)
    for part in (
        equation_6, alpha_reading, equation_8, equation_9, equation_10, equation_12, equation_20, equation_23
    ):  # fmt: skip
        for line in part():
            print(line, flush=True)


if __name__ == "__main__":
    main()
