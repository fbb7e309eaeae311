"""Files for small devices, each run and compared with its Keras model."""

from keras_kddp.export.agreement.agreement import Agreement, RuntimeAgreement
from keras_kddp.export.agreement.bench import bench
from keras_kddp.export.agreement.measurements import Measurement, Measurements
from keras_kddp.export.agreement.verify import verify
from keras_kddp.export.errors import (
    CrashError,
    ExportError,
    RefusalError,
    TFMOTError,
)
from keras_kddp.export.keras2.bridge import from_tf_keras, to_tf_keras
from keras_kddp.export.keras2.tfmot import TFMOTResult, finetune_with_tfmot
from keras_kddp.export.micro.to_microcontroller import (
    MicroArtifact,
    to_microcontroller,
)
from keras_kddp.export.runtimes.runtimes import (
    LiteRTRuntime,
    Runtime,
    TFLiteRuntime,
    TFLMRuntime,
)
from keras_kddp.export.runtimes.vela import EthosUEstimate, estimate_on_ethos_u
from keras_kddp.export.saved_model.layer import SavedModelLayer
from keras_kddp.export.saved_model.to_saved_model import to_saved_model
from keras_kddp.export.tflite.artifact import TFLiteArtifact
from keras_kddp.export.tflite.metadata import read_metadata
from keras_kddp.export.tflite.to_tflite import to_tflite

__all__ = [
    "Agreement",
    "CrashError",
    "EthosUEstimate",
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
    "estimate_on_ethos_u",
    "finetune_with_tfmot",
    "from_tf_keras",
    "read_metadata",
    "to_microcontroller",
    "to_saved_model",
    "to_tf_keras",
    "to_tflite",
    "verify",
]
