"""Bad inputs to every public function, each with what is said of it.

A row is a call, the kind of error and a pattern of its message. Whatever is
refused is refused before a step is trained, a weight changed or a file made.
"""

import math
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf
from classifiers import CROSSENTROPY, Subclassed

import keras_kddp as kddp
from keras_kddp import export
from keras_kddp.export import ExportError
from keras_kddp.layers import ActivityPenalty, ActivityRegularizedDense
from keras_kddp.surgery import SurgeryError

NAN, INF = math.nan, math.inf
HUGE = 10**30
X = np.random.default_rng(0).normal(size=(48, 4)).astype("float32")
Y = X[:, :3].argmax(axis=1)
ONES = np.ones(48, "float32")


def network(units=6, classes=3, last=None):
    """Returns a small classifier."""
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(units, "relu", name="hidden"),
            keras.layers.Dense(classes, last, name="out"),
        ]
    )


def spoilt(value, model=None):
    """Returns a model with one weight that is no number."""
    model = model or network()
    model.get_layer("out").bias.assign([value, 0, 0])
    return model


def with_value(array, value, row=5):
    """Returns an array of floats with another value in one row."""
    array = np.array(array, "float32")
    array[row] = value
    return array


TEACHER, STUDENT = network(8), network()
PREPARED = kddp.prepare(STUDENT)
MODELS = (TEACHER, STUDENT, PREPARED)
PACKED = kddp.TeacherCache(TEACHER, X).pack(X)
BAD_TEACHER, BAD_STUDENT = spoilt(NAN), spoilt(INF)
LABELS_OF_7 = with_value(Y, 7).astype(int)


def distiller(teacher=TEACHER, student=PREPARED, optimizer=None, **options):
    """Returns a Distiller that is compiled."""
    made = kddp.Distiller(teacher, student, **options)
    made.compile(
        optimizer or keras.optimizers.SGD(0.01), CROSSENTROPY, run_eagerly=True
    )
    return made


def fit(x=X, y=Y, *, of=None, pruning=None, **arguments):
    """Calls `Distiller.fit`."""
    callbacks = [] if pruning is None else [kddp.DynamicPruning(**pruning)]
    options = {"epochs": 4, "callbacks": callbacks, "verbose": 0, **arguments}
    (of or distiller()).fit(x, y, **options)


def prune(**pruning):
    """Calls `Distiller.fit` with a `DynamicPruning`."""
    fit(pruning=pruning)


def compress(
    train=(X, Y), validation=(X, Y), *, teacher=TEACHER, student=STUDENT, **more
):
    """Calls `compress`, into a folder."""
    options = {"epochs": 4, "run_dir": "run", **more}
    kddp.compress(teacher, student, train, validation, **options)


cache = partial(kddp.TeacherCache, TEACHER, X, path="cache")
tflite = partial(export.to_tflite, STUDENT, "model.tflite")
micro = partial(export.to_microcontroller, STUDENT, "bundle", X)
saved = partial(export.to_saved_model, STUDENT, "saved")


def optimizer(rate):
    return keras.optimizers.SGD(rate)


def criterion(activity, norms):
    return np.full(len(norms), NAN)


SHARE = r"must be a number in \[0, 1\)"
COUNT = r"must be an integer >= 1\. Received"
LARGE = r"must be an integer <= \d+.* Received: .* Give a smaller number"
FINITE = "must have finite weights. Received NaN or infinity in '.*bias'"
WEIGHTS = "must be finite numbers >= 0. Received"
SECONDS = "`time_limit` must be a finite number of seconds > 0"

PREPARE = {
    "model-none": (lambda: kddp.prepare(None), "must be"),
    "model-text": (lambda: kddp.prepare("student.keras"), "must be"),
    "model-subclassed": (lambda: kddp.prepare(Subclassed()), "Functional"),
    "l1-negative": (lambda: kddp.prepare(STUDENT, l1=-1.0), "`l1` must be"),
    "l1-nan": (lambda: kddp.prepare(STUDENT, l1=NAN), "`l1` must be a finite"),
    "l1-infinite": (lambda: kddp.prepare(STUDENT, l1=INF), "`l1` must be a"),
    "l1-beyond-float32": (
        lambda: kddp.prepare(STUDENT, l1=1e300),
        "that float32 holds .* Received: l1=1e[+]300",
    ),
    "l1-text": (lambda: kddp.prepare(STUDENT, l1="1"), "`l1` must be a finite"),
    "layers-unknown": (
        lambda: kddp.prepare(STUDENT, layers=["hiden"]),
        "`layers` must name layers with removable",
    ),
    "layers-last": (
        lambda: kddp.prepare(STUDENT, layers=["out"]),
        "`layers` must name layers with removable",
    ),
}
LAYERS = {
    "penalty-negative": (lambda: ActivityPenalty(l1=-1), "`l1` must be"),
    "penalty-beyond": (lambda: ActivityPenalty(l1=1e39), "that float32 holds"),
    "dense-nan": (lambda: ActivityRegularizedDense(3, l1=NAN), "`l1` must be"),
    "finalize-none": (lambda: kddp.finalize(None), "must be"),
}
DISTILLER = {
    "teacher-text": (
        lambda: kddp.Distiller("t", STUDENT),
        "`teacher` must be a keras.Model, None .* or 'self', the student itself"
        ". Received: teacher='t'",
    ),
    "teacher-self-in-capitals": (
        lambda: kddp.Distiller("Self", STUDENT),
        "`teacher` must be .* Received: teacher='Self'",
    ),
    "teacher-none-as-text": (
        lambda: kddp.Distiller("none", STUDENT),
        "None to learn from the labels alone.* Received: teacher='none'",
    ),
    "teacher-false": (
        lambda: kddp.Distiller(False, STUDENT),
        "`teacher` must be a keras.Model, or None. Received: bool",
    ),
    "self-without-student": (
        lambda: kddp.Distiller("self", None),
        "`student` must be a keras.Model. Received: NoneType",
    ),
    "self-subclassed": (
        lambda: kddp.Distiller("self", Subclassed()),
        "must be a built Sequential or Functional model",
    ),
    "student-none": (
        lambda: kddp.Distiller(TEACHER, None),
        "`student` must be a keras.Model. Received: NoneType",
    ),
    "teacher-unbuilt": (
        lambda: kddp.Distiller(keras.Sequential(), STUDENT),
        "`teacher` must be built",
    ),
    "other-classes": (
        lambda: kddp.Distiller(network(classes=4), STUDENT),
        "outputs of teacher and student must have the same shapes",
    ),
    "one-class": (
        lambda: kddp.Distiller(network(classes=1), network(classes=1)),
        "Soft targets need at least two classes",
    ),
    "shared": (
        lambda: kddp.Distiller(STUDENT, STUDENT),
        "must not share trainable weights",
    ),
    "temperature-zero": (
        lambda: kddp.Distiller(TEACHER, STUDENT, temperature=0),
        "`temperature` must be a finite number > 0",
    ),
    "temperature-infinite": (
        lambda: kddp.Distiller(TEACHER, STUDENT, temperature=INF),
        "`temperature` must be a finite number > 0",
    ),
    "temperature-nan": (
        lambda: kddp.Distiller(TEACHER, STUDENT, temperature=NAN),
        "`temperature` must be a finite number > 0",
    ),
    "temperature-tiny": (
        lambda: kddp.Distiller(TEACHER, STUDENT, temperature=1e-300),
        "`temperature` must be a finite number > 0",
    ),
    "temperature-huge": (
        lambda: kddp.Distiller(TEACHER, STUDENT, temperature=1e300),
        "`temperature` must be a finite number > 0",
    ),
    "share-nan": (
        lambda: kddp.Distiller(TEACHER, STUDENT, student_loss_weight=NAN),
        r"`student_loss_weight` must be a number in \[0, 1\]",
    ),
    "no-loss": (
        lambda: kddp.Distiller(TEACHER, STUDENT).compile("adam"),
        "`loss` must be given",
    ),
    "plan-for-nothing": (
        lambda: distiller().replace_student(3),
        "`plan` must be what `keras_kddp.plan_removal` returns",
    ),
}
FIT = {
    "teacher-nan": (
        lambda: fit(of=distiller(BAD_TEACHER)),
        f"`teacher` {FINITE}",
    ),
    "student-infinite": (
        lambda: fit(of=distiller(student=BAD_STUDENT)),
        f"`student` {FINITE}",
    ),
    "no-teacher-plain": (
        lambda: fit(of=distiller(None)),
        "`x` must carry the outputs of the teacher when teacher=None. Received "
        "plain .* or student_loss_weight=1 to learn from the labels alone",
    ),
    "no-teacher-plain-batches": (
        lambda: fit(tf.data.Dataset.from_tensors((X, Y)), of=distiller(None)),
        "`x` must carry the outputs of the teacher when teacher=None",
    ),
    "no-teacher-plain-validation": (
        lambda: fit(PACKED, of=distiller(None), validation_data=(X, Y)),
        "`validation_data` must carry the outputs of the teacher",
    ),
    "no-teacher-plain-validation-batches": (
        lambda: fit(
            PACKED,
            of=distiller(None),
            validation_data=tf.data.Dataset.from_tensors((X, Y)),
        ),
        "`validation_data` must carry the outputs of the teacher",
    ),
    "labels-too-large": (
        lambda: fit(y=LABELS_OF_7),
        "labels in `y` must be class numbers from 0 to 2. Received: 7 in row 5",
    ),
    "labels-negative": (
        lambda: fit(y=with_value(Y, -1).astype(int)),
        "from 0 to 2. Received: -1 in row 5, 1 such of 48",
    ),
    "labels-nan": (
        lambda: fit(y=with_value(Y, NAN)),
        "from 0 to 2. Received: nan in row 5",
    ),
    "validation-labels": (
        lambda: fit(validation_data=(X, LABELS_OF_7)),
        "labels in `validation_data` must be class numbers",
    ),
    "weights-nan": (
        lambda: fit(sample_weight=with_value(ONES, NAN)),
        f"weights in `sample_weight` {WEIGHTS}: nan, 1 such of 48",
    ),
    "weights-infinite": (
        lambda: fit(sample_weight=with_value(ONES, INF)),
        f"`sample_weight` {WEIGHTS}: inf",
    ),
    "weights-negative": (
        lambda: fit(sample_weight=-ONES),
        f"`sample_weight` {WEIGHTS}: -1.0, 48 such of 48",
    ),
    "weights-of-validation": (
        lambda: fit(validation_data=(X, Y, -ONES)),
        f"`validation_data` {WEIGHTS}",
    ),
    "weights-of-classes": (
        lambda: fit(class_weight={0: 1.0, 1: NAN, 2: 1.0}),
        f"`class_weight` {WEIGHTS}: nan",
    ),
    "epochs-endless": (
        lambda: fit(epochs=10**20),
        "`epochs` must be an integer <= 1000000",
    ),
    "epochs-half": (lambda: fit(epochs=1.5), "`epochs` must be an integer"),
    "batch-zero": (lambda: fit(batch_size=0), COUNT),
    "batch-huge": (lambda: fit(batch_size=10**18), LARGE),
    "x-empty": (lambda: fit(X[:0], Y[:0]), "hold at least one example"),
    "rate-nan": (
        lambda: fit(of=distiller(optimizer=optimizer(NAN))),
        "`learning_rate` must be a finite number >= 0. Received: .*=nan",
    ),
    "rate-infinite": (
        lambda: fit(of=distiller(optimizer=optimizer(INF))),
        "`learning_rate` must be a finite number >= 0. Received: .*=inf",
    ),
    "rate-negative": (
        lambda: fit(of=distiller(optimizer=optimizer(-1.0))),
        "`learning_rate` must be a finite number >= 0. Received: .*=-1.0",
    ),
}
PRUNING = {
    "no-distiller": (
        lambda: compiled().fit(
            X, Y, verbose=0, callbacks=[kddp.DynamicPruning()]
        ),
        "must be a callback of `keras_kddp.Distiller.fit`",
    ),
    "not-prepared": (
        lambda: fit(of=distiller(student=STUDENT), pruning={}),
        "Call `student = keras_kddp.prepare",
    ),
    "criterion-unknown": (
        lambda: kddp.DynamicPruning("activity"),
        "`criterion` must be",
    ),
    "criterion-number": (lambda: kddp.DynamicPruning(3), "`criterion` must be"),
    "criterion-nan": (
        lambda: prune(criterion=criterion),
        "`criterion` must return one score",
    ),
    "threshold-one": (lambda: kddp.DynamicPruning(threshold=1), SHARE),
    "threshold-nan": (lambda: kddp.DynamicPruning(threshold=NAN), SHARE),
    "change-negative": (
        lambda: kddp.DynamicPruning(minimum_change=-0.1),
        SHARE,
    ),
    "samples-zero": (lambda: kddp.DynamicPruning(samples=0), COUNT),
    "samples-half": (lambda: kddp.DynamicPruning(samples=2.5), COUNT),
    "samples-huge": (lambda: kddp.DynamicPruning(samples=HUGE), LARGE),
    "units-zero": (lambda: kddp.DynamicPruning(minimum_units=0), COUNT),
    "units-huge": (lambda: kddp.DynamicPruning(minimum_units=HUGE), LARGE),
    "multiple-huge": (lambda: kddp.DynamicPruning(unit_multiple=HUGE), LARGE),
    "warmup-negative": (
        lambda: kddp.DynamicPruning(warmup_epochs=-1),
        "`warmup_epochs` must be an integer >= 0",
    ),
    "finetune-huge": (lambda: kddp.DynamicPruning(finetune_epochs=HUGE), LARGE),
    "verbose-text": (
        lambda: kddp.DynamicPruning(verbose="yes"),
        "`verbose` must be 0, 1 or 2. Received: verbose='yes'",
    ),
    "verbose-none": (lambda: kddp.DynamicPruning(verbose=None), "`verbose` mu"),
    "range-nan": (
        lambda: kddp.DynamicPruning(input_range=(0, NAN)),
        "`input_range` must be",
    ),
    "range-turned": (
        lambda: kddp.DynamicPruning(input_range=(1, 0)),
        "`input_range` must be",
    ),
    "budget-number": (
        lambda: kddp.DynamicPruning(budget=100),
        "`budget` must be a keras_kddp.Budget",
    ),
    "epochs-one": (
        lambda: fit(pruning={}, epochs=1),
        "must leave at least one epoch with a penalty",
    ),
    "epochs-endless": (
        lambda: fit(pruning={}, epochs=10**20),
        "`epochs` must be an integer <= 1000000",
    ),
    "schedule-too-long": (
        lambda: prune(warmup_epochs=9),
        "schedule must not be longer than the run",
    ),
    "data-empty": (lambda: prune(data=X[:0]), "at least one example"),
    "data-number": (lambda: prune(data=3), "`data` must be arrays"),
    "data-nan": (
        lambda: prune(data=with_value(X, NAN)),
        "Look for NaN in the data",
    ),
    "data-of-another-shape": (
        lambda: prune(data=X[:, :2]),
        "`data` must hold inputs of the student",
    ),
    "x-nan": (
        lambda: fit(with_value(X, NAN), pruning={}),
        "Look for NaN in the data",
    ),
    "x-empty": (lambda: fit(X[:0], Y[:0], pruning={}), "at least one example"),
}
CACHE = {
    "teacher-none": (lambda: kddp.TeacherCache(None, X), "`teacher` must be"),
    "teacher-nan": (
        lambda: kddp.TeacherCache(BAD_TEACHER, X, path="cache"),
        f"`teacher` {FINITE}",
    ),
    "no-teachers": (lambda: kddp.TeacherCache([], X), "an empty list"),
    "x-nan": (
        lambda: kddp.TeacherCache(TEACHER, with_value(X, NAN), path="cache"),
        "outputs of `teacher` must be finite",
    ),
    "x-empty": (
        lambda: kddp.TeacherCache(TEACHER, X[:0], path="cache"),
        "`x` must hold at least one example",
    ),
    "batch-zero": (lambda: cache(batch_size=0), COUNT),
    "batch-huge": (lambda: cache(batch_size=10**18), LARGE),
    "views-zero": (lambda: cache(views=0), COUNT),
    "views-alone": (lambda: cache(views=4), "`augment` must be given"),
    "seed-negative": (lambda: cache(seed=-1), "`seed` must be an integer >= 0"),
    "seed-huge": (
        lambda: cache(seed=HUGE),
        "`seed` must be an integer <= 4294",
    ),
    "path-number": (
        lambda: kddp.TeacherCache(TEACHER, X, path=3),
        "`path` must name a folder",
    ),
    "other-rows": (
        lambda: kddp.TeacherCache(TEACHER, X).pack(X[::-1]),
        "`x` must hold the rows that the cache was made for",
    ),
}
BUDGET = {
    "nothing": (lambda: kddp.Budget(), "`Budget` must have a limit"),
    "zero": (lambda: kddp.Budget(max_parameters=0), "integer >= 1, or None"),
    "negative": (lambda: kddp.Budget(max_bytes=-5), "integer >= 1, or None"),
    "float": (lambda: kddp.Budget(max_macs=1.5), "integer >= 1, or None"),
    "nan": (lambda: kddp.Budget(max_arena_bytes=NAN), "integer >= 1, or None"),
    "text": (lambda: kddp.Budget(max_bytes="80k"), "integer >= 1, or None"),
    "drop-one": (lambda: kddp.Budget(max_accuracy_drop=1), SHARE),
    "drop-nan": (lambda: kddp.Budget(max_accuracy_drop=NAN), SHARE),
    "reference-unknown": (
        lambda: kddp.Budget(max_accuracy_drop=0.1, reference="best"),
        "`reference` must be 'student', 'teacher' or an accuracy",
    ),
    "reference-alone": (
        lambda: kddp.Budget(max_bytes=9, reference="teacher"),
        "must stand beside a `max_accuracy_drop`",
    ),
    "out-of-reach": (
        lambda: prune(budget=kddp.Budget(max_parameters=1)),
        "`max_parameters` must be at least",
    ),
}
COMPRESS = {
    "teacher-nan": (
        lambda: compress(teacher=BAD_TEACHER),
        f"`teacher` {FINITE}",
    ),
    "student-infinite": (
        lambda: compress(student=BAD_STUDENT),
        f"`student` {FINITE}",
    ),
    "no-teacher-soft": (
        lambda: compress(teacher=None),
        "`student_loss_weight` must be 1 where teacher=None.*=0.1. Give 1; or",
    ),
    "self-unheard": (
        lambda: compress(teacher="self", student_loss_weight=1),
        "`student_loss_weight` must be below 1 where teacher='self'.*=1. Set",
    ),
    "no-teacher-reference": (
        lambda: compress(
            teacher=None,
            student_loss_weight=1,
            budget=kddp.Budget(max_accuracy_drop=0.1, reference="teacher"),
        ),
        "`reference` must be 'student' or an accuracy where teacher=None",
    ),
    "no-teacher-reference-of-pruning": (
        lambda: compress(
            teacher=None,
            student_loss_weight=1,
            pruning=kddp.DynamicPruning(
                budget=kddp.Budget(max_accuracy_drop=0.1, reference="teacher")
            ),
        ),
        "`reference` must be 'student' or an accuracy where teacher=None",
    ),
    "no-teacher-twice-the-same": (
        lambda: compress(
            teacher=None,
            student_loss_weight=1,
            controls=["same_size", "same_size_labels"],
        ),
        "must have one of 'same_size' and 'same_size_labels' where teacher=No",
    ),
    "no-teacher-one-logit": (
        lambda: compress(
            teacher=None, student=network(classes=1), student_loss_weight=1
        ),
        "Comparisons of accuracy need at least two classes. Received: a stude",
    ),
    "no-teacher-sigmoid": (
        lambda: compress(
            teacher=None, student=network(last="sigmoid"), student_loss_weight=1
        ),
        "Comparisons of accuracy need logits or softmax outputs",
    ),
    "teacher-in-capitals": (
        lambda: compress(teacher="Self"),
        "`teacher` must be a keras.Model, None to .* Received: teacher='Self'",
    ),
    "teacher-none-as-text": (
        lambda: compress(teacher="none", student_loss_weight=1),
        "`teacher` must be a keras.Model, None to .* Received: teacher='none'",
    ),
    "teacher-false": (
        lambda: compress(teacher=False),
        "`teacher` must be a keras.Model, or None. Received: bool",
    ),
    "teacher-self-infinite": (
        lambda: compress(teacher="self", student=BAD_STUDENT),
        f"`student` {FINITE}",
    ),
    "train-none": (lambda: compress(None), "`train` must be"),
    "train-empty": (lambda: compress((X[:0], Y[:0])), "must hold examples"),
    "x-nan": (
        lambda: compress((with_value(X, NAN), Y)),
        "inputs of `train` must be finite numbers",
    ),
    "x-infinite-in-validation": (
        lambda: compress(validation=(with_value(X, INF), Y)),
        "inputs of `validation` must be finite numbers",
    ),
    "labels-too-large": (
        lambda: compress((X, LABELS_OF_7)),
        "labels of `train` must lie in 0 to 2",
    ),
    "labels-nan": (
        lambda: compress((X, with_value(Y, NAN))),
        "labels of `train` must be integers",
    ),
    "one-class": (
        lambda: compress((X, 0 * Y)),
        r"must have an example of each of the 3 classes. Received none of \[1",
    ),
    "one-row": (
        lambda: compress((X[:1], Y[:1])),
        "must have an example of each of the 3 classes",
    ),
    "weights-nan": (
        lambda: compress((X, Y, with_value(ONES, NAN))),
        "sample weights of `train` must be finite numbers >= 0",
    ),
    "weights-negative": (
        lambda: compress((X, Y, -ONES)),
        "sample weights of `train` must be finite numbers >= 0",
    ),
    "weights-zero": (
        lambda: compress((X, Y, 0 * ONES)),
        "sample weights of `train` must not all be 0",
    ),
    "epochs-zero": (lambda: compress(epochs=0), COUNT),
    "epochs-endless": (
        lambda: compress(epochs=10**20),
        "`epochs` must be an integer <= ",
    ),
    "batch-huge": (lambda: compress(batch_size=10**18), LARGE),
    "batch-text": (lambda: compress(batch_size="64"), COUNT),
    "seed-huge": (
        lambda: compress(seed=HUGE),
        "`seed` must be an integer <= 4294967295",
    ),
    "seed-negative": (
        lambda: compress(seed=-1),
        "`seed` must be an integer >= 0",
    ),
    "rate-nan": (
        lambda: compress(optimizer=optimizer(NAN)),
        "`learning_rate` must be a finite number",
    ),
    "optimizer-unknown": (
        lambda: compress(optimizer="adamm"),
        "`optimizer` must be",
    ),
    "temperature-infinite": (
        lambda: compress(temperature=INF),
        "`temperature` must be a finite number > 0",
    ),
    "l1-negative": (lambda: compress(l1=-1), "`l1` must be a finite number"),
    "controls-unknown": (
        lambda: compress(controls=["best"]),
        "`controls` must be a list of different names",
    ),
    "pruning-text": (
        lambda: compress(pruning="never_active"),
        "`pruning` must be a DynamicPruning",
    ),
    "budget-twice": (
        lambda: compress(
            budget=kddp.Budget(max_bytes=9),
            pruning=kddp.DynamicPruning(budget=kddp.Budget(max_bytes=9)),
        ),
        "`budget` must be given once",
    ),
}
SURGERY = {
    "remove-unknown-layer": (
        lambda: kddp.remove_units(STUDENT, {"hiden": [0]}),
        "hiden",
    ),
    "remove-beyond": (lambda: kddp.remove_units(STUDENT, {"hidden": [6]}), "6"),
    "remove-negative": (
        lambda: kddp.remove_units(STUDENT, {"hidden": [-1]}),
        "-1",
    ),
    "remove-all": (
        lambda: kddp.remove_units(STUDENT, {"hidden": range(6)}),
        "at least one",
    ),
    "remove-half": (
        lambda: kddp.remove_units(STUDENT, {"hidden": [0.5]}),
        "integer",
    ),
    "remove-outputs": (
        lambda: kddp.remove_units(STUDENT, {"out": [0]}),
        "out",
    ),
    "plan-constant-nan": (
        lambda: kddp.plan_removal(
            STUDENT, {"hidden": [0]}, constants={"hidden": {0: NAN}}
        ),
        "finite numbers",
    ),
    "plan-model-none": (lambda: kddp.plan_removal(None, {}), "must be"),
    "groups-none": (lambda: kddp.unit_groups(None), "must be"),
    "explain-none": (lambda: kddp.explain(None), "must be"),
    "explain-subclassed": (lambda: kddp.explain(Subclassed()), "Functional"),
    "profile-none": (lambda: kddp.profile(None), "must be"),
    "profile-subclassed": (lambda: kddp.profile(Subclassed()), "."),
    "activity-none": (
        lambda: kddp.collect_activity(STUDENT, None),
        "must be",
    ),
    "activity-empty": (
        lambda: kddp.collect_activity(STUDENT, X[:0]),
        "at least one example",
    ),
    "activity-batch-zero": (
        lambda: kddp.collect_activity(STUDENT, X, batch_size=0),
        COUNT,
    ),
    "activity-batch-huge": (
        lambda: kddp.collect_activity(STUDENT, X, batch_size=HUGE),
        LARGE,
    ),
}
EXPORT = {
    "tflite-none": (lambda: export.to_tflite(None, "a.tflite"), "must be"),
    "tflite-quantization": (lambda: tflite(quantization="int3"), "must be one"),
    "tflite-no-calibration": (
        lambda: tflite(quantization="int8"),
        "`calibration` must be",
    ),
    "tflite-calibration-nan": (
        lambda: tflite(quantization="int8", calibration=with_value(X, NAN)),
        "`calibration` must be finite",
    ),
    "tflite-samples": (
        lambda: tflite(quantization="int8", calibration=X, samples=0),
        "`samples` must be an integer >= 1",
    ),
    "tflite-samples-huge": (
        lambda: tflite(quantization="int8", calibration=X, samples=HUGE),
        "`samples` must be an integer <= ",
    ),
    "tflite-time-nan": (lambda: tflite(time_limit=NAN), SECONDS),
    "tflite-time-infinite": (lambda: tflite(time_limit=INF), SECONDS),
    "tflite-metadata": (lambda: tflite(metadata={"a": NAN}), "`metadata` must"),
    "micro-time": (lambda: micro(time_limit=0), SECONDS),
    "micro-float16": (lambda: micro(quantization="float16"), "must be one of"),
    "saved-features": (lambda: saved(features="hiden"), "hiden"),
    "saved-path-bytes": (
        lambda: export.to_saved_model(STUDENT, b"saved"),
        "`directory` must be a path. Received: directory=b'saved'. Try",
    ),
    "saved-path-number": (
        lambda: export.to_saved_model(STUDENT, 3),
        "`directory` must be a path. Received: directory=3",
    ),
    "micro-path-bytes": (
        lambda: export.to_microcontroller(STUDENT, b"micro", X),
        "`directory` must be a path",
    ),
    "micro-path-empty": (
        lambda: export.to_microcontroller(STUDENT, "", X),
        "`directory` must be a path. Received: directory=''",
    ),
    "tflite-path-bytes": (
        lambda: export.to_tflite(STUDENT, b"student.tflite"),
        "`path` must be a path",
    ),
    "run-dir-bytes": (
        lambda: compress(run_dir=b"run"),
        "`run_dir` must be a path. Received: run_dir=b'run'. Try run_dir='run",
    ),
    "run-dir-number": (lambda: compress(run_dir=3), "`run_dir` must be a path"),
    "saved-none": (lambda: export.to_saved_model(None, "saved"), "must be"),
    "verify-no-file": (
        lambda: export.verify(STUDENT, "no.tflite", X),
        "no.tfl",
    ),
    "verify-number": (lambda: export.verify(STUDENT, 3, X), "`artifacts` must"),
    "verify-none": (lambda: export.verify(STUDENT, [], X), "must"),
    "verify-tolerance": (
        lambda: export.verify(STUDENT, ["a.tflite"], X, tolerance=NAN),
        "`tolerance` must be",
    ),
    "bench-nothing": (lambda: export.bench({}, X), "must"),
    "bench-samples": (
        lambda: export.bench({"a": STUDENT}, X, samples=0),
        COUNT,
    ),
    "bench-samples-huge": (
        lambda: export.bench({"a": STUDENT}, X, samples=HUGE),
        LARGE,
    ),
    "bench-time": (
        lambda: export.bench({"a": STUDENT}, X, time_limit=-1),
        SECONDS,
    ),
    "qat-self": (
        lambda: export.finetune_with_tfmot(
            STUDENT, (X, Y), "qat.tflite", teacher="self"
        ),
        "`teacher` must be a keras.Model, or None. Received: str",
    ),
    "qat-seed-huge": (
        lambda: export.finetune_with_tfmot(
            STUDENT, (X, Y), "qat.tflite", seed=HUGE
        ),
        "`seed` must be an integer <= 4294967295",
    ),
}
GROUPS = {
    "prepare": PREPARE,
    "layers": LAYERS,
    "Distiller": DISTILLER,
    "fit": FIT,
    "DynamicPruning": PRUNING,
    "TeacherCache": CACHE,
    "Budget": BUDGET,
    "compress": COMPRESS,
    "surgery": SURGERY,
    "export": EXPORT,
}
ROWS = {
    f"{group}-{name}": row
    for group, rows in GROUPS.items()
    for name, row in rows.items()
}
OWN_ERRORS = (*(ValueError, TypeError, OSError), ExportError, SurgeryError)


def compiled():
    """Returns a classifier that is compiled."""
    model = network()
    model.compile("sgd", CROSSENTROPY, run_eagerly=True)
    return model


def values():
    """Returns the weights of the models that are shared here."""
    return [weight for model in MODELS for weight in model.get_weights()]


@pytest.fixture(autouse=True)
def no_training(monkeypatch, tmp_path):
    """Works in an empty folder, where a first step would be an error."""

    def step(*arguments, **options):
        raise AssertionError("a step was trained")

    monkeypatch.setattr(kddp.Distiller, "train_step", step)
    monkeypatch.setattr(keras.Model, "train_step", step)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ROWS)
def test_a_bad_input_is_refused_before_anything_is_changed(name, tmp_path):
    call, pattern = ROWS[name]
    before = values()

    with pytest.raises(OWN_ERRORS, match=pattern) as raised:
        call()

    message = str(raised.value)
    assert "eceived" in message or "cannot be removed: " in message
    assert len(message) < 1_000
    assert [*tmp_path.iterdir()] == []
    for now, then in zip(values(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_the_table_is_long():
    assert len(ROWS) >= 150
