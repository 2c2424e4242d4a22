"""What the model shows of its inside."""

import pytest
import torch
from m3bsr_cases import batch, build, denoised

from bench.models.m3bsr.layout import layout


def shown(options=None, behaviors=("click", "favor"), data=None):
    model = build(options, behaviors=behaviors).eval()
    with torch.no_grad():
        return model, model.diagnostics(batch(behaviors=len(behaviors)) if data is None else data)


def test_all_tables_of_the_full_model_are_there_with_their_labels():
    _, found = shown()
    assert set(found) == {"norms", "gates", "shared", "cosines", "noise_error"}
    assert found["gates"].rows == ("click", "favor") and found["gates"].columns == ("id", "image", "text")
    assert found["cosines"].rows[0] == "shared" and len(found["cosines"].rows) == 7
    assert found["noise_error"].columns == tuple(str(step) for step in range(1, 11))
    assert len(found["noise_error"].rows) == 5 and len(found["norms"].rows) == 7
    assert all(torch.isfinite(one.values).all() for one in found.values())


def test_gates_and_the_shared_part_of_users_with_every_behavior_add_up_to_one():
    data = batch(rows=9)
    both = (data.behavior == 1).any(1) & (data.behavior == 2).any(1)
    data = data.rows(both.nonzero()[:, 0])
    assert len(data) >= 3
    _, found = shown(data=data)
    total = found["gates"].values.sum() + found["shared"].values[0, 0]
    assert total.item() == pytest.approx(1.0, abs=1e-5)
    torch.testing.assert_close(found["shared"].values.sum(), torch.tensor(1.0))


def test_norms_are_the_lengths_kept_and_removed():
    model, found = shown()
    data, row = batch(), found["norms"].rows.index("favor text, CDMD-M")
    (content,) = model.inputs.content_streams(data.history)
    after = denoised(model, data).modality[2]
    kept, removed = [], []
    for user in range(len(data)):
        own = data.behavior[user] == 2
        if own.any():
            kept.append(after[user, own].square().sum(-1).mean().sqrt())
            removed.append((content[1, user, own] - after[user, own]).square().sum(-1).mean().sqrt())
    expected = torch.stack([torch.stack(kept).mean(), torch.stack(removed).mean()])
    torch.testing.assert_close(found["norms"].values[row], expected)


def test_cosines_have_ones_on_the_diagonal_and_are_symmetric():
    values = shown()[1]["cosines"].values
    torch.testing.assert_close(values.diagonal(), torch.ones(7))
    torch.testing.assert_close(values, values.T)


def test_an_untrained_predictor_explains_almost_none_of_the_noise():
    values = shown()[1]["noise_error"].values
    assert values.mean(1) == pytest.approx([1.0] * 5, abs=0.15)


def test_diagnostics_repeat_and_move_no_random_state():
    model = build().eval()
    state = torch.get_rng_state()
    first, second = model.diagnostics(batch()), model.diagnostics(batch())
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(first[name].values, second[name].values) for name in first)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"meie.enabled": False}, {"norms", "noise_error"}),
        ({"meie.shared": False}, {"norms", "gates", "cosines", "noise_error"}),
        ({"cdmd_m.replace": "mlp", "cdmd_b.replace": "identity"}, {"norms", "gates", "shared", "cosines"}),
        ({"cdmd_m.diffusion_steps": 4}, {"norms", "gates", "shared", "cosines", "noise_error"}),
        ({"space": "raw_standardized"}, {"norms", "gates", "shared", "cosines", "noise_error"}),
        ({"fusion": "tile"}, {"norms", "gates", "shared", "cosines", "noise_error"}),
    ],
)
def test_a_part_that_is_not_there_is_not_shown(options, names):
    assert set(shown(options)[1]) == names


def test_stages_with_other_numbers_of_steps_end_early_in_the_table():
    values = shown({"cdmd_m.diffusion_steps": 4})[1]["noise_error"].values
    assert torch.isnan(values[:2, 4:]).all() and torch.isfinite(values[2:]).all()


@pytest.mark.parametrize("behaviors", [("favor",), ("view", "cart", "buy")])
def test_any_number_of_behaviors_is_shown(behaviors):
    _, found = shown(behaviors=behaviors)
    assert found["gates"].rows == behaviors
    assert len(found["cosines"].rows) == 1 + 3 * len(behaviors)
    assert len(found["norms"].rows) == 2 * len(behaviors) + 3 * (len(behaviors) - 1)


def test_a_behavior_that_nobody_has_is_not_a_number():
    data = batch()
    data.behavior[data.behavior == 2] = 1
    values = shown(data=data)[1]["gates"].values
    assert torch.isfinite(values[0]).all() and torch.isnan(values[1]).all()
    assert len(layout(data, 2).target.mask[0]) == 0
