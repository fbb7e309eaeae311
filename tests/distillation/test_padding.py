"""Steps that Keras masks, and weights of steps and pixels, in every loss."""

import keras
import numpy as np
import pytest
from classifiers import softmax
from helpers import float64

import keras_kddp as kddp

X = np.array([[3, 1, 2, 0], [2, 0, 0, 0]])
Y = np.array([[0, 1, 1, 0], [1, 0, 0, 0]])
VALID = X != 0
STEPS = np.array([[1.0, 3.0, 0.5, 9.0], [2.0, 7.0, 9.0, 9.0]])


@pytest.fixture(autouse=True)
def _wide_numbers():
    with float64():
        yield


def tagger(scale, *, mask_zero=True, width=3):
    """Returns a model that puts out class scores for each step of words."""
    rows = np.random.default_rng(width).normal(size=(4, width))
    kernel = np.random.default_rng(9).normal(size=(width, 2))
    inputs = keras.Input((None,), dtype="int32")
    words = keras.layers.Embedding(4, width, mask_zero=mask_zero, name="words")
    scores = keras.layers.Dense(2, use_bias=False, name="scores")
    model = keras.Model(inputs, scores(words(inputs)))
    words.embeddings.assign(rows)
    scores.kernel.assign(scale * kernel)
    return model


def crossentropy():
    """Returns a loss in the present dtype, float64."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def compiled(*arguments, share=0.0, **options):
    distiller = kddp.Distiller(*arguments, student_loss_weight=share)
    distiller.compile("sgd", crossentropy(), **options)
    return distiller


def loss_of(distiller, x=X, y=Y, **arguments):
    return float(distiller.compute_loss(x, y, training=False, **arguments))


def divergences(teacher, student, x=X):
    """Returns 16 KL of each step at temperature 4, (batch, steps)."""
    p, q = (softmax(np.array(model(x)) / 4) for model in (teacher, student))
    return 16 * (p * np.log(p / q)).sum(axis=-1)


HINTS = kddp.FeatureHints("words", "words")


def projected_errors(distiller):
    """Returns the mean square of each step, (batch, steps)."""
    wanted, received = (
        np.array(model.get_layer("words")(X))
        for model in (distiller.teacher, distiller.student)
    )
    projected = received @ np.array(distiller.projection_0.kernel)
    return np.square(wanted - projected).mean(axis=-1)


def test_soft_targets_leave_padding_out():
    teacher, student = tagger(2), tagger(1)

    loss = loss_of(compiled(teacher, student))

    expected = divergences(teacher, student)[VALID].sum() / 4
    assert loss == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("run_eagerly", [True, False])
@pytest.mark.parametrize("is_packed", [True, False])
def test_live_and_cached_leave_the_same_out(run_eagerly, is_packed):
    teacher, student = tagger(2), tagger(1)
    distiller = compiled(teacher, student, share=0.25, run_eagerly=run_eagerly)
    x = kddp.TeacherCache(teacher, X).pack(X) if is_packed else X
    student.compile("sgd", crossentropy())
    hard = student.evaluate(X, Y, verbose=0)
    soft = divergences(teacher, student)[VALID].mean()

    logs = distiller.evaluate(x, Y, verbose=0, return_dict=True)

    assert logs["student_loss"] == pytest.approx(hard, rel=1e-6)
    assert logs["distillation_loss"] == pytest.approx(soft, rel=1e-6)


@pytest.mark.parametrize("losses", [None, HINTS])
@pytest.mark.parametrize("weights", [None, STEPS])
def test_the_loss_does_not_depend_on_the_padding(losses, weights):
    def losses_of_both(mask_zero):
        teacher = tagger(2, mask_zero=mask_zero, width=5)
        student = tagger(1, mask_zero=mask_zero)
        distiller = compiled(teacher, student, losses, share=0.5)
        before = loss_of(distiller, sample_weight=weights)
        for model in (teacher, student):  # padded steps hold something else
            rows = model.get_layer("words").embeddings
            rows.assign(np.array(rows) + np.array([[5.0], [0], [0], [0]]))
        longer = np.pad(X, ((0, 0), (0, 3)))
        wider = (
            weights if weights is None else np.pad(weights, ((0, 0), (0, 3)))
        )
        labels = np.pad(Y, ((0, 0), (0, 3)), constant_values=1)
        after = loss_of(distiller, longer, labels, sample_weight=wider)
        return before, after

    before, after = losses_of_both(mask_zero=True)
    assert after == pytest.approx(before, rel=1e-10)
    before, after = losses_of_both(mask_zero=False)
    assert after != pytest.approx(before, rel=0.01)


@pytest.mark.parametrize(
    ("weights", "factors"),
    [
        (STEPS, STEPS),
        (STEPS[..., None], STEPS),
        (np.array([2.0, 5.0]), np.array([[2.0], [5.0]])),
        (np.array([[2.0], [5.0]]), np.array([[2.0], [5.0]])),
    ],
)
def test_weights_multiply_the_steps_that_count(weights, factors):
    teacher, student = tagger(2), tagger(1)
    distiller = compiled(teacher, student, share=0.25)

    loss = loss_of(distiller, sample_weight=weights)

    soft = (divergences(teacher, student) * factors)[VALID].sum() / 4
    logs = np.log(softmax(np.array(student(X))))
    hard = -np.take_along_axis(logs, Y[..., None], axis=-1)[..., 0]
    hard = (hard * factors)[VALID].sum() / 4
    assert loss == pytest.approx(0.25 * hard + 0.75 * soft, rel=1e-10)


@pytest.mark.parametrize("masked", ["both", "teacher", "student"])
def test_hints_leave_out_what_is_padding_for_either(masked):
    distiller = compiled(
        tagger(2, width=5, mask_zero=masked != "student"),
        tagger(1, mask_zero=masked != "teacher"),
        HINTS,
    )

    loss = loss_of(distiller)

    expected = projected_errors(distiller)[VALID].mean()
    assert loss == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(
    ("weights", "factors"),
    [
        (STEPS, STEPS),
        (STEPS[..., None], STEPS),
        (np.array([[2.0], [5.0]]), np.array([[2.0], [5.0]])),
    ],
)
def test_hints_weigh_the_steps_that_count(weights, factors):
    distiller = compiled(tagger(2, width=5), tagger(1), HINTS)

    loss = loss_of(distiller, sample_weight=weights)

    expected = (projected_errors(distiller) * factors)[VALID].sum() / 4
    assert loss == pytest.approx(expected, rel=1e-10)


def test_a_batch_of_padding_alone_costs_nothing():
    distiller = compiled(tagger(2), tagger(1), [kddp.SoftTargets(), HINTS])

    assert loss_of(distiller, 0 * X) == 0.0


class Weighted(keras.distillation.DistillationLoss):
    """A user's loss, which takes weights."""

    def compute_loss(
        self, teacher_outputs, student_outputs, sample_weight=None, **kwargs
    ):
        """Returns the sum of the weights."""
        return keras.ops.sum(sample_weight)


def test_a_users_loss_gets_the_weights_of_the_steps_that_count():
    distiller = compiled(tagger(2), tagger(1), Weighted())

    loss = loss_of(distiller, sample_weight=STEPS)

    # 4 of 8 steps are valid: each counts twice in a mean over all.
    assert loss == pytest.approx(2 * (1.0 + 3.0 + 0.5 + 2.0), rel=1e-10)


class Unweighted(keras.distillation.DistillationLoss):
    """A user's loss, which takes no weights."""

    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        """Returns the mean of the squares."""
        squares = keras.ops.square(teacher_outputs - student_outputs)
        return keras.ops.mean(squares)


def test_a_users_loss_that_would_count_padding_is_refused():
    distiller = compiled(tagger(2), tagger(1), Unweighted())
    with pytest.raises(ValueError, match="Add `sample_weight=None` to its"):
        loss_of(distiller)

    models = [tagger(scale, mask_zero=False) for scale in (2, 1)]
    loss_of(compiled(*models, Unweighted()))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            lambda: keras.distillation.LogitsDistillation(2.0, "mse"),
            lambda t, s: np.square((t - s) / 2).mean(axis=-1),
        ),
        (
            lambda: keras.distillation.LogitsDistillation(
                2.0, keras.losses.MeanAbsoluteError()
            ),
            lambda t, s: np.abs((t - s) / 2).mean(axis=-1),
        ),
        (
            lambda: keras.distillation.FeatureDistillation("mae"),
            lambda t, s: np.abs(t - s).mean(axis=-1),
        ),
        (
            lambda: keras.distillation.FeatureDistillation(
                keras.losses.CosineSimilarity(), "scores", "scores"
            ),
            lambda t, s: (
                -(t * s).sum(axis=-1)
                / np.linalg.norm(t, axis=-1)
                / np.linalg.norm(s, axis=-1)
            ),
        ),
        (
            lambda: keras.distillation.FeatureDistillation(
                keras.losses.KLDivergence()
            ),
            lambda t, s: (
                np.clip(t, 1e-7, 1)
                * np.log(np.clip(t, 1e-7, 1) / np.clip(s, 1e-7, 1))
            ).sum(axis=-1),
        ),
    ],
)
def test_stock_losses_leave_padding_out(make, expected):
    teacher, student = tagger(2), tagger(1, width=4)

    loss = loss_of(compiled(teacher, student, make()))

    steps = expected(np.array(teacher(X)), np.array(student(X)))
    assert loss == pytest.approx(steps[VALID].mean(), rel=1e-10)


def test_a_divergence_among_stock_losses_leaves_padding_out():
    def model(scale):
        plain = tagger(scale)
        return keras.Model(plain.input, [plain.output, plain.output])

    stock = keras.distillation.LogitsDistillation(
        4.0, [keras.losses.KLDivergence(), None]
    )
    teacher, student = model(2), model(1)

    loss = loss_of(compiled(teacher, student, stock))

    steps = divergences(lambda x: teacher(x)[0], lambda x: student(x)[0])
    assert loss == pytest.approx(steps[VALID].mean(), rel=1e-10)


def test_each_output_has_its_own_padding():
    def model(scale):
        plain = tagger(scale)
        pooled = keras.layers.GlobalAveragePooling1D()
        whole = keras.layers.Dense(2, name="whole", use_bias=False)
        steps = plain.output
        words = plain.get_layer("words").output
        made = keras.Model(
            plain.input, {"steps": steps, "whole": whole(pooled(words))}
        )
        whole.kernel.assign(scale * np.array([[1.0, 0], [0, 2.0], [1, 1]]))
        return made

    teacher, student = model(2), model(1)
    weights = {"steps": STEPS, "whole": np.array([3.0, 0.5])}

    loss = loss_of(compiled(teacher, student), sample_weight=weights)

    steps, whole = (
        divergences(
            lambda x, n=name: teacher(x)[n], lambda x, n=name: student(x)[n]
        )
        for name in ("steps", "whole")
    )
    expected = (steps * STEPS)[VALID].sum() / 4
    expected += (whole * weights["whole"]).sum() / 2
    assert loss == pytest.approx(expected, rel=1e-10)


def segmenter(width, *, stride=1):
    """Returns a model of class scores for each pixel of 4 by 4."""
    keras.utils.set_random_seed(width)
    inputs = keras.Input((4, 4, 1))
    x = keras.layers.Conv2D(
        width, 3, stride, padding="same", activation="relu", name="conv"
    )(inputs)
    if stride > 1:
        x = keras.layers.UpSampling2D(stride)(x)
    scores = keras.layers.Conv2D(2, 1, name="scores")(x)
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(x)
    whole = keras.layers.Dense(2, name="whole")(pooled)
    return keras.Model(inputs, {"pixels": scores, "whole": whole})


PIXELS = np.random.default_rng(0).random((2, 4, 4))
IMAGES = np.random.default_rng(1).normal(size=(2, 4, 4, 1))


def hint_errors(distiller, layer):
    """Returns the mean square of each position of the features."""
    wanted, received = (
        np.array(keras.Model(m.input, m.get_layer(layer).output)(IMAGES))
        for m in (distiller.teacher, distiller.student)
    )
    projected = received @ np.array(distiller.projection_0.kernel)
    return np.square(wanted - projected).mean(axis=-1)


ONE_OF_EXAMPLES = PIXELS.mean(axis=(1, 2))


@pytest.mark.parametrize(
    ("layer", "stride", "weights", "factors"),
    [
        ("conv", 1, PIXELS, PIXELS),
        ("conv", 1, PIXELS[..., None], PIXELS),
        ("conv", 2, PIXELS, ONE_OF_EXAMPLES[:, None, None]),
        ("conv", 2, PIXELS[..., None], ONE_OF_EXAMPLES[:, None, None]),
        ("pooled", 1, PIXELS, ONE_OF_EXAMPLES),
        ("conv", 1, PIXELS[:, 0, 0], PIXELS[:, 0, 0, None, None]),
        ("conv", 1, PIXELS[:, 0, :1], PIXELS[:, 0, :1, None]),
        ("pooled", 1, PIXELS[:, 0, :1], PIXELS[:, 0, 0]),
        (
            "conv",
            1,
            {"pixels": PIXELS, "whole": np.array([3.0, 0.5])},
            ((ONE_OF_EXAMPLES + [3.0, 0.5]) / 2)[:, None, None],
        ),
        (
            "conv",
            1,
            {"pixels": PIXELS, "whole": None},
            ((ONE_OF_EXAMPLES + 1) / 2)[:, None, None],
        ),
    ],
)
def test_hints_weigh_pixels_where_they_have_them_else_examples(
    layer, stride, weights, factors
):
    distiller = kddp.Distiller(
        segmenter(5, stride=stride),
        segmenter(3, stride=stride),
        kddp.FeatureHints(layer, layer),
        student_loss_weight=0,
    )
    distiller.compile("sgd")

    loss = distiller.compute_loss(IMAGES, sample_weight=weights)

    expected = np.mean(hint_errors(distiller, layer) * factors)
    assert float(loss) == pytest.approx(expected, rel=1e-10)


def test_pixel_weights_train_with_hints_as_arrays_and_as_a_dataset():
    import tensorflow as tf

    def model(width):
        whole = segmenter(width)
        return keras.Model(whole.input, whole.output["pixels"])

    y = (IMAGES[..., 0] > 0) * 1
    open_sizes = tf.TensorSpec((None, None, None), "float64")
    batches = tf.data.Dataset.from_generator(
        lambda: [(IMAGES, y, PIXELS)],
        output_signature=(
            tf.TensorSpec((None, 4, 4, 1), "float64"),
            open_sizes,
            open_sizes,
        ),
    ).repeat()
    losses = [kddp.SoftTargets(), kddp.FeatureHints("conv", "conv")]

    def history(x, *others, **arguments):
        distiller = compiled(model(5), model(3), losses, share=0.5)
        distiller.fit(
            x, *others, epochs=3, shuffle=False, verbose=0, **arguments
        )
        return distiller.history.history["loss"]

    as_arrays = history(IMAGES, y, sample_weight=PIXELS)
    as_dataset = history(batches, steps_per_epoch=1)

    assert as_dataset == pytest.approx(as_arrays, rel=1e-6)
    assert as_arrays[-1] < as_arrays[0]


def test_the_mask_of_a_teacher_alone_leaves_no_output_out():
    teacher, student = tagger(2), tagger(1, mask_zero=False)

    loss = loss_of(compiled(teacher, student))

    expected = divergences(teacher, student).mean()
    assert loss == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("mask_zero", [True, False])
def test_a_weight_of_an_example_weighs_all_its_steps(mask_zero):
    teacher = tagger(2, mask_zero=mask_zero)
    distiller = compiled(teacher, tagger(1, mask_zero=mask_zero), share=0.25)
    weights = np.array([2.0, 5.0])

    by_example = loss_of(distiller, sample_weight=weights)
    by_step = loss_of(distiller, sample_weight=np.stack([weights] * 4, axis=1))

    assert by_example == pytest.approx(by_step, rel=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
def test_steps_of_any_number_weigh_hints_of_any_resolution(stride):
    import tensorflow as tf

    def model(width):
        keras.utils.set_random_seed(width)
        inputs = keras.Input((None, 1))
        x = keras.layers.Conv1D(width, 3, stride, padding="same", name="conv")(
            inputs
        )
        scores = keras.layers.Dense(2)(keras.layers.UpSampling1D(stride)(x))
        return keras.Model(inputs, scores)

    x, weights = IMAGES.reshape(4, 8, 1), PIXELS.reshape(4, 8)
    y = (x[..., 0] > 0) * 1
    sizes = [(None, 1), (None,), (None,)]
    rows = tf.data.Dataset.from_generator(
        lambda: zip(x, y, weights, strict=True),
        output_signature=tuple(tf.TensorSpec(s, "float64") for s in sizes),
    )

    def losses(*data, **arguments):
        losses = [kddp.SoftTargets(), kddp.FeatureHints("conv", "conv")]
        distiller = compiled(model(5), model(3), losses, share=0.5)
        logs = distiller.evaluate(
            *data, **arguments, verbose=0, return_dict=True
        )
        return logs["loss"]

    as_arrays = losses(x, y, sample_weight=weights)
    as_dataset = losses(rows.padded_batch(4).repeat(), steps=1)

    assert as_dataset == pytest.approx(as_arrays, rel=1e-6)
