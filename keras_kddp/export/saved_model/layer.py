"""A reusable SavedModel as a layer of Keras 3."""

import os
from pathlib import Path
from typing import Any

import keras

from keras_kddp import _compat
from keras_kddp.surgery.rebuild import is_own_model


@keras.saving.register_keras_serializable(package="keras_kddp")
class SavedModelLayer(keras.layers.Layer):
    """Runs and fine-tunes a reusable SavedModel.

    Its variables are this layer's weights: `fit` trains them, `.keras` files
    keep them (load those with `safe_mode=False`, as a SavedModel can run
    code), `trainable = False` freezes them. `keras.layers.TFSMLayer` runs
    a SavedModel, but cannot be trained.

    Args:
        directory: Folder that `to_saved_model` wrote, or any SavedModel of the
            reusable kind (of TF Hub's second format).
        **kwargs: Of every layer: name, trainable.

    Raises:
        FileNotFoundError: If there is no SavedModel.
        ValueError: If it is not reusable, or the backend is not TensorFlow.

    Example:
        ```python
        inputs = keras.Input((28, 28, 1))
        x = keras_kddp.export.SavedModelLayer("student")(inputs)
        model = keras.Model(inputs, keras.layers.Dense(5)(x))
        ```
    """

    def __init__(
        self, directory: str | os.PathLike[str], **kwargs: Any
    ) -> None:
        """Loads the SavedModel."""
        kwargs.setdefault("dtype", "float32")  # what its functions take
        super().__init__(**kwargs)
        self.directory = os.fspath(directory)
        self._loaded = _loaded(Path(self.directory))
        trained = {id(v) for v in self._loaded.trainable_variables}
        # In an attribute, so that Keras tracks them as the layer's weights.
        self.adopted = [
            _compat.adopted_variable(
                variable,
                f"variable_{number}",
                trainable=id(variable) in trained,
            )
            for number, variable in enumerate(self._loaded.variables)
        ]
        if not self.trainable:  # setting it again would reach no variable
            for variable in self.adopted:
                variable.trainable = False
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns the outputs of the SavedModel.

        Args:
            inputs: What it takes.
            training: Whether Dropout drops and statistics move; never where
                the layer is frozen.
        """
        is_training = bool(training) and self.trainable
        if self.trainable:  # in evaluation too, as Keras' own layers
            for loss in getattr(self._loaded, "regularization_losses", ()):
                self.add_loss(loss())
        return self._loaded(inputs, training=is_training)

    def get_config(self) -> dict[str, Any]:
        """Returns the directory, which must exist where it is loaded again."""
        return {**super().get_config(), "directory": self.directory}

    @classmethod
    def from_config(
        cls,
        config: dict[str, Any],
        custom_objects: Any = None,
        safe_mode: bool | None = None,
    ) -> "SavedModelLayer":
        """Returns the layer from `get_config()`, unless in safe mode.

        Args:
            config: From `get_config()`.
            custom_objects: Not needed here; other layers have it.
            safe_mode: Whether the config may be a stranger's. None: where
                Keras reads a config in safe mode, as `load_model` does unless
                it is told otherwise; not where a model that is here is copied.

        Raises:
            ValueError: If it may be a stranger's: a SavedModel runs code.
        """
        if safe_mode is None:
            safe_mode = (
                bool(_compat.is_in_safe_mode()) and not is_own_model.get()
            )
        if safe_mode:
            raise ValueError(
                "A `SavedModelLayer` must come from a source that you trust: "
                "it loads a SavedModel from outside of the file, which can run "
                "code. Received: the config of one, for the directory "
                f"{config.get('directory')!r}, in safe mode. If you trust it, "
                "pass `safe_mode=False` to the loading function."
            )
        return cls(**config)


def _loaded(directory: Path) -> Any:
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "A SavedModel runs on the TensorFlow backend. Received: backend "
            f"{keras.backend.backend()!r}. Set KERAS_BACKEND=tensorflow."
        )
    import tensorflow as tf

    if not (directory / "saved_model.pb").is_file():
        raise FileNotFoundError(
            "`directory` must be the folder of a SavedModel. Received: "
            f"{str(directory)!r}, which has no saved_model.pb. Write one with "
            "keras_kddp.export.to_saved_model."
        )
    found = tf.saved_model.load(str(directory))
    missing = [
        name
        for name in ("__call__", "variables", "trainable_variables")
        if not hasattr(found, name)
    ]
    if missing or not callable(found):
        raise ValueError(
            "The SavedModel must be reusable: callable, with `variables` and "
            f"`trainable_variables`. Received: {str(directory)!r} without "
            f"{missing}. Write it with keras_kddp.export.to_saved_model."
        )
    return found
