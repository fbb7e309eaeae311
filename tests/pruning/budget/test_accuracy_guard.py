"""How far the accuracy of a student may fall."""

import keras
import numpy as np
import pytest
from budgeted_runs import (
    Judged,
    X,
    Y,
    compile_eagerly,
    make_student,
    small,
    small_run,
    train,
    units_of,
)
from classifiers import CROSSENTROPY

from keras_kddp import Budget, Distiller, DynamicPruning, prepare
from keras_kddp.profiling import profile


def test_the_smallest_student_that_keeps_its_accuracy_is_returned(
    digits, teacher
):
    distiller, callback, history = train(
        digits,
        teacher,
        Budget(max_accuracy_drop=0.03),
        epochs=12,
        batch_size=128,
    )

    _, (x, y) = digits
    accuracy = (distiller.student.predict(x, verbose=0).argmax(1) == y).mean()
    unpruned = history["units"].count(history["units"][0])
    reference = max(history["val_accuracy"][: unpruned - 1] or [0])
    assert accuracy >= reference - 0.03
    assert callback.removals
    assert profile(distiller.student).parameters < 12_658


def test_a_removal_that_broke_the_accuracy_is_taken_back(digits, teacher):
    # At rate 0 nothing recovers: whatever breaks stays broken.
    distiller, callback, history = train(
        digits,
        teacher,
        Budget(max_accuracy_drop=0.0, reference=0.0001),
        optimizer=keras.optimizers.SGD(0.0),
        epochs=6,
        batch_size=len(digits[0][0]),
    )

    assert callback.removals  # an untrained student has nothing to lose
    assert history["units"][-1] < history["units"][0]


def test_the_student_before_a_broken_removal_comes_back_whole(digits, teacher):
    keras.utils.set_random_seed(2)
    trained = make_student()
    trained.compile("adam", CROSSENTROPY, jit_compile=False)
    trained.fit(*digits[0], epochs=10, verbose=0)
    distiller = Distiller(teacher, prepare(trained, l1=0.0))
    compile_eagerly(distiller, keras.optimizers.SGD(0.0))
    callback = DynamicPruning(
        warmup_epochs=0,
        ramp_epochs=0,
        finetune_epochs=1,
        budget=Budget(max_accuracy_drop=0.0),
    )

    history = distiller.fit(
        *digits[0],
        validation_data=digits[1],
        epochs=8,
        batch_size=len(digits[0][0]),
        validation_batch_size=len(digits[1][0]),
        verbose=0,
        callbacks=[callback],
    ).history

    # Removals were tried and taken back, with half as many each time.
    assert min(history["units"]) < history["units"][-1]
    _, (x, y) = digits
    accuracy = (distiller.student.predict(x, verbose=0).argmax(1) == y).mean()
    assert accuracy >= history["val_accuracy"][0] - 1e-6
    assert history["parameters"][-1] == profile(distiller.student).parameters


def test_an_accuracy_that_nothing_keeps_is_told(digits, teacher):
    with pytest.warns(UserWarning, match=r"not even the unpruned one"):
        _, callback, history = train(
            digits,
            teacher,
            Budget(max_accuracy_drop=0.0, reference=1.0),
            epochs=4,
            batch_size=len(digits[0][0]),
        )

    assert callback.removals == []
    assert len(set(history["units"])) == 1


def test_a_drop_without_validation_data_is_refused(digits, teacher):
    distiller = Distiller(teacher, prepare(make_student()))
    distiller.compile("adam", CROSSENTROPY)
    callback = DynamicPruning(budget=Budget(max_accuracy_drop=0.1))

    with pytest.raises(ValueError, match="needs validation data"):
        distiller.fit(*digits[0], epochs=4, verbose=0, callbacks=[callback])


def fit_with_metrics(metrics, weighted_metrics=None):
    distiller = Distiller(small(24), prepare(small()))
    distiller.compile(
        "adam",
        CROSSENTROPY,
        metrics=metrics,
        weighted_metrics=weighted_metrics,
        run_eagerly=True,
    )
    callback = DynamicPruning(budget=Budget(max_accuracy_drop=0.9))
    distiller.fit(
        X, Y, validation_split=0.25, epochs=2, verbose=0, callbacks=[callback]
    )


class HasBegunError(Exception):
    """Stands for the training."""


@pytest.fixture
def no_training(monkeypatch):
    def train_step(*arguments):
        raise HasBegunError

    monkeypatch.setattr(Distiller, "train_step", train_step)


def top_k_accuracy(labels, outputs):
    return keras.metrics.sparse_top_k_categorical_accuracy(labels, outputs, 2)


@pytest.mark.parametrize(
    ("metrics", "received"),
    [
        (None, r"\['val_loss', .*\]"),
        (["sparse_categorical_crossentropy"], r"\[.*_crossentropy'\]"),
        (
            ["sparse_categorical_accuracy", top_k_accuracy],
            r"\['val_top_k_accuracy', 'val_sparse_.*'\]|"
            r"\['val_sparse_.*', 'val_top_k_accuracy'\]",
        ),
    ],
)
@pytest.mark.usefixtures("no_training")
def test_a_drop_without_one_accuracy_is_refused_before_training(
    metrics, received
):
    with pytest.raises(
        ValueError, match=rf"(?:{received}). Compile with metrics=\['acc"
    ):
        fit_with_metrics(metrics)


@pytest.mark.parametrize(
    ("metrics", "weighted_metrics"),
    [
        (["acc"], None),
        ({"logits": ["sparse_categorical_crossentropy", "accuracy"]}, None),
        ([top_k_accuracy, "accuracy"], None),
        ([keras.metrics.SparseCategoricalAccuracy(name="Accuracy")], None),
        ([top_k_accuracy], None),
        (None, ["sparse_categorical_accuracy"]),
    ],
)
@pytest.mark.usefixtures("no_training")
def test_an_accuracy_is_found_by_its_name(metrics, weighted_metrics):
    with pytest.raises(HasBegunError):
        fit_with_metrics(metrics, weighted_metrics)


def test_accuracy_that_holds_does_not_keep_the_size_from_its_limit():
    budget = Budget(max_accuracy_drop=0.5, max_parameters=200)

    distiller, _ = small_run(budget, Judged(0.9, 0.9, 0.9, 0.9))

    assert profile(distiller.student).parameters <= 200


@pytest.mark.parametrize(
    "options", [{}, {"gradient_accumulation_steps": 2}], ids=str
)
def test_a_removal_is_taken_back_and_time_goes_on(options):
    judged = Judged(0.9, 0.9, 0.1, 0.9, 0.9, 0.9)
    halving = keras.callbacks.LearningRateScheduler(
        lambda epoch, rate: rate / 2 if epoch else rate
    )
    optimizer = keras.optimizers.Adam(0.01, **options)

    distiller, callback = small_run(
        Budget(max_accuracy_drop=0.05),
        judged,
        halving,
        optimizer=optimizer,
        epochs=6,
    )

    np.testing.assert_allclose(judged.rates, 0.01 / 2.0 ** np.arange(6))
    steps = 6 // options.get("gradient_accumulation_steps", 1)
    assert int(distiller.optimizer.iterations) == steps
    assert len(callback.removals) >= 1


def test_a_student_that_was_never_judged_is_not_returned():
    class Break(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if callback.removals:
                weight = self.model.student.weights[0]
                weight.assign(weight * np.nan)

    distiller = Distiller(small(24), prepare(small()))
    compile_eagerly(distiller)
    callback = DynamicPruning(budget=Budget(max_accuracy_drop=0.5))

    with pytest.warns(UserWarning, match="became NaN"):
        distiller.fit(
            X,
            Y,
            validation_data=(X, Y),
            epochs=8,
            verbose=0,
            callbacks=[callback, Break(), Judged(*[0.9] * 8)],
        )

    assert callback.removals == []
    assert units_of(distiller)["first"].size == 16
    assert all(np.isfinite(w).all() for w in distiller.student.get_weights())


def test_training_is_not_undone_where_nothing_was_removed():
    judged = Judged(0.5, 0.9, 0.6, 0.7)

    with pytest.warns(UserWarning, match="no layer has more than minimum_uni"):
        distiller, _ = small_run(
            Budget(max_accuracy_drop=0.0), judged, minimum_units=16
        )

    assert int(distiller.optimizer.iterations) == 4
    for now, last in zip(
        distiller.student.get_weights(), judged.weights[-1], strict=True
    ):
        np.testing.assert_array_equal(now, last)


def test_an_epoch_without_validation_is_not_judged():
    judged = Judged(0.9, None, 0.9, 0.9, None, 0.9)

    distiller, callback = small_run(
        Budget(max_accuracy_drop=0.1), judged, epochs=6
    )

    assert callback.removals
    assert units_of(distiller)["first"].size < 16


def test_a_validation_split_may_stand_beside_no_validation_data():
    distiller = Distiller(small(24), prepare(small()))
    compile_eagerly(distiller)
    callback = DynamicPruning(budget=Budget(max_accuracy_drop=0.5))

    distiller.fit(
        X,
        Y,
        validation_split=0.25,
        validation_data=None,
        epochs=4,
        verbose=0,
        callbacks=[callback],
    )

    assert distiller.fit_validation is None  # the run is over


@pytest.mark.parametrize("is_scaled", [False, True])
def test_averages_of_weights_are_refused_beside_a_drop(is_scaled):
    optimizer = keras.optimizers.Adam(use_ema=True)
    if is_scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    with pytest.raises(ValueError, match="with use_ema=True"):
        small_run(Budget(max_accuracy_drop=0.1), optimizer=optimizer)


def pair_of(width):
    inputs = keras.Input((6,))
    x = keras.layers.Dense(width, "relu", name="fc")(inputs)
    return keras.Model(inputs, [keras.layers.Dense(3)(x) for _ in range(2)])


def test_a_drop_is_refused_for_several_outputs_before_training():
    distiller = Distiller(pair_of(8), prepare(pair_of(16)))
    distiller.compile("adam", CROSSENTROPY, metrics=["accuracy", "accuracy"])
    callback = DynamicPruning(budget=Budget(max_accuracy_drop=0.1))
    before = distiller.student.get_weights()

    with pytest.raises(ValueError, match="needs models of one output"):
        distiller.fit(
            X, [Y, Y], epochs=4, validation_split=0.25, callbacks=[callback]
        )

    for first, second in zip(
        before, distiller.student.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(first, second)


def test_the_reference_inside_fit_is_told_beside_the_first_removal(capsys):
    judged = Judged(0.7, 0.9, 0.8, 0.8)

    _, callback = small_run(Budget(max_accuracy_drop=0.5), judged, verbose=1)

    assert len(callback.removals) > 1
    (line,) = [
        line
        for line in capsys.readouterr().out.split("\n")
        if line.startswith("max_accuracy_drop=0.5")
    ]
    assert line.startswith(
        "max_accuracy_drop=0.5 counts from 0.9000, the best validation accuracy"
    )
    assert "a longer unpruned run may be better" in line


def test_a_reference_that_was_given_is_not_told(capsys):
    budget = Budget(max_accuracy_drop=0.5, reference=0.6)
    small_run(budget, Judged(0.9, 0.9, 0.9, 0.9), verbose=1)
    assert "counts from" not in capsys.readouterr().out


def test_epochs_of_removal_without_validation_remove_nothing_and_say_so():
    judged = Judged(0.9, None, None, 0.9)
    with pytest.warns(UserWarning, match=r"was validated \(see fit's `valid"):
        small_run(Budget(max_accuracy_drop=0.5), judged)


def test_removals_that_were_all_taken_back_are_told():
    judged = Judged(0.9, 0.9, 0.1, 0.1)
    with pytest.warns(UserWarning, match="the accuracy fell too far each time"):
        _, callback = small_run(Budget(max_accuracy_drop=0.1), judged)
    assert callback.removals == []
