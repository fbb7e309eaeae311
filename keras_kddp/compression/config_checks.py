"""What a configuration may not ask for, seen without data and models."""

from keras_kddp.compression.choices import NO_TEACHER, SELF
from keras_kddp.compression.config import CompressionConfig


def check_config(config: CompressionConfig) -> None:
    """Checks what needs neither data nor models.

    Raises:
        ValueError: If two seeds are the same, or a teacher that is not trained
            by rules of its own has some.
    """
    _check_seeds(config)
    _check_rules_of_teacher(config)


def _check_seeds(config: CompressionConfig) -> None:
    """Checks that each seed has a run of its own.

    Raises:
        ValueError: If two are the same.
    """
    if not config.seeds or len({*config.seeds}) < len(config.seeds):
        raise ValueError(
            "The seeds must be one or more, and different: each has a run of "
            f"its own. Received: {list(config.seeds)}."
        )


def _check_rules_of_teacher(config: CompressionConfig) -> None:
    """Checks that a teacher has rules of its own only where it has a training.

    Raises:
        ValueError: If it has not.
    """
    reasons = {
        NO_TEACHER: "there is none",
        SELF: "the student itself is trained as all students are",
    }
    reason = reasons.get(config.teacher)
    for name in ("teacher_epochs", "teacher_learning_rate"):
        value = getattr(config, name)
        if reason is not None and value is not None:
            raise ValueError(
                f"`{name}` must be left out beside teacher={config.teacher!r}: "
                f"{reason}. Received: {name}={value}. Leave it out."
            )
