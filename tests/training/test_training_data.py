import numpy as np

from bench.training.data import training_data


def test_training_data_hold_no_test_event_nor_anything_later(make_task):
    task = make_task()
    data, events = training_data(task), task.interactions
    kept = {user: data.interactions.offsets[user + 1] - data.interactions.offsets[user] for user in range(40)}
    for target in task.split.test:
        user = int(events.user_of(np.array([target]))[0])
        assert kept[user] <= target - events.offsets[user]
    for user in range(40):
        a, b = data.interactions.offsets[user], events.offsets[user]
        assert np.array_equal(data.interactions.item[a : a + kept[user]], events.item[b : b + kept[user]])


def test_validation_targets_are_the_same_events_after_the_cut(make_task):
    task = make_task()
    data = training_data(task)
    assert len(task.split.validation) > 5
    np.testing.assert_array_equal(
        data.interactions.item[data.validation.targets], task.interactions.item[task.split.validation]
    )
    np.testing.assert_array_equal(data.validation.held.users, task.held_users(task.split.validation))


def test_training_events_end_before_the_validation_item(make_task):
    task = make_task()
    data = training_data(task)
    lengths = task.split.train_end - task.interactions.offsets[:-1]
    np.testing.assert_array_equal(np.bincount(data.events.user, minlength=40), lengths)


def test_target_history_keeps_target_events_alone(make_task):
    data = training_data(make_task(history="target"))
    assert set(data.interactions.behavior) == {2}
