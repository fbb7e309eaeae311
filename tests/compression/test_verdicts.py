"""What a comparison says in words, of answers that are known by hand."""

import numpy as np
import pytest

from keras_kddp.compression.answers import Answers, mark_answers
from keras_kddp.compression.near_chance import teacher_doubt
from keras_kddp.compression.verdicts import Judged, verdicts


def right(count, of=100, chance=0.1, first=0):
    """Returns answers of which so many in a row are right."""
    hits = np.zeros((1, of), int)
    hits[0, first : first + count] = 1
    return Answers(hits, np.ones_like(hits), (chance,))


def judged(pruned=90, teacher=100, split="test", is_own=False, **controls):
    """Returns a run, its models given by how many answers are right."""
    given = {"teacher": teacher, "pruned": pruned, **controls}
    found = {
        name: right(x) if isinstance(x, int) else x for name, x in given.items()
    }
    return Judged(
        found.pop("teacher"), found.pop("pruned"), found, split, is_own
    )


def test_a_control_that_is_beaten_is_named_with_the_error():
    (verdict,) = verdicts([judged(pruned=90, same_size=80)])
    # Ten differences of 1 in 100: variance (10 - 10 ** 2 / 100) / 99.
    error = 100 * ((10 - 1) / 99 / 100) ** 0.5
    assert verdict == (
        'Pruned student against "same size from scratch": +10.00 ± '
        f"{error:.2f} points, better; 10 test examples only it gets right, 0 "
        f"only the control (McNemar p = {2 / 2**10:.2g})."
    )


def test_a_control_that_beats_is_named():
    (verdict,) = verdicts([judged(pruned=80, kd=90)])
    assert "-10.00" in verdict
    assert "points, worse; 0 test examples only it gets right, 10" in verdict


def test_a_tie_says_what_could_tell():
    verdict, note = verdicts([judged(pruned=90, same_size=88)])
    assert "+2.00 ± 1.41 points, a tie; 2 test examples" in verdict
    assert note == (
        "A tie: 100 test examples and one seed cannot tell the two apart; more "
        "of them may."
    )


@pytest.mark.parametrize("count", [90, 100])
def test_a_control_that_equals_the_student_ties(count):
    verdict, *_, note = verdicts([judged(pruned=count, kd=count)])
    assert "+0.00 ± 0.00 points, a tie; 0 test examples" in verdict
    assert "(McNemar p = 1)" in verdict
    assert note == (
        "0 and 0: both are as right on each of 100 test examples, which cannot "
        "tell the two apart; harder ones may."
    )


def test_one_example_is_compared_without_an_error():
    verdict, *_ = verdicts(
        [
            judged(
                pruned=right(1, of=1, chance=0.5),
                kd=right(0, of=1, chance=0.5),
                teacher=right(1, of=1, chance=0.5),
            )
        ]
    )
    assert "+100.00 points, a tie; 1 test example only it gets" in verdict


def test_nothing_is_said_where_nothing_is_compared():
    assert verdicts([judged(pruned=90)]) == ()


@pytest.mark.parametrize(
    ("best", "students"),
    [
        ("student, dynamic pruning", {"pruned": 98, "kd": 97}),
        ("student, no penalty", {"pruned": 90, "kd": 98}),
        ("student, dynamic pruning", {"pruned": 98, "kd": 98}),
    ],
)
def test_a_teacher_that_ties_with_the_best_student_is_told(best, students):
    found = verdicts([judged(teacher=100, **students)])
    (verdict,) = [each for each in found if each.startswith("Teacher")]
    assert verdict.startswith(
        f'Teacher against "{best}", the best student: +2.00 ± 1.41 points, a '
        "tie; 2 test examples only it gets right, 0 only the student (McNemar "
        "p = 0.5)."
    )
    assert "no better" not in verdict


@pytest.mark.parametrize(
    ("teacher", "word", "how"),
    [
        (90, "a tie", "not measurably"),
        (88, "a tie", "not measurably"),
        (80, "worse", "no"),
    ],
)
def test_a_teacher_no_better_than_its_student_is_told(teacher, word, how):
    verdict, *_ = verdicts([judged(pruned=90, teacher=teacher)])
    assert f"points, {word};" in verdict
    assert verdict.endswith(
        f" It is {how} better than its student: a larger teacher, or one that "
        "is trained longer, has more to teach."
    )


def test_a_teacher_that_is_better_is_as_it_should_be():
    assert not any("Teacher" in x for x in verdicts([judged(pruned=90, kd=80)]))


def test_nothing_is_said_of_a_teacher_that_is_not_there():
    (verdict,) = verdicts([judged(pruned=90, teacher=None, kd=80)])
    assert verdict.startswith('Pruned student against "student, no penalty"')
    lost, *_ = verdicts([judged(pruned=10, teacher=None)])
    assert "Train longer or, where the student without a penalty" in lost


def test_of_a_student_that_taught_itself_no_larger_teacher_is_asked_for():
    verdict, *_ = verdicts([judged(pruned=92, teacher=90, is_own=True)])
    assert verdict.startswith(
        'Teacher, the student itself, against "student, dynamic pruning", the '
        "best student: -2.00"
    )
    assert "a larger teacher" not in verdict
    lost, *_ = verdicts([judged(pruned=10, teacher=9, is_own=True)])
    assert "So is the student without a penalty: train longer" in lost
    lost, *_ = verdicts([judged(pruned=10, teacher=90, is_own=True)])
    assert lost.endswith(
        "by chance. Lower `l1`, warm up longer "
        "(`warmup_epochs`) or keep more units "
        "(`minimum_units`)."
    )


def test_a_student_near_chance_is_told_first():
    verdict, *_ = verdicts([judged(pruned=12, kd=90)])
    assert verdict == (
        "Pruned student near chance: 12.00 % of its answers to 100 test "
        "examples are right, and 10.00 ± 3.00 % would be by chance. Lower "
        "`l1`, warm up longer (`warmup_epochs`) or keep more units "
        "(`minimum_units`)."
    )


def test_a_control_near_chance_is_told():
    _, note = verdicts([judged(pruned=90, same_size=8)])
    assert note.startswith(
        '"same size from scratch" near chance: 8.00 % of its'
    )
    assert note.endswith("To beat it says little: look at its training first.")


def test_validation_examples_are_called_what_they_are():
    verdict, note = verdicts([judged(pruned=90, kd=80, split="validation")])
    assert "10 validation examples only it gets right" in verdict
    assert note.startswith("These are the validation examples: what was chos")


# Several seeds.


def test_seeds_are_compared_in_pairs():
    runs = [
        judged(pruned=pruned, same_size=control)
        for pruned, control in [(91, 90), (93, 91), (94, 91), (92, 90)]
    ]
    (verdict,) = verdicts(runs)
    # 1, 2, 3 and 2 points: 2 ± sqrt((1 + 0 + 1 + 0) / 3 / 4).
    t = 3.182446  # 97.5 % of Student's, three degrees of freedom
    error = (2 / 3 / 4) ** 0.5
    assert verdict == (
        f'Pruned student against "same size from scratch": +2.00 ± {error:.2f} '
        f"points over 4 seeds, better (95 % interval {2 - t * error:+.2f} to "
        f"{2 + t * error:+.2f})."
    )


def test_two_seeds_alone_tell_little():
    verdict, *_, note = verdicts([judged(91, kd=90), judged(93, kd=90)])
    assert "+2.00 ± 1.00 points over 2 seeds, a tie (95 % interval" in verdict
    assert note.startswith("A tie: 100 test examples and 2 seeds cannot tell")


def test_one_difference_in_all_seeds_is_called_that():
    verdict, *_ = verdicts([judged(91, kd=90), judged(92, kd=91)])
    assert "+1.00 ± 0.00 points over 2 seeds, a tie (the same in" in verdict


def test_a_control_of_one_seed_alone_is_compared_on_its_examples():
    *both, _ = verdicts([judged(90, kd=80), judged(90, kd=84, random=80)])
    assert "over 2 seeds" in both[0]
    assert '"random cut half-way": +10.00' in both[1]
    assert "McNemar" in both[1]


def test_seeds_near_chance_are_counted():
    first, *_ = verdicts([judged(12), judged(90), judged(9)])
    assert first.startswith("Pruned student near chance in 2 of 3 seeds: 12.00")


def test_the_teacher_is_compared_over_the_seeds_too():
    runs = [judged(89, teacher=90), judged(93, teacher=90)]
    verdict, *_ = verdicts(runs)
    assert "the best student: -1.00 ± 2.00 points over 2 seeds, a" in verdict
    assert "not measurably better than its student" in verdict


# Examples of many answers.


def test_examples_of_many_answers_are_counted_by_what_is_more_right():
    counts = np.full((1, 8), 10)
    (verdict,) = verdicts(
        [
            Judged(
                teacher=Answers(counts, counts, (0.5,)),
                pruned=Answers(counts - 1, counts, (0.5,)),
                controls={"kd": Answers(counts - 2, counts, (0.5,))},
                split="test",
            )
        ]
    )
    assert verdict.endswith(
        "+10.00 ± 0.00 points, better; 8 test examples only it gets more "
        "right, 0 only the control (sign test p = 0.0078)."
    )


# The teacher, before anything is trained under it.


def test_a_teacher_near_chance_is_told_with_what_to_look_at():
    doubt = teacher_doubt(right(12, of=100), (0.0, 255.0))
    assert doubt.startswith(
        "The teacher is near chance: 12.00 % of its answers to 100 validation "
        "examples are right, and 10.00 ± 3.00 % would be by chance."
    )
    assert "scaled as in its training (here they span 0 to 255; 0 to" in doubt


def test_a_student_near_chance_that_is_to_teach_itself_is_told():
    doubt = teacher_doubt(right(12, of=100), (0.0, 255.0), is_student=True)
    assert doubt.startswith(
        "The teacher, the student itself, is near chance: 12.00 % of its answe"
    )
    assert doubt.endswith("train longer, or at another learning rate.")
    assert "scaled" not in doubt


def test_a_good_teacher_is_taken_as_it_is():
    assert teacher_doubt(right(60, of=100), (0.0, 1.0)) == ""


def test_an_output_that_the_teacher_does_not_know_is_named():
    hits = np.zeros((2, 100), int)
    hits[0], hits[1, :50] = 1, 1
    found = Answers(hits, np.ones_like(hits), (0.5, 0.5))
    assert "50.00 % of its answers in output 2 of 2 to 100 valid" in (
        teacher_doubt(found, (0.0, 1.0))
    )


def test_what_finds_a_rare_class_is_not_near_chance():
    """45 of 50 rare and 905 of 950 frequent: as often right as a constant."""
    labels = np.repeat([0, 1], [50, 950])
    found = labels.copy()
    found[:5] = 1
    found[50:95] = 0

    def doubt(guesses):
        scores = np.eye(2)[guesses]
        return teacher_doubt(
            mark_answers([scores], [None], [labels]), (0.0, 1.0)
        )

    assert doubt(found) == ""
    assert "near chance: 95.00 % of its answers" in doubt(np.ones(1000, int))


@pytest.mark.parametrize(
    ("others", "way_out"),
    [
        ({}, "Train longer or, where the student without a penalty"),
        ({"kd": 80}, "would be by chance. Lower `l1`, warm up longer"),
        ({"kd": 11}, "So is the student without a penalty: train longer"),
        ({"teacher": 9, "kd": 11}, "So is its teacher: look at that first."),
    ],
)
def test_what_helps_a_student_near_chance_is_said_of_its_cause(others, way_out):
    lost, *_ = verdicts([judged(pruned=10, **others)])
    assert lost.startswith("Pruned student near chance: 10.00 %")
    assert way_out in lost
