"""The contract of bench/interface.py, on every registered model."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.config import build_options
from bench.contract import CHECKS, Subject, run_checks
from bench.interface import Batch, Causal, DatasetInfo, Recommender, Stage
from bench.registry import entries

MODELS = entries()


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("name", MODELS)
def test_contract_holds(name: str, check: Callable[[Subject], None]) -> None:
    entry = MODELS[name]
    kind = entry.load()
    check(Subject(kind, build_options(kind.Config, entry.card.options, name)))


@dataclass(frozen=True)
class BrokenConfig:
    """What is wrong with the model."""

    fault: str = "none"


class Broken(Recommender):
    """The mean item vector of the history, a correct model, with one fault to be found."""

    Config = BrokenConfig

    def __init__(self, config: BrokenConfig, info: DatasetInfo) -> None:
        super().__init__(config, info)
        fault, size = config.fault, info.num_items + 1
        self.items = nn.Embedding(size, 8, padding_idx=0)
        self.unused = nn.Linear(2, 2) if fault == "unused" else None
        self.shift = torch.randn(size) if fault == "unsaved" else torch.zeros(size)
        self.layers = [nn.Linear(8, 8)] if fault == "list" else []
        self.kept = torch.zeros(info.num_users, 8)
        self.gram = torch.zeros(size, size) if fault == "growth" else None
        self.second = info.behaviors[1] if fault == "one behavior" else ""
        self.pictures = info.content.features["image"] if fault == "content" else None
        self.spread = math.log(1 / (info.num_items - 1)) if fault == "one item" else 0.0

    def stages(self) -> tuple[Stage, ...]:
        return (Stage(Causal(), 0.01, 8),)

    def hidden(self, batch: Batch) -> Tensor:
        """Return the user after each event, (B, L, 8)."""
        fault = self.config.fault
        count = batch.mask.cumsum(1).clamp(min=0 if fault == "empty" else 1)[..., None]
        if fault == "padding":
            count = torch.arange(1, batch.history.shape[1] + 1)[:, None]
        total = self.items(batch.history).cumsum(1)
        total = total[:, -1:] + 0 * total if fault == "future" else total
        if fault == "empty favors":
            total = total * ((batch.behavior == 2) / (batch.behavior == 2).sum(1, keepdim=True))[..., None]
        hidden = total / count
        for layer in self.layers:
            hidden = hidden + layer(hidden)
        return hidden - hidden.mean(0) if fault == "batch" else hidden

    def encode(self, batch: Batch) -> Tensor:
        hidden = self.hidden(batch)[:, -1] + self.kept[batch.user]
        return hidden + torch.randn_like(hidden) if self.config.fault == "noise" else hidden

    def score_encoded(self, encoded: Tensor, candidates: Tensor, items: None) -> Tensor:
        if candidates.dim() == 1:
            scores = encoded @ self.items(candidates).T * (2 if self.config.fault == "shared" else 1)
        else:
            scores = torch.einsum("bd,bcd->bc", encoded, self.items(candidates))
        scores = scores + self.shift[candidates]
        if self.config.fault == "order":
            scores = scores + torch.arange(scores.shape[1])
        return scores[:, :1] if self.config.fault == "shape" else scores

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.labels is not None
        hidden, labelled = self.hidden(batch), batch.labels > 0
        if self.config.fault == "users":
            self.kept[batch.user] = hidden[:, -1].detach()
        logits = hidden[labelled] @ self.items.weight[1:].T
        value = nn.functional.cross_entropy(logits, batch.labels[labelled] - 1)
        if self.config.fault == "generator":
            value = value * (1 + float(np.random.default_rng().random()))
        return {"loss": value * 0 + value.detach() if self.config.fault == "stuck" else value}


FAULTS = {
    "shape": ("scores_have_one_finite_number_per_candidate", "score returned"),
    "empty": ("scores_have_one_finite_number_per_candidate", "a score .*is NaN or infinite"),
    "order": ("order_of_candidates_permutes_scores", "pairs each score with its own candidate"),
    "padding": ("padding_does_not_change_scores", "more padding changes scores .* batch.mask tells"),
    "batch": ("batch_mates_do_not_change_scores", "over the users of a batch"),
    "shared": ("shared_candidates_score_as_own_ones", "candidates .C,. shared by all users"),
    "noise": ("eval_is_deterministic", "dropout and draws that go on in eval mode"),
    "unsaved": ("state_dict_holds_the_whole_model", "register parameters and buffers"),
    "users": ("state_dict_holds_the_whole_model", "users kept from training"),
    "generator": ("same_seed_gives_same_loss", "use torch's global generator alone"),
    "unused": ("loss_moves_every_parameter", "no gradient in any step: unused.bias"),
    "stuck": ("loss_falls_when_fitting_eight_users", "in 40 epochs"),
    "future": ("a_position_sees_nothing_that_comes_later", "uses the future.*attention mask"),
    "list": ("parameters_are_registered", "self.layers is a list .* use nn.ModuleList"),
    "one behavior": ("one_behavior_is_enough", "breaks on a log of one behavior: IndexError"),
    "content": ("images_and_texts_may_be_absent", "breaks on items without image.*KeyError"),
    "empty favors": ("an_empty_target_history_is_scored", "without an event of the target behavior is NaN"),
    "one item": ("a_catalog_of_one_item_is_enough", "breaks on a catalog of one item: ZeroDivisionError"),
    "growth": ("memory_grows_no_faster_than_the_catalog", "holds .* look for an array of items by items"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_model_is_found(fault: str) -> None:
    check, message = FAULTS[fault]
    results = run_checks(Subject(Broken, BrokenConfig(fault)))
    found = {name.replace(" ", "_"): wrong for name, wrong in results}
    assert re.search(message, found[check]), found


def test_a_correct_model_passes_every_check() -> None:
    assert [wrong for _, wrong in run_checks(Subject(Broken, BrokenConfig())) if wrong] == []


def test_every_fault_has_its_check() -> None:
    assert {check for check, _ in FAULTS.values()} == {
        check.__name__.removeprefix("check_") for check in CHECKS
    }
