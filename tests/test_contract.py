"""The contract of bench/interface.py, on every registered model."""

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
        self.items = nn.Embedding(info.num_items + 1, 8, padding_idx=0)
        self.unused = nn.Linear(2, 2) if config.fault == "unused" else None
        self.shift = torch.randn(31) if config.fault == "unsaved" else torch.zeros(31)

    def stages(self) -> tuple[Stage, ...]:
        return (Stage(Causal(), 0.01, 8),)

    def encode(self, batch: Batch) -> Tensor:
        fault = self.config.fault
        count = batch.mask.sum(1, keepdim=True).clamp(min=0 if fault == "empty" else 1)
        count = torch.full_like(count, batch.history.shape[1]) if fault == "padding" else count
        hidden = self.items(batch.history).sum(1) / count
        hidden = hidden - hidden.mean(0) if fault == "batch" else hidden
        return hidden + torch.randn_like(hidden) if fault == "noise" else hidden

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
        last = batch.labels.gather(1, batch.labels.gt(0).int().cumsum(1).argmax(1, keepdim=True))[:, 0]
        logits = self.encode(batch) @ self.items.weight[1:].T
        value = nn.functional.cross_entropy(logits, last - 1)
        if self.config.fault == "generator":
            value = value * (1 + float(np.random.default_rng().random()))
        return {"loss": value * 0 + value.detach() if self.config.fault == "stuck" else value}


FAULTS = {
    "shape": "scores_have_one_finite_number_per_candidate",
    "empty": "scores_have_one_finite_number_per_candidate",
    "order": "order_of_candidates_permutes_scores",
    "padding": "padding_does_not_change_scores",
    "batch": "batch_mates_do_not_change_scores",
    "shared": "shared_candidates_score_as_own_ones",
    "noise": "eval_is_deterministic",
    "unsaved": "state_dict_holds_the_whole_model",
    "generator": "same_seed_gives_same_loss",
    "unused": "loss_moves_every_parameter",
    "stuck": "loss_falls_when_fitting_eight_users",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_model_is_found(fault: str) -> None:
    found = {
        name.replace(" ", "_"): wrong for name, wrong in run_checks(Subject(Broken, BrokenConfig(fault)))
    }
    assert found[FAULTS[fault]]


def test_a_correct_model_passes_every_check() -> None:
    assert [wrong for _, wrong in run_checks(Subject(Broken, BrokenConfig())) if wrong] == []


def test_every_fault_has_its_check() -> None:
    assert set(FAULTS.values()) == {check.__name__.removeprefix("check_") for check in CHECKS}
