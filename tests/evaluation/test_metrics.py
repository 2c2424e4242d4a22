import numpy as np
import pytest

from bench.evaluation.metrics import chance, hit_rate, ndcg, per_user, reciprocal_rank

RANKS = np.array([1, 2, 3, 10, 11, 100])


def test_hit_rate_counts_ranks_up_to_k():
    assert hit_rate(RANKS, 10).tolist() == [1, 1, 1, 1, 0, 0]
    assert hit_rate(RANKS, 1).sum() == 1


def test_ndcg_of_one_relevant_item_by_hand():
    expected = [1.0, 1 / np.log2(3), 0.5, 1 / np.log2(11), 0.0, 0.0]
    np.testing.assert_allclose(ndcg(RANKS, 10), expected, atol=1e-15)


def test_reciprocal_rank_by_hand():
    assert reciprocal_rank(RANKS).tolist() == [1.0, 0.5, 1 / 3, 0.1, 1 / 11, 0.01]


def test_metrics_agree_with_scikit_learn_on_random_lists():
    """ndcg_score of scikit-learn on one-hot relevance is an independent definition of the same metric."""
    from sklearn.metrics import ndcg_score

    rng = np.random.default_rng(0)
    scores = rng.standard_normal((200, 30))
    truth = np.eye(30)[rng.integers(0, 30, 200)]
    ranks = 1 + (scores > (scores * truth).sum(1, keepdims=True)).sum(1)
    for k in (1, 5, 10, 20):
        assert abs(ndcg(ranks, k).mean() - ndcg_score(truth, scores, k=k)) < 1e-12


def test_metrics_agree_with_the_evaluator_of_recbole(monkeypatch):
    """RecBole computes HR and NDCG from a matrix of hits by position and a number of relevant items."""
    pytest.importorskip("recbole")
    monkeypatch.setattr(np, "float", float, raising=False)  # removed from NumPy, and still used there
    from recbole.evaluator.metrics import NDCG, Hit

    rng = np.random.default_rng(1)
    ranks = rng.integers(1, 101, 500)
    top = np.arange(1, 21) == ranks[:, None]  # (users, 20), True where the relevant item stands
    config = {"topk": [5, 10, 20], "metric_decimal_place": 20}
    hits = Hit.metric_info(_bare(Hit, config), top)
    gains = NDCG.metric_info(_bare(NDCG, config), top, np.ones(500, dtype=int))
    for k in (5, 10, 20):
        assert abs(hits[:, k - 1].mean() - hit_rate(ranks, k).mean()) < 1e-12
        assert abs(gains[:, k - 1].mean() - ndcg(ranks, k).mean()) < 1e-12


def _bare(kind, config):
    instance = kind.__new__(kind)
    instance.topk = config["topk"]
    instance.decimal_place = config["metric_decimal_place"]
    return instance


def test_per_user_reads_table_names():
    np.testing.assert_array_equal(per_user("ndcg@20", RANKS), ndcg(RANKS, 20))
    np.testing.assert_array_equal(per_user("MRR", RANKS), reciprocal_rank(RANKS))
    for wrong in ("HR", "HR@0", "MAP@10", "NDCG@x"):
        with pytest.raises(ValueError, match="expected HR@K"):
            per_user(wrong, RANKS)


def test_chance_level_of_100_candidates():
    level = chance(np.full(7, 100), 10)
    assert level["HR@10"] == pytest.approx(0.10)
    assert level["NDCG@10"] == pytest.approx(sum(1 / np.log2(1 + r) for r in range(1, 11)) / 100)
    assert level["NDCG@10"] == pytest.approx(0.0454, abs=5e-5)


def test_chance_level_of_mixed_sizes_is_the_mean_over_users():
    sizes = np.array([5, 100])
    assert chance(sizes, 10)["HR@10"] == pytest.approx((1.0 + 0.1) / 2)
