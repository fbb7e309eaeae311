"""Teachers and students that do not fit together, and what is said."""

import math

import keras
import numpy as np
import pytest
from classifiers import Subclassed
from two_examples import (
    X,
    compiled,
    linear,
    make_student,
    make_teacher,
    training_loss,
)

from keras_kddp import Distiller, TeacherCache


def models(*shapes):
    """Returns a model with inputs of shape (2,) and some outputs."""
    inputs = keras.Input((2,))
    outputs = [
        keras.layers.Reshape(shape)(
            keras.layers.Dense(math.prod(shape))(inputs)
        )
        for shape in shapes
    ]
    return keras.Model(inputs, outputs if len(outputs) > 1 else outputs[0])


@pytest.mark.parametrize(
    ("role", "thing"),
    [
        ("teacher", "model.keras"),
        ("teacher", keras.Model),
        ("student", "model.keras"),
        ("student", keras.Model),
        ("student", None),
    ],
)
def test_what_is_no_model_is_refused(role, thing):
    arguments = {"teacher": make_teacher(), "student": make_student()}

    with pytest.raises(ValueError, match=f"`{role}` must be a keras.Model"):
        Distiller(**{**arguments, role: thing})


@pytest.mark.parametrize(
    ("teacher", "student"), [((2,), (3,)), ((2,), (1, 2)), ((4, 2), (3, 2))]
)
def test_outputs_of_different_shapes_are_refused(teacher, student):
    message = r"The outputs of teacher and student .*student's last layer"
    with pytest.raises(ValueError, match=message):
        Distiller(models(teacher), models(student))


def test_inputs_of_different_shapes_are_refused():
    message = r"The inputs .* teacher \[\(None, 3\)\], student \[\(None, 2\)\]"
    with pytest.raises(ValueError, match=message):
        Distiller(linear(np.ones((3, 2))), make_student())


def test_outputs_that_are_known_only_in_training_are_compared_then():
    for classes in (1, 3):  # one class would be broadcast
        student = Subclassed(classes)
        distiller = Distiller(make_teacher(), student, student_loss_weight=0)
        with pytest.raises(ValueError, match="must have the same shapes"):
            compiled(distiller, loss=None).fit(X, verbose=0)


@pytest.mark.parametrize(
    "teacher",
    [
        models((2,), (2,)),
        keras.Model(*(lambda m: (m.input, {"out": m.output}))(models((2,)))),
    ],
    ids=["two outputs", "a dict"],
)
def test_outputs_in_another_structure_are_refused(teacher):
    with pytest.raises(ValueError, match="must have the same shapes|structure"):
        Distiller(teacher, make_student())


def test_a_student_that_shares_trainable_weights_is_refused():
    teacher = make_teacher()
    student = keras.Sequential([keras.Input((2,)), *teacher.layers])

    with pytest.raises(ValueError, match="must not share trainable weights"):
        Distiller(teacher, student)
    with pytest.raises(ValueError, match="must not share trainable weights"):
        Distiller(teacher, teacher)

    teacher.trainable = False
    Distiller(teacher, student)


def test_inputs_in_another_order_are_refused():
    def made(order):
        inputs = {name: keras.Input((2,), name=name) for name in "ab"}
        x = keras.layers.Concatenate()([inputs["a"], inputs["b"]])
        outputs = keras.layers.Dense(2)(x)
        return keras.Model([inputs[name] for name in order], outputs)

    with pytest.raises(ValueError, match="in the same order"):
        Distiller(made("ba"), made("ab"))


class Lazy(keras.Model):
    """A model that makes its layers when it is built."""

    def build(self, shape):
        """Makes the layer."""
        self.dense = keras.layers.Dense(2)
        self.dense.build(shape)

    def call(self, inputs):
        """Returns the logits."""
        return self.dense(inputs)


UNBUILT = {
    "Sequential without Input": lambda: keras.Sequential(
        [keras.layers.Dense(3), keras.layers.Dense(2)]
    ),
    "Sequential with one trained layer": lambda: keras.Sequential(
        [make_teacher().layers[0], keras.layers.Dense(2)]
    ),
    "Sequential of trained layers": lambda: keras.Sequential(
        make_teacher().layers
    ),
    "Subclassed": Subclassed,
    "layers made in build": Lazy,
    "nested": lambda: keras.Sequential([Subclassed()]),
}


@pytest.mark.parametrize("kind", list(UNBUILT))
def test_a_teacher_that_was_never_built_is_refused(kind):
    message = "`teacher` must be built: before that it has no trained weights"
    with pytest.raises(ValueError, match=message):
        Distiller(UNBUILT[kind](), make_student())
    with pytest.raises(ValueError, match=message):
        TeacherCache(UNBUILT[kind](), X)
    with pytest.raises(ValueError, match=message):
        TeacherCache([make_teacher(), UNBUILT[kind]()], X)


@pytest.mark.parametrize("kind", list(UNBUILT))
def test_a_teacher_that_was_called_once_is_taken(kind):
    teacher = UNBUILT[kind]()
    teacher(X)

    loss = training_loss(compiled(Distiller(teacher, make_student())))

    assert math.isfinite(loss)


@pytest.mark.parametrize("kind", list(UNBUILT))
def test_a_student_may_be_built_by_its_first_batch(kind):
    distiller = compiled(Distiller(make_teacher(), UNBUILT[kind]()))

    history = distiller.fit(X, np.array([0, 1]), epochs=5, verbose=0).history

    assert history["loss"][-1] < history["loss"][0]


def test_a_sequential_that_is_built_later_may_end_in_softmax():
    def loss(*first):
        layers = [keras.layers.Dense(2, kernel_initializer="ones")]
        student = keras.Sequential(
            [*first, *layers, keras.layers.Dense(2, "softmax", name="last")]
        )
        student(X)
        student.layers[-1].kernel.assign(np.array([[3.0, 0.0], [0.0, 1.0]]))
        distiller = Distiller(make_teacher(), student, student_loss_weight=0)
        return training_loss(compiled(distiller))

    assert loss() == pytest.approx(loss(keras.Input((2,))))
