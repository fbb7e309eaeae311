"""The TFLite converter in a process of its own, shared by all conversions."""

import atexit
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TextIO, cast

_WORKER_PROGRAM = Path(__file__).with_name("_converter_worker.py")
_LOG_CHARACTERS = 2000


class ExportError(RuntimeError):
    """A model could not be converted; no file was written."""


class Converter:
    """A worker process that turns SavedModels into .tflite files.

    The process starts with the first conversion, serves all later ones, is
    replaced when it died, and ends with the interpreter. A crash of the
    TensorFlow converter is then an `ExportError` here.

    Example:
        converter = Converter()
        converter.convert(Path("saved_model"), Path("student.tflite"))
        converter.close()
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._worker: _Worker | None = None

    @property
    def pid(self) -> int | None:
        """The worker's process id, None when none is running."""
        worker = self._worker
        return worker.process.pid if worker and worker.is_alive() else None

    def start(self) -> None:
        """Starts the worker if none runs; does not wait until it is ready."""
        with self._lock:
            self._running_worker()

    def convert(
        self, saved_model: Path, target: Path, calibration: Path | None = None
    ) -> None:
        """Converts the signature `serving_default` of a SavedModel.

        Args:
            saved_model: Folder of the SavedModel.
            target: File to write; its folder exists.
            calibration: None for float32; for int8 an .npz file of samples,
                one array an input, by its name in the signature.

        Raises:
            ExportError: If the converter refuses the model or dies.
        """
        request = {
            "saved_model": str(saved_model.resolve()),
            "target": str(target.resolve()),
            "calibration": calibration and str(calibration.resolve()),
        }
        with self._lock:
            try:
                reply = self._running_worker().ask(json.dumps(request))
            except BaseException:  # an interrupt would leave a stale reply
                self._close()
                raise
        error = json.loads(reply)["error"]
        if error is not None:
            raise ExportError(
                "The model must consist of TFLite builtin operations. "
                f"Received from the converter: {_essence(error)}\n"
                "Replace the layer that makes this operation, or leave it "
                "out of the exported model."
            )

    def close(self) -> None:
        """Ends the worker; a later conversion starts a new one."""
        with self._lock:
            self._close()

    def _running_worker(self) -> "_Worker":
        if self._worker is None or not self._worker.is_alive():
            self._close()
            self._worker = _Worker()
        return self._worker

    def _close(self) -> None:
        if self._worker is not None:
            self._worker.stop()
            self._worker = None


class _Worker:
    """One process, from its start to its end."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._log = tempfile.TemporaryFile()
        self._log_start = 0  # where the log of the present request begins
        # -P keeps the module names of this folder out of the import path.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", str(_WORKER_PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            encoding="utf-8",
            # A conversion needs no accelerator and must not hold one.
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
        )
        self._requests = cast(TextIO, self.process.stdin)
        self._replies = cast(TextIO, self.process.stdout)

    def is_alive(self) -> bool:
        """Whether this process may ask; after a fork, the child may not."""
        return self._owner == os.getpid() and self.process.poll() is None

    def ask(self, request: str) -> str:
        """Returns the reply to one line, one line."""
        try:
            self._requests.write(request + "\n")
            self._requests.flush()
            reply = self._replies.readline()
        except BrokenPipeError:
            reply = ""
        if not reply:
            raise ExportError(self._obituary())
        self._log_start = os.fstat(self._log.fileno()).st_size
        return reply

    def stop(self) -> None:
        """Ends the process, busy or not, and closes its streams."""
        if self._owner == os.getpid():
            self.process.kill()
            self.process.wait()
        for stream in (self._requests, self._replies, self._log):
            with contextlib.suppress(OSError):  # unsent text, broken pipe
                stream.close()

    def _obituary(self) -> str:
        code = self.process.wait()
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        size = os.fstat(self._log.fileno()).st_size
        self._log.seek(max(self._log_start, size - _LOG_CHARACTERS))
        log = self._log.read().decode("utf-8", errors="replace").strip()
        return (
            "The TFLite converter must survive the conversion. Received: its "
            f"process ended with {cause}. The next export starts a new one; "
            "if this model ends that too, export it with fewer layers to find "
            f"the one the converter cannot take. Its last words:\n{log}"
        )


def _essence(error: str) -> str:
    """Returns the converter's error without the listing of the program."""
    causes = [
        re.sub(r'^loc\(.*?"([^"@]+)@.*\)\): ', r"\1: ", line)
        for line in re.findall(r"error: (.+)", error)
    ]
    return causes[0] if causes else error[:_LOG_CHARACTERS]


shared_converter = Converter()
atexit.register(shared_converter.close)
