"""What Arm's Vela predicts of a file on an Ethos-U accelerator."""

import csv
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from keras_kddp.arguments import require_time_limit
from keras_kddp.export.errors import CrashError, RefusalError
from keras_kddp.export.workers.guard import run_group, temporary_folder
from keras_kddp.extras import absence_of, require

ACCELERATOR = "ethos-u55-128"
"""The accelerator in Vela's own words: 128 multiply-accumulates per cycle."""

VELA_SECONDS = 600.0
"""Seconds that Vela may take for a file, unless told otherwise."""

_KIBIBYTE = 1024


@dataclass(frozen=True)
class EthosUEstimate:
    """A compiled file; nothing was run.

    Attributes:
        milliseconds: Per inference, at the clock of Vela's default system.
        sram_bytes: For activations, and for weights while they are read.
        flash_bytes: For the rest.
    """

    milliseconds: float
    sram_bytes: int
    flash_bytes: int


def absence_of_vela() -> str | None:
    """Returns how to get Vela, None where it is there."""
    return absence_of("ethosu")


def estimate_on_ethos_u(
    path: str | os.PathLike[str],
    *,
    time_limit: float | None = VELA_SECONDS,
) -> EthosUEstimate:
    """Returns what Vela says of an int8 file on an Ethos-U55.

    Args:
        path: An int8 .tflite file; other operations are left to the CPU, and
            are not in the estimate.
        time_limit: Seconds that Vela may take; None: no limit.

    Raises:
        ImportError: If ethos-u-vela is not installed.
        ValueError: If `time_limit` is no number > 0.
        RefusalError: If Vela cannot compile the file.
        CrashError: If it does not end in `time_limit`.
    """
    require_time_limit(time_limit)
    require("Ethos-U is estimated by", "Arm's Vela", absence_of_vela())
    with temporary_folder() as folder:
        program = [sys.executable, "-m", "ethosu.vela", str(Path(path))]
        options = ["--accelerator-config", ACCELERATOR]
        options += ["--output-dir", str(folder)]
        code, text = run_group([*program, *options], time_limit)
        if code is None:
            raise CrashError(
                f"it did not end in {time_limit:g} s; a larger `time_limit` "
                "waits longer"
            )
        summaries = list(folder.glob("*_summary_*.csv"))
        if code != 0 or not summaries:
            said = " ".join(text.split())[-500:]
            raise RefusalError(f"Vela cannot compile {str(path)!r}: {said}")
        with summaries[0].open(newline="") as file:
            row = next(csv.DictReader(file))
    return EthosUEstimate(
        milliseconds=1000 * float(row["inference_time"]),
        sram_bytes=round(_KIBIBYTE * float(row["sram_memory_used"])),
        flash_bytes=round(_KIBIBYTE * float(row["off_chip_flash_memory_used"])),
    )
