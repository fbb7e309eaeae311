"""PyTorch twins of Keras students: equal, trained alike, cut to widths.

They need torch and torch-pruning, which are imported where they are used.
"""

import keras
import numpy as np
import pytest

from keras_kddp import Distiller
from keras_kddp.models import (
    digits_student,
    fashion_cnn_student,
    fashion_mlp_student,
    fashion_residual_student,
)
from keras_kddp.profiling import profile

pytestmark = pytest.mark.slow

SETTINGS = {
    "learning_rate": 0.01,
    "weight_decay": 0.1,
    "temperature": 2.0,
    "student_loss_weight": 0.3,
    "precision": "float32",
}


def recording_student():
    """Returns a student with convolutions over time, before a Flatten too."""
    inputs = keras.Input((25, 3))
    x = keras.layers.Conv1D(
        8, 4, strides=2, padding="same", use_bias=False, name="conv1"
    )(inputs)
    x = keras.layers.BatchNormalization(momentum=0.9, name="conv1_norm")(x)
    x = keras.layers.ReLU(name="relu")(x)
    x = keras.layers.MaxPooling1D(2, padding="same", name="pool")(x)
    x = keras.layers.Conv1D(6, 3, activation="relu", name="conv2")(x)
    pooled = keras.layers.GlobalAveragePooling1D(name="mean")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dropout(0.0, name="dropout")(x)  # draws differ
    x = keras.layers.Dense(6, activation="relu", name="hidden")(x)
    x = keras.layers.Add(name="add")([x, pooled])
    outputs = keras.layers.Dense(4, name="logits")(x)
    return keras.Model(inputs, outputs)


def flat_student():
    """Returns a student that normalizes what it flattened."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((5, 4, 2)),
            layers.Conv2D(3, (2, 3), strides=2, padding="same", name="conv1"),
            layers.Flatten(name="flatten"),
            layers.BatchNormalization(epsilon=0.01, name="norm"),
            layers.Activation("relu", name="relu"),
            layers.Dense(4, name="logits"),
        ]
    )


STUDENTS = {
    "mlp": lambda: fashion_mlp_student(40),
    "cnn": lambda: fashion_cnn_student(24),
    "residual": lambda: fashion_residual_student(4),
    "digits": lambda: digits_student(16),
    "recordings": recording_student,
    "flat": flat_student,
}


def made(name, *, has_statistics=True):
    """Returns a student, with statistics if it normalizes, and examples."""
    keras.utils.set_random_seed(0)
    model = STUDENTS[name]()
    generator = np.random.default_rng(1)
    for layer in model.layers:
        is_norm = isinstance(layer, keras.layers.BatchNormalization)
        if is_norm and has_statistics:
            shape = layer.gamma.shape
            layer.set_weights(
                [
                    generator.uniform(0.5, 2, shape),
                    generator.normal(size=shape),
                    generator.normal(size=shape),
                    generator.uniform(0.5, 2, shape),
                ]
            )
    shape = (160, *model.input_shape[1:])
    x = generator.normal(size=shape).astype("float32")
    y = generator.integers(0, model.output_shape[-1], 160)
    return model, x, y


def twin_of(model):
    from comparison.twins import twin

    return twin(model)


def logits_of(net, x):
    import torch

    with torch.no_grad():
        return net.eval()(torch.from_numpy(x)).numpy()


def feed_of(x, y, logits=None, size=32):
    """Returns the same batches in each epoch."""

    def feed(epoch):
        for start in range(0, len(x), size):
            those = slice(start, start + size)
            yield x[those], y[those], None if logits is None else logits[those]

    return feed


@pytest.mark.parametrize("name", STUDENTS)
def test_a_twin_has_the_logits_of_its_student(name):
    model, x, _ = made(name)

    found = logits_of(twin_of(model), x)

    np.testing.assert_allclose(
        found, model.predict(x, verbose=0), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("name", STUDENTS)
def test_a_twin_is_as_large_as_its_student(name):
    from comparison.twins import size_of

    model, _, _ = made(name)
    expected = profile(model)

    found = size_of(twin_of(model))

    assert found["parameters"] == expected.parameters
    assert found["macs"] == expected.macs
    assert found["widths"] == {
        layer.name: layer.kernel.shape[-1]
        for layer in model.layers
        if hasattr(layer, "kernel")
    }


def trained_beside(model, x, y):
    """Trains a student for five steps, and returns its twin trained alike."""
    from comparison.torch_training import train_twin

    net = twin_of(model)
    teacher = keras.models.clone_model(model)
    share = SETTINGS["student_loss_weight"]
    distiller = Distiller(
        teacher, model, temperature=2.0, student_loss_weight=share
    )
    distiller.compile(
        keras.optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(0.01, 5), weight_decay=0.1
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    soft = teacher.predict(x, verbose=0)
    distiller.fit(x, y, batch_size=32, epochs=1, shuffle=False, verbose=0)
    train_twin(net, feed_of(x, y, soft), 1, steps_per_epoch=5, **SETTINGS)
    return net


# Without "flat": 32 numbers a channel, of which PyTorch's statistics take the
# unbiased variance.
DEAD = {
    "mlp": {"hidden": [0, 7, 39]},
    "cnn": {"conv1": [2], "conv2": [0, 31], "hidden": [5, 6, 7]},
    "residual": {
        "stem": [1],
        "block1_second": [0, 6],
        "block1_shortcut": [0, 6],
        "block2_first": [15],
    },
    "digits": {"hidden": [3]},
    "recordings": {"conv1": [4, 5], "conv2": [1], "hidden": [1]},
}


@pytest.mark.parametrize("name", DEAD)
def test_a_twin_learns_as_its_student_does(name):
    model, x, y = made(name)
    before = model.predict(x, verbose=0)

    net = trained_beside(model, x, y)

    expected = model.predict(x, verbose=0)
    assert np.abs(expected - before).max() > 0.1
    np.testing.assert_allclose(logits_of(net, x), expected, rtol=0, atol=1e-3)


def test_gradients_as_small_as_epsilon_move_a_twin_as_its_student():
    model, x, y = made("digits")
    before = model.get_layer("hidden").kernel.numpy()

    net = trained_beside(model, x * np.float32(1e-6), y)

    moved = model.get_layer("hidden").kernel.numpy() - before
    found = net.hidden.weight.detach().numpy().T - before
    assert np.abs(moved).max() > 0.001
    np.testing.assert_allclose(found, moved, rtol=0, atol=1e-5)


def deaden(model, dead):
    """Makes units of layers give 0, whatever the input is."""
    for name, units in dead.items():
        for layer in model.layers:
            if layer.name in (name, f"{name}_norm"):
                for weight in layer.trainable_variables:
                    values = weight.numpy()
                    values[..., units] = 0
                    weight.assign(values)


@pytest.mark.parametrize("kind", ["taylor", "group_norm"])
@pytest.mark.parametrize("name", DEAD)
def test_a_cut_of_dead_units_in_training_changes_nothing(name, kind):
    from comparison.torch_pruning import pruned_by
    from comparison.torch_training import train_twin
    from comparison.twins import size_of

    # Drawn statistics would leave more units dead than these.
    model, x, y = made(name, has_statistics=False)
    deaden(model, DEAD[name])
    whole, cut = twin_of(model), twin_of(model)
    soft = model.predict(x, verbose=0)[::-1].copy()
    before = size_of(cut)["widths"]
    widths = {n: before[n] - len(units) for n, units in DEAD[name].items()}
    settings = {**SETTINGS, "steps_per_epoch": 5}

    train_twin(whole, feed_of(x, y, soft), 3, **settings)
    pruned_by(
        kind,
        cut,
        feed_of(x, y, soft),
        3,
        widths,
        cut_after=2,
        reg=0.0,
        **settings,
    )

    assert size_of(cut)["widths"] == {**before, **widths}
    np.testing.assert_allclose(
        logits_of(cut, x), logits_of(whole, x), rtol=0, atol=1e-3
    )


def test_what_has_no_counterpart_is_refused_by_name():
    layers = keras.layers
    inputs = keras.Input((2, 3))
    flat = layers.Flatten()(inputs)
    dense = layers.Dense(6)(flat)
    lasts = [
        layers.Dense(2, activation="tanh", name="bent"),
        layers.LayerNormalization(name="other"),
    ]
    models = [
        keras.Model(inputs, layers.Add(name="sum")([dense, flat])),
        *(keras.Model(inputs, last(flat)) for last in lasts),
        keras.Model(inputs, flat),
    ]
    reasons = [
        "'sum' .Add.*flattened",
        "'bent' .Dense.*activation is tanh",
        "'other' .LayerNormalization.*no counterpart",
        "last layer has to give",
    ]

    for model, reason in zip(models, reasons, strict=True):
        with pytest.raises(ValueError, match=reason):
            twin_of(model)


@pytest.mark.parametrize(
    ("kind", "widths", "cut_after", "reason"),
    [
        ("taylor", {"stem": 0}, 1, "1 to the 4 units of layer 'stem'"),
        ("taylor", {"stem": 5}, 1, "1 to the 4 units of layer 'stem'"),
        (
            "taylor",
            {"block1_second": 3, "block1_shortcut": 4},
            1,
            "coupled must be equal",
        ),
        ("taylor", {"stem": 3}, 0, "1 to the 1 epochs. .*cut_after=0"),
        ("taylor", {"stem": 3}, 2, "1 to the 1 epochs. .*cut_after=2"),
        ("norm", {"stem": 3}, 1, "`kind` must be .*norm"),
    ],
)
def test_a_cut_that_cannot_be_is_refused(kind, widths, cut_after, reason):
    from comparison.torch_pruning import pruned_by

    model, x, y = made("residual")

    with pytest.raises(ValueError, match=reason):
        pruned_by(
            kind,
            twin_of(model),
            feed_of(x, y),
            1,
            widths,
            cut_after=cut_after,
            steps_per_epoch=5,
            **SETTINGS,
        )


def test_a_partner_by_an_add_gets_the_width_of_the_layer_named():
    from comparison.torch_pruning import pruned_by
    from comparison.twins import size_of

    model, x, y = made("residual")
    net = twin_of(model)
    settings = {**SETTINGS, "student_loss_weight": 1, "steps_per_epoch": 5}

    pruned_by(
        "taylor",
        net,
        feed_of(x, y),
        1,
        {"block1_shortcut": 5},
        cut_after=1,
        **settings,
    )

    assert size_of(net)["widths"] == {
        **{"stem": 4, "block1_first": 8, "block1_second": 5},
        **{"block1_shortcut": 5, "block2_first": 16, "block2_second": 16},
        **{"block2_shortcut": 16, "logits": 10},
    }


def test_sparse_learning_shrinks_the_weakest_units_until_the_cut():
    from comparison.torch_pruning import pruned_by

    model, x, y = made("mlp")
    settings = {**SETTINGS, "student_loss_weight": 1, "steps_per_epoch": 5}
    weakest = {}

    for reg in (0.0, 1.0):
        net = twin_of(model)
        pruned_by(
            "group_norm",
            net,
            feed_of(x, y),
            2,
            {"hidden": 40},
            cut_after=2,
            reg=reg,
            **settings,
        )
        norms = net.hidden.weight.detach().norm(dim=1)
        weakest[reg] = float(norms.min() / norms.max())

    assert weakest[1.0] < 0.9 * weakest[0.0]


def test_answers_are_the_classes_of_the_largest_logits_in_both_precisions():
    from comparison.torch_training import answers

    model, x, _ = made("cnn")
    net = twin_of(model)
    expected = model.predict(x, verbose=0)
    second, first = np.sort(expected, axis=1)[:, -2:].T
    is_clear = first - second > 0.05

    assert (answers(net, x, "float32") == expected.argmax(axis=1)).all()
    found = answers(net, x, "mixed_bfloat16")
    assert (found == expected.argmax(axis=1))[is_clear].all()
    assert is_clear.sum() > 50


def test_logits_are_float32_whatever_else_computes_in_bfloat16():
    """As in Keras: a loss of rounded logits would be another one."""
    import torch

    model, x, _ = made("cnn")
    net = twin_of(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = net(torch.from_numpy(x))

    assert logits.dtype == torch.float32
    assert (logits != logits.bfloat16().float()).any()


def test_soft_targets_without_a_teacher_are_refused():
    from comparison.torch_training import loss_of

    model, x, y = made("digits")

    with pytest.raises(ValueError, match="has to be 1 without.*weight=0.5"):
        loss_of(twin_of(model), (x, y, None), 1.0, 0.5, "float32")
