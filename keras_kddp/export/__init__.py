"""Files for small devices, each run and compared with its Keras model."""

from keras_kddp.export._converter import ExportError
from keras_kddp.export.agreement import Agreement, RuntimeAgreement
from keras_kddp.export.runtimes import LiteRTRuntime, Runtime
from keras_kddp.export.tflite import TFLiteArtifact, check_conversion, to_tflite
from keras_kddp.export.verify import verify

__all__ = [
    "Agreement",
    "ExportError",
    "LiteRTRuntime",
    "Runtime",
    "RuntimeAgreement",
    "TFLiteArtifact",
    "check_conversion",
    "to_tflite",
    "verify",
]
