"""Teacher outputs on disk, of several teachers, and of augmented views."""

import shutil
from functools import partial
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from cached_examples import LOGITS, X, Y, make_student, make_teacher
from classifiers import CROSSENTROPY
from interrupted import full, killed, states

import keras_kddp as kddp
import keras_kddp.distillation.teacher.cache as module
from keras_kddp.atomic_files import obstacles
from keras_kddp.atomic_files.lock import holding
from keras_kddp.data.packing import unpacked
from keras_kddp.distillation.teacher.views import Views


class Counting(keras.layers.Layer):
    """Notes in `rows` how many examples pass."""

    rows = 0

    def call(self, inputs):
        Counting.rows += inputs.shape[0] or 0
        return inputs


def counting_teacher():
    Counting.rows = 0
    teacher = make_teacher()
    inputs = keras.Input((2,))
    return keras.Model(inputs, Counting()(teacher(inputs)))


def logits(cache, x=X):
    (output,) = unpacked(cache.pack(x))[1]
    return np.asarray(output.values)


def test_a_second_run_reads_the_outputs_and_asks_no_teacher(tmp_path):
    teacher = counting_teacher()
    first = kddp.TeacherCache(teacher, X, path=tmp_path / "cache")
    Counting.rows = 0

    second = kddp.TeacherCache(teacher, X, path=tmp_path / "cache")

    assert Counting.rows == 0
    np.testing.assert_array_equal(logits(first), logits(second))
    assert logits(second).dtype == np.float16
    np.testing.assert_allclose(logits(second), LOGITS, rtol=1e-3)
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [
        ".keras_kddp.json",
        "key.json",
        "outputs_0.npy",
    ]


def test_a_dataset_is_kept_and_found_again(tmp_path):
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(2)
    kddp.TeacherCache(make_teacher(), data, path=tmp_path / "cache")

    found = kddp.TeacherCache(make_teacher(), data, path=tmp_path / "cache")

    rows = [np.asarray(unpacked(x)[1][0].values) for x, _ in found.zip(data)]
    np.testing.assert_allclose(np.concatenate(rows), LOGITS, rtol=1e-3)


def test_probabilities_are_kept_as_their_logarithms(tmp_path):
    # In float16, a probability of e^-12 would have no digits left.
    teacher = make_teacher("softmax")
    cache = kddp.TeacherCache(teacher, 4 * X, path=tmp_path / "cache")

    (output,) = unpacked(cache.pack(4 * X))[1]

    assert output.are_probabilities
    assert output.are_logarithms
    np.testing.assert_allclose(output.values[0], [-12, 0], atol=0.01)


def test_other_losses_get_the_probabilities_back(tmp_path):
    teacher = make_teacher("softmax")
    student = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(2, "softmax")]
    )
    loss = keras.distillation.LogitsDistillation(
        loss="mean_squared_error", temperature=1.0
    )
    found = []
    for path in (None, tmp_path / "cache"):
        x = kddp.TeacherCache(teacher, X, path=path).pack(X)
        distiller = kddp.Distiller(None, student, loss, student_loss_weight=0)
        found.append(float(distiller.compute_loss(x, Y, training=False)))

    assert found[1] == pytest.approx(found[0], rel=1e-3)


def test_training_on_a_file_is_training_on_the_teacher(tmp_path):
    losses = []
    for path in (None, tmp_path / "cache", tmp_path / "cache"):
        cache = kddp.TeacherCache(make_teacher(), X, path=path)
        distiller = kddp.Distiller(None, make_student())
        distiller.compile(keras.optimizers.SGD(0.1), CROSSENTROPY)
        history = distiller.fit(
            cache.pack(X), Y, epochs=3, shuffle=False, verbose=0
        )
        losses.append(history.history["loss"])

    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
    np.testing.assert_allclose(losses[1], losses[2], rtol=1e-6)


def test_other_weights_of_the_teacher_are_refused(tmp_path):
    teacher = make_teacher()
    kddp.TeacherCache(teacher, X, path=tmp_path / "cache")
    teacher.layers[-1].kernel.assign_add([[0.0, 0.0], [0.0, 1e-3]])

    with pytest.raises(ValueError, match="stale: it was made for another teac"):
        kddp.TeacherCache(teacher, X, path=tmp_path / "cache")


def test_other_data_are_refused(tmp_path):
    kddp.TeacherCache(make_teacher(), X, path=tmp_path / "cache")

    with pytest.raises(ValueError, match="stale: it was made for another data"):
        kddp.TeacherCache(make_teacher(), X[::-1], path=tmp_path / "cache")


def test_a_folder_of_something_else_is_refused_and_left(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(ValueError, match="must be a new folder, or that of a"):
        kddp.TeacherCache(make_teacher(), X, path=tmp_path)

    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_another_activation_with_the_same_weights_is_refused(tmp_path):
    kddp.TeacherCache(make_teacher("relu"), X, path=tmp_path / "cache")

    with pytest.raises(ValueError, match="made for another teacher"):
        kddp.TeacherCache(make_teacher("tanh"), X, path=tmp_path / "cache")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as one"),
        (None, r"checksums .*Received: \['\(1, \d+, 2"),
    ],
)
def test_a_damaged_cache_is_refused(content, message, tmp_path):
    kddp.TeacherCache(make_teacher(), X, path=tmp_path / "cache")
    file = tmp_path / "cache" / "outputs_0.npy"
    if content is None:
        np.save(file, np.load(file)[:, :2])
    else:
        file.write_bytes(content)

    with pytest.raises(ValueError, match=message):
        kddp.TeacherCache(make_teacher(), X, path=tmp_path / "cache")


def test_an_empty_folder_is_a_new_cache(tmp_path):
    kddp.TeacherCache(make_teacher(), X, path=tmp_path)

    assert (tmp_path / "key.json").is_file()


def test_a_path_that_cannot_be_written_is_refused_before_the_pass(tmp_path):
    (tmp_path / "file").touch()
    teacher = counting_teacher()
    Counting.rows = 0

    with pytest.raises(OSError, match="file"):
        kddp.TeacherCache(teacher, X, path=tmp_path / "file" / "cache")

    assert Counting.rows == 0


def test_a_second_writer_of_a_cache_is_refused_before_the_pass(tmp_path):
    teacher = counting_teacher()
    Counting.rows = 0

    with holding(tmp_path / "cache"):
        with pytest.raises(BlockingIOError, match="one writer at a time"):
            kddp.TeacherCache(teacher, X, path=tmp_path / "cache")

    assert Counting.rows == 0


def test_too_little_room_for_a_cache_is_found_before_the_pass(
    tmp_path, monkeypatch
):
    teacher = counting_teacher()
    Counting.rows = 0
    disk = SimpleNamespace(total=99, free=23)
    monkeypatch.setattr(obstacles.shutil, "disk_usage", lambda _: disk)

    # 2 views of 3 rows of 2 logits, 2 bytes each, and 131,072 for the rest.
    with pytest.raises(OSError, match="About 131,096 bytes must .* with 23"):
        kddp.TeacherCache(
            teacher, X, path=tmp_path / "cache", augment=shift, views=2
        )

    assert Counting.rows == 0


def test_a_pass_that_was_interrupted_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "teacher_outputs", interrupted)
    with pytest.raises(KeyboardInterrupt):
        kddp.TeacherCache(make_teacher(), X, path=tmp_path / "a" / "cache")

    assert not any(tmp_path.iterdir())


def test_every_state_of_a_cache_is_none_or_the_complete_one(tmp_path):
    teacher = make_teacher()
    write = partial(
        kddp.TeacherCache, teacher, X, path=tmp_path / "c" / "cache"
    )
    for stop in (killed, full):
        for _ in states(tmp_path / "c", write, stop=stop):
            np.testing.assert_allclose(logits(write()), LOGITS, rtol=1e-3)
            assert not (tmp_path / "c" / "cache.unfinished" / "new").exists()
            shutil.rmtree(tmp_path / "c")
        shutil.rmtree(tmp_path / "c")


@pytest.mark.parametrize("link", ["loop", "lost"])
def test_a_link_that_leads_nowhere_is_no_cache(link, tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "lost").symlink_to(tmp_path / "no disk" / "cache")

    with pytest.raises(OSError, match="lead back to themsel|folder is not the"):
        kddp.TeacherCache(make_teacher(), X, path=tmp_path / link)


def test_logits_beyond_float16_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"within float16, 65504.*9e\+04"):
        kddp.TeacherCache(make_teacher(), X * 1e4, path=tmp_path / "cache")

    assert not any(tmp_path.iterdir())


# Several teachers.


def test_an_ensemble_teaches_the_mean_of_log_probabilities():
    first, second = make_teacher(), make_teacher("softmax")
    second.layers[-1].kernel.assign([[1.0, 0.0], [0.0, 1.0]])

    cache = kddp.TeacherCache([first, second], X)

    def log_softmax(z):
        return z - np.log(np.exp(z).sum(axis=1, keepdims=True))

    expected = (log_softmax(LOGITS) + log_softmax(X)) / 2
    np.testing.assert_allclose(logits(cache), expected, rtol=1e-5)


def test_an_ensemble_of_one_teacher_twice_is_that_teacher():
    cache = kddp.TeacherCache([make_teacher(), make_teacher()], X)

    shift = logits(cache) - LOGITS  # the same distribution
    np.testing.assert_allclose(shift[:, 0], shift[:, 1], rtol=1e-5)


def test_teachers_of_other_outputs_are_refused():
    other = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])

    with pytest.raises(ValueError, match="outputs of the same shapes"):
        kddp.TeacherCache([make_teacher(), other], X)


@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_teachers_of_one_number_are_refused(activation):
    teacher = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(1, activation)]
    )

    with pytest.raises(ValueError, match="several classes. Received outputs"):
        kddp.TeacherCache([teacher, teacher], X)


def test_an_empty_ensemble_is_refused():
    with pytest.raises(ValueError, match=r"or a list of them. Received: \[\]"):
        kddp.TeacherCache([], X)


# Augmented views.


def shift(row, generator):
    return row + generator.normal(size=row.shape)


def test_teacher_and_student_see_the_same_pixels():
    cache = kddp.TeacherCache(make_teacher(), X, augment=shift, views=3, seed=5)
    data = cache.batches(X, Y, batch_size=2)
    teacher = make_teacher()

    seen = []
    for _ in range(3):
        data.on_epoch_begin()
        for index in range(len(data)):
            x, y = data[index]
            inputs, (output,) = unpacked(x)
            np.testing.assert_allclose(
                output.values, teacher(inputs), rtol=1e-5
            )
            assert len(y) == len(inputs)
            seen.append(inputs)

    assert len(np.unique(np.concatenate(seen), axis=0)) == 9  # 3 rows, 3 views


def test_views_follow_from_the_seed_and_the_row_alone():
    cache = kddp.TeacherCache(make_teacher(), X, augment=shift, seed=5)
    again = kddp.TeacherCache(make_teacher(), X, augment=shift, seed=5)
    other = kddp.TeacherCache(make_teacher(), X, augment=shift, seed=6)

    def rows(cache, order_seed):
        data = cache.batches(X, Y, batch_size=3, seed=order_seed)
        inputs, _ = unpacked(data[0][0])
        return np.sort(inputs, axis=0)

    np.testing.assert_array_equal(rows(cache, 0), rows(again, 1))
    assert np.abs(rows(cache, 0) - rows(other, 0)).min() > 0


def test_fit_takes_the_views_with_weights_and_pruning():
    cache = kddp.TeacherCache(make_teacher(), X, augment=shift, views=2)
    distiller = kddp.Distiller(None, kddp.prepare(make_student()))
    distiller.compile("adam", CROSSENTROPY)
    data = cache.batches(X, Y, np.ones(3), batch_size=2)

    history = distiller.fit(
        data, epochs=6, verbose=0, callbacks=[kddp.DynamicPruning(data=X)]
    )

    assert len(history.history["units"]) == 6


def test_fit_moves_on_to_the_next_view_in_every_epoch(monkeypatch):
    cache = kddp.TeacherCache(make_teacher(), X, augment=shift, views=3)
    data = cache.batches(X, Y, batch_size=3)
    distiller = kddp.Distiller(None, make_student())
    distiller.compile("adam", CROSSENTROPY)
    seen = []
    original = Views.of
    monkeypatch.setattr(
        Views, "of", lambda *args: seen.append(args[-1]) or original(*args)
    )

    distiller.fit(data, epochs=4, verbose=0)

    # The first is read to learn the shapes.
    assert seen == [0, 0, 1, 2, 0]


def test_views_are_kept_on_disk_and_other_views_are_refused(tmp_path):
    path = tmp_path / "cache"
    teacher = counting_teacher()
    kddp.TeacherCache(teacher, X, path=path, augment=shift, views=2)
    Counting.rows = 0

    kddp.TeacherCache(teacher, X, path=path, augment=shift, views=2)

    assert Counting.rows == 0
    with pytest.raises(ValueError, match="stale: it was made for another data"):
        kddp.TeacherCache(teacher, X, path=path, augment=shift, seed=9, views=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"views": 2}, "`augment` must be given for several views"),
        ({"views": 0}, "`views` must be an integer >= 1"),
        ({"augment": "flip"}, "must be a function .* Received: 'flip'"),
        ({"augment": shift, "seed": -1}, "`seed` must be an integer >= 0"),
        ({"augment": lambda row, _: row[:1]}, "row of the same shape, .2,."),
        ({"batch_size": 0}, "`batch_size` must be an integer >= 1"),
    ],
)
def test_a_bad_argument_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        kddp.TeacherCache(make_teacher(), X, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"y": Y[:2]}, r"`y` must have one entry per row of `x`, 3. .*\[2\]"),
        (
            {"sample_weight": [1.0]},
            "`sample_weight` must have one entry per row",
        ),
        ({"batch_size": 0}, "`batch_size` must be an integer >= 1"),
        ({"seed": -1}, "`seed` must be an integer >= 0"),
    ],
)
def test_bad_batches_are_refused(arguments, message):
    cache = kddp.TeacherCache(make_teacher(), X, augment=shift)

    with pytest.raises(ValueError, match=message):
        cache.batches(X, **{"y": Y, **arguments})


def test_labels_may_be_lists_and_tensors():
    cache = kddp.TeacherCache(make_teacher(), X, augment=shift)

    for labels in (Y.tolist(), tf.constant(Y)):
        _, y = cache.batches(X, labels, batch_size=3)[0]
        assert sorted(y) == sorted(Y)


def test_integers_do_not_wrap_around():
    x = np.full((3, 2), 200, dtype="uint8")

    with pytest.raises(ValueError, match="uint8 can hold, 0 to 255. Received"):
        kddp.TeacherCache(make_teacher(), x, augment=lambda row, _: row * 1.5)


def test_several_inputs_cannot_be_augmented():
    with pytest.raises(ValueError, match="must be one array to be augmented"):
        kddp.TeacherCache(make_teacher(), [X, X], augment=shift)


def test_views_are_asked_for_by_batches_only():
    cache = kddp.TeacherCache(make_teacher(), X, augment=shift)
    plain = kddp.TeacherCache(make_teacher(), X)
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(2)

    with pytest.raises(ValueError, match="`pack` needs a cache of the inputs"):
        cache.pack(X)
    with pytest.raises(ValueError, match="`zip` needs a cache of the inputs"):
        cache.zip(data)
    with pytest.raises(ValueError, match="`batches` needs a cache with `augm"):
        plain.batches(X, Y)
    with pytest.raises(ValueError, match="must hold the rows"):
        cache.batches(X[::-1], Y)


def test_progress_is_shown_on_request(capsys):
    kddp.TeacherCache(make_teacher(), X, verbose=1)

    assert "3/Unknown" in capsys.readouterr().out


def test_changed_numbers_are_refused(tmp_path):
    kddp.TeacherCache(make_teacher(), X, path=tmp_path / "cache")
    file = tmp_path / "cache" / "outputs_0.npy"
    values = np.load(file)
    values[0, 0, 0] = np.nan
    np.save(file, values)

    with pytest.raises(ValueError, match="of the checksums"):
        kddp.TeacherCache(make_teacher(), X, path=tmp_path / "cache")


@pytest.mark.parametrize("part", [b'"teacher": "', b'"data": ', b"are_log"])
def test_a_changed_key_is_refused(part, tmp_path):
    kddp.TeacherCache(make_teacher(), X, path=tmp_path / "cache")
    key = tmp_path / "cache" / "key.json"
    content = key.read_bytes()
    place = content.index(part) + len(part)
    for changed in (
        content[:place] + b" " + content[place:],
        content[:place] + b"1" + content[place + 1 :],
        content + b"\n",
    ):
        key.write_bytes(changed)
        with pytest.raises(ValueError, match="The cache in|cannot be read as"):
            kddp.TeacherCache(make_teacher(), X, path=tmp_path / "cache")


def test_flags_of_a_cache_are_under_its_sum(tmp_path):
    kddp.TeacherCache(make_teacher(), X, path=tmp_path / "cache")
    key = tmp_path / "cache" / "key.json"
    content = key.read_text()
    assert '"are_logarithms": [\n    false' in content
    key.write_text(content.replace("false", "true"))
    with pytest.raises(ValueError, match="must have a key.json of the SHA-256"):
        kddp.TeacherCache(make_teacher(), X, path=tmp_path / "cache")
    key.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="cannot be read as one"):
        kddp.TeacherCache(make_teacher(), X, path=tmp_path / "cache")


def test_nobody_is_told_to_delete_what_is_no_cache(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    for path in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(ValueError, match="cannot be read as one") as caught:
            kddp.TeacherCache(make_teacher(), X, path=path)
        assert "Delete" not in str(caught.value)


def test_a_name_that_is_too_long_for_a_cache_is_named(tmp_path):
    with pytest.raises(OSError, match="short enough"):
        kddp.TeacherCache(make_teacher(), X, path=tmp_path / ("n" * 250))


def wired(*, skips_input):
    """Returns a teacher of layers that are the same in another wiring."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input(X.shape[1:])
    flat = keras.layers.Flatten()(inputs)
    first = keras.layers.Dense(4, name="first")(flat)
    second = keras.layers.Dense(4, name="second")(first)
    parts = [first, second] if skips_input else [second, second]
    total = keras.layers.Add(name="total")(parts)
    return keras.Model(inputs, keras.layers.Dense(2, name="out")(total))


def test_a_teacher_of_other_wiring_is_refused(tmp_path):
    kddp.TeacherCache(wired(skips_input=True), X, path=tmp_path / "cache")

    kddp.TeacherCache(wired(skips_input=True), X, path=tmp_path / "cache")
    with pytest.raises(ValueError, match="made for another teacher"):
        kddp.TeacherCache(wired(skips_input=False), X, path=tmp_path / "cache")


def test_a_teacher_that_was_saved_is_known_again(tmp_path):
    teacher = wired(skips_input=True)
    kddp.TeacherCache(teacher, X, path=tmp_path / "cache")
    teacher.save(tmp_path / "teacher.keras")

    loaded = keras.saving.load_model(tmp_path / "teacher.keras")

    kddp.TeacherCache(loaded, X, path=tmp_path / "cache")


@pytest.mark.parametrize("path", ["", 123])
def test_a_path_that_names_no_folder_is_refused(path):
    with pytest.raises(ValueError, match="`path` must name a folder"):
        kddp.TeacherCache(make_teacher(), X, path=path)


def test_a_link_to_an_empty_folder_is_a_new_cache(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")

    kddp.TeacherCache(make_teacher(), X, path=tmp_path / "link")

    assert (tmp_path / "real" / "key.json").is_file()
