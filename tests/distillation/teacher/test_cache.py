"""Teacher outputs that are computed once, and never meet other inputs."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from cached_examples import KERNEL, LOGITS, X, Y, make_student, make_teacher
from classifiers import CROSSENTROPY
from helpers import to_numpy, variable_values

import keras_kddp as kddp
from keras_kddp.data.packing import TeacherOutput, packed, unpacked
from keras_kddp.distillation.teacher.rows import checksums_of


def compiled(teacher, student=None, **options):
    distiller = kddp.Distiller(teacher, student or make_student(), **options)
    distiller.compile(
        keras.optimizers.SGD(0.1), CROSSENTROPY, metrics=["accuracy"]
    )
    return distiller


def batches(*parts, size=2):
    return tf.data.Dataset.from_tensor_slices(parts).batch(size)


def outputs_in(x):
    return [to_numpy(output.values) for output in unpacked(x)[1]]


def test_packed_inputs_carry_what_the_teacher_says():
    inputs, outputs = unpacked(kddp.TeacherCache(make_teacher(), X).pack(X))

    assert inputs is X
    (output,) = outputs
    np.testing.assert_allclose(output.values, LOGITS, rtol=1e-6)
    assert not output.are_probabilities


def test_more_than_ten_outputs_keep_their_order():
    outputs = [(np.full((1, 2), i), False) for i in range(12)]
    x = packed(X, [TeacherOutput(*pair) for pair in outputs])
    assert [int(values[0, 0]) for values in outputs_in(x)] == list(range(12))


def test_what_is_not_packed_is_handed_back():
    as_dict = {"inputs": X, "teacher_outputs": X}  # a student's own names
    for x in (X, [X, X], as_dict):
        inputs, outputs = unpacked(x)
        assert inputs is x
        assert outputs == []


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("with_labels", [True, False])
def test_a_dataset_is_cached_like_arrays(size, with_labels):
    dataset = batches(*((X, Y) if with_labels else (X,)), size=size)
    cache = kddp.TeacherCache(make_teacher(), dataset)
    np.testing.assert_allclose(outputs_in(cache.pack(X))[0], LOGITS, rtol=1e-6)


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_cached_outputs_train_like_the_live_teacher(activation):
    teacher = make_teacher(activation)
    cache = kddp.TeacherCache(teacher, X)
    live, cached = compiled(teacher), compiled(None)

    for distiller, x in ((live, X), (cached, cache.pack(X))):
        keras.utils.set_random_seed(0)
        distiller.fit(x, Y, batch_size=2, epochs=3, verbose=0)

    for one, other in zip(
        live.student.weights, cached.student.weights, strict=True
    ):
        np.testing.assert_allclose(to_numpy(one), to_numpy(other), rtol=1e-5)
    assert live.evaluate(X, Y, verbose=0) == pytest.approx(
        cached.evaluate(cache.pack(X), Y, verbose=0), rel=1e-5
    )


def test_a_live_teacher_is_not_asked_where_outputs_are_packed():
    cached = kddp.TeacherCache(make_teacher(), X).pack(X)
    other = make_teacher()
    other.layers[0].kernel.assign(100 * KERNEL)

    losses = [
        float(compiled(teacher).compute_loss(cached, Y, training=True))
        for teacher in (other, None)
    ]

    assert losses[0] == losses[1]


def test_class_weights_and_prediction_work_on_packed_inputs():
    cached = kddp.TeacherCache(make_teacher(), X).pack(X)
    distiller = compiled(None)
    before = variable_values(distiller.student)

    distiller.fit(cached, Y, class_weight={0: 0.0, 1: 0.0}, verbose=0)

    for old, new in zip(
        before, variable_values(distiller.student), strict=True
    ):
        np.testing.assert_array_equal(old, new)
    np.testing.assert_allclose(
        distiller.predict(cached, verbose=0),
        distiller.predict(X, verbose=0),
        rtol=1e-6,
    )


def test_a_student_of_dict_inputs_takes_packed_ones():
    inputs = {name: keras.Input((2,), name=name) for name in ("a", "b")}

    def model(units):
        both = keras.layers.Concatenate()(list(inputs.values()))
        hidden = keras.layers.Dense(units, "relu")(both)
        return keras.Model(inputs, keras.layers.Dense(2)(hidden))

    x = {"a": X, "b": 2 * X}
    teacher = model(16)
    cached = kddp.TeacherCache(teacher, x).pack(x)
    live, from_cache = (
        compiled(teacher, student) for student in [model(4)] * 2
    )
    expected = float(live.compute_loss(x, Y, training=True))
    received = float(from_cache.compute_loss(cached, Y, training=True))
    assert received == pytest.approx(expected, rel=1e-5)


def test_pruning_observes_the_inputs_in_packed_ones():
    x = np.random.default_rng(0).normal(size=(64, 2)).astype("float32")
    cache = kddp.TeacherCache(make_teacher(), x)
    distiller = compiled(None, kddp.prepare(make_student(), l1=0.5))

    distiller.fit(
        cache.pack(x),
        (x[:, 0] > 0) * 1,
        validation_split=0.25,
        epochs=8,
        verbose=0,
        callbacks=[kddp.DynamicPruning(threshold=0.3)],
    )

    assert distiller.student.get_layer("hidden").units < 8


def test_zipped_batches_can_be_shuffled_afterwards():
    weights = np.array([1.0, 2.0, 3.0], dtype="float32")
    dataset = batches(X, Y, weights)
    cache = kddp.TeacherCache(make_teacher(), dataset)

    zipped = cache.zip(dataset)
    shuffled = zipped.unbatch().shuffle(3, seed=0).batch(1)

    assert len(zipped) == 2
    for _ in range(2):  # passes
        rows = {
            int(w[0]): (to_numpy(unpacked(x)[0])[0], outputs_in(x)[0][0])
            for x, _, w in shuffled
        }
        for index in range(3):
            np.testing.assert_allclose(rows[index + 1][0], X[index])
            np.testing.assert_allclose(rows[index + 1][1], LOGITS[index])


def test_a_dataset_of_unknown_length_is_zipped():
    dataset = batches(X, Y).filter(lambda x, y: True)
    cache = kddp.TeacherCache(make_teacher(), dataset)
    received = [outputs_in(x)[0] for x, _ in cache.zip(dataset)]
    np.testing.assert_allclose(np.concatenate(received), LOGITS, rtol=1e-6)


def test_a_pass_in_another_order_is_an_error():
    cache = kddp.TeacherCache(make_teacher(), X)
    shuffled = batches(X[[1, 0, 2]], Y)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="the rows that were cached"
    ):
        list(cache.zip(shuffled))


def test_more_rows_than_were_cached_are_an_error():
    cache = kddp.TeacherCache(make_teacher(), X)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="others from row 2 on"
    ):
        list(cache.zip(batches(np.concatenate([X, X]))))


@pytest.mark.parametrize("x", [X[:2], X + 1, X[[1, 0, 2]], X.astype("float64")])
def test_other_rows_are_not_packed(x):
    cache = kddp.TeacherCache(make_teacher(), X)
    with pytest.raises(ValueError, match=f"3. Received {len(x)} rows, some"):
        cache.pack(x)


def test_plain_inputs_without_a_teacher_are_refused():
    with pytest.raises(ValueError, match=r"`x` must carry the outputs of the"):
        compiled(None).compute_loss(X, Y, training=True)


def test_a_loss_that_reads_the_teachers_layers_needs_the_teacher():
    loss = keras.distillation.FeatureDistillation(
        loss="mse", teacher_layer_name="fc", student_layer_name="hidden"
    )
    with pytest.raises(ValueError, match="for a loss that reads its layers"):
        kddp.Distiller(None, make_student(), loss)


def test_features_come_from_the_live_teacher_beside_packed_outputs():
    teacher = make_student()
    teacher.layers[0].kernel.assign(2 * teacher.layers[0].kernel)
    losses = [
        keras.distillation.FeatureDistillation(
            loss="mse", teacher_layer_name="hidden", student_layer_name="hidden"
        ),
        kddp.SoftTargets(),
    ]
    cached = kddp.TeacherCache(teacher, X).pack(X)
    distiller = compiled(teacher, distillation_losses=losses)
    assert float(distiller.compute_loss(cached, Y)) == pytest.approx(
        float(distiller.compute_loss(X, Y)), rel=1e-5
    )


def test_a_distiller_without_a_teacher_is_saved_and_loaded(tmp_path):
    cached = kddp.TeacherCache(make_teacher(), X).pack(X)
    distiller = compiled(None)
    distiller.fit(cached, Y, verbose=0)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    assert loaded.teacher is None
    assert loaded.evaluate(cached, Y, verbose=0) == pytest.approx(
        distiller.evaluate(cached, Y, verbose=0)
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda t: kddp.TeacherCache("teacher", X),
            "`teacher` must be a keras",
        ),
        (lambda t: kddp.TeacherCache(t, X[:0]), "at least one example"),
        (lambda t: kddp.TeacherCache(t, 3), "`x` must be arrays, or an iter"),
        (
            lambda t: kddp.TeacherCache(t, batches(X).repeat()),
            "endless dataset",
        ),
        (
            lambda t: kddp.TeacherCache(t, X, batch_size=0),
            "`batch_size` must be",
        ),
        (lambda t: kddp.TeacherCache(t, X).pack(batches(X)), "there is `zip`"),
        (lambda t: kddp.TeacherCache(t, X).zip(X), "there is `pack`"),
        (
            lambda t: kddp.TeacherCache(t, X).zip(batches(X).repeat()),
            "`dataset` must be finite",
        ),
    ],
)
def test_what_cannot_be_cached_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(make_teacher())


def test_outputs_of_other_lengths_are_refused():
    inputs = keras.Input((None, 2))
    teacher = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    rows = [np.zeros((2, steps, 2), "float32") for steps in (3, 5)]

    message = (
        r"the same shape for every row of `x`. Received: \[\(\(3, 2\),\), "
    )
    with pytest.raises(ValueError, match=message):
        kddp.TeacherCache(teacher, ((x,) for x in rows))


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
@pytest.mark.parametrize("kind", [list, np.array, tf.constant])
def test_texts_are_recognized_by_what_they_say(shape, kind):
    def texts(*words):
        made = ["".join(list(word)) for word in words]  # new objects
        if kind is list:
            return np.array(made, dtype=object).reshape(shape)
        return kind(np.array(made).reshape(shape))

    first = checksums_of(texts("good", "bad", "b\u00e4d"))
    again = checksums_of(texts("good", "bad", "b\u00e4d"))
    other = checksums_of(texts("good", "bad", "a longer one"))

    assert first == again
    assert first[:2] == other[:2]
    assert len({*first, *other}) == 4


def test_where_texts_end_matters():
    one = np.array([["ab", "c"]], dtype=object)
    other = np.array([["a", "bc"]], dtype=object)

    assert checksums_of(one) != checksums_of(other)


def test_outputs_for_texts_are_found_again_in_their_file(tmp_path):
    def teacher():
        keras.utils.set_random_seed(0)
        inputs = keras.Input((), dtype="string")
        words = keras.layers.TextVectorization(
            vocabulary=["good", "bad"], output_sequence_length=2
        )(inputs)
        return keras.Model(inputs, keras.layers.Dense(2)(words))

    def texts():
        words = [["go", "od"], ["b", "ad"]]
        return np.array(["".join(parts) for parts in words], dtype=object)

    path = tmp_path / "outputs"
    one, other = teacher(), teacher()
    first = kddp.TeacherCache(one, texts(), path=path)

    again = kddp.TeacherCache(other, texts(), path=path)

    for mine, theirs in zip(
        outputs_in(first.pack(texts())),
        outputs_in(again.pack(texts())),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, theirs)
