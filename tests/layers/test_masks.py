"""Padding that a mask leaves out costs nothing and pulls at nothing."""

import keras
import numpy as np
import pytest
from helpers import to_numpy

from keras_kddp import finalize, prepare
from keras_kddp.layers import ActivityPenalty, ActivityRegularizedDense

layers = keras.layers
# Two sequences of three steps and two units; the last steps are padding.
STEPS = np.array(
    [[[1.0, -2.0], [3.0, 0.0], [50.0, 60.0]], [[-5.0, 4.0], [70, 8], [9, 9]]]
)
MASK = np.array([[True, True, False], [True, False, False]])
CHARGE = 0.5 * ((1 + 3 + 5) / 3 + (2 + 0 + 4) / 3)


def charge_of(layer, activations, mask=None):
    """Returns the loss that one call adds in training."""
    activations = keras.ops.convert_to_tensor(activations, dtype="float32")
    layer(activations, training=True, mask=mask)
    (loss,) = layer.losses
    return float(to_numpy(loss))


@pytest.mark.parametrize("non_negative", [False, True])
def test_masked_steps_are_not_charged(non_negative):
    penalty = ActivityPenalty(l1=0.5, non_negative=non_negative)

    activations = np.abs(STEPS) if non_negative else STEPS

    assert charge_of(penalty, activations, MASK) == pytest.approx(CHARGE)


def test_without_a_mask_all_steps_are_charged():
    charge = charge_of(ActivityPenalty(l1=0.5), STEPS)

    first, second = 1 + 3 + 50 + 5 + 70 + 9, 2 + 0 + 60 + 4 + 8 + 9
    assert charge == pytest.approx(0.5 * (first + second) / 6)


def test_longer_padding_changes_no_charge():
    longer = np.pad(STEPS, ((0, 0), (0, 5), (0, 0)), constant_values=99.0)
    mask = np.pad(MASK, ((0, 0), (0, 5)))

    charge = charge_of(ActivityPenalty(l1=0.5), longer, mask)

    assert charge == pytest.approx(CHARGE)


def test_a_batch_of_padding_alone_costs_nothing():
    charge = charge_of(ActivityPenalty(l1=0.5), STEPS, np.zeros((2, 3), bool))

    assert charge == 0


def test_what_is_not_finite_in_the_padding_is_not_seen():
    spoilt = np.where(MASK[..., None], STEPS, np.inf)

    charge = charge_of(ActivityPenalty(l1=0.5), spoilt, MASK)

    assert charge == pytest.approx(CHARGE)


def test_each_step_may_have_positions_of_its_own():
    # Steps of 1 x 2 pixels and one unit.
    frames = STEPS[:, :, None, :, None]

    charge = charge_of(ActivityPenalty(l1=0.5), frames, MASK)

    assert charge == pytest.approx(CHARGE / 2)  # twice as many positions


def test_units_may_lie_on_the_first_axis():
    first = np.moveaxis(STEPS, -1, 1)

    charge = charge_of(ActivityPenalty(l1=0.5, axis=1), first, MASK)

    assert charge == pytest.approx(CHARGE)


def test_a_regularized_dense_leaves_masked_steps_out():
    dense = ActivityRegularizedDense(
        2, "linear", 0.5, kernel_initializer="identity"
    )

    assert charge_of(dense, STEPS, MASK) == pytest.approx(CHARGE)


def test_half_precision_is_summed_in_float32():
    penalty = ActivityPenalty(l1=1.0, dtype="float16")
    activations = np.full((100, 2, 1), 60_000.0, "float16")
    mask = np.tile([True, False], (100, 1))

    assert charge_of(penalty, activations, mask) == pytest.approx(6e4, rel=1e-3)


def trained_kernel(*penalized):
    """Returns the kernel of layer `fc` after a step against its penalty."""
    inputs = keras.Input((None, 2))
    x = layers.Masking(-1.0)(inputs)
    for layer in penalized:
        x = layer(x)
    outputs = layers.GlobalAveragePooling1D()(x)
    model = keras.Model(inputs, outputs)
    model.compile(
        keras.optimizers.SGD(1.0),
        loss=lambda y, outputs: 0.0 * keras.ops.sum(outputs, axis=-1),
    )
    fed = np.where(MASK[..., None], STEPS, -1.0).astype("float32")
    model.train_on_batch(fed, np.zeros((2, 2), "float32"))
    return to_numpy(model.get_layer("fc").kernel)


@pytest.mark.parametrize("kind", ["penalty layer", "regularized dense"])
def test_masked_steps_pull_at_no_weight(kind):
    identity = {"kernel_initializer": "identity", "name": "fc"}
    penalized = (
        [layers.Dense(2, **identity), ActivityPenalty(l1=0.5)]
        if kind == "penalty layer"
        else [ActivityRegularizedDense(2, "linear", 0.5, **identity)]
    )

    kernel = trained_kernel(*penalized)

    # Column j moves against sum over valid steps of x * sign(x_j) / 3.
    first = np.array([1, -2]) + np.array([3, 0]) - np.array([-5, 4])
    second = -np.array([1, -2]) + 0 + np.array([-5, 4])
    gradient = 0.5 / 3 * np.stack([first, second], axis=1)
    np.testing.assert_allclose(kernel, np.eye(2) - gradient, rtol=1e-5)


def test_the_mask_goes_on_behind_both_layers():
    embedded = layers.Embedding(3, 2, mask_zero=True)(np.array([[1, 2, 0]]))
    dense = ActivityRegularizedDense(2, kernel_initializer="identity")

    passed = ActivityPenalty()(dense(embedded, training=True), training=True)
    pooled = layers.GlobalAveragePooling1D()(passed)

    expected = np.maximum(to_numpy(embedded)[:, :2], 0).mean(axis=1)
    np.testing.assert_allclose(to_numpy(pooled), expected, rtol=1e-6)


def test_a_masked_student_can_be_prepared_saved_and_finalized(tmp_path):
    ids = np.array([[1, 2, 0, 0], [3, 0, 0, 0]])
    student = keras.Sequential(
        [
            keras.Input((None,)),
            layers.Embedding(4, 3, mask_zero=True, name="embedding"),
            layers.Dense(3, "relu", name="fc"),
            layers.Dense(2, name="steps"),
        ]
    )
    prepared = prepare(student, l1=0.5)
    prepared.save(tmp_path / "prepared.keras")
    loaded = keras.models.load_model(tmp_path / "prepared.keras")

    def charges(model, ids):
        model(ids, training=True)
        return [float(to_numpy(loss)) for loss in model.losses]

    longer = np.pad(ids, ((0, 0), (0, 3)))
    embedded = to_numpy(student.get_layer("embedding")(ids))[ids > 0]
    assert charges(prepared, ids)[0] == pytest.approx(
        0.5 * np.abs(embedded).mean(axis=0).sum()
    )
    assert charges(prepared, longer) == pytest.approx(charges(prepared, ids))
    assert charges(loaded, ids) == pytest.approx(charges(prepared, ids))
    final = finalize(loaded)
    assert [x.name for x in final.layers] == [x.name for x in student.layers]
    np.testing.assert_array_equal(to_numpy(final(ids)), to_numpy(student(ids)))
