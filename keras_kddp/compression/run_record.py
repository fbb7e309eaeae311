"""What a run in progress says about itself, read and written without Keras."""

import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from keras_kddp.atomic_files import parts_of, recovered, sum_of, write_json
from keras_kddp.data.outside_files import read_json

VERSION = 1
"""Of what a record holds."""

RECORD_FILE = "run.json"
"""Its name, beside what the run has trained so far."""

_COMPLETION_FILE = "complete.json"

Target = str | os.PathLike[str]


@dataclass(frozen=True)
class RunRecord:
    """What a run is, so that a later start can go on with it.

    Attributes:
        follows_from: Name of what its numbers follow from -> its value, plain.
        job: What the command was asked for; see `CompressionConfig`. None: a
            call of `compress`.
        overwrites: Whether it takes the place of an earlier run.
        version: Of the record.
    """

    follows_from: Mapping[str, Any]
    job: Mapping[str, Any] | None = None
    overwrites: bool = False
    version: int = VERSION

    def write(self, folder: Path) -> None:
        """Writes the record into a folder.

        Raises:
            OSError: If it cannot be written.
        """
        write_json(folder / RECORD_FILE, asdict(self))

    @property
    def begun_by(self) -> str:
        """What has begun the run."""
        return "a call of compress" if self.job is None else "kddp compress"

    def described(self) -> dict[str, Any]:
        """Returns all that a run which goes on must have in common."""
        # The run directory may have been moved.
        job = {n: x for n, x in (self.job or {}).items() if n != "out"}
        described = {**job, **self.follows_from}
        plain: dict[str, Any] = json.loads(json.dumps(described))
        return plain  # as it is read again


def read_record(folder: Path) -> RunRecord | None:
    """Returns the record in a folder; None where there is none.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is damaged, or of another version.
    """
    path = folder / RECORD_FILE
    if not path.is_file():
        return None
    try:
        found = RunRecord(**read_json(path))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"'{path}' must be the record of a run in progress. Received: "
            f"{error}. Remove '{folder.parent}', and begin the run anew."
        ) from error
    is_plain = isinstance(found.follows_from, dict) and (
        found.job is None or isinstance(found.job, dict)
    )
    if found.version != VERSION or not is_plain:
        raise ValueError(
            f"'{path}' must be a record of version {VERSION}. Received "
            f"version {found.version}. Go on with the keras-kddp that wrote "
            f"it, or remove '{folder.parent}', and begin the run anew."
        )
    return found


def file_sums(*sources: str) -> dict[str, str]:
    """Returns what tells model files from others, by name.

    Args:
        sources: Texts that name models; see
            `keras_kddp.compression.model_sources.load_model`.
    """
    return {
        f"file {source}": _file_sum(Path(source))
        for source in sources
        if source.endswith(".keras")
    }


def _file_sum(path: Path) -> str:
    return f"sha256 {sum_of(path)[:12]}" if path.is_file() else "no file"


def note_completion(parts: Path, run: Path) -> None:
    """Notes what a run consists of, just before it is put in its place.

    Args:
        parts: Where it keeps what it has trained.
        run: The folder that becomes the run directory.

    Raises:
        OSError: If that cannot be written or read.
    """
    write_json(parts / _COMPLETION_FILE, _summary_sums(run))


def is_completed(target: Target) -> bool:
    """Says whether a run ended just after it was put in its place.

    Args:
        target: Its run directory.
    """
    file = parts_of(target) / _COMPLETION_FILE
    try:
        noted = read_json(file)
        return bool(noted) and noted == _summary_sums(recovered(target))
    except (OSError, ValueError):
        return False


def holds_run(target: Target) -> bool:
    """Says whether a run directory holds a finished run.

    Args:
        target: The run directory, there or not.
    """
    try:
        return bool(_summary_sums(recovered(target)))
    except OSError:
        return False


def _summary_sums(run: Path) -> dict[str, str]:
    """Returns the sums of the summaries of all seeds, by their folders."""
    found = [*run.glob("summary.json"), *run.glob("seed-*/summary.json")]
    return {str(x.relative_to(run).parent): sum_of(x) for x in sorted(found)}


def how_to_go_on(target: Target) -> str | None:
    """Returns what a run that was broken off has kept, in words.

    Args:
        target: Its run directory.

    Returns:
        A sentence or two; None where nothing is kept, or nobody can go on.
    """
    again = what_goes_on(target)
    if again is None:
        return None
    place = parts_of(target).parent
    return f"what it has trained is kept in '{place}'. Go on with: {again}"


def what_goes_on(target: Target) -> str | None:
    """Returns the command or the call that goes on with a run.

    Args:
        target: Its run directory.

    Returns:
        None where nothing is kept, or nobody can go on.
    """
    try:
        record = read_record(parts_of(target))
    except (OSError, ValueError):
        return None
    if record is None:
        return None
    if record.job is None:
        return "keras_kddp.compress(..., resume=True)"
    return f"kddp compress --resume {shlex.quote(os.fspath(target))}"
