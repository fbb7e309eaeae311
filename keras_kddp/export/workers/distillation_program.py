"""Distillation with tf_keras, as the Distiller does it with Keras 3."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy
import tensorflow
import tf_keras


class Training:
    """Trains students, one stage after the other, on the same data.

    Args:
        data: "x", "y" and, where they are, "sample_weight" and the "teacher"'s
            logits, row by row.
        options: As `finetune_with_tfmot` takes them.

    Attributes:
        x: Inputs.
        steps: Of a stage.
    """

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
        self,
        model: Any,
        callbacks: Sequence[Any],
        report: Callable[..., None],
    ) -> None:
        """Trains one stage.

        Args:
            model: The student in TFMOT's wrappers.
            callbacks: Of its training.
            report: Given {"epoch": ..., "loss": ..., "accuracy": ...} after
                each epoch, counted on from stage to stage; called without
                anything after each batch.

        Raises:
            ValueError: If the loss is not finite.
        """
        alive = tf_keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda *_: report()
        )
        self._compile(model)
        for epoch in range(self._options["epochs"]):
            history = model.fit(
                self.x,
                self._targets,
                sample_weight=self._sample_weight,
                batch_size=self._options["batch_size"],
                initial_epoch=epoch,
                epochs=epoch + 1,
                verbose=0,
                callbacks=[*callbacks, alive],
            ).history
            self._epoch += 1
            loss, accuracy = (values[-1] for values in history.values())
            if not numpy.isfinite(loss):
                raise ValueError(f"the loss became {loss}: lower learning_rate")
            report(
                {
                    "epoch": self._epoch,
                    "loss": float(loss),
                    "accuracy": float(accuracy),
                }
            )

    def _compile(self, model: Any) -> None:
        """Gives a stage Adam on a cosine to 0."""
        rate = tf_keras.optimizers.schedules.CosineDecay(
            self._options["learning_rate"], self.steps
        )
        model.compile(
            tf_keras.optimizers.Adam(rate), self._loss, metrics=[self._accuracy]
        )

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
