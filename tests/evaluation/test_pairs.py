import numpy as np
import pytest
import torch

from bench.data.schema import ItemContent
from bench.errors import UserError
from bench.evaluation.pairs import score_pairs
from bench.evaluation.ranks import Held, rank
from bench.interface import Batch, DatasetInfo, Recommender

CPU = torch.device("cpu")


class Scaled(Recommender):
    """The score of an item is its id, for user u plus 100 u."""

    factor = 1.0

    def score(self, batch, candidates):
        return self.factor * (candidates.double() + 100 * batch.user[:, None])


def model(factor=1.0):
    made = Scaled(None, DatasetInfo(3, 9, ("click", "favor"), ItemContent(9)))
    made.factor = factor
    return made


def held(negatives):
    return Held(np.array([0, 1, 2]), np.array([5, 6, 7]), negatives, touched=None, seed=0)


NEGATIVES = np.array([[9, 1, 2, 3], [4, 8, 0, 0], [0, 0, 0, 0]], np.int32)


def batches():
    """Rows out of order, two batches."""
    for rows in (np.array([2, 0]), np.array([1])):
        zeros = torch.zeros(len(rows), 1, dtype=torch.int64)
        yield rows, Batch(user=torch.from_numpy(rows), history=zeros, behavior=zeros, timestamp=zeros)


def test_pairs_are_the_held_out_items_and_the_first_of_their_negatives():
    found = score_pairs(model(), held(NEGATIVES), 3, batches(), CPU)
    assert found["user"].tolist() == [0, 0, 0, 0, 1, 1, 1, 2]
    assert found["label"].tolist() == [1, 0, 0, 0, 1, 0, 0, 1]
    assert found["score"].tolist() == [5, 9, 1, 2, 106, 104, 108, 207]
    assert [found[name].dtype for name in ("user", "label", "score")] == [np.int32, np.int32, np.float32]


def test_the_ranks_of_all_negatives_follow_from_the_pairs():
    found = score_pairs(model(), held(NEGATIVES), 4, batches(), CPU)
    ranks = rank(model(), held(NEGATIVES), batches(), CPU)
    for user, place in enumerate(ranks):
        own = found["score"][found["user"] == user]
        assert place == 1 + (own[1:] > own[0]).sum()


def test_a_score_that_is_not_finite_names_model_and_user():
    with pytest.raises(UserError, match="Scaled: a score of user 0 is NaN or infinite"):
        score_pairs(model(float("nan")), held(NEGATIVES), 1, batches(), CPU)


def test_pairs_need_negatives():
    with pytest.raises(ValueError, match="full catalog"):
        score_pairs(model(), held(None), 1, batches(), CPU)
    with pytest.raises(UserError, match="no held-out event has an untouched item"):
        score_pairs(model(), held(0 * NEGATIVES), 1, batches(), CPU)
