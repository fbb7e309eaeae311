"""The TFLite converter in a process of its own, shared by all conversions."""

import re
from pathlib import Path

from keras_kddp.export.errors import ExportError
from keras_kddp.export.workers import worker
from keras_kddp.export.workers.worker import Worker
from keras_kddp.export.workers.worker_process import (
    LOG_CHARACTERS,
    TimeLimitError,
    WorkerError,
)

CONVERSION_SECONDS = 600.0
"""Seconds that a conversion may take, unless told otherwise."""


def conversion_limit(time_limit: float | None) -> float | None:
    """Returns the seconds of a conversion where one limit is for all.

    Args:
        time_limit: Seconds that a runtime may take for one sample; None: no
            limit. The converter has as many, but its usual ones at least.
    """
    if time_limit is None:
        return None
    return max(time_limit, CONVERSION_SECONDS)


class ConversionError(ExportError):
    """The converter refused a model, or died of it.

    Attributes:
        received: What it said, or how its process ended.
    """

    def __init__(self, message: str, received: str) -> None:
        super().__init__(message)
        self.received = received


class Converter(Worker):
    """A worker process that turns SavedModels into .tflite files.

    A crash of the TensorFlow converter is an `ExportError` here.

    Example:
        converter = Converter()
        converter.convert(Path("saved_model"), Path("student.tflite"))
        converter.close()
    """

    def __init__(self) -> None:
        super().__init__(Path(worker.__file__).with_name("convert_program.py"))

    def convert(
        self,
        saved_model: Path,
        target: Path,
        quantization: str = "none",
        calibration: Path | None = None,
        *,
        uint8_input: bool = False,
        time_limit: float | None = CONVERSION_SECONDS,
    ) -> None:
        """Converts the signature `serving_default` of a SavedModel.

        Args:
            saved_model: Folder of the SavedModel.
            target: File to write; its folder exists.
            quantization: As `to_tflite` takes it.
            calibration: For int8 and int16x8, an .npz file of samples, one
                array per input, "input:" and its name in the signature.
            uint8_input: Inputs in uint8 instead of int8.
            time_limit: Seconds that it may take; None: no limit.

        Raises:
            ConversionError: If the converter refuses the model or dies.
            ExportError: If it does not end in `time_limit`.
        """
        try:
            reply = self.ask(
                {
                    "saved_model": str(saved_model.resolve()),
                    "target": str(target.resolve()),
                    "quantization": quantization,
                    "calibration": calibration and str(calibration.resolve()),
                    "uint8_input": uint8_input,
                },
                time_limit=time_limit,
            )
        except TimeLimitError as late:
            raise ExportError(
                "The TFLite converter must end within `time_limit`. Received: "
                f"{late.fate}. Pass a larger one, or None; if it never ends, "
                "export the model with fewer layers to find the one that the "
                "converter cannot take."
            ) from None
        except WorkerError as death:
            raise ConversionError(
                "The TFLite converter must survive the conversion. Received: "
                f"{death.fate}. The next export starts a new one; if this "
                "model ends that too, export it with fewer layers to find the "
                "one the converter cannot take. Its last "
                f"words:\n{death.log}",
                death.cause,
            ) from None
        if reply["error"] is not None:
            essence = _essence(reply["error"])
            raise ConversionError(
                "The model must consist of what the TFLite converter takes, "
                f"builtin operations. Received from it: {essence}",
                essence,
            )


def _essence(error: str) -> str:
    """Returns the converter's error without the listing of the program."""
    causes = [
        re.sub(r'^loc\(.*?"([^"@]+)@.*\)\): ', r"\1: ", line)
        for line in re.findall(r"error: (.+)", error)
    ]
    return causes[0] if causes else error[:LOG_CHARACTERS]


shared_converter = Converter()
