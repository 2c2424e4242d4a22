"""User features of CMCLRec, made from the events of a history alone.

Letters: B users, L history length, A behaviors, D width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.interface import DatasetInfo
from bench.nn.content import LinearContent

COUNTS, HOURS, ATTRIBUTE_SIZE = 8, 24, 16
"""Levels of a count, hours of a day, width of an attribute's vectors."""


class UserFeatures(nn.Module):
    """Mean image and text of the events, numbers of events per behavior, hours of the day, mean attributes.

    Every part is computed from the events shown, so the features of a prefix do not know what follows it.
    """

    def __init__(self, info: DatasetInfo, content: nn.ModuleList) -> None:
        super().__init__()
        self.num_behaviors = len(info.behaviors)
        self.sources = tuple(content)  # not registered here: they belong to the item vectors
        self.names = tuple(sorted(info.content.attributes))
        self.attributes = nn.ModuleList()
        for name in self.names:
            ids = torch.from_numpy(info.content.attributes[name].astype("int64"))
            self.register_buffer(f"ids_{name}", ids, persistent=False)
            self.attributes.append(nn.Embedding(int(ids.max()) + 1, ATTRIBUTE_SIZE, padding_idx=0))
        widths = sum(table.features.shape[1] for table in content if isinstance(table, LinearContent))
        self.size = widths + self.num_behaviors * COUNTS + HOURS + ATTRIBUTE_SIZE * len(self.names)

    def forward(self, history: Tensor, behavior: Tensor, timestamp: Tensor) -> Tensor:
        """Return (B, size) from a history's items, behaviors and times in seconds, (B, L) each."""
        parts = []
        for table in self.sources:
            assert isinstance(table, LinearContent)
            shown = table.present[history] & (history > 0)  # (B, L)
            total = (table.features[history].to(table.project.weight.dtype) * shown[..., None]).sum(1)
            parts.append(F.normalize(total, dim=1))  # the mean's direction is the sum's
        for kind in range(1, self.num_behaviors + 1):
            count = ((behavior == kind) & (history > 0)).sum(1)  # (B,)
            level = (count + 1).log2().long().clamp(max=COUNTS - 1)
            parts.append(F.one_hot(level, COUNTS).to(parts[0].dtype if parts else torch.float32))
        hour = timestamp // 3600 % HOURS
        real = (history > 0).to(parts[-1].dtype)
        hours = parts[-1].new_zeros(len(history), HOURS).scatter_add_(1, hour, real)
        parts.append(hours / real.sum(1, keepdim=True).clamp(min=1))
        for name, table in zip(self.names, self.attributes, strict=True):
            ids = self.get_buffer(f"ids_{name}")[history] * (history > 0)
            known = (ids > 0).sum(1, keepdim=True).clamp(min=1)
            parts.append(table(ids).sum(1) / known)
        return torch.cat(parts, 1)
