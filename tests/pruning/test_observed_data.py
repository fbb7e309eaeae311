"""On which data the activity is observed that a removal is decided on."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from classifiers import CROSSENTROPY
from known_activity import BIAS, KERNEL, X, Y, fit, make_distiller, pruning

from keras_kddp import Distiller, TeacherCache, collect_activity, prepare


class Observing:
    """A criterion that keeps every unit and notes what it was shown."""

    def __init__(self):
        self.seen = []

    def __call__(self, activity, outgoing_norm):
        self.seen.append(activity)
        return np.ones(len(activity.mean))


def observed(epochs=4, data=None, samples=4096, **arguments):
    """Returns the statistics that a run was decided on."""
    criterion = Observing()
    callback = pruning(criterion=criterion, data=data, samples=samples)
    with pytest.warns(UserWarning, match="Nothing was removed: no unit scored"):
        fit(make_distiller(), callback, epochs=epochs, **arguments)
    return criterion.seen


ROWS = np.arange(20, dtype="float32").reshape(10, 2)
LABELS = np.arange(10) % 2


@pytest.mark.parametrize(
    ("samples", "rows"),
    [(4096, range(10)), (10, range(10)), (4, [0, 3, 6, 9]), (1, [0])],
)
def test_evenly_spaced_rows_of_the_training_data_are_observed(samples, rows):
    for seen in observed(x=ROWS, y=LABELS, samples=samples):
        assert seen.count == len(rows)
        assert seen.mean[:2].tolist() == ROWS[list(rows)].mean(axis=0).tolist()


def test_rows_that_are_set_aside_for_validation_are_not_observed():
    for seen in observed(x=ROWS, y=LABELS, validation_split=0.3):
        assert seen.count == 7
        assert seen.maximum[:2].tolist() == ROWS[6].tolist()


def test_validation_data_are_not_observed():
    seen, *_ = observed(validation_data=(1000 * X, Y))

    assert seen.maximum[:2].tolist() == X.max(axis=0).tolist()


def test_data_of_ones_own_are_observed_instead():
    for seen in observed(data=ROWS, samples=2):
        assert seen.count == 2
        assert seen.maximum[:2].tolist() == ROWS[9].tolist()


def test_a_dataset_of_ones_own_is_observed_up_to_the_samples():
    rows = tf.data.Dataset.from_tensor_slices((ROWS, LABELS)).batch(3)

    for seen in observed(data=rows, samples=4):
        assert seen.count == 3 + 3


@pytest.mark.parametrize("kind", ["tf.data", "PyDataset", "generator"])
def test_the_dataset_given_to_fit_is_never_read_by_the_callback(kind):
    reads = []

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            reads.append(index)
            return X, Y

    def rows():
        for _ in range(4 if kind == "generator" else 1):
            reads.append(0)
            yield X, Y

    def training_data():
        reads.clear()
        if kind == "tf.data":
            specs = (
                tf.TensorSpec((4, 2), tf.float32),
                tf.TensorSpec((4,), tf.int64),
            )
            x = tf.data.Dataset.from_generator(rows, output_signature=specs)
            x = x.apply(tf.data.experimental.assert_cardinality(1))
        else:
            x = Batches() if kind == "PyDataset" else rows()
        steps = {"steps_per_epoch": 1} if kind == "generator" else {}
        return {"x": x, "y": None, "shuffle": False, **steps}

    fit(make_distiller(), **training_data())
    expected = len(reads)

    history = fit(make_distiller(), pruning(data=X), **training_data())

    assert len(reads) == expected
    assert history["units"] == [4, 4, 2, 2]


TRAINING = {
    "tensors": lambda: {"x": tf.constant(X), "y": tf.constant(Y)},
    "validation data": lambda: {"validation_data": (X, Y)},
    "sample weights": lambda: {"sample_weight": np.array([1.0, 0, 2, 0])},
    "class weights": lambda: {"class_weight": {0: 1.0, 1: 0.0}},
    "steps per epoch": lambda: {"steps_per_epoch": 2, "batch_size": 2},
    "integers": lambda: {"x": X.astype("int64")},
    "float64": lambda: {"x": X.astype("float64")},
}


@pytest.mark.parametrize("kind", TRAINING)
def test_a_run_takes_what_keras_takes(kind):
    history = fit(make_distiller(), pruning(), **TRAINING[kind]())

    assert history["units"] == [4, 4, 2, 2]


def test_a_student_with_inputs_in_a_dict_is_pruned():
    def model(units):
        inputs = {name: keras.Input((2,), name=name) for name in ("a", "b")}
        hidden = [
            keras.layers.Dense(units, "relu", name=f"{name}_fc")(x)
            for name, x in inputs.items()
        ]
        outputs = [keras.layers.Dense(2)(x) for x in hidden]
        return keras.Model(inputs, keras.layers.Add()(outputs))

    student = model(4)
    student.get_layer("a_fc").set_weights([KERNEL, BIAS])
    student.get_layer("b_fc").set_weights([KERNEL, BIAS])
    distiller = Distiller(model(3), prepare(student))
    distiller.compile(keras.optimizers.SGD(0.0), CROSSENTROPY)
    distiller.run_eagerly = True

    history = fit(
        distiller, pruning(criterion="never_active"), x={"a": X, "b": X}
    )

    assert history["units"] == [4 + 4, 4 + 4, 3 + 3, 3 + 3]


def test_a_run_without_labels_is_pruned():
    distiller = make_distiller(student_loss_weight=0)

    assert fit(distiller, pruning(), y=None)["units"] == [4, 4, 2, 2]


def packed_data():
    """Returns what `TeacherCache` packs of `ROWS`, in every form."""
    teacher = make_distiller().teacher
    cache = TeacherCache(teacher, ROWS)
    batches = tf.data.Dataset.from_tensor_slices((ROWS, LABELS)).batch(4)
    views = TeacherCache(
        teacher, ROWS, augment=lambda row, generator: row, views=2
    )
    weights = np.ones(10)
    return {
        "arrays": cache.pack(ROWS),
        "arrays and labels": (cache.pack(ROWS), LABELS),
        "arrays, labels and weights": (cache.pack(ROWS), LABELS, weights),
        "a dataset": TeacherCache(teacher, batches).zip(batches),
        "a dataset of inputs": cache.zip(batches.map(lambda x, y: x)),
        "views": views.batches(ROWS, LABELS, batch_size=4),
    }


@pytest.mark.parametrize(
    "form",
    [
        "arrays",
        "arrays and labels",
        "arrays, labels and weights",
        "a dataset",
        "a dataset of inputs",
        "views",
    ],
)
def test_packed_data_are_observed_without_the_teachers_outputs(form):
    data = packed_data()[form]

    student = make_distiller().student
    (activity,) = collect_activity(student, data, batch_size=4).values()
    assert activity.count == 10
    assert activity.mean[:2].tolist() == ROWS.mean(axis=0).tolist()


@pytest.mark.parametrize("form", ["arrays and labels", "a dataset"])
def test_packed_data_may_be_fitted_and_observed(form):
    data = packed_data()
    x = data["arrays"]

    for seen in observed(x=x, y=LABELS, data=data[form], samples=4):
        assert seen.count == 4
        assert seen.minimum[:2].tolist() == ROWS[0].tolist()
