"""What stands in the place of a denoising stage in the ablations of Fig. 3 and section 5.6."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.models.m3bsr.cells import cells
from bench.models.m3bsr.config import Denoising
from bench.models.m3bsr.denoise import ConditionalDenoising
from bench.models.m3bsr.grouped import GroupedLinear


class Untouched(nn.Module):
    """Passes the streams through."""

    def forward(
        self, clean: Tensor, mask: Tensor, condition: Tensor, seen: Tensor, user: Tensor
    ) -> tuple[Tensor, None]:
        """Return x_0, zero where padded, and no error; arguments as in `ConditionalDenoising`."""
        return clean * mask[None, :, :, None], None


class Perceptron(nn.Module):
    """x + MLP(x) for each stream, as wide as a budget of parameters allows; knows no condition and no noise.

    Args:
        groups: G.
        size: width of the streams.
        budget: parameters of all groups together.
        packed: runs on the real events alone.
    """

    def __init__(self, groups: int, size: int, budget: int, packed: bool = False) -> None:
        super().__init__()
        self.packed = packed
        # a hidden unit has `size` weights on either side and a bias; the outputs have `size` biases
        hidden = max(round((budget / groups - size) / (2 * size + 1)), 1)
        self.wide = GroupedLinear(groups, size, hidden)
        self.narrow = GroupedLinear(groups, hidden, size)
        with torch.no_grad():
            self.narrow.weight.mul_(0.1)  # starts near the identity, as the chain does

    def forward(
        self, clean: Tensor, mask: Tensor, condition: Tensor, seen: Tensor, user: Tensor
    ) -> tuple[Tensor, None]:
        """Return the streams mapped and no error; arguments as in `ConditionalDenoising`."""
        tokens = cells(mask, self.packed)
        x = tokens.pack(clean)
        return tokens.unpack(tokens.keep(x + self.narrow(F.gelu(self.wide(x))))), None


def stage(
    groups: int,
    size: int,
    width: int,
    options: Denoising,
    salt: int,
    beside: int = 0,
    packed: bool = False,
) -> nn.Module:
    """Return the denoising block that the options ask for, or what replaces it.

    Args:
        groups: streams.
        size: of each of them.
        width: of the condition.
        options: of the stage.
        salt: number of the block in its model.
        beside: parameters of the stage outside the block, which a network in its place makes up for.
        packed: it runs on the real events alone.
    """
    if options.replace == "identity":
        return Untouched()
    block = ConditionalDenoising(groups, size, width, options, salt, packed)
    if options.replace == "none":
        return block
    return Perceptron(groups, size, beside + sum(p.numel() for p in block.parameters()), packed)
