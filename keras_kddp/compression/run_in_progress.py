"""A run that is being made: who may begin it, and who may go on with it."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from keras_kddp.atomic_files import parts_of, recovered, remove_parts
from keras_kddp.atomic_files.lock import LOCK
from keras_kddp.compression.run_directory import RunDirectory
from keras_kddp.compression.run_record import (
    RunRecord,
    Target,
    holds_run,
    how_to_go_on,
    is_completed,
    note_completion,
    read_record,
    what_goes_on,
)
from keras_kddp.compression.stages import Clock, Stage, Stages
from keras_kddp.distillation.checkpoints.files import (
    SUFFIX,
    DamagedCheckpointsError,
    checkpoint_files,
)
from keras_kddp.distillation.checkpoints.identity import differences

STAGES = "stages"
"""Folder of a finished run, where it is one that `resume` can return."""

_OUTPUTS = "teacher_outputs_"
_SECONDS_FILE = "seconds"


@dataclass(frozen=True)
class RunInProgress:
    """A run of one seed that is being made.

    Attributes:
        directory: What it makes; it is put in its place when it is complete.
        stages: What it trains, and keeps.
        common: Where it keeps what all seeds share.
        is_finished: It is made already, and to be read.
    """

    directory: RunDirectory
    stages: Stages
    common: Path
    is_finished: bool = False

    @classmethod
    def at(
        cls,
        directory: RunDirectory,
        parts: Path,
        *,
        is_finished: bool = False,
    ) -> "RunInProgress":
        """Returns the run of an only seed.

        Args:
            directory: The run directory, or what becomes it.
            parts: Where it keeps what it has trained.
            is_finished: It is made already, and to be read.
        """
        clock = Clock(None if is_finished else parts / _SECONDS_FILE)
        stages = Stages(parts, clock, is_finished=is_finished)
        return cls(directory, stages, parts, is_finished)

    def of_seed(self, seed: int) -> "RunInProgress":
        """Returns the run of one of several seeds."""
        directory = self.directory.of_seed(seed)
        parts = self.common / directory.path.name
        for folder in (directory.path, parts):
            folder.mkdir(exist_ok=True)
        stages = Stages(parts, Clock(parts / _SECONDS_FILE))
        return replace(self, directory=directory, stages=stages)

    @property
    def teacher_stage(self) -> Stage:
        """The training of the teacher, for all seeds."""
        return Stage(self.common / "teacher")

    def outputs_folder(self, split: str, is_shared: bool) -> Path | None:
        """Returns where the teacher's outputs for a split are kept.

        Args:
            split: Its name.
            is_shared: It is the teacher of all seeds.
        """
        place = self.common if is_shared else self.stages.folder
        if self.is_finished or place is None:
            return None  # nothing is added to a finished run
        return place / f"{_OUTPUTS}{split}"

    def keep_stages(self) -> None:
        """Keeps in the run directory what it takes to return the run again."""
        kept = self.directory.path / STAGES
        left = shutil.ignore_patterns(f"{_OUTPUTS}*", LOCK)
        shutil.copytree(self.common, kept, ignore=left)
        for folder in kept.iterdir():
            for former in checkpoint_files(folder)[:-1]:
                former.unlink()


def check_beginning(target: Target, *, resume: bool, overwrite: bool) -> None:
    """Finds all that keeps a run from being begun, or gone on with.

    Args:
        target: The run directory.
        resume: As `run_in_progress` takes it.
        overwrite: As `run_in_progress` takes it.

    Raises:
        ValueError: If what is there is damaged, or not to be overwritten.
        OSError: If the target cannot be written, holds what must not be
            overwritten, or another process makes a run there.
    """
    RunDirectory.at(target).check_place()
    former = former_record(target)
    if not overwrite and not (resume and former is not None):
        _refuse_to_begin(target)
    if resume and not overwrite:
        overwrite = former is not None and former.overwrites
        if read_record(recovered(target) / STAGES) is not None:
            overwrite = True  # it is compared when this one is known
        elif former is None and holds_run(target):
            raise FileExistsError(
                f"'{os.fspath(target)}' must hold no run, or one that was "
                "finished with resume=True, which can be returned. Received "
                "another. Load its student.keras, give overwrite=True to make "
                "it anew, or choose another directory."
            )
    RunDirectory.at(target).check_target(overwrite=overwrite)


def run_to_return(target: Target, record: RunRecord) -> RunInProgress | None:
    """Returns a finished run that is asked for again, to be read.

    Args:
        target: The run directory.
        record: What the run is.

    Returns:
        The run, with all its stages; None where this one is not there.
    """
    run = recovered(target)
    former = read_record(run / STAGES)
    if former is None or _differences(former, record):
        return None
    directory = RunDirectory.at(target)
    return RunInProgress.at(directory, run / STAGES, is_finished=True)


@contextlib.contextmanager
def run_in_progress(
    target: Target,
    record: RunRecord,
    *,
    resume: bool,
    overwrite: bool,
    bytes_needed: int = 0,
) -> Iterator[RunInProgress]:
    """Makes a run directory, from where a former start has left it.

    What was trained is kept when this one does not come to its end.

    Args:
        target: The run directory, which is there when all is done.
        record: What the run is.
        resume: Go on with a run that was broken off, if there is one.
        overwrite: Put the run in the place of an earlier one; begin anew
            where one was broken off.
        bytes_needed: Room that must be free on its disk.

    Yields:
        What is made and kept meanwhile.

    Raises:
        ValueError: If the run that was broken off, or is finished, is another.
        OSError: If the target cannot be written, holds what must not be
            overwritten, or another process makes a run there.
    """
    former = former_record(target) if resume else None
    if former is not None:
        check_same(target, former, record)
        overwrite = overwrite or former.overwrites
    elif resume and not overwrite:
        finished = read_record(recovered(target) / STAGES)
        if finished is not None:
            check_same(target, finished, record)
    with RunDirectory.at(target).writing(
        overwrite=overwrite, bytes_needed=bytes_needed
    ) as unfinished:
        parts = unfinished.parts
        if former is None:
            if not overwrite:
                _refuse_to_begin(target)
            _empty(parts)
        try:
            replace(record, overwrites=overwrite).write(parts)
            yield RunInProgress.at(unfinished.directory, parts)
        except Exception as error:
            if not _has_trained(parts):
                shutil.rmtree(parts)
            elif isinstance(error, DamagedCheckpointsError):
                error.add_note(_without_them(target))
            elif kept := how_to_go_on(target):
                error.add_note(f"The run ended early; {kept}")
            raise
        note_completion(parts, unfinished.directory.path)


def check_same(target: Target, former: RunRecord, record: RunRecord) -> None:
    """Checks that a run goes on as it began.

    Args:
        target: Its run directory.
        former: What it is.
        record: What is asked for now.

    Raises:
        ValueError: If they differ; with each difference.
    """
    if found := _differences(former, record):
        raise ValueError(
            "A run must go on as it began. Received for the run in "
            f"'{os.fspath(target)}': {'; '.join(found)}. Ask for it as it was "
            "(in one process, call keras.utils.clear_session() before the "
            "student is made, or name its layers), name another directory, or "
            "begin anew with overwrite=True (--overwrite) and without resume."
        )


def _differences(former: RunRecord, record: RunRecord) -> list[str]:
    if (former.job is None) != (record.job is None):
        was, is_now = former.begun_by, record.begun_by
        return [f"it was begun by {was} and is asked for by {is_now}"]
    return [*differences(former.described(), record.described())]


def former_record(target: Target) -> RunRecord | None:
    """Returns what a run is that was broken off; None where there is none.

    What a run left that ended just after it was put in its place is removed.

    Args:
        target: Its run directory.

    Raises:
        ValueError: If its record is damaged.
        OSError: If another process makes a run there.
    """
    if is_completed(target):
        remove_parts(target)
    return read_record(parts_of(target))


def _refuse_to_begin(target: Target) -> None:
    """Refuses to begin where a run was broken off that has trained something.

    Raises:
        FileExistsError: If there is one.
    """
    parts = parts_of(target)
    if not _has_trained(parts):
        return
    kept = f"what it has trained is kept in '{parts.parent}'"
    raise FileExistsError(
        f"'{os.fspath(target)}' must hold no run that was broken off. Received "
        f"one: {how_to_go_on(target) or kept}. Or begin anew by overwrite=True "
        "(--overwrite), or remove that folder."
    )


def _without_them(target: Target) -> str:
    """Returns what helps where checkpoints of a run are damaged."""
    again = what_goes_on(target)
    then = f"; what else is trained is kept for: {again}" if again else ""
    return (
        "Begin the whole run anew with overwrite=True (--overwrite), or remove "
        f"those alone{then}"
    )


def _has_trained(parts: Path) -> bool:
    """Says whether something is kept that took its time."""
    return any(parts.rglob(f"*{SUFFIX}"))


def _empty(folder: Path) -> None:
    for each in folder.iterdir():
        if each.is_dir():
            shutil.rmtree(each)
        else:
            each.unlink()
