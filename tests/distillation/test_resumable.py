"""The callback by which a run goes on, and what it refuses."""

import keras
import numpy as np
import pytest
from classifiers import CROSSENTROPY
from known_activity import X, fit, make_distiller, make_student, pruning
from resumed_runs import EndAt, EndedError, Outcome, assert_equal, resumed

from keras_kddp import Budget, ResumableCheckpoint
from keras_kddp.distillation.checkpoints import resumable
from keras_kddp.distillation.checkpoints.files import (
    Stored,
    checkpoint_files,
    newest_checkpoint,
    write_checkpoint,
)
from keras_kddp.distillation.checkpoints.finished import restore_finished
from keras_kddp.distillation.checkpoints.identity import describe
from keras_kddp.distillation.checkpoints.values import as_stored, snapshot
from keras_kddp.distillation.student_state import Snapshot, StudentState

callbacks = keras.callbacks


@pytest.fixture(autouse=True)
def at_every_epoch(monkeypatch):
    """Writes a checkpoint after each epoch."""
    monkeypatch.setattr(resumable, "SECONDS_BETWEEN", 0.0)


class Numbers:
    """The epochs that a run has."""

    def __init__(self):
        self.seen = []
        self.callback = callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: self.seen.append(epoch)
        )


def plain(optimizer="sgd"):
    """Returns a compiled model that is no Distiller."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((6,), name="x"),
            keras.layers.Dropout(0.3, name="drop"),
            keras.layers.Dense(3, name="logits"),
        ]
    )
    model.compile(optimizer, CROSSENTROPY, run_eagerly=True)
    return model


def ended(folder, epoch=2, distiller=None, *others, **arguments):
    """Leaves the checkpoints of a run that was ended as an epoch began."""
    with pytest.raises(EndedError):
        fit(
            distiller or make_distiller(rate=0.5),
            *others,
            ResumableCheckpoint(folder),
            EndAt(epoch),
            **arguments,
        )


def goes_on(folder, distiller=None, *others, **arguments):
    """Returns the epochs of a run that goes on, and its History's logs."""
    numbers = Numbers()
    checkpoint = ResumableCheckpoint(folder)
    distiller = distiller or make_distiller(rate=0.5)
    history = fit(distiller, checkpoint, *others, numbers.callback, **arguments)
    return numbers.seen, history


def with_neighbours():
    neighbours = [
        callbacks.EarlyStopping(
            "loss", patience=3, min_delta=9.0, restore_best_weights=True
        ),
        callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=9.0),
    ]
    return plain(keras.optimizers.SGD(0.1, 0.9)), neighbours, {"shuffle": False}


def test_a_model_that_is_no_distiller_goes_on_too(tmp_path):
    expected = Outcome(with_neighbours)
    found = resumed(with_neighbours, tmp_path / "checkpoints", 2)
    assert_equal(found, expected)
    assert len(expected.history.epoch) == 4  # stopped early


def test_checkpoints_are_written_every_thirty_seconds(tmp_path, monkeypatch):
    monkeypatch.undo()
    assert resumable.SECONDS_BETWEEN == 30.0
    now = iter([0.0, 10.0, 31.0, 31.0, 45.0, 70.0, 70.0])
    monkeypatch.setattr(resumable.time, "monotonic", lambda: next(now))
    folder = tmp_path / "checkpoints"

    ended(folder, 4, epochs=5)

    names = [x.name for x in checkpoint_files(folder)]
    assert names == ["00000001.checkpoint", "00000002.checkpoint"]
    monkeypatch.undo()
    assert goes_on(folder, epochs=5)[0] == [4]


def test_a_checkpoint_that_takes_long_waits_longer(tmp_path, monkeypatch):
    monkeypatch.undo()
    # One is written at 31 in 2 seconds: the next is due after 2.5 * 30 more.
    now = iter([0.0, 31.0, 33.0, 107.0, 108.0, 108.0])
    monkeypatch.setattr(resumable.time, "monotonic", lambda: next(now))
    folder = tmp_path / "checkpoints"

    ended(folder, 2, epochs=5)
    assert len(checkpoint_files(folder)) == 1


def test_a_run_that_is_done_leaves_no_checkpoints(tmp_path):
    folder = tmp_path / "checkpoints"
    assert goes_on(folder)[0] == [0, 1, 2, 3]
    assert not folder.exists()


def test_the_next_fit_begins_with_its_own_first_epoch(tmp_path):
    distiller = make_distiller(rate=0.5)
    ended(tmp_path / "checkpoints")
    assert goes_on(tmp_path / "checkpoints", distiller)[0] == [2, 3]

    numbers = Numbers()
    fit(distiller, numbers.callback, epochs=2)
    assert numbers.seen == [0, 1]
    assert goes_on(tmp_path / "checkpoints", distiller)[0] == [0, 1, 2, 3]


def test_an_initial_epoch_holds_until_there_is_a_checkpoint(tmp_path):
    folder = tmp_path / "checkpoints"
    ended(folder, 3, epochs=5, initial_epoch=1)
    seen, history = goes_on(folder, epochs=5, initial_epoch=1)
    assert seen == [3, 4] and len(history["loss"]) == 4


def test_another_initial_epoch_is_refused(tmp_path):
    ended(tmp_path / "checkpoints")
    with pytest.raises(ValueError, match="initial_epoch was 0 and is 3"):
        goes_on(tmp_path / "checkpoints", initial_epoch=3)


def test_a_run_that_had_been_stopped_does_not_go_on(tmp_path):
    class Stop(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

        def on_train_end(self, logs=None):
            raise EndedError  # before the checkpoints are removed

    folder = tmp_path / "checkpoints"
    with pytest.raises(EndedError):
        goes_on(folder, None, Stop())
    seen, history = goes_on(folder)
    assert seen == [] and len(history["loss"]) == 2


def test_a_run_that_ended_behind_its_last_epoch_is_done(tmp_path):
    class End(callbacks.Callback):
        def on_train_end(self, logs=None):
            raise EndedError

    folder = tmp_path / "checkpoints"
    with pytest.raises(EndedError):
        goes_on(folder, None, End())
    seen, history = goes_on(folder)
    assert seen == [] and len(history["loss"]) == 4


def test_a_run_that_nan_stopped_leaves_no_checkpoints(tmp_path):
    folder = tmp_path / "checkpoints"
    checkpoint = ResumableCheckpoint(folder)
    with pytest.warns(UserWarning, match="became NaN or infinite in epoch 1"):
        fit(
            make_distiller(rate=1e30),
            checkpoint,
            pruning(),
            x=X * 1e30,
        )
    assert not folder.exists()


def other_widths():
    student = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(5, "relu", name="fc"),
            keras.layers.Dense(2, name="out"),
        ]
    )
    return make_distiller(student)


OTHERS = {
    "epochs": (lambda: make_distiller(rate=0.5), [], {"epochs": 5}),
    "optimizer": (lambda: make_distiller(optimizer="adam"), [], {}),
    "learning_rate": (lambda: make_distiller(rate=0.25), [], {}),
    "batch_size": (lambda: make_distiller(rate=0.5), [], {"batch_size": 2}),
    "temperature": (
        lambda: make_distiller(rate=0.5, temperature=2.0),
        [],
        {},
    ),
    "units": (other_widths, [], {}),
    "criterion": (
        lambda: make_distiller(rate=0.5),
        [pruning(criterion="never_active")],
        {},
    ),
    "warmup_epochs": (
        lambda: make_distiller(rate=0.5),
        [pruning(warmup_epochs=0)],
        {},
    ),
    "max_macs": (
        lambda: make_distiller(rate=0.5),
        [pruning(budget=Budget(max_macs=9))],
        {},
    ),
    "callbacks.EarlyStopping": (
        lambda: make_distiller(rate=0.5),
        [pruning(), callbacks.EarlyStopping("loss", patience=9)],
        {},
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_run_is_refused_by_what_is_different(tmp_path, name):
    folder = tmp_path / "checkpoints"
    make, others, arguments = OTHERS[name]
    first = [pruning(budget=Budget(max_macs=16))] if name == "max_macs" else []
    if others and not first:
        first = [pruning()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *given, **named: None)
        ended(folder, 2, None, *first)
        distiller = make()
        before = [x.numpy() for x in distiller.student.variables]
        files = {x: x.read_bytes() for x in checkpoint_files(folder)}

        with pytest.raises(ValueError, match=rf"go on as it began.*{name}"):
            goes_on(folder, distiller, *others, **arguments)

    for now, then in zip(distiller.student.variables, before, strict=True):
        np.testing.assert_array_equal(now.numpy(), then)
    assert {x: x.read_bytes() for x in folder.iterdir()} == files


@pytest.mark.parametrize("place", ["x", "y", "sample_weight"])
def test_other_data_are_refused(tmp_path, place):
    data = {"x": X, "y": np.arange(len(X)) % 2, "sample_weight": X[:, 0] ** 2}

    def run(*others, **given):
        make_distiller(rate=0.5).fit(
            **given,
            epochs=4,
            verbose=0,
            callbacks=[ResumableCheckpoint(tmp_path / "checkpoints"), *others],
        )

    with pytest.raises(EndedError):
        run(EndAt(2), **data)
    other = {**data, place: data[place][::-1]}
    with pytest.raises(ValueError, match=rf"EpochOrder.data.{place} was "):
        run(**other)
    run(**{name: value.copy() for name, value in data.items()})


def test_text_is_described_by_what_it_says():
    first, same, other = (
        np.array(["".join(x) for x in texts], object)
        for texts in (("ab", "c"), ("ab", "c"), ("ab", "d"))
    )
    assert describe(first) == describe(same) != describe(other)


@pytest.mark.parametrize("package", ["keras", "keras-kddp", "tensorflow"])
def test_another_version_is_refused(tmp_path, monkeypatch, package):
    ended(tmp_path)
    versions = resumable.describe_versions()
    monkeypatch.setattr(
        resumable, "describe_versions", lambda: {**versions, package: "0.0.1"}
    )
    message = rf"versions.{package} was '.*' and is '0.0.1'"
    with pytest.raises(ValueError, match=message):
        goes_on(tmp_path)


def test_a_folder_with_other_things_is_refused_before_training(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="must be a folder of its own"):
        goes_on(tmp_path)


@pytest.mark.parametrize("other", ["BackupAndRestore", "ResumableCheckpoint"])
def test_two_that_go_on_are_refused(tmp_path, other):
    kinds = [callbacks.BackupAndRestore, ResumableCheckpoint]
    (kind,) = (x for x in kinds if x.__name__ == other)
    with pytest.raises(ValueError, match="One ResumableCheckpoint must be in"):
        goes_on(tmp_path / "a", None, kind(tmp_path / "b"))


class Counting(callbacks.Callback):
    """A callback of a user, with state."""

    def __init__(self):
        super().__init__()
        self.state = {"count": 0, "array": np.zeros(2, "float16")}

    def on_epoch_end(self, epoch, logs=None):
        self.state["count"] += 1
        self.state["array"] = self.state["array"] + np.float16(0.1)

    def checkpoint_state(self):
        return self.state

    def restore_checkpoint_state(self, state):
        self.state = state


def test_the_state_of_a_users_callback_goes_on(tmp_path):
    ended(tmp_path, 3, None, Counting())
    found = Counting()
    goes_on(tmp_path, None, found)
    assert found.state["count"] == 4
    expected = np.float16(0.1) + np.float16(0.1) + np.float16(0.1)
    np.testing.assert_array_equal(
        found.state["array"], [expected + np.float16(0.1)] * 2
    )


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": object()}, "must be numbers, text, arrays.*Received: object"),
        ({"a": {1: 2}}, "keys of what a checkpoint keeps must be text"),
    ],
    ids=["object", "key"],
)
def test_state_that_cannot_be_kept_is_refused(state, message):
    with pytest.raises(ValueError, match=message):
        as_stored(state)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ([np.zeros(3), np.zeros(2)], r"kernel \(2, 2\) instead of \(3,\)"),
        ([np.zeros((2, 2))], "2 variables instead of 1"),
    ],
    ids=["shape", "count"],
)
def test_values_of_other_variables_are_refused(arrays, message):
    dense = keras.layers.Dense(2)
    dense.build((None, 2))
    state = StudentState(dense, {}, None)
    with pytest.raises(ValueError, match=f"must have the variables.*{message}"):
        snapshot(state, arrays)


def test_small_floats_are_kept_bit_by_bit():
    dense = keras.layers.Dense(2, dtype="bfloat16")
    dense.build((None, 2))
    value = np.asarray(dense.kernel.numpy()).copy()

    stored = as_stored({"snapshot": Snapshot.of(StudentState(dense, {}, None))})
    dense.kernel.assign(0 * dense.kernel)
    snapshot(StudentState(dense, {}, None), stored.arrays).restore_values()

    assert stored.arrays[0].dtype == np.uint16
    np.testing.assert_array_equal(np.asarray(dense.kernel.numpy()), value)


def finished(folder):
    """Returns a Distiller whose run finished, its callbacks and its logs."""
    distiller, removing = make_distiller(rate=0.01), pruning()
    checkpoint = ResumableCheckpoint(folder, keep=True)
    history = fit(distiller, checkpoint, removing)
    checkpoint.finish()
    return distiller, removing, history


def test_a_finished_run_is_put_into_a_new_model(tmp_path):
    distiller, removing, history = finished(tmp_path)
    expected = keras.random.normal((2,)).numpy()
    keras.random.normal((9,))
    new = make_distiller(rate=0.01)

    found = restore_finished(new, tmp_path)

    np.testing.assert_array_equal(keras.random.normal((2,)), expected)
    assert new.student.get_layer("fc").units == 2
    pairs = zip(
        new.training_state().variables,
        distiller.training_state().variables,
        strict=True,
    )
    for restored, then in pairs:
        np.testing.assert_array_equal(restored.numpy(), then.numpy())
    assert found.history == history
    (removal,) = found.callbacks["DynamicPruning"]["removals"]
    assert removal == removing.removals[0].as_dict()


def test_a_run_that_has_not_finished_is_none(tmp_path):
    assert restore_finished(make_distiller(), tmp_path) is None
    ended(tmp_path)
    assert restore_finished(make_distiller(rate=0.5), tmp_path) is None


def test_a_finished_run_of_another_model_is_refused(tmp_path):
    finished(tmp_path)
    with pytest.raises(ValueError, match="go on as it began"):
        restore_finished(make_distiller(optimizer="adam"), tmp_path)


def test_a_finished_run_is_not_gone_on_with(tmp_path):
    finished(tmp_path)
    with pytest.raises(ValueError, match="whose run is finished"):
        goes_on(tmp_path, make_distiller(rate=0.01), pruning())


def test_a_student_that_is_smaller_by_now_is_refused(tmp_path):
    removing = make_distiller(rate=0.01)
    ended(tmp_path, 3, removing, pruning())
    assert removing.student.get_layer("fc").units == 2
    with pytest.raises(ValueError, match=r"units was 4 and is 2"):
        goes_on(tmp_path, removing, pruning())


def test_the_student_that_is_given_is_left_as_it_is(tmp_path):
    ended(tmp_path, 3, make_distiller(rate=0.01), pruning())
    start = make_student()
    goes_on(tmp_path, make_distiller(start, rate=0.01), pruning())
    assert start.get_layer("fc").units == 4


def unbuilt(call):
    """Returns a compiled model of layers that the first step would build."""
    model = keras.Sequential([keras.layers.Dense(3, name="logits")])
    model.compile("sgd", CROSSENTROPY, run_eagerly=True)
    if call:
        model(X[:1])
    return model


def test_a_model_without_weights_is_refused_before_training(tmp_path):
    with pytest.raises(ValueError, match=r"Call it once, as model\(x\[:1\]\)"):
        fit(unbuilt(False), ResumableCheckpoint(tmp_path / "checkpoints"))
    seen, _ = goes_on(tmp_path / "checkpoints", unbuilt(True))
    assert seen == [0, 1, 2, 3]


def test_a_loop_that_begins_anew_is_refused(tmp_path):
    ended(tmp_path / "checkpoints", distiller=unbuilt(True))
    checkpoint = ResumableCheckpoint(tmp_path / "checkpoints")
    listed = callbacks.CallbackList(
        [checkpoint], model=unbuilt(True), epochs=4, steps=1
    )
    listed.on_train_begin()
    with pytest.raises(ValueError, match="epoch 0 instead of 2"):
        listed.on_epoch_begin(0)


@pytest.mark.parametrize("directory", [None, "", 3])
def test_a_directory_that_is_no_path_is_refused(directory):
    with pytest.raises(ValueError, match="`directory` must be the path"):
        ResumableCheckpoint(directory)


def test_a_folder_that_cannot_be_removed_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert goes_on(".")[0] == [0, 1, 2, 3]
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    "changes",
    [
        {"run": None},
        {"run": []},
        {"state": None},
        {"state": {"__snapshot__": [{"removed": 3, "folded": []}, []]}},
        {"state": {"__array__": 10**9}},
        {"callbacks": []},
        {"random": {}},
    ],
)
def test_a_checkpoint_of_something_else_is_refused(tmp_path, changes):
    ended(tmp_path, 2, make_distiller(rate=0.01), pruning())
    meta, arrays = newest_checkpoint(tmp_path)
    write_checkpoint(tmp_path, 99, Stored({**meta, **changes}, arrays))

    with pytest.raises(ValueError, match="must hold what a run keeps. Receiv"):
        goes_on(tmp_path, make_distiller(rate=0.01), pruning())
