"""Attention over the tokens of all modalities, and mixtures of experts.

Letters: B windows, M modalities, L length, D width, E experts, n tokens.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.baselines.m3srec.config import M3SRecConfig
from bench.nn.dropout import Dropout
from bench.nn.transformer import attend


def token_mask(present: Tensor) -> Tensor:
    """Return which tokens each token may see, (B, 1, M L, M L) bool, queries by keys.

    A token sees those of events up to its own, of any modality that the event has: causal by time, not by
    place among the tokens. A token always sees itself, which keeps the softmax of absent ones defined.

    Args:
        present: (B, M, L) bool, whether the event at a position is real and has the modality.
    """
    streams, length = present.shape[1:]
    earlier = torch.ones(length, length, dtype=torch.bool, device=present.device).tril()
    allowed = earlier.repeat(streams, streams) & present.flatten(1)[:, None, None, :]
    return allowed | torch.eye(streams * length, dtype=torch.bool, device=present.device)


class Mixture(nn.Module):
    """Experts of which a router picks K for each token: y = sum of g_e FFN_e(h) over the K largest gates.

    Args:
        config: sizes.
        router_size: width of what the router reads.
    """

    def __init__(self, config: M3SRecConfig, router_size: int) -> None:
        super().__init__()
        size, count = config.hidden_size, config.num_experts
        inner = config.inner_size or 4 * size
        self.active, self.noise_std = config.num_active, config.noise_std
        self.router = nn.Linear(router_size, count, bias=False)
        self.noise = nn.Linear(router_size, count, bias=False)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(size, inner), nn.GELU(), Dropout(config.dropout), nn.Linear(inner, size))
            for _ in range(count)
        )

    def gates(self, read: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gates (n, E), K of them not zero, and the router's softmax before that (n, E)."""
        logits = self.router(read)
        if self.training and self.noise_std:
            logits = logits + self.noise_std * torch.randn_like(logits) * F.softplus(self.noise(read))
        shares = torch.softmax(logits, -1)
        kept, index = shares.topk(self.active, -1)
        return torch.zeros_like(shares).scatter(-1, index, kept / kept.sum(-1, keepdim=True)), shares

    def forward(self, x: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
        """Return (n, D) and the balance () from tokens x (n, D) and what the router reads of them.

        The balance is E sum F_e P_e, F_e the share of tokens whose largest gate is e, P_e the mean gate
        before the choice of K: 1 where all are used alike, E where one gets everything.
        """
        gates, shares = self.gates(read)
        y = torch.zeros_like(x)
        for index, expert in enumerate(self.experts):
            (sent,) = (gates[:, index] > 0).nonzero(as_tuple=True)
            y = y.index_add(0, sent, expert(x[sent]) * gates[sent, index][:, None])
        count = gates.shape[-1]
        first = torch.bincount(shares.argmax(-1), minlength=count).to(x.dtype) / max(len(x), 1)
        return y, count * (first * shares.sum(0) / max(len(x), 1)).sum()


class Layer(nn.Module):
    """Self-attention over all tokens, then experts, each with residual and norm.

    Args:
        config: sizes.
        streams: modalities with experts of their own; None is one pool, whose router also sees the mean of
            the event's modalities.
    """

    def __init__(self, config: M3SRecConfig, streams: int | None) -> None:
        super().__init__()
        size = config.hidden_size
        self.num_heads, self.rate, self.shared = config.num_heads, config.dropout, streams is None
        self.query_key_value, self.output = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.attention_norm, self.expert_norm = nn.LayerNorm(size), nn.LayerNorm(size)
        self.mixtures = nn.ModuleList(
            Mixture(config, 2 * size if self.shared else size) for _ in range(streams or 1)
        )
        self.dropout = Dropout(config.dropout)

    def forward(
        self, x: Tensor, present: Tensor, allowed: Tensor, streams: list[int]
    ) -> tuple[Tensor, Tensor]:
        """Return tokens (B, M, L, D) and the sum of the balances (), from tokens, (B, M, L) bool `present`,
        what `token_mask` gives, and which modalities the M tokens of an event are.
        """
        flat = x.flatten(1, 2)
        query, key, value = self.query_key_value(flat).chunk(3, -1)
        rate = self.rate if self.training else 0.0
        attended = self.output(attend(query, key, value, allowed, self.num_heads, rate))
        x = self.attention_norm(flat + self.dropout(attended)).view_as(x)
        y, balance = torch.zeros_like(x), x.new_zeros(())
        if self.shared:
            count = present.sum(1, keepdim=True)[..., None].clamp(min=1)
            mean = ((x * present[..., None]).sum(1, keepdim=True) / count).expand_as(x)  # (B, M, L, D)
            tokens = x[present]
            out, balance = self.mixtures[0](tokens, torch.cat([tokens, mean[present]], -1))
            y = y.masked_scatter(present[..., None], out)
        else:
            parts = []
            for place, stream in enumerate(streams):
                real = present[:, place]
                tokens = x[:, place][real]
                out, own = self.mixtures[stream](tokens, tokens)
                parts.append(torch.zeros_like(x[:, place]).masked_scatter(real[..., None], out))
                balance = balance + own
            y = torch.stack(parts, 1)
        return self.expert_norm(x + self.dropout(y)), balance


class ModalityAttention(nn.Module):
    """Weights of an item's modalities: softmax of w . tanh(U h + c) over those that it has."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.hidden, self.level = nn.Linear(size, size), nn.Linear(size, 1, bias=False)

    def forward(self, x: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mixed vectors (..., D) and weights (..., M) from x (..., M, D), present (..., M) bool;
        zeros where an item has none.
        """
        level = self.level(torch.tanh(self.hidden(x)))[..., 0].masked_fill(~present, -1e9)
        weight = torch.softmax(level, -1) * present
        return (weight[..., None] * x).sum(-2), weight
