import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from bench.evaluation.ctr import METRICS, WeightedAUC, calibrated, chance, grouped_auc, values


def drawn(seed=0, users=60, longest=6, levels=8, skill=1.0):
    """Users of 1 to `longest` pairs in random order, some of one label, scores with many ties."""
    rng = np.random.default_rng(seed)
    user = rng.permutation(np.repeat(np.arange(users) * 7, rng.integers(1, longest + 1, users)))
    label = rng.integers(0, 2, len(user)).astype(np.int32)
    score = np.floor(levels * rng.random(len(user)) + skill * label).astype(np.float32)
    return user.astype(np.int32), label, score


def stored(test, validation):
    parts = {"test": test, "validation": validation}
    names = ("user", "label", "score")
    return {
        f"{part}_{name}": column
        for part, columns in parts.items()
        for name, column in zip(names, columns, strict=True)
    }


@pytest.mark.parametrize("seed", range(5))
def test_gauc_is_the_loop_over_users_with_the_auc_of_scikit_learn(seed):
    user, label, score = drawn(seed)
    total = weight = 0.0
    for one in np.unique(user):
        own = user == one
        if 0 < label[own].sum() < own.sum():
            total += own.sum() * roc_auc_score(label[own], score[own])
            weight += own.sum()
    assert 0 < weight < len(user)  # some users are skipped, some are not
    assert grouped_auc(user, label, score) == pytest.approx(total / weight, abs=1e-12)


def test_gauc_by_hand():
    # user 0: above one of two negatives, tied with the other: (1 + 0.5) / 2; user 1: 0; user 2: skipped
    user = np.array([0, 0, 0, 1, 1, 2])
    label = np.array([1, 0, 0, 1, 0, 1])
    score = np.array([5.0, 5.0, 1.0, -1.0, 2.0, 9.0])
    assert grouped_auc(user, label, score) == pytest.approx((3 * 0.75 + 2 * 0.0) / 5)


def test_gauc_of_one_user_is_its_auc_and_of_no_user_with_both_labels_is_undefined():
    _, label, score = drawn()
    assert grouped_auc(np.zeros(len(label), int), label, score) == pytest.approx(roc_auc_score(label, score))
    assert np.isnan(grouped_auc(np.array([0, 1]), np.array([0, 1]), np.array([0.0, 1.0])))


def test_a_constant_scorer_gets_exactly_one_half_and_the_entropy():
    user, label, score = drawn()
    pairs = stored((user, label, 0 * score + 3), (user, label, 0 * score + 3))
    found = values(pairs)
    assert (found["AUC"], found["GAUC"]) == (0.5, 0.5)
    # the softened labels move the constant probability off the share of positives by less than 1 / V
    assert found["LogLoss"] == pytest.approx(chance(pairs)["LogLoss"], abs=1e-4)
    assert WeightedAUC(user, label, [0 * score])(np.ones((user.max() + 1, 1)))[0] == 0.5


def test_the_values_are_those_of_scikit_learn():
    test, validation = drawn(1), drawn(2)
    found = values(stored(test, validation))
    assert list(found) == list(METRICS)
    assert found["AUC"] == pytest.approx(roc_auc_score(test[1], test[2]))
    probability = calibrated(validation[1], validation[2], test[2])
    assert found["LogLoss"] == pytest.approx(log_loss(test[1], probability))
    with pytest.raises(ValueError, match="'HR@10': expected AUC, GAUC, LogLoss"):
        values(stored(test, validation), ["HR@10"])


def test_calibrated_informative_scores_beat_the_entropy_on_their_own_pairs():
    _, label, score = drawn(skill=3.0, users=300)
    share = label.mean()
    entropy = -share * np.log(share) - (1 - share) * np.log(1 - share)
    fitted = log_loss(label, calibrated(label, score, score))
    assert fitted < entropy - 0.05
    for slope in np.linspace(-1, 2, 31):  # no other slope and shift do better
        for shift in np.linspace(-6, 3, 31):
            other = 1 / (1 + np.exp(-(slope * score + shift)))
            assert fitted <= log_loss(label, other) + 1e-4


def test_logloss_does_not_depend_on_the_scale_of_the_scores_and_auc_neither():
    (user, label, score), (_, known, seen) = drawn(1), drawn(2)
    plain = values(stored((user, label, score), (user, known, seen)))
    moved = values(stored((user, label, 1e4 * score - 5e5), (user, known, 1e4 * seen - 5e5)))
    assert moved == pytest.approx(plain, abs=1e-5)


def test_scores_that_part_the_labels_stay_finite():
    label = np.array([0] * 20 + [1] * 20)
    probability = calibrated(label, label.astype(np.float32), np.array([0.0, 1.0, 50.0]))
    # Platt's targets: 1 / 22 for the lower, 21 / 22 for the upper
    assert probability[:2] == pytest.approx([1 / 22, 21 / 22], abs=1e-3)
    assert np.isfinite(probability).all()


@pytest.mark.parametrize("negatives", [1, 4])
def test_the_chance_level_is_the_entropy_of_the_labels(negatives):
    label = np.tile([1] + [0] * negatives, 30)
    share = 1 / (1 + negatives)
    expected = -(share * np.log(share) + (1 - share) * np.log(1 - share))
    assert chance({"test_label": label}) == pytest.approx({"AUC": 0.5, "GAUC": 0.5, "LogLoss": expected})


def test_weights_of_users_act_like_copies_of_their_pairs():
    user, label, score = drawn(3)
    other = drawn(4)[2][: len(user)]
    other = np.resize(other, len(user))
    _, place = np.unique(user, return_inverse=True)
    users = place.max() + 1
    weights = np.random.default_rng(0).integers(0, 4, (users, 7)).astype(np.float32)
    found = WeightedAUC(place, label, [score, other])(weights)
    for column, value in zip(weights.T, found, strict=True):
        times = column[place].astype(int)
        runs = [roc_auc_score(np.repeat(label, times), np.repeat(run, times)) for run in (score, other)]
        assert value == pytest.approx(np.mean(runs), abs=1e-6)


def test_long_resamples_are_cut_into_blocks_without_a_trace(monkeypatch):
    user, label, score = drawn(5)
    weights = np.random.default_rng(1).integers(1, 4, (user.max() + 1, 9)).astype(np.float64)
    statistic = WeightedAUC(user, label, [score])
    whole = statistic(weights)
    monkeypatch.setattr("bench.evaluation.ctr.BLOCK", 2 * len(user))
    assert whole == pytest.approx(statistic(weights), abs=1e-12)
