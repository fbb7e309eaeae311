"""Files for small devices, each run and compared with its Keras model."""

from keras_kddp.export._converter import ExportError
from keras_kddp.export.agreement import Agreement, RuntimeAgreement
from keras_kddp.export.bench import Measurement, Measurements, bench
from keras_kddp.export.description import write_description
from keras_kddp.export.metadata import read_metadata
from keras_kddp.export.microcontroller import (
    BUNDLE_FILES,
    MICRO,
    MicroArtifact,
    to_microcontroller,
)
from keras_kddp.export.runtimes import (
    CrashError,
    Execution,
    LiteRTRuntime,
    RefusalError,
    Runtime,
    TFLiteRuntime,
    TFLMRuntime,
)
from keras_kddp.export.saved_model import to_saved_model
from keras_kddp.export.saved_model_layer import SavedModelLayer
from keras_kddp.export.tf_keras_bridge import from_tf_keras, to_tf_keras
from keras_kddp.export.tflite import (
    CALIBRATED,
    QUANTIZATIONS,
    TFLiteArtifact,
    check_conversion,
    to_tflite,
)
from keras_kddp.export.tfmot import (
    TFMOTError,
    TFMOTResult,
    finetune_with_tfmot,
)
from keras_kddp.export.tfmot_checks import TECHNIQUES
from keras_kddp.export.vela import EthosUEstimate, estimate_on_ethos_u
from keras_kddp.export.verify import verify

__all__ = [
    "BUNDLE_FILES",
    "CALIBRATED",
    "MICRO",
    "QUANTIZATIONS",
    "TECHNIQUES",
    "Agreement",
    "CrashError",
    "EthosUEstimate",
    "Execution",
    "ExportError",
    "LiteRTRuntime",
    "Measurement",
    "Measurements",
    "MicroArtifact",
    "RefusalError",
    "Runtime",
    "RuntimeAgreement",
    "SavedModelLayer",
    "TFLMRuntime",
    "TFMOTError",
    "TFMOTResult",
    "TFLiteArtifact",
    "TFLiteRuntime",
    "bench",
    "check_conversion",
    "estimate_on_ethos_u",
    "finetune_with_tfmot",
    "from_tf_keras",
    "read_metadata",
    "to_microcontroller",
    "to_saved_model",
    "to_tf_keras",
    "to_tflite",
    "verify",
    "write_description",
]
