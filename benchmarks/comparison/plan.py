"""Which runs a comparison consists of, one after the other.

Everything is chosen on validation, from runs that are in the store: the
recipe of the label-trained student, the lengths, the options of each method.
Choices are made with seeds of their own, which stand in no row.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from statistics import fmean
from typing import Any

import keras

from comparison.cells import Cell, CellStore, Spec
from comparison.labels import CURVES
from comparison.peers import ALL_METHODS
from comparison.statistics import CURVE_LENGTH, LENGTHS
from comparison.students import Student
from comparison.training import Recipe

ENOUGH = 0.005
"""A student has stopped improving where twice the epochs gain less.

So much that the long runs, of four times the epochs, stay affordable.
"""

CHOOSING_SEEDS = (100, 101)
WEIGHT_DECAYS = (0.0, 0.01, 0.1)
_OF_TENSORFLOW = ("taylor",)  # nothing else computes its gradients here

Options = Mapping[str, Any]


class _Undecided(Exception):  # noqa: N818 (no error: the runs are missing)
    """What comes next follows from runs that are not there yet."""


class Plan:
    """The runs of one student.

    Args:
        student: Which one.
        store: Of its data.
        teacher: Which training the teacher's outputs are of.

    Attributes:
        choices: What was chosen so far: `recipe`, `ladder` (epochs and mean
            accuracy), `is_still_improving` (at the end of that) and `tries`
            (method -> options, length, accuracy, and
            whether they were chosen).
    """

    def __init__(
        self,
        student: Student,
        store: CellStore,
        teacher: str,
    ) -> None:
        self.student = student
        self.choices: dict[str, Any] = {}
        self._store = store
        self._teacher = teacher
        is_tensorflow = keras.backend.backend() == "tensorflow"
        self._methods = [
            name
            for name, method in ALL_METHODS.items()
            if (student.has_scales or not method.needs_scales)
            and (name not in _OF_TENSORFLOW or is_tensorflow)
        ]

    def missing(self) -> list[Spec]:
        """Returns the runs that can be started now, the first to go first."""
        found = {}
        for spec in self._known():
            if self._store.find(spec) is None:
                found.setdefault(spec.key, spec)
        return list(found.values())

    def cells(self) -> list[Cell]:
        """Returns the finished runs of table and curves."""
        found = {}
        for spec in self._known():
            if spec.seed not in CHOOSING_SEEDS:
                cell = self._store.find(spec)
                if cell:
                    found[spec.key, spec.length] = cell
        return list(found.values())

    def _known(self) -> Iterator[Spec]:
        """Yields every run that is known by now, finished or not."""
        self.choices = {"tries": {}}
        self._chosen: dict[tuple[str, str], Options] = {}
        try:
            yield from self._choosing_recipe()
            yield from self._choosing_length()
        except _Undecided:
            return
        for name in self._methods:
            yield from _as_far_as_known(self._choosing_options(name))
        for seed in self.student.seeds:
            for name in self._methods:
                for length in LENGTHS:
                    yield from self._decided(name, length, 0, seed)
        for seed in self.student.seeds[:3]:
            for size in range(1, len(self.student.budgets)):
                for name in CURVES:
                    yield from self._decided(name, CURVE_LENGTH, size, seed)

    def _choosing_recipe(self) -> Iterator[Spec]:
        """Yields the label-trained student's tries, one thing after another."""
        rates, kinds = self.student.learning_rates, self.student.augmentations
        recipe = Recipe(rates[len(rates) // 2], 0.0, kinds[-1])
        for field, values in (
            ("augmentation", kinds),
            ("learning_rate", rates),
            ("weight_decay", WEIGHT_DECAYS),
        ):
            tried = [Recipe(**{**asdict(recipe), field: v}) for v in values]
            specs = [
                self._labels(each, self.student.ladder[1]) for each in tried
            ]
            yield from specs
            recipe = tried[self._best("recipe", "", specs)]
        self.choices["recipe"] = asdict(recipe)

    def _choosing_length(self) -> Iterator[Spec]:
        """Yields longer and longer runs, until twice as long gains little."""
        recipe = Recipe(**self.choices["recipe"])
        ladder: list[tuple[int, float]] = []
        for epochs in self.student.ladder:
            specs = [
                self._labels(recipe, epochs, seed) for seed in CHOOSING_SEEDS
            ]
            yield from specs
            ladder.append((epochs, fmean(self._accuracies(specs))))
            self.choices["ladder"] = ladder
            if len(ladder) > 1 and ladder[-1][1] - ladder[-2][1] < ENOUGH:
                break
        else:
            self.choices["is_still_improving"] = True
        enough = ladder[-2][0]
        self._epochs = {"short": enough, "long": 4 * enough}

    def _choosing_options(self, name: str) -> Iterator[Spec]:
        """Yields the tries of a method."""
        method, seed = ALL_METHODS[name], CHOOSING_SEEDS[0]
        chosen = method.tries[0]
        for length in LENGTHS:
            is_first = length == LENGTHS[0]
            if len(method.tries) > 1 and (method.tries_both or is_first):
                specs = [
                    self._spec(name, length, 0, seed, tried)
                    for tried in method.tries
                ]
                yield from specs
                chosen = method.tries[self._best(name, length, specs)]
            self._chosen[name, length] = chosen

    def _decided(
        self, name: str, length: str, size: int, seed: int
    ) -> Iterator[Spec]:
        """Yields a run of table or curves, if all that it needs is there."""
        with suppress(_Undecided):
            source = ALL_METHODS[name].options_of or name
            options = self._options(source, length)
            yield self._spec(name, length, size, seed, options)

    def _spec(
        self, name: str, length: str, size: int, seed: int, options: Options
    ) -> Spec:
        """Returns a run with the options that it shares with others.

        Raises:
            _Undecided: If something that it follows from is missing.
        """
        method = ALL_METHODS[name]
        epochs = self._epochs[length]
        if method.targets_of:
            options = {**self._options(method.targets_of, length), **options}
        if method.has_widths:
            pruned = self._pruned(length, size, seed)
            options = {**options, "widths": pruned["widths"]}
            if method.is_longer:
                examples = pruned["steps"] * self.student.batch_size
                epochs = round(
                    epochs * pruned["mac_steps"] / (pruned["macs"] * examples)
                )
        return self._run(
            name,
            epochs,
            seed,
            self.choices["recipe"],
            options=options,
            length=length,
            size=None if method.is_unpruned else size,
        )

    def _pruned(self, length: str, size: int, seed: int) -> Cell:
        """Returns the run of dynamic pruning that gives the widths."""
        options = self._options("kddp", length)
        spec = self._spec("kddp", length, size, seed, options)
        found = self._store.find(spec)
        if found is None:
            raise _Undecided
        return found

    def _labels(
        self, recipe: Recipe, epochs: int, seed: int = CHOOSING_SEEDS[0]
    ) -> Spec:
        """Returns a run of the label-trained unpruned student."""
        return self._run("labels", epochs, seed, asdict(recipe))

    def _run(
        self,
        method: str,
        epochs: int,
        seed: int,
        recipe: Options,
        *,
        options: Options | None = None,
        length: str = "",
        size: int | None = None,
    ) -> Spec:
        """Returns a run of this student; soft targets are of its teacher."""
        options = options or {}
        return Spec(
            data=self.student.data,
            student=self.student.name,
            method=method,
            length=length,
            epochs=epochs,
            size=size,
            seed=seed,
            recipe=recipe,
            options=options,
            teacher=self._teacher if "temperature" in options else "",
            precision=self.student.precision,
            backend=ALL_METHODS[method].backend,
        )

    def _options(self, name: str, length: str) -> Options:
        if (name, length) not in self._chosen:
            raise _Undecided
        return self._chosen[name, length]

    def _best(self, name: str, length: str, specs: Sequence[Spec]) -> int:
        """Returns which of some tries is best, the first of equals."""
        accuracies = self._accuracies(specs)
        best = accuracies.index(max(accuracies))
        told = self.choices["tries"].setdefault(name, [])
        for index, (spec, accuracy) in enumerate(
            zip(specs, accuracies, strict=True)
        ):
            tried = dict(spec.recipe if name == "recipe" else spec.options)
            tried.pop("widths", None)
            told.append((tried, length, accuracy, index == best))
        return best

    def _accuracies(self, specs: Sequence[Spec]) -> list[float]:
        cells = [self._store.find(spec) for spec in specs]
        if None in cells:
            raise _Undecided
        return [cell["validation"]["accuracy"] for cell in cells if cell]


def _as_far_as_known(specs: Iterator[Spec]) -> Iterator[Spec]:
    with suppress(_Undecided):
        yield from specs
