"""What can go wrong between a model and a device."""


class ExportError(RuntimeError):
    """A model could not be converted; no file was written."""


class RefusalError(RuntimeError):
    """A runtime cannot run a file that another one can."""


class CrashError(RuntimeError):
    """A runtime's process died of a file."""


class TFMOTError(RuntimeError):
    """TFMOT could not do it; the student is as it was, no file was written."""
