"""The configuration of a compression, written down once and without Keras."""

from argparse import ArgumentTypeError
from collections.abc import Callable, Mapping, Sequence
from dataclasses import (
    MISSING,
    Field,
    asdict,
    dataclass,
    field,
    fields,
    replace,
)
from types import NoneType
from typing import Any, Self

from keras_kddp.arguments import shortened
from keras_kddp.compression.choices import CONTROLS
from keras_kddp.compression.option_types import (
    count,
    epochs_of_run,
    limit,
    rate,
    seed,
    whole_number,
)

_MODEL = "a .keras file, a name of keras_kddp.models, or module:function"
_OWN_SIZE = "(default: the method finds its own size)"
ALL_CONTROLS = "all"
"""What stands for every control on the command line."""


@dataclass(frozen=True)
class Option:
    """How the command line asks for one entry of a configuration.

    Attributes:
        help: What it is; with its default where that is None.
        kind: Makes a value of a word, as argparse's `type`.
        choices: The values there are; None: any.
        nargs: How many words it takes, as argparse counts them; None: one.
        flag: Its name after the dashes; None: that of the entry.
        goes_to: What takes the value under the same name: `"recipe"` (a
            `Recipe`), `"pruning"` (a `DynamicPruning`) or `"budget"` (a
            `Budget`).
    """

    help: str
    kind: Callable[[str], Any] = str
    choices: Sequence[str] | None = None
    nargs: str | None = None
    flag: str | None = None
    goes_to: str | None = None


def _option(help_text: str, default: Any = MISSING, **how: Any) -> Any:
    """Returns a dataclass field that the command line asks for."""
    return field(default=default, metadata={"option": Option(help_text, **how)})


def option_of(entry: "Field[Any]") -> Option | None:
    """Returns how the command line asks for an entry; None: it does not."""
    return entry.metadata.get("option")


def _limit(meaning: str) -> Any:
    return _option(
        f"budget: {meaning} {_OWN_SIZE}", None, kind=limit, goes_to="budget"
    )


@dataclass(frozen=True, kw_only=True)
class CompressionConfig:
    """What a compression is asked to do, in plain values.

    The options of `kddp compress`, the call of `compress` and the entry `job`
    of `summary.json` are all made from its fields.

    Attributes:
        teacher: See `keras_kddp.compression.model_sources.teacher_named`; a
            file is taken as it is, anything else is trained first.
        student: Named as the teacher is; it is trained in any case.
        data: See `keras_kddp.data.datasets.load_dataset`.
        out: Run directory; of several seeds it holds one per seed.
        epochs: Passes over the training data, of each run.
        teacher_epochs: Of the teacher; None: as many; 0: it comes trained.
        batch_size: Examples per step.
        learning_rate: At the start, of AdamW on a cosine to 0.
        teacher_learning_rate: The teacher's; None: that of the students.
        temperature: Of the soft targets.
        student_loss_weight: Share of the labels, in [0, 1].
        l1: Charge for a mean activity of 1.
        layers: Those to prune; None: all that can be.
        finetune_epochs: Last epochs without penalty; None: a third.
        minimum_units: So many units stay in every layer.
        unit_multiple: What widths are rounded down to where that pays.
        max_parameters: Budget of the student; see `keras_kddp.Budget`.
        max_macs: Its multiply-accumulates for one example.
        max_bytes: Bytes of its int8 file.
        max_arena_bytes: Bytes of memory that the int8 file needs on TFLM.
        max_accuracy_drop: How far its validation accuracy may fall, in
            [0, 1].
        reference: What that is counted from.
        controls: Names of controls to train beside.
        seeds: One run each; the first is the teacher's too.
    """

    teacher: str = _option(
        f"{_MODEL}; a file comes trained; or none: the labels alone teach, "
        "beside --student-loss-weight 1; or self: the student itself, trained "
        "without a penalty first"
    )
    student: str = _option(_MODEL)
    data: str = _option(
        "digits, idx:DIR, npz:FILE or "
        "tfds:NAME,train=SPLIT,validation=SPLIT,test=SPLIT; behind npz:FILE "
        ",scale=255 divides by 255, behind both ,group=KEY keeps groups whole"
    )
    out: str = _option("run directory")
    epochs: int = _option(
        "of each student", kind=epochs_of_run, goes_to="recipe"
    )
    teacher_epochs: int | None = _option(
        "of a teacher that is no file, none or self; 0: it comes trained "
        "(default: as many as --epochs)",
        None,
        kind=whole_number,
    )
    batch_size: int = _option("examples", 128, kind=count, goes_to="recipe")
    learning_rate: float = _option(
        "of AdamW at the start; a cosine takes it to 0", 2e-3, kind=rate
    )
    teacher_learning_rate: float | None = None
    temperature: float = _option(
        "of the soft targets", 4.0, kind=float, goes_to="recipe"
    )
    student_loss_weight: float = _option(
        "share of the labels in what the students learn from",
        0.1,
        kind=float,
        goes_to="recipe",
    )
    l1: float = _option("strength of the penalty", 1e-2, kind=float)
    layers: Sequence[str] | None = _option(
        "layers to prune (default: all that can be)", None, nargs="+"
    )
    finetune_epochs: int | None = _option(
        "last epochs without penalty (default: a third)",
        None,
        kind=whole_number,
        goes_to="pruning",
    )
    minimum_units: int = _option(
        "units that stay in every layer", 1, kind=count, goes_to="pruning"
    )
    unit_multiple: int = _option(
        "round widths down to a multiple, where measured to pay",
        1,
        kind=count,
        goes_to="pruning",
    )
    max_parameters: int | None = _limit("weights")
    max_macs: int | None = _limit("multiply-accumulates for one example")
    max_bytes: int | None = _limit("bytes of the int8 file")
    max_arena_bytes: int | None = _limit("memory of the int8 file on TFLM")
    max_accuracy_drop: float | None = _option(
        "budget: how far the validation accuracy may fall, 0.01 is a point; "
        "the smallest student that keeps it is left",
        None,
        kind=float,
        goes_to="budget",
    )
    reference: str = _option(
        "what --max-accuracy-drop is counted from",
        "student",
        choices=("student", "teacher"),
        goes_to="budget",
    )
    controls: Sequence[str] = _option(
        "students to compare with",
        ("kd", "same_size"),
        choices=(*CONTROLS, ALL_CONTROLS),
        nargs="*",
    )
    seeds: Sequence[int] = _option(
        "runs", (0,), kind=seed, nargs="+", flag="seed"
    )

    def arguments_of(self, receiver: str) -> dict[str, Any]:
        """Returns the entries that something takes, by name.

        Args:
            receiver: `"recipe"`, `"pruning"` or `"budget"`; see `Option`.
        """
        found = {entry.name: option_of(entry) for entry in fields(self)}
        return {
            name: getattr(self, name)
            for name, option in found.items()
            if option is not None and option.goes_to == receiver
        }

    def of_seed(self, number: int) -> Self:
        """Returns the configuration of the run of one seed alone."""
        return replace(self, seeds=[number])

    def as_dict(self) -> dict[str, Any]:
        """Returns the entries as `summary.json` has them under `job`."""
        return asdict(self)

    @classmethod
    def of_job(cls, entries: Mapping[str, Any]) -> Self:
        """Returns the configuration that `as_dict` gave the entries of.

        Args:
            entries: As JSON has them; from a file, so anything.

        Raises:
            ValueError: If an entry is missing, unknown or of another type.
        """
        known = {entry.name: entry for entry in fields(cls)}
        needed = {n for n, x in known.items() if x.default is MISSING}
        if missing := sorted(needed - {*entries}):
            raise _wrong_job(f"none of {missing}")
        values = {}
        for name, value in entries.items():
            received = f"{name}={shortened(value)}"
            if name not in known:
                raise _wrong_job(f"{received}, which is unknown")
            try:
                values[name] = _value(known[name], value)
            except TypeError as error:
                raise _wrong_job(f"{received}, of another type") from error
            except (ArgumentTypeError, ValueError) as error:
                said = str(error).removesuffix(".")
                raise _wrong_job(f"{received} (it {said})") from error
        return cls(**values)


def _wrong_job(received: str) -> ValueError:
    return ValueError(
        "A job must have the entries of a CompressionConfig. Received: "
        f"{received}. Begin the run anew."
    )


def _value(entry: "Field[Any]", value: Any) -> Any:
    """Returns the value of an entry, of the type that the command gives it.

    Raises:
        TypeError: If it has no such type.
        ValueError: If it is out of range.
    """
    option = option_of(entry)
    if value is None and entry.default is None:
        return None
    if option is None:
        return rate(str(value))
    if option.nargs is None:
        return _one_value(option, value)
    if not isinstance(value, list):
        raise TypeError(f"{entry.name}={value!r}")
    return [_one_value(option, each) for each in value]


def _one_value(option: Option, value: Any) -> Any:
    is_of_type = isinstance(value, str) == (option.kind is str)
    if not is_of_type or isinstance(value, (bool, dict, list, NoneType)):
        raise TypeError(repr(value))
    return option.kind(str(value))
