"""The exact swap's reference: a student that is masked and never rebuilt.

Nothing here asks the package what a removal deletes: every student lists by
hand which of its weights have an entry per unit, and along which axis.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

import keras_kddp as kddp
from keras_kddp.model_io import to_numpy

Units = Mapping[str, Sequence[int]]

CLASSES = 3
L1 = 0.02


class Mask(keras.layers.Layer):
    """Multiplies each unit by 1, and by 0 from the swap on."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        self.mask = self.add_weight(
            name="mask",
            shape=(input_shape[-1],),
            initializer="ones",
            trainable=False,
        )

    def call(self, inputs: Any) -> Any:
        return inputs * keras.ops.cast(self.mask, inputs.dtype)


class Entries(NamedTuple):
    """Which entries of a weight belong to the units of a layer.

    Attributes:
        layer: Name of the layer that has the weight.
        weight: Name of the weight.
        axis: Axis with one entry per unit, in turn at every position.
        units_of: Name of the layer that has the units.
    """

    layer: str
    weight: str
    axis: int
    units_of: str


class Design(NamedTuple):
    """How to make a student, and what a removal deletes from it.

    Attributes:
        make: `masked -> student`; both variants have the same weights.
        input_shape: Of one example.
        removed: The units that leave at the swap; the first of a layer can be
            made faint, all of them can be made dead.
        scales: Layer name -> the weights that scale and shift its units.
        entries: Which entries belong to whose units.
    """

    make: Callable[[bool], keras.Model]
    input_shape: tuple[int, ...]
    removed: dict[str, list[int]]
    scales: dict[str, tuple[tuple[str, str], tuple[str, str]]]
    entries: tuple[Entries, ...]


def _penalized(x: Any, name: str, masked: bool) -> Any:
    if masked:
        x = Mask(name=f"{name}_mask")(x)
    return kddp.layers.ActivityPenalty(L1, name=f"{name}_penalty")(x)


def _with_head(inputs: Any, x: Any) -> keras.Model:
    """Ends in layers that are never pruned; a Dropout sits there."""
    x = keras.layers.Dense(5, activation="relu", name="last")(x)
    x = keras.layers.Dropout(0.2, seed=5, name="last_dropout")(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="logits")(x))


def _dense_student(masked: bool) -> keras.Model:
    inputs = keras.Input((6,))
    x = keras.layers.Dropout(0.1, seed=4, name="noise")(inputs)
    x = keras.layers.Dense(
        8, activation="relu", kernel_regularizer="l2", name="fc1"
    )(x)
    x = _penalized(x, "fc1", masked)
    x = keras.layers.Dense(6, activation="relu", name="fc2")(x)
    return _with_head(inputs, _penalized(x, "fc2", masked))


def _convolutional_student(masked: bool) -> keras.Model:
    inputs = keras.Input((6, 6, 1))
    x = keras.layers.Conv2D(4, 3, use_bias=False, name="conv1")(inputs)
    x = keras.layers.BatchNormalization(momentum=0.8, name="norm1")(x)
    x = keras.layers.ReLU(name="relu1")(x)
    x = _penalized(x, "conv1", masked)
    x = keras.layers.Conv2D(5, 3, padding="same", use_bias=False, name="conv2")(
        x
    )
    x = keras.layers.BatchNormalization(momentum=0.8, name="norm2")(x)
    x = keras.layers.ReLU(name="relu2")(x)
    x = _penalized(x, "conv2", masked)
    x = keras.layers.MaxPooling2D(name="pool")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    return _with_head(inputs, x)


def _residual_student(masked: bool) -> keras.Model:
    inputs = keras.Input((6,))
    x = keras.layers.Dense(7, activation="relu", name="stem")(inputs)
    x = _penalized(x, "stem", masked)
    y = keras.layers.Dense(7, activation="relu", name="branch")(x)
    x = keras.layers.Add(name="sum")([x, y])
    return _with_head(inputs, _penalized(x, "branch", masked))


def _sequence_student(masked: bool) -> keras.Model:
    inputs = keras.Input((6, 3))
    mask = inputs[:, :, 0] > -0.5
    x = keras.layers.Dense(6, use_bias=False, name="step")(inputs)
    x = keras.layers.BatchNormalization(momentum=0.8, name="norm")(x, mask=mask)
    x = keras.layers.ReLU(name="relu")(x)
    x = _penalized(x, "step", masked)
    x = keras.layers.GRU(4, return_sequences=True, seed=3, name="gru")(x)
    x = keras.layers.Dense(6, activation="relu", name="fc")(x)
    x = _penalized(x, "fc", masked)
    x = keras.layers.GlobalAveragePooling1D(name="pool")(x)
    return _with_head(inputs, x)


DESIGNS = {
    "dense": Design(
        _dense_student,
        (6,),
        {"fc1": [1, 4, 7], "fc2": [0, 3]},
        {
            "fc1": (("fc1", "kernel"), ("fc1", "bias")),
            "fc2": (("fc2", "kernel"), ("fc2", "bias")),
        },
        (
            Entries("fc1", "kernel", 1, "fc1"),
            Entries("fc1", "bias", 0, "fc1"),
            Entries("fc2", "kernel", 0, "fc1"),
            Entries("fc2", "kernel", 1, "fc2"),
            Entries("fc2", "bias", 0, "fc2"),
            Entries("last", "kernel", 0, "fc2"),
        ),
    ),
    "convolutional": Design(
        _convolutional_student,
        (6, 6, 1),
        {"conv1": [1, 2], "conv2": [0, 3]},
        {
            "conv1": (("norm1", "gamma"), ("norm1", "beta")),
            "conv2": (("norm2", "gamma"), ("norm2", "beta")),
        },
        (
            Entries("conv1", "kernel", 3, "conv1"),
            Entries("norm1", "gamma", 0, "conv1"),
            Entries("norm1", "beta", 0, "conv1"),
            Entries("norm1", "moving_mean", 0, "conv1"),
            Entries("norm1", "moving_variance", 0, "conv1"),
            Entries("conv2", "kernel", 2, "conv1"),
            Entries("conv2", "kernel", 3, "conv2"),
            Entries("norm2", "gamma", 0, "conv2"),
            Entries("norm2", "beta", 0, "conv2"),
            Entries("norm2", "moving_mean", 0, "conv2"),
            Entries("norm2", "moving_variance", 0, "conv2"),
            Entries("last", "kernel", 0, "conv2"),
        ),
    ),
    "residual": Design(
        _residual_student,
        (6,),
        {"stem": [1, 4], "branch": [1, 4]},
        {
            "stem": (("stem", "kernel"), ("stem", "bias")),
            "branch": (("branch", "kernel"), ("branch", "bias")),
        },
        (
            Entries("stem", "kernel", 1, "stem"),
            Entries("stem", "bias", 0, "stem"),
            Entries("branch", "kernel", 0, "stem"),
            Entries("branch", "kernel", 1, "branch"),
            Entries("branch", "bias", 0, "branch"),
            Entries("last", "kernel", 0, "branch"),
        ),
    ),
    "sequence": Design(
        _sequence_student,
        (6, 3),
        {"step": [1, 4], "fc": [0, 3]},
        {
            "step": (("norm", "gamma"), ("norm", "beta")),
            "fc": (("fc", "kernel"), ("fc", "bias")),
        },
        (
            Entries("step", "kernel", 1, "step"),
            Entries("norm", "gamma", 0, "step"),
            Entries("norm", "beta", 0, "step"),
            Entries("norm", "moving_mean", 0, "step"),
            Entries("norm", "moving_variance", 0, "step"),
            Entries("gru", "kernel", 0, "step"),
            Entries("fc", "kernel", 1, "fc"),
            Entries("fc", "bias", 0, "fc"),
            Entries("last", "kernel", 0, "fc"),
        ),
    ),
}


def student_of(design: Design, *, masked: bool, dead: bool) -> keras.Model:
    """Returns a student with fixed weights.

    Args:
        design: What it looks like.
        masked: With a `Mask` in front of every penalty.
        dead: All the units in `design.removed` never fire; else they do, the
            first one of a layer a little only.
    """
    student = design.make(masked)
    random = np.random.default_rng(7)
    for weight in student.trainable_weights:
        value = random.normal(0.0, 0.4, weight.shape)
        weight.assign(1 + 0.1 * value if weight.name == "gamma" else value)
    for name, units in design.removed.items():
        scale, shift = (weight_of(student, *x) for x in design.scales[name])
        scales, shifts = np.array(to_numpy(scale)), np.array(to_numpy(shift))
        if dead:
            shifts[units] = -8.0
        else:
            scales[..., units[0]] *= 0.05
            shifts[units[0]] = 0.2
        scale.assign(scales)
        shift.assign(shifts)
    return student


def teacher_of(design: Design) -> keras.Model:
    """Returns a teacher with fixed weights."""
    inputs = keras.Input(design.input_shape)
    x = keras.layers.Flatten()(inputs)
    x = keras.layers.Dense(6, activation="relu", name="features")(x)
    teacher = keras.Model(inputs, keras.layers.Dense(CLASSES)(x))
    random = np.random.default_rng(8)
    for weight in teacher.weights:
        weight.assign(random.normal(0.0, 0.5, weight.shape))
    return teacher


def distiller_of(
    design: Design,
    optimizer: Callable[[keras.Model], Any],
    *,
    masked: bool = False,
    dead: bool = False,
    losses: Any = None,
    **arguments: Any,
) -> kddp.Distiller:
    """Returns a compiled Distiller.

    Args:
        design: What the student looks like.
        optimizer: Student -> optimizer.
        masked: With a `Mask` in front of every penalty.
        dead: See `student_of`.
        losses: Distillation losses.
        **arguments: As for `compile`.
    """
    student = student_of(design, masked=masked, dead=dead)
    distiller = kddp.Distiller(teacher_of(design), student, losses)
    # Made here: a loss has the dtype of its making, float64 in most tests.
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    arguments = {"loss": loss, "jit_compile": False, **arguments}
    distiller.compile(optimizer=optimizer(student), **arguments)
    return distiller


def data_of(design: Design, steps: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Returns inputs and labels, some batches of 8."""
    random = np.random.default_rng(9)
    x = random.normal(size=(8 * steps, *design.input_shape))
    y = random.integers(0, CLASSES, len(x))
    return x.astype(keras.config.floatx()), y


class AtEpoch(keras.callbacks.Callback):
    """Calls `action(distiller, units)` when an epoch begins."""

    def __init__(
        self,
        action: Callable[[kddp.Distiller, Units], None],
        units: Mapping[int, Units],
    ) -> None:
        super().__init__()
        self.action = action
        self.units = units

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch in self.units:
            self.action(self.model, self.units[epoch])


def swap(distiller: kddp.Distiller, units: Units) -> None:
    """Does what is on trial."""
    plan = kddp.plan_removal(distiller.student, units)
    distiller.replace_student(plan)


def mask_units(distiller: kddp.Distiller, units: Units, design: Design) -> None:
    """Masks units and sets everything that surgery would delete to 0."""
    student = distiller.student
    for name, indices in units.items():
        mask = student.get_layer(f"{name}_mask").mask
        value = np.array(to_numpy(mask))
        value[list(indices)] = 0.0
        mask.assign(value)
    for entries in design.entries:
        weight = weight_of(student, entries.layer, entries.weight)
        slots = slots_of(distiller.optimizer, weight)
        deleted = _deleted(student, entries, units)
        for variable in (weight, *slots.values()):
            value = np.array(to_numpy(variable))
            value[(slice(None),) * entries.axis + (deleted,)] = 0.0
            variable.assign(value)


class Outcome(NamedTuple):
    """What a run left behind.

    Attributes:
        distiller: The Distiller.
        values: Losses by epoch, weights, slots and other optimizer state, by
            name; of a masked student without the deleted entries.
    """

    distiller: kddp.Distiller
    values: dict[str, np.ndarray]


def trained(
    distiller: kddp.Distiller,
    design: Design,
    at: Mapping[int, Units] | None = None,
    epochs: int = 3,
    steps: int = 4,
) -> Outcome:
    """Trains; units leave, or are masked where there are masks.

    Args:
        distiller: From `distiller_of`.
        design: Its design.
        at: Epoch -> units; by default `design.removed` after one epoch.
        epochs: Number of epochs.
        steps: Batches per epoch.
    """
    at = {1: design.removed} if at is None else at
    is_masked = any(isinstance(x, Mask) for x in distiller.student.layers)

    def mask(distiller: kddp.Distiller, units: Units) -> None:
        mask_units(distiller, units, design)

    x, y = data_of(design, steps)
    keras.utils.set_random_seed(3)
    history = distiller.fit(
        x,
        y,
        batch_size=8,
        epochs=epochs,
        verbose=0,
        callbacks=[AtEpoch(mask if is_masked else swap, at)],
    ).history
    return outcome_of(distiller, history, design)


def outcome_of(
    distiller: kddp.Distiller,
    history: Mapping[str, Sequence[float]],
    design: Design,
) -> Outcome:
    """Returns everything that two equal runs have in common."""
    student, optimizer = distiller.student, distiller.optimizer
    values = {name: np.array(logged) for name, logged in history.items()}
    shared = {id(v): v for v in optimizer.variables}
    for layer in student.layers:
        if isinstance(layer, Mask):
            continue
        for weight in layer.weights:
            slots = slots_of(optimizer, weight)
            for name, variable in {"": weight, **slots}.items():
                shared.pop(id(variable), None)
                values[f"{layer.name} {weight.name} {name}"] = _kept(
                    student, design, layer.name, weight.name, variable
                )
    # Nadam's product has no name of its own: "variable_7".
    values |= {
        v.name.rstrip("_0123456789"): to_numpy(v) for v in shared.values()
    }
    return Outcome(distiller, values)


def assert_equal_outcomes(
    received: Outcome, expected: Outcome, tolerance: float
) -> None:
    """Compares everything: max|a - b| / max|b| of each loss, weight, slot."""
    name, difference = worst_difference(received, expected)
    if not difference <= tolerance:
        raise AssertionError(f"'{name}' differs by {difference:.3g} relative")


def worst_difference(received: Outcome, expected: Outcome) -> tuple[str, float]:
    """Returns the name and the relative difference of what differs most."""
    if received.values.keys() != expected.values.keys():
        names = sorted(received.values.keys() ^ expected.values.keys())
        raise AssertionError(f"only one of the runs has {names}")
    differences = {}
    for name, b in expected.values.items():
        a = received.values[name]
        if a.shape != b.shape:
            raise AssertionError(f"'{name}': {a.shape} is not {b.shape}")
        scale = np.abs(b).max() or 1.0
        difference = float(np.abs(a - b).max() / scale)
        differences[name] = difference if np.isfinite(difference) else np.inf
    worst = max(differences, key=differences.__getitem__)
    return worst, differences[worst]


def weight_of(model: keras.Model, layer: str, name: str) -> keras.Variable:
    """Returns the weight of a layer by name."""
    (found,) = [w for w in model.get_layer(layer).weights if w.name == name]
    return found


def slots_of(optimizer: Any, weight: keras.Variable) -> dict[str, Any]:
    """Returns what an optimizer keeps for a weight, by name.

    Keras names a slot after the path of its weight.
    """
    prefix = weight.path.replace("/", "_") + "_"
    return {
        v.name.removeprefix(prefix): v
        for v in optimizer.variables
        if v.name.startswith(prefix)
    }


def _kept(
    student: keras.Model,
    design: Design,
    layer: str,
    weight: str,
    variable: keras.Variable,
) -> np.ndarray:
    """Returns a weight, or its slot, without the entries of masked units."""
    value = to_numpy(variable)
    units = {
        x.name.removesuffix("_mask"): np.flatnonzero(to_numpy(x.mask) == 0)
        for x in student.layers
        if isinstance(x, Mask)
    }
    for entries in design.entries:
        if (entries.layer, entries.weight) == (layer, weight):
            deleted = _deleted(student, entries, units)
            value = np.delete(value, deleted, axis=entries.axis)
    return value


def _deleted(
    student: keras.Model, entries: Entries, units: Units
) -> np.ndarray:
    """Returns the indices that belong to units, along the axis of entries."""
    width = student.get_layer(entries.units_of).output.shape[-1]
    weight = weight_of(student, entries.layer, entries.weight)
    indices = np.arange(weight.shape[entries.axis])
    return indices[np.isin(indices % width, units.get(entries.units_of, ()))]


def feature_loss() -> Any:
    """Returns losses of which one matches the layer `fc2` of a student."""
    return [
        kddp.SoftTargets(2.0),
        keras.distillation.FeatureDistillation(
            "mse", teacher_layer_name="features", student_layer_name="fc2"
        ),
    ]
