"""What Arm's Vela predicts of a file on an Ethos-U accelerator."""

import csv
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from keras_kddp.export.errors import RefusalError
from keras_kddp.extras import absence_of, require

ACCELERATOR = "ethos-u55-128"
"""The accelerator in Vela's own words: 128 multiply-accumulates per cycle."""

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


def estimate_on_ethos_u(path: str | os.PathLike[str]) -> EthosUEstimate:
    """Returns what Vela says of an int8 file on an Ethos-U55.

    Args:
        path: An int8 .tflite file; other operations are left to the CPU, and
            are not in the estimate.

    Raises:
        ImportError: If ethos-u-vela is not installed.
        RefusalError: If Vela cannot compile the file.
    """
    require("Ethos-U is estimated by", "Arm's Vela", absence_of_vela())
    with tempfile.TemporaryDirectory(prefix="keras_kddp_") as folder:
        program = [sys.executable, "-m", "ethosu.vela"]
        options = ["--accelerator-config", ACCELERATOR, "--output-dir", folder]
        done = subprocess.run(
            [*program, str(path), *options],
            capture_output=True,
            text=True,
            check=False,
        )
        summaries = list(Path(folder).glob("*_summary_*.csv"))
        if done.returncode != 0 or not summaries:
            said = " ".join((done.stderr or done.stdout).split())[-500:]
            raise RefusalError(f"Vela cannot compile {str(path)!r}: {said}")
        with summaries[0].open(newline="") as file:
            row = next(csv.DictReader(file))
    return EthosUEstimate(
        milliseconds=1000 * float(row["inference_time"]),
        sram_bytes=round(_KIBIBYTE * float(row["sram_memory_used"])),
        flash_bytes=round(_KIBIBYTE * float(row["off_chip_flash_memory_used"])),
    )
