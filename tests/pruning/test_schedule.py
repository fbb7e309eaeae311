"""The strength of the penalty, epoch by epoch, and when units may go."""

import pytest

from keras_kddp.pruning.schedule import Phases, planned_phases


def strengths(phases):
    return [phases.strength(epoch) for epoch in range(phases.epochs)]


def removals(phases):
    epochs = range(phases.epochs)
    return [epoch for epoch in epochs if phases.removes_after(epoch)]


def test_a_run_warms_up_ramps_holds_and_fine_tunes():
    phases = Phases(warmup=2, ramp=4, finetune=3, epochs=11)

    assert strengths(phases) == [
        *[0.0, 0.0],
        *[1 / 4, 2 / 4, 3 / 4, 4 / 4],
        *[1.0, 1.0],
        *[0.0, 0.0, 0.0],
    ]


def test_units_go_from_the_first_ramp_to_the_last_hold_epoch():
    phases = Phases(warmup=2, ramp=4, finetune=3, epochs=11)

    assert removals(phases) == [2, 3, 4, 5, 6, 7]


def test_the_last_removal_is_the_one_before_fine_tuning():
    phases = Phases(warmup=2, ramp=4, finetune=3, epochs=11)

    last = [epoch for epoch in range(11) if phases.is_last_removal(epoch)]
    assert last == [7]


def test_nothing_goes_after_the_last_epoch_of_a_run_without_fine_tuning():
    phases = Phases(warmup=0, ramp=1, finetune=0, epochs=3)

    assert strengths(phases) == [1.0, 1.0, 1.0]
    assert removals(phases) == [0, 1]
    assert phases.is_last_removal(1)


def test_a_run_without_a_ramp_starts_at_full_strength():
    phases = Phases(warmup=1, ramp=0, finetune=1, epochs=4)

    assert strengths(phases) == [0.0, 1.0, 1.0, 0.0]


def test_a_ramp_may_last_until_fine_tuning():
    phases = planned_phases(4, warmup=1, ramp=2, finetune=1)

    assert strengths(phases) == [0.0, 1 / 2, 2 / 2, 0.0]


def test_the_phases_are_an_eighth_a_sixth_and_a_third_by_default():
    assert planned_phases(24) == Phases(24 // 8, 24 // 6, 24 // 3, 24)
    assert planned_phases(48) == Phases(48 // 8, 48 // 6, 48 // 3, 48)


def test_a_phase_that_is_given_is_taken():
    assert planned_phases(24, 0, 1, 2) == Phases(0, 1, 2, 24)
    assert planned_phases(24, finetune=0) == Phases(3, 4, 0, 24)


@pytest.mark.parametrize("epochs", range(2, 65))
def test_the_default_phases_fit_a_run_of_any_length(epochs):
    phases = planned_phases(epochs)

    assert max(strengths(phases)) == 1.0
    assert removals(phases)
    assert all(0.0 <= strength <= 1.0 for strength in strengths(phases))


def test_phases_longer_than_the_run_are_refused():
    message = r"longer than the run. Received: 2 warm-up, 2 ramp and 2 fine-t"
    with pytest.raises(ValueError, match=message):
        planned_phases(5, warmup=2, ramp=2, finetune=2)


@pytest.mark.parametrize(
    ("epochs", "warmup", "ramp", "finetune"),
    [(4, 2, 0, 2), (4, 4, 0, 0), (1, 0, 0, 0), (1, None, None, None)],
    ids=["no penalty", "only warm-up", "nothing after it", "one epoch"],
)
def test_phases_that_leave_nothing_to_prune_are_refused(
    epochs, warmup, ramp, finetune
):
    with pytest.raises(ValueError, match="at least one epoch with a penalty"):
        planned_phases(epochs, warmup, ramp, finetune)
