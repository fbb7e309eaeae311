"""What is checked before anything is trained is checked once."""

import keras
import numpy as np
import pytest

import keras_kddp as kddp
from keras_kddp.compression import compress as compression
from keras_kddp.compression import job
from keras_kddp.compression.checks import preflight
from keras_kddp.compression.config import CompressionConfig
from keras_kddp.compression.run_directory import RunDirectory
from keras_kddp.compression.training import Recipe
from keras_kddp.models import digits_student, digits_teacher
from keras_kddp.pruning.budget import int8_trial
from keras_kddp.pruning.run import PruningRun

X = np.random.default_rng(0).random((60, 64), dtype="float32")
DATA = X, np.arange(60) % 10


@pytest.fixture
def conversions(monkeypatch):
    """Counts the int8 files that are made of students."""
    made = []
    convert = int8_trial.to_tflite

    def counted(model, *arguments, **options):
        made.append(model.name)
        return convert(model, *arguments, **options)

    monkeypatch.setattr(int8_trial, "to_tflite", counted)
    return made


@pytest.fixture
def trained(monkeypatch):
    """Keeps preflights instead of training them."""
    kept = []

    def keep(checked, teacher, directory):
        kept.append(checked)
        raise StopIteration

    monkeypatch.setattr(compression, "compress_checked", keep)
    monkeypatch.setattr(job, "train_checked", keep)
    return kept


def checked(**options):
    settings = {
        "pruning": kddp.DynamicPruning(),
        "budget": None,
        "l1": 1.0,
        "controls": (),
        "is_exported": False,
        **options,
    }
    recipe = Recipe(epochs=4, batch_size=20, optimizer="adam", loss=None)
    return preflight(
        digits_teacher(),
        digits_student(16),
        {"train": DATA, "validation": DATA, "test": None},
        recipe,
        **settings,
    )


def test_a_preflight_converts_three_int8_files(conversions):
    found = checked(
        pruning=kddp.DynamicPruning(unit_multiple=4),
        budget=kddp.Budget(max_bytes=2_500),
    )
    assert len(conversions) == 3  # to judge widths; the largest; the smallest
    assert found.pruned.quota is not None
    assert found.layers == ["hidden"]


@pytest.mark.parametrize(
    ("multiple", "budget", "count"),
    [
        (1, None, 0),
        (4, None, 1),
        (1, kddp.Budget(max_parameters=600), 0),
        (1, kddp.Budget(max_accuracy_drop=0.1), 0),
    ],
)
def test_only_what_is_asked_for_is_measured(
    multiple, budget, count, conversions
):
    pruning = kddp.DynamicPruning(unit_multiple=multiple)
    found = checked(pruning=pruning, budget=budget)
    assert len(conversions) == count
    has_sizes = budget is not None and bool(budget.sizes())
    assert (found.pruned.quota is not None) == has_sizes
    assert pruning.budget is None


def test_a_class_that_validation_or_test_lack_is_said(trained):
    x, y = DATA
    with (
        pytest.warns(
            UserWarning, match="`validation` has no.* classes 3 and 7"
        ),
        pytest.warns(UserWarning, match="`test` has no example of class 0"),
        pytest.raises(StopIteration),
    ):
        kddp.compress(
            digits_teacher(),
            digits_student(16),
            DATA,
            (x[~np.isin(y, (3, 7))], y[~np.isin(y, (3, 7))]),
            test=(x[y != 0], y[y != 0]),
            epochs=4,
        )


def test_a_class_that_train_lacks_is_refused(trained):
    x, y = DATA
    with pytest.raises(ValueError, match=r"`train` must have.* none of \[7\]"):
        kddp.compress(
            digits_teacher(),
            digits_student(16),
            (x[y != 7], y[y != 7]),
            DATA,
            epochs=4,
        )


@pytest.mark.parametrize("who", ["teacher", "student"])
def test_a_model_that_scales_scaled_inputs_is_said(who, trained):
    scaling = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Dense(16, "relu", name="hidden"),
            keras.layers.Dense(10, name="logits"),
        ]
    )
    models = {"teacher": digits_teacher(), "student": digits_student(16)}
    models[who] = scaling
    with (
        pytest.warns(UserWarning, match=f"before the {who}'s 'rescaling"),
        pytest.raises(StopIteration),
    ):
        kddp.compress(**models, train=DATA, validation=DATA, epochs=4)


def test_compress_checks_once_before_it_trains(conversions, trained):
    with pytest.raises(StopIteration):
        kddp.compress(
            digits_teacher(),
            digits_student(16),
            DATA,
            DATA,
            epochs=4,
            pruning=kddp.DynamicPruning(unit_multiple=4),
            budget=kddp.Budget(max_bytes=2_500),
        )
    assert len(conversions) == 3
    assert len(trained) == 1


def test_three_files_are_made_before_the_first_epoch(conversions, monkeypatch):
    def stop(*_):
        raise StopIteration

    monkeypatch.setattr(PruningRun, "begin_epoch", stop)
    near_chance = pytest.warns(UserWarning, match="The teacher is near chance")
    with near_chance, pytest.raises(StopIteration):
        kddp.compress(
            digits_teacher(),
            digits_student(16),
            DATA,
            DATA,
            epochs=4,
            pruning=kddp.DynamicPruning(unit_multiple=4),
            budget=kddp.Budget(max_bytes=2_500),
        )
    assert len(conversions) == 3


def test_the_command_checks_once_for_all_seeds(
    conversions, monkeypatch, tmp_path
):
    kept = []
    keep = lambda checked, *_: kept.append(checked)  # noqa: E731
    monkeypatch.setattr(job, "train_checked", keep)
    monkeypatch.setattr(job, "concluded", lambda *_: None)
    monkeypatch.setattr(RunDirectory, "write_configuration", keep)
    monkeypatch.setattr(job, "_show", keep)
    monkeypatch.setattr(job, "_check_agreement", keep)
    config = CompressionConfig(
        teacher="digits_teacher",
        student="digits_student",
        data="digits",
        out=str(tmp_path),
        epochs=4,
        teacher_epochs=0,
        max_bytes=2_500,
        unit_multiple=4,
        seeds=(0, 1, 2),
    )
    job.run_job(config)
    assert len(conversions) == 3
    runs = [each for each in kept if hasattr(each, "prepared")]
    assert [run.recipe.seed for run in runs] == [0, 1, 2]
    assert [run.pruned is not None for run in runs] == [True, False, False]
    kernels = [run.prepared.get_layer("hidden").kernel.numpy() for run in runs]
    assert not np.array_equal(kernels[0], kernels[1])


def compressed(teacher=None, **options):
    return kddp.compress(
        teacher or digits_teacher(),
        digits_student(16),
        DATA,
        DATA,
        epochs=4,
        **options,
    )


@pytest.mark.parametrize("loss", ["binary_crossentropy", "mse"])
def test_a_loss_of_no_classes_is_refused_before_training(loss, trained):
    with pytest.raises(ValueError, match="default soft targets put a softmax"):
        compressed(loss=loss)
    assert not trained
    with pytest.raises(StopIteration):
        compressed(loss=loss, student_loss_weight=1.0)


def test_a_teacher_that_was_never_built_is_refused_before_training(trained):
    layers = [keras.layers.Dense(8, "relu"), keras.layers.Dense(10)]
    with pytest.raises(ValueError, match="`teacher` must be built"):
        compressed(keras.Sequential(layers))
    assert not trained
