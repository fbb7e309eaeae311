"""What TFMOT's process does: a described student in, a fine-tuned one out."""

import runpy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import tensorflow
import tensorflow_model_optimization as tfmot
import tf_keras
from tensorflow_model_optimization.python.core.clustering.keras.experimental import (  # noqa: E501
    cluster,
)  # noqa: E501

_bridge: Any = runpy.run_path(
    str(Path(__file__).with_name("tf_keras_program.py"))
)


_models: Any = _bridge["_models"]


_OWN = (
    *("kernel", "bias", "pointwise_kernel", "alpha"),
    *("gamma", "beta", "moving_mean", "moving_variance"),
)


_RANGE_ROWS = 512


_DECAYING = 0.6  # of the sparsity's stage; then it stays


_MASK_UPDATES = 50


def answer(
    description: dict[str, Any],
    weights: str,
    data: str,
    options: dict[str, Any],
    found: str,
    saved_model: str,
    outputs: list[str],
) -> Iterator[dict[str, Any]]:
    """Fine-tunes a student, one technique after the other.

    Args:
        description: Of the student; see `_portable_models.py`.
        weights: Its weights, .npz.
        data: "x", "y", "sample_weight" and the "teacher"'s logits, .npz.
        options: As `finetune_with_tfmot` takes them.
        found: File for the weights that come out.
        saved_model: Folder for the model at batch 1, quantization included.
        outputs: Names of its outputs.

    Yields:
        {"epoch": ..., "loss": ..., "accuracy": ...} after each epoch; last the
        reply: {"zero_fractions": {kernel: ...}, "distinct_values": {...}}.
    """
    tf_keras.utils.set_random_seed(options["seed"])
    student = _bridge["built"](description, weights)
    with numpy.load(data) as file:
        training = _Training(dict(file), options)
    done: list[str] = []
    for technique in options["techniques"]:
        stage = _STAGES[technique](student, done, options, training)
        yield from training.fit(stage.model, stage.callbacks)
        student = stage.finish(stage.model)
        kept = _models["weights_of"](_inner_layers(student, description))
        if technique != "quantization":  # TFMOT leaves a broken graph
            student = _models["build"](tf_keras, description, kept)
        done.append(technique)
    kernels = {k: v for k, v in kept.items() if k.endswith("kernel")}
    reply = {
        "zero_fractions": {
            name: float(numpy.mean(kernel == 0))
            for name, kernel in kernels.items()
        },
        "distinct_values": {
            name: len(numpy.unique(kernel)) for name, kernel in kernels.items()
        },
    }
    numpy.savez(found, **kept)
    _save(student, description, saved_model, outputs)
    yield reply


class _Training:
    """Distillation with tf_keras, as the Distiller does it with Keras 3."""

    def __init__(self, data: dict[str, Any], options: dict[str, Any]) -> None:
        labels = data["y"].astype("float32").reshape(-1, 1)
        teacher = data.get("teacher", numpy.zeros((len(labels), 0), "float32"))
        self.x = data["x"]
        self._targets = numpy.concatenate([labels, teacher], axis=1)
        self._sample_weight = data.get("sample_weight")
        self._options = options
        steps = -(-len(labels) // options["batch_size"])
        self.steps = steps * options["epochs"]
        self._epoch = 0

    def fit(
        self, model: Any, callbacks: Sequence[Any]
    ) -> Iterator[dict[str, Any]]:
        """Trains one stage; yields after each epoch."""
        rate = tf_keras.optimizers.schedules.CosineDecay(
            self._options["learning_rate"], self.steps
        )
        model.compile(
            tf_keras.optimizers.Adam(rate), self._loss, metrics=[self._accuracy]
        )
        for epoch in range(self._options["epochs"]):
            history = model.fit(
                self.x,
                self._targets,
                sample_weight=self._sample_weight,
                batch_size=self._options["batch_size"],
                initial_epoch=epoch,
                epochs=epoch + 1,
                verbose=0,
                callbacks=list(callbacks),
            ).history
            self._epoch += 1
            loss, accuracy = (values[-1] for values in history.values())
            if not numpy.isfinite(loss):
                raise ValueError(f"the loss became {loss}: lower learning_rate")
            yield {
                "epoch": self._epoch,
                "loss": float(loss),
                "accuracy": float(accuracy),
            }

    def _loss(self, targets: Any, outputs: Any) -> Any:
        """Returns the losses of a batch (SoftTargets' equation)."""
        logits = self._logits(outputs)
        hard = tf_keras.losses.sparse_categorical_crossentropy(
            targets[:, 0], logits, from_logits=True
        )
        if targets.shape[1] == 1:
            return hard
        temperature = self._options["temperature"]
        share = self._options["student_loss_weight"]
        log_p = tensorflow.nn.log_softmax(targets[:, 1:] / temperature)
        log_q = tensorflow.nn.log_softmax(logits / temperature)
        soft = temperature**2 * tensorflow.reduce_sum(
            tensorflow.exp(log_p) * (log_p - log_q), axis=-1
        )
        return share * hard + (1 - share) * soft

    def _accuracy(self, targets: Any, outputs: Any) -> Any:
        return tf_keras.metrics.sparse_categorical_accuracy(
            targets[:, 0], outputs
        )

    def _logits(self, outputs: Any) -> Any:
        if not self._options["is_softmax"]:
            return outputs
        least = tf_keras.backend.epsilon()
        return tensorflow.math.log(tensorflow.maximum(outputs, least))


class _Stage(NamedTuple):
    """A student prepared for one technique.

    Attributes:
        model: The student in TFMOT's wrappers.
        finish: Takes off those that are for training only.
        callbacks: Of its training.
    """

    model: Any
    finish: Callable[[Any], Any]
    callbacks: Sequence[Any] = ()


def _sparsity(
    student: Any, done: list[str], options: dict[str, Any], training: _Training
) -> _Stage:
    """Zeroes the smallest entries of every kernel, ever more.

    Zhu & Gupta 2017, arXiv 1710.01878.
    """
    steps = training.steps
    schedule = tfmot.sparsity.keras.PolynomialDecay(
        0.0,
        options["sparsity"],
        begin_step=0,
        end_step=max(1, int(_DECAYING * steps)),
        # Its default, 100, leaves short runs without any zero.
        frequency=max(1, steps // _MASK_UPDATES),
    )
    return _Stage(
        tfmot.sparsity.keras.prune_low_magnitude(student, schedule),
        tfmot.sparsity.keras.strip_pruning,
        [tfmot.sparsity.keras.UpdatePruningStep()],
    )


def _clustering(
    student: Any, done: list[str], options: dict[str, Any], training: _Training
) -> _Stage:
    """Lets every kernel have few different values."""
    keras = tfmot.clustering.keras
    clustered = cluster.cluster_weights(
        student,
        number_of_clusters=options["clusters"],
        cluster_centroids_init=keras.CentroidInitialization.KMEANS_PLUS_PLUS,
        preserve_sparsity="sparsity" in done,
    )
    return _Stage(clustered, keras.strip_clustering)


def _quantization(
    student: Any, done: list[str], options: dict[str, Any], training: _Training
) -> _Stage:
    """Trains with the roundings of int8 (Jacob et al. 2018)."""
    keras, combine = tfmot.quantization.keras, tfmot.experimental.combine
    annotated = keras.quantize_annotate_model(student)
    finish = lambda model: model  # noqa: E731
    if "clustering" in done:
        scheme = combine.Default8BitClusterPreserveQuantizeScheme(
            preserve_sparsity="sparsity" in done
        )
        finish = combine.strip_clustering_cqat
    elif "sparsity" in done:
        scheme = combine.Default8BitPrunePreserveQuantizeScheme()
    else:
        scheme = keras.default_8bit.Default8BitQuantizeScheme()
    quantized = keras.quantize_apply(annotated, scheme)
    _set_ranges(quantized, student, training.x[:_RANGE_ROWS])
    return _Stage(quantized, finish)


def _set_ranges(quantized: Any, student: Any, x: Any) -> None:
    """Starts activations with the ranges that the student has.

    TFMOT starts them at -6 to 6 and moves them by a thousandth a step: in
    short runs larger logits would stay cut off.
    """
    outputs = {layer.name: layer.output for layer in student.layers}
    values = tf_keras.Model(student.inputs, outputs)(x, training=False)
    for layer in quantized.layers:
        inner = getattr(layer, "layer", layer).name
        value = values.get(inner, x)
        for variable in layer.weights:
            name = variable.name.split("/")[-1]
            if name in ("post_activation_min:0", "quantize_layer_min:0"):
                variable.assign(min(0.0, float(numpy.min(value))))
            if name in ("post_activation_max:0", "quantize_layer_max:0"):
                variable.assign(max(0.0, float(numpy.max(value))))


_STAGES: dict[str, Any] = {
    "sparsity": _sparsity,
    "clustering": _clustering,
    "quantization": _quantization,
}


def _inner_layers(student: Any, description: dict[str, Any]) -> dict[str, Any]:
    """Returns the described layers, taken out of TFMOT's wrappers."""
    found = {}
    for layer in student.layers:
        inner = getattr(layer, "layer", layer)
        if inner.name in description["layers"]:
            found[inner.name] = _Weighted(layer, inner)
    return found


class _Weighted:
    """The weights of a layer that a wrapper may hold.

    Attributes:
        weights: Those of the layer itself.
    """

    def __init__(self, outer: Any, inner: Any) -> None:
        self.weights = [
            variable
            for variable in outer.weights
            if _models["weight_name"](variable) in _OWN
        ]


def _save(
    model: Any,
    description: dict[str, Any],
    folder: str,
    outputs: list[str],
) -> None:
    module = tensorflow.Module()
    module.model = model
    (entry,) = description["inputs"]

    def serve(tensor: Any) -> dict[str, Any]:
        return {outputs[0]: model(tensor, training=False)}

    module.serve = tensorflow.function(
        serve,
        input_signature=[
            tensorflow.TensorSpec(
                (1, *entry["shape"]), entry["dtype"], name=entry["name"]
            )
        ],
    )
    tensorflow.saved_model.save(
        module, folder, signatures={"serving_default": module.serve}
    )
