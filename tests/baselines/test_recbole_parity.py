"""SASRec, GRU4Rec and BERT4Rec in RecBole's architecture compute what RecBole's own classes compute.

All weights of RecBole's module are drawn at random (norms and biases too, and the padding row, which must
not matter) and copied; `*_weights` say which tensor goes where, and map gradients likewise. Positions:
RecBole pads on the right and counts from the oldest event, ours pads on the left and counts from the newest,
so a history of n events reads rows 0..n-1 there and the last n rows here. Rows are copied for one length at a
time.

RecBole's softmax has the padding item as one more class. Its share is taken out of its loss by its own logits
(SASRec, GRU4Rec) or switched off by its bias (BERT4Rec), and what is left is compared.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.baselines.bert4rec import BERT4Rec, BERT4RecConfig
from bench.baselines.gru4rec import GRU4Rec, GRU4RecConfig
from bench.baselines.sasrec import SASRec, SASRecConfig
from bench.config import build_options
from bench.contract import events
from bench.example import example_info
from bench.interface import Batch
from bench.registry import select

pytest.importorskip("recbole")

LONGEST, ITEMS = 8, 30
LENGTHS = (1, 2, 5, 7, 8, 12)
"""Events of a history; the model reads the newest 8."""
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
Weights = Mapping[str, Tensor]


@pytest.fixture(params=list(TOLERANCE), ids=str)
def tolerance(request: pytest.FixtureRequest) -> Iterator[float]:
    """Set the precision of everything that is built, and return the largest difference it allows."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield TOLERANCE[request.param]
    torch.set_default_dtype(before)


@dataclass
class Both:
    """Our model, RecBole's adapter, and the mapping of tensors to ours for histories of n events."""

    ours: Any
    adapter: Any
    mapping: Callable[[Weights, int], dict[str, Tensor]]

    @property
    def recbole(self) -> Any:
        return self.adapter.inner

    def copy(self, length: int) -> None:
        """Copy the weights for histories of some number of events."""
        mapped = self.mapping(self.recbole.state_dict(), length)
        assert set(mapped) == {name for name, _ in self.ours.named_parameters()}
        with torch.no_grad():
            for name, parameter in self.ours.named_parameters():
                parameter.copy_(mapped[name])

    def interaction(self, histories: Batch, **more: Tensor) -> Any:
        return self.adapter.of(**self.adapter.row(histories), **more)


def blocks(of: Weights, first: str) -> dict[str, Tensor]:
    """Return RecBole's transformer layers as our `TransformerBlock`s, and its input norm."""
    mapped = {}
    for kind in ("weight", "bias"):
        mapped[f"input_norm.{kind}"] = of[f"{first}.{kind}"]
        for number in range(2):
            attention = f"trm_encoder.layer.{number}.multi_head_attention"
            network, own = f"trm_encoder.layer.{number}.feed_forward", f"blocks.{number}"
            parts = [of[f"{attention}.{part}.{kind}"] for part in ("query", "key", "value")]
            mapped[f"{own}.query_key_value.{kind}"] = torch.cat(parts)
            mapped[f"{own}.output.{kind}"] = of[f"{attention}.dense.{kind}"]
            mapped[f"{own}.attention_norm.{kind}"] = of[f"{attention}.LayerNorm.{kind}"]
            mapped[f"{own}.network.0.{kind}"] = of[f"{network}.dense_1.{kind}"]
            mapped[f"{own}.network.2.{kind}"] = of[f"{network}.dense_2.{kind}"]
            mapped[f"{own}.network_norm.{kind}"] = of[f"{network}.LayerNorm.{kind}"]
    return mapped


def without_padding(table: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(table[:1]), table[1:]])


def newest_last(positions: Tensor, length: int) -> Tensor:
    """Return (L, D) with the rows of the first `length` positions at the end."""
    length = min(length, LONGEST)
    return torch.cat([torch.zeros_like(positions[length:]), positions[:length]])


def sasrec_weights(of: Weights, length: int) -> dict[str, Tensor]:
    table = without_padding(of["item_embedding.weight"])
    positions = newest_last(of["position_embedding.weight"], length)
    return {"items.weight": table, "positions": positions, **blocks(of, "LayerNorm")}


def gru4rec_weights(of: Weights, length: int) -> dict[str, Tensor]:
    mapped = {"items.weight": without_padding(of["item_embedding.weight"])}
    for name in (name for name in of if name.startswith("gru_layers.")):
        mapped[name.replace("gru_layers", "gru")] = of[name]
    return mapped | {f"projection.{kind}": of[f"dense.{kind}"] for kind in ("weight", "bias")}


def bert4rec_weights(of: Weights, length: int) -> dict[str, Tensor]:
    mapped = sasrec_weights(of, length) | {"item_bias": without_padding(of["output_bias"])}
    for kind in ("weight", "bias"):
        mapped[f"head.0.{kind}"] = of[f"output_ffn.{kind}"]
        mapped[f"head.2.{kind}"] = of[f"output_ln.{kind}"]
    return mapped


def build(name: str, **options: object) -> Both:
    """Return both models in eval mode, RecBole's with random weights; options are RecBole's."""
    (entry,) = select(f"recbole:{name}")
    kind = entry.load()
    given = {"max_history": LONGEST, "hidden_size": 12, **options}
    torch.manual_seed(0)
    adapter = kind(build_options(kind.Config, given, name), example_info())
    adapter.set_up(events())
    for parameter in adapter.inner.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    if name == "SASRec":
        config = SASRecConfig(hidden_size=12, num_heads=2, block="bert", loss="ce", max_history=LONGEST)
        return Both(SASRec(config, example_info()).eval(), adapter.eval(), sasrec_weights)
    if name == "BERT4Rec":
        config = BERT4RecConfig(hidden_size=12, num_heads=2, max_history=LONGEST)
        return Both(BERT4Rec(config, example_info()).eval(), adapter.eval(), bert4rec_weights)
    layers = adapter.config.num_layers
    config = GRU4RecConfig(
        hidden_size=12, embedding_size=10, num_layers=layers, bias=False, dropout=0.0, max_history=LONGEST
    )
    return Both(GRU4Rec(config, example_info()).eval(), adapter.eval(), gru4rec_weights)


TRANSFORMER = {"n_heads": 2, "inner_size": 48}
NEXT_ITEM = [
    ("SASRec", TRANSFORMER),
    ("GRU4Rec", {"embedding_size": 10}),
    ("GRU4Rec", {"embedding_size": 10, "num_layers": 2}),
]


def histories(length: int, users: int = 3) -> Batch:
    """Return left-padded histories of some number of events, with two positions of padding at least."""
    items = torch.randint(1, ITEMS + 1, (users, length), generator=torch.Generator().manual_seed(length))
    history = F.pad(items, (max(LONGEST - length, 0) + 2, 0))
    zeros = torch.zeros_like(history)
    return Batch(torch.arange(users), history, zeros, zeros)


def states(ours: Any, batch: Batch, length: int) -> Tensor:
    """Return (B, n, E), our states of the real events that are read, oldest first."""
    if isinstance(ours, GRU4Rec):
        return ours.states(batch.history)[0][:, :length]
    return ours.hidden(batch.history)[:, -length:]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("name", "options"), NEXT_ITEM)
def test_states_at_every_event_and_scores_of_all_items_are_equal(name, options, length, tolerance) -> None:
    """RecBole's `forward` returns the state of one event: the one that the length points at."""
    both, batch, read = build(name, **options), histories(length), min(length, LONGEST)
    both.copy(length)
    asked = both.interaction(batch)
    with torch.no_grad():
        found = states(both.ours, batch, read)
        for event in range(read):
            expected = both.recbole.forward(asked["item_id_list"], torch.full((3,), event + 1))
            assert (found[:, event] - expected).abs().max() < tolerance
        scores = both.ours.score(batch, torch.arange(1, ITEMS + 1).expand(3, -1))
        expected = both.recbole.full_sort_predict(asked)[:, 1:]
    assert (scores - expected).abs().max() < tolerance
    assert expected.std() > 0.1  # large enough to be told apart


def padding_share(logits: Tensor) -> Tensor:
    """Return what the padding class adds to RecBole's loss: logits (n, N + 1)."""
    return (logits.logsumexp(1) - logits[:, 1:].logsumexp(1)).mean()


def labelled(batch: Batch, length: int, whole: bool) -> tuple[Batch, list[tuple[Batch, Tensor]]]:
    """Return a batch with a label at its newest event or at every event that is read, and what RecBole trains
    on: the histories that end at those events, with their targets (B,).
    """
    batch.labels, rows = torch.zeros_like(batch.history), []
    for end in range(length) if whole else [length - 1]:
        column = batch.history.shape[1] - length + end
        target = (batch.history[:, column] * 7 + end) % ITEMS + 1
        batch.labels[:, column] = target
        prefix = torch.cat([torch.zeros(len(batch), 2, dtype=torch.long), batch.history[:, : column + 1]], 1)
        zeros = torch.zeros_like(prefix)
        rows.append((Batch(batch.user, prefix, zeros, zeros), target))
    batch.label_behavior = (batch.labels > 0).long()
    return batch, rows


def recbole_loss(both: Both, rows: list[tuple[Batch, Tensor]]) -> Tensor:
    """Return the mean of RecBole's losses over rows of equal numbers of users, less the padding class."""
    total = torch.zeros(())
    for batch, target in rows:
        asked = both.interaction(batch, item_id=target)
        loss = both.recbole.calculate_loss(asked) - padding_share(both.recbole.full_sort_predict(asked))
        total = total + loss / len(rows)
    return total


@pytest.mark.parametrize("length", [1, 5, 8])
@pytest.mark.parametrize("whole", [False, True], ids=["newest", "all"])
@pytest.mark.parametrize(("name", "options"), NEXT_ITEM)
def test_losses_and_gradients_are_equal(name, options, whole, length, tolerance) -> None:
    """The loss of a window with a label at every event is the mean of RecBole's losses of its prefixes."""
    both = build(name, **options)
    both.copy(length)
    batch, rows = labelled(histories(length), length, whole)
    found, expected = both.ours.loss(batch)["loss"], recbole_loss(both, rows)
    assert abs(found - expected).item() < tolerance
    found.backward()
    expected.backward()
    gradients = {name: p.grad for name, p in both.recbole.named_parameters()}
    mapped = both.mapping(gradients, length)
    for name, parameter in both.ours.named_parameters():
        assert (parameter.grad - mapped[name]).abs().max() < tolerance, name


def masked(length: int, oldest: bool) -> tuple[Batch, Tensor, Tensor]:
    """Return histories with [MASK] at two events, labels there alone (B, L), and whether `oldest` is one."""
    batch = histories(length)
    events = [batch.history.shape[1] - length + (0 if oldest else 1), batch.history.shape[1] - 1]
    labels = torch.zeros_like(batch.history)
    labels[:, events] = batch.history[:, events]
    batch.history = torch.where(labels > 0, ITEMS + 1, batch.history)
    return batch, labels, torch.tensor(events) - batch.history.shape[1] + length


@pytest.mark.parametrize("length", [2, 5, 7, 8])
def test_bert4rec_is_equal_at_every_event_of_a_masked_history(length, tolerance) -> None:
    both = build("BERT4Rec", **TRANSFORMER)
    both.copy(length)
    batch, _, _ = masked(length, oldest=False)
    with torch.no_grad():
        history = batch.history[:, -length:]
        found = both.ours.head(both.ours.hidden(history, torch.ones_like(history, dtype=torch.bool)))
        expected = both.recbole.forward(both.interaction(batch)["item_id_list"])[:, :length]
    assert (found - expected).abs().max() < tolerance


@pytest.mark.parametrize("length", LENGTHS[1:])
def test_bert4rec_ranks_alike_where_recbole_reads_the_same_events(length, tolerance) -> None:
    """RecBole puts [MASK] behind the history and drops the first column, also where nothing is too long: it
    never reads the oldest of at most 8 events. Ours reads all that fit beside [MASK].
    """
    both, batch = build("BERT4Rec", **TRANSFORMER), histories(length)
    both.copy(length)
    candidates = torch.arange(1, ITEMS + 1).expand(3, -1)
    with torch.no_grad():
        expected = both.recbole.full_sort_predict(both.interaction(batch))[:, 1:]
        batch.history[:, : batch.history.shape[1] - min(length, LONGEST) + 1] = 0  # the oldest that is read
        found = both.ours.score(batch, candidates)
    assert (found - expected).abs().max() < tolerance and expected.std() > 0.1


@pytest.mark.parametrize("length", [8, 12])
def test_bert4rec_ranks_full_histories_as_recbole_without_a_change(length, tolerance) -> None:
    both, batch = build("BERT4Rec", **TRANSFORMER), histories(length)
    both.copy(length)
    with torch.no_grad():
        found = both.ours.score(batch, torch.arange(1, ITEMS + 1).expand(3, -1))
        expected = both.recbole.full_sort_predict(both.interaction(batch))[:, 1:]
    assert (found - expected).abs().max() < tolerance


@pytest.mark.parametrize("oldest", [False, True])
@pytest.mark.parametrize("length", [5, 8])
def test_losses_and_gradients_of_bert4rec_are_equal(length, oldest, tolerance) -> None:
    """RecBole fills its list of masked positions with 0, so it does not count a masked oldest event."""
    both = build("BERT4Rec", **TRANSFORMER)
    with torch.no_grad():
        both.recbole.output_bias[0] = -1e9  # the padding class is out of the softmax
    both.copy(length)
    batch, labels, index = masked(length, oldest)
    chosen = labels[labels > 0].view(3, 2)
    asked = both.interaction(
        batch, Mask_item_id_list=both.adapter.row(batch)["item_id_list"], Pos_item_id=chosen,
        Neg_item_id=chosen, MASK_INDEX=index.repeat(3, 1),
    )  # fmt: skip
    if oldest:
        labels[:, batch.history.shape[1] - length] = 0
    batch.labels, batch.label_behavior = labels, (labels > 0).long()
    found, expected = both.ours.loss(batch)["loss"], both.recbole.calculate_loss(asked)
    assert abs(found - expected).item() < tolerance
    found.backward()
    expected.backward()
    mapped = both.mapping({name: p.grad for name, p in both.recbole.named_parameters()}, length)
    for name, parameter in both.ours.named_parameters():
        assert (parameter.grad - mapped[name]).abs().max() < tolerance, name
