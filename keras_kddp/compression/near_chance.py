"""Models that know next to nothing, in words."""

from keras_kddp.compression.answers import Answers
from keras_kddp.compression.comparison_tests import (
    chance_error,
    is_near_chance,
)
from keras_kddp.data.input_range import Range

_SKILL = 0.1  # of the way from chance to 1, as `is_near_chance` has it
_FOREIGN_TEACHER = (
    "Check that its inputs are scaled as in its training (here they span {} to "
    "{}; 0 to 255 against 0 to 1 is the usual mistake), that the labels number "
    "the classes in its order, and that it was trained with a loss that fits "
    "its outputs (from_logits)."
)
_OWN_TEACHER = (
    "It was trained on the labels as the students are: train longer, or at "
    "another learning rate."
)


def teacher_doubt(
    teacher: Answers, inputs: Range, *, is_student: bool = False
) -> str:
    """Returns what is wrong with a teacher near chance; "" for a good one.

    Args:
        teacher: Its answers to the validation examples.
        inputs: Smallest and largest number of the training inputs.
        is_student: It is the student itself, trained on the labels.
    """
    output = output_near_chance(teacher)
    if output is None:
        return ""
    range_seen = [f"{end:.4g}" for end in inputs]
    who, advice = "The teacher", _FOREIGN_TEACHER.format(*range_seen)
    if is_student:
        who, advice = "The teacher, the student itself,", _OWN_TEACHER
    return (
        f"{who} is near chance: "
        f"{against_chance(teacher, output, 'validation')} A student learns "
        f"nothing from it. {advice}"
    )


def output_near_chance(found: Answers) -> int | None:
    """Returns the first output that is hardly right more often than chance.

    One that finds rare classes may be right less often than what always
    answers the most frequent, and yet knows more.
    """
    for output, accuracy in enumerate(found.accuracies.tolist()):
        knows_classes = found.skills and found.skills[output] > _SKILL
        if not knows_classes and is_near_chance(
            accuracy, len(found), found.chances[output]
        ):
            return output
    return None


def against_chance(found: Answers, output: int, split: str) -> str:
    """Returns the accuracy of an output beside what chance reaches."""
    chance = found.chances[output]
    error = chance_error(chance, len(found))
    which = ""
    if len(found.chances) > 1:
        which = f" in output {output + 1} of {len(found.chances)}"
    return (
        f"{100 * found.accuracies[output]:.2f} % of its answers{which} to "
        f"{counted(len(found), split)} are right, and {100 * chance:.2f} ± "
        f"{100 * error:.2f} % would be by chance."
    )


def counted(examples: int, split: str) -> str:
    """Returns a number of examples in words."""
    return f"{examples:,} {split} example{'' if examples == 1 else 's'}"
