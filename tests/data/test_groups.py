"""Groups that an npz file tells stand on one side of each split."""

import warnings

import numpy as np
import pytest
from small_datasets import arrays

from keras_kddp.data.datasets import load_dataset


def load(folder, **groups):
    np.savez(folder / "data.npz", **arrays(train=48), **groups)
    return load_dataset(f"npz:{folder / 'data.npz'},scale=255,group=subject")


@pytest.mark.parametrize("name", ["subject", "subject_train"])
@pytest.mark.parametrize("column", [False, True])
def test_the_validation_split_has_subjects_of_its_own(name, column, tmp_path):
    subjects = np.arange(48) // 4
    given = {name: subjects[:, None] if column else subjects}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load(tmp_path, **given, subject_test=np.full(6, 99))
    images = arrays(train=48)["x_train"] / 255
    is_held = (images[:, None] - data.validation.x[None] < 1e-6).all((2, 3))
    is_held &= (data.validation.x[None] - images[:, None] < 1e-6).all((2, 3))
    held = is_held.any(axis=1)
    assert len(set(subjects[held])) * 4 == held.sum() == 4
    assert "1 of 12 groups of 'subject'" in data.notes[-1]


def test_subjects_of_two_splits_are_warned_about(tmp_path):
    subjects = np.arange(48) // 4
    with pytest.warns(
        UserWarning, match=r"and in `test`. Received 2 that do, such as \[3, 4"
    ):
        load(
            tmp_path,
            subject=subjects,
            subject_test=np.array([3, 3, 4, 4, 20, 20]),
        )


def test_the_subjects_of_a_given_validation_split_are_compared(tmp_path):
    own = {f"{part}_validation": arrays()[f"{part}_test"] for part in "xy"}
    with pytest.warns(UserWarning, match="in `validation`. Received 1 that"):
        data = load(
            tmp_path,
            **own,
            subject=np.arange(48) // 4,
            subject_validation=np.array([0, 20, 20, 21, 21, 21]),
        )
    assert data.split_sizes["train"] == 48


def test_the_subjects_of_two_other_splits_are_compared(tmp_path):
    own = {f"{part}_validation": arrays()[f"{part}_test"] for part in "xy"}
    message = r"in `validation` and in `test`. Received 1 that do, such as \[21"
    with pytest.warns(UserWarning, match=message):
        load(
            tmp_path,
            **own,
            subject=np.arange(48) // 4,
            subject_validation=np.array([20, 20, 20, 21, 21, 21]),
            subject_test=np.array([21, 21, 22, 22, 23, 23]),
        )


def test_a_split_whose_subjects_are_unknown_is_told(tmp_path):
    data = load(tmp_path, subject=np.arange(48) // 4)
    assert data.notes[0] == (
        "no 'subject_test': whether `train` has groups of `test` was not "
        "checked"
    )
    told = load(
        tmp_path, subject=np.arange(48) // 4, subject_test=np.arange(20, 26)
    )
    assert not any("not checked" in note for note in told.notes)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"subject": np.arange(47)}, r"\(48,\).*shape \(47,\)"),
        (
            {"subject": np.arange(48) // 4, "subject_test": np.zeros(5)},
            r"groups of `test` must be one for each example, \(6,\)",
        ),
        ({"subject_test": np.arange(6)}, "as 'subject_train' or as 'subject'"),
        (
            {
                "subject": np.arange(48) // 4,
                "subject_validation": np.arange(6),
            },
            r"\['x_validation', 'y_validation'\] are missing",
        ),
    ],
)
def test_groups_that_do_not_fit_are_refused(groups, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load(tmp_path, **groups)
