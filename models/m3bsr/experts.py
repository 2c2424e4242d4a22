"""Multi-expert interest extraction (Eq. 14-19): one expert shared by the behaviors, one for each behavior and
modality.

In the prefix reading a sequence's last layer is computed at its last event alone, where it is pooled: the
same numbers at a fraction of the cost. In the causal one each event reads itself and what came before it, and
gives the vector that its sequence has up to there.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.models.m3bsr.cells import Rectangle, cells
from bench.models.m3bsr.config import Experts
from bench.models.m3bsr.grouped import GroupedLinear, GroupedNorm, attend, split_heads
from bench.models.m3bsr.layout import Events, Layout, Reads, mean_vector, running_mean


class Layer(nn.Module):
    """A pre-norm Transformer layer of G experts."""

    def __init__(self, groups: int, size: int, options: Experts) -> None:
        super().__init__()
        self.heads, self.dropout = options.num_heads, options.dropout
        self.norm_attention = GroupedNorm(groups, size)
        self.query = GroupedLinear(groups, size, size, bias=False)
        self.key_and_value = GroupedLinear(groups, size, 2 * size, bias=False)
        self.output = GroupedLinear(groups, size, size)
        self.norm_feed = GroupedNorm(groups, size)
        self.wide = GroupedLinear(groups, size, 4 * size)
        self.narrow = GroupedLinear(groups, 4 * size, size)

    def forward(self, x: Tensor, mask: Tensor, last_only: bool) -> Tensor:
        """Map (G, B, L, D) to the same shape, or to (G, B, 1, D) at the last position."""
        normed = self.norm_attention(x)
        key, value = self.key_and_value(normed).chunk(2, -1)
        if last_only:
            x, normed = x[:, :, -1:], normed[:, :, -1:]
        heads = (split_heads(part, self.heads) for part in (self.query(normed), key, value))
        x = x + self._drop(self.output(attend(*heads, mask[:, None])))
        return self._feed(x)

    def each(self, x: Tensor, events: Rectangle, allowed: Tensor, asked: Rectangle) -> Tensor:
        """Map tokens of events to those of the events asked; allowed (B, L, L) says what each may see."""
        normed = self.norm_attention(x)
        key, value = events.unpack(self.key_and_value(normed)).chunk(2, -1)
        if asked is not events:
            x, normed = (asked.pack(events.unpack(part)) for part in (x, normed))
        query = asked.unpack(self.query(normed))
        heads = (split_heads(part, self.heads) for part in (query, key, value))
        x = x + self._drop(self.output(asked.pack(attend(*heads, allowed))))
        return self._feed(x)

    def _feed(self, x: Tensor) -> Tensor:
        return x + self._drop(self.narrow(self._drop(F.gelu(self.wide(self.norm_feed(x))))))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class Encoder(nn.Module):
    """G Transformer encoders over sequences of one shape, each pooled to a vector.  # Eq. 17-19

    Positions are counted from the newest event, in the causal reading from the newest position of the
    window, so padding moves nothing. A row without events reads one learned token, hence its vector is
    defined and constant.

    Args:
        groups: G.
        size: D.
        max_length: L at most.
        options: of the experts.
        empties: rows without events are met in training; else their token is 0 and not learned.
    """

    empty: Tensor

    def __init__(
        self, groups: int, size: int, max_length: int, options: Experts, empties: bool = True
    ) -> None:
        super().__init__()
        self.mean = options.pool == "mean"
        self.positions = nn.Parameter(torch.randn(groups, 1, max_length, size) * 0.02)
        if empties:
            self.empty = nn.Parameter(torch.randn(groups, 1, size) * 0.02)
        else:
            self.register_buffer("empty", torch.zeros(groups, 1, size), persistent=False)
        self.layers = nn.ModuleList(Layer(groups, size, options) for _ in range(options.num_layers))
        self.norm = GroupedNorm(groups, size)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map (G, B, L, D) with mask (B, L) to (G, B, D)."""
        x, mask = self._fill_empty(x, mask)
        x = x + self.positions[:, :, -x.shape[2] :]
        for number, layer in enumerate(self.layers, 1):
            x = layer(x, mask, last_only=number == len(self.layers) and not self.mean)
        return mean_vector(self.norm(x), mask) if self.mean else self.norm(x[:, :, -1])

    def each(self, x: Tensor, mask: Tensor, age: Tensor, last: tuple[Tensor, Tensor], packed: bool) -> Tensor:
        """Return the vectors of sequences up to some of their events, (G, P, D).

        The last layer runs at these events alone.

        Args:
            x: (G, B, L, D).
            mask: (B, L) bool.
            age: (B, L) int64, position of an event in its history counted from the end: -1 is the newest.
            last: row and columns before the newest, each (P,), of the last event; row B for no event.
            packed: run on the real events alone.
        """
        missing = 0 if x.shape[2] else 1
        x = F.pad(x, (0, 0, missing, 0, 0, 1))
        mask, age = (F.pad(part, (missing, 0, 0, 1), value=end) for part, end in ((mask, False), (age, -1)))
        newest = torch.zeros_like(mask)
        newest[-1, -1] = True  # the learned token stands alone in a row of its own
        x = torch.where(newest[None, :, :, None], self.empty[:, :, None], x)
        events = cells(mask | newest, packed)
        itself = torch.eye(mask.shape[1], dtype=torch.bool, device=x.device)
        allowed = ((age[:, None] <= age[:, :, None]) & mask[:, None]) | itself  # padding sees itself
        flat = (last[0] + 1) * mask.shape[1] - 1 - last[1]  # (P,)
        known = age.masked_fill(~mask, -1)[None, ..., None]  # padding may stand before the oldest position
        tokens = events.pack(x) + self._positions(events.pack(known)[0, ..., 0])
        *lower, highest = (layer for layer in self.layers if isinstance(layer, Layer))
        for layer in lower:
            tokens = layer.each(tokens, events, allowed, events)
        asked = events if self.mean else self._asked(events, flat, packed)
        vectors = asked.unpack(self.norm(highest.each(tokens, events, allowed, asked)))
        vectors = running_mean(vectors, events.mask) if self.mean else vectors
        return vectors.flatten(1, 2)[:, flat]

    @staticmethod
    def _asked(events: Rectangle, flat: Tensor, packed: bool) -> Rectangle:
        """Return the cells at some flat positions, or all events where these are no fewer."""
        asked = torch.zeros_like(events.mask).flatten()
        asked[flat] = True
        if not packed or asked.sum() == events.mask.sum():
            return events
        return cells(asked.view_as(events.mask), packed)

    def _positions(self, age: Tensor) -> Tensor:
        """Return (G, ..., D) for ages (...), -1 to -max_length; a lookup of all groups at once."""
        groups, _, length, size = self.positions.shape
        table = self.positions[:, 0].transpose(0, 1).flatten(1)  # (length, G * D)
        return F.embedding(age + length, table).unflatten(-1, (groups, size)).movedim(-2, 0)

    def _fill_empty(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Put the learned token at the last position of rows without events."""
        groups, batch, length, size = x.shape
        if length == 0:
            x, mask = x.new_zeros(groups, batch, 1, size), mask.new_zeros(batch, 1)
        empty = ~mask[:, -1]  # left padding: a row has events iff its last position is one
        last = torch.where(empty[None, :, None], self.empty, x[:, :, -1])[:, :, None]  # (G, B, 1, D)
        return torch.cat([x[:, :, :-1], last], 2), torch.cat([mask[:, :-1], torch.ones_like(mask[:, -1:])], 1)


class SharedExpert(nn.Module):
    """What behaviors have in common: events of one query those of the other, then an encoder.  # Eq. 14-17"""

    def __init__(self, size: int, max_history: int, options: Experts, modalities: int = 3) -> None:
        super().__init__()
        self.heads, self.share, self.in_time = options.num_heads, options.share, options.concat == "time"
        self.tokens = modalities if self.in_time else 1
        """Tokens of an event."""
        # one map for all behaviors
        self.concat = None if self.in_time else nn.Linear(modalities * size, size)
        self.query = GroupedLinear(1, size, size, bias=False)
        self.key_and_value = GroupedLinear(1, size, 2 * size, bias=False)
        self.output = GroupedLinear(1, size, size)
        self.null = nn.Parameter(torch.randn(1, 1, 1, size) * 0.02)
        length = max_history * self.tokens
        # a position of training has an event always, if not one of each behavior
        self.encoder = Encoder(1, size, length, options, empties=self.share != "every_event")

    def forward(self, shallow: Tensor, mask: Tensor, deep: Tensor, deep_mask: Tensor) -> Tensor:
        """Return h_common.

        Args:
            shallow: (M, B, Lc, D), the denoised streams of the shallower behaviors.
            mask: (B, Lc) bool.
            deep: (M, B, Lf, D), the streams of the target behavior.
            deep_mask: (B, Lf) bool.

        Returns:
            (B, D).
        """
        clicks, favors = self._fused(shallow, mask), self._fused(deep, deep_mask)
        common = self._read(*clicks, *favors)
        return (common + self._read(*favors, *clicks)) / 2 if self.share == "both" else common

    def each(self, streams: Tensor, events: Layout, reads: Reads, packed: bool) -> Tensor:
        """Return h_common at P positions, (P, D), in the causal reading.

        An event asks the other behavior's events before it, and the vector of a behavior is that of its last
        event up to the position.

        Args:
            streams: Z, (M, B, L, D), of all behaviors.
            events: where the behaviors stand in them.
            reads: the positions.
            packed: run on the real events alone.
        """
        shallower, deep = events.shallower, events.target
        pairs = {
            "click_to_favor": ((shallower, deep),),
            "both": ((shallower, deep), (deep, shallower)),
            "every_event": ((events.everything, deep),),
        }[self.share]
        every = events.everything.mask
        joined = streams if self.concat is None else self._joined(streams, every, packed)
        per_pair = [self._each(joined, *pair, events.length, reads, packed) for pair in pairs]
        return torch.stack(per_pair).mean(0)

    def _joined(self, streams: Tensor, mask: Tensor, packed: bool) -> Tensor:
        """Return H of all behaviors, (1, B, L, D), from their streams (M, B, L, D)."""
        assert self.concat is not None
        real = cells(mask, packed)
        return real.unpack(self.concat(torch.cat(real.pack(streams).unbind(0), -1))[None])

    def _each(
        self, joined: Tensor, asking: Events, asked: Events, length: int, reads: Reads, packed: bool
    ) -> Tensor:
        """Return (P, D) from the events of one behavior that query those of another before them."""
        parts = [self._tokens(joined, events, length) for events in (asking, asked)]
        (x, mask, age), (y, y_mask, y_age) = parts
        events, others = cells(mask, packed), cells(y_mask, packed)
        x = events.pack(x)
        known = others.unpack(self.key_and_value(others.pack(y)))
        null = self.key_and_value(self.null).expand(-1, len(mask), -1, -1)
        key, value = torch.cat([known, null], 2).chunk(2, -1)
        seen = y_mask[:, None] & (y_age[:, None] < age[:, :, None])
        heads = (split_heads(part, self.heads) for part in (events.unpack(self.query(x)), key, value))
        mixed = x + self.output(events.pack(attend(*heads, F.pad(seen, (0, 1), value=True))))  # Eq. 16
        last = asking.latest(reads, self.tokens)
        return self.encoder.each(events.unpack(mixed), mask, age, last, packed)[0]  # Eq. 17

    def _tokens(self, joined: Tensor, events: Events, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the tokens of events (1, B, Lb or M Lb, D), their mask and their ages."""
        x, mask, age = events.of(joined), events.mask, events.positions - length
        if not self.in_time:
            return x, mask, age
        within = torch.arange(self.tokens, device=age.device)
        ages = (self.tokens * age[..., None] + within).flatten(1)  # the newest token is -1 again
        return x.permute(1, 2, 0, 3).flatten(1, 2)[None], mask.repeat_interleave(self.tokens, 1), ages

    def _read(self, asking: Tensor, mask: Tensor, asked: Tensor, asked_mask: Tensor) -> Tensor:
        """Return (B, D) from the events (1, B, L, D) of one behavior that query those of the other."""
        asked = torch.cat([asked, self.null.expand(1, asked.shape[1], 1, -1)], 2)
        key, value = self.key_and_value(asked).chunk(2, -1)
        seen = F.pad(asked_mask, (0, 1), value=True)[:, None]
        heads = (split_heads(part, self.heads) for part in (self.query(asking), key, value))
        mixed = asking + self.output(attend(*heads, seen))  # Eq. 16, with a residual
        pooled: Tensor = self.encoder(mixed, mask)[0]  # Eq. 17
        return pooled

    def _fused(self, streams: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return H_b and its mask from (M, B, L, D): (1, B, L, D), or (1, B, M L, D) side by side in time.

        Tokens of one event stay neighbors, which keeps the padding on the left.  # Eq. 14, 15
        """
        if self.concat is not None:
            return self.concat(torch.cat(streams.unbind(0), -1))[None], mask
        return streams.permute(1, 2, 0, 3).flatten(1, 2)[None], mask.repeat_interleave(self.tokens, 1)
