"""Accuracy against size: dynamic pruning beside every honest control.

Trains the missing cells (student x method x seed) of a comparison, stores each
as it finishes, and writes table, JSON and picture of all of them under docs/.
A run that was stopped goes on where it was. Cells of other code or another
configuration are trained anew, never mixed in.

    python benchmarks/accuracy_vs_size.py                 # Fashion-MNIST
    python benchmarks/accuracy_vs_size.py --data digits   # minutes
    python benchmarks/accuracy_vs_size.py --report-only
"""

import argparse
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras
from cells import CellStore
from experiments import ABLATIONS, COMPARISONS, Comparison, Experiment, Training
from report import write_report
from steering import PenaltySteering, PruningAtTheEnd

from keras_kddp.compression import training as rules
from keras_kddp.compression.choices import CONTROLS
from keras_kddp.compression.controls import SAMPLES, train_control
from keras_kddp.data.datasets import Dataset, load_dataset
from keras_kddp.data.packing import unpacked
from keras_kddp.distillation.teacher.cache import TeacherCache
from keras_kddp.layers.penalized_models import prepared_layers
from keras_kddp.layers.preparation import prepare
from keras_kddp.profiling import profile
from keras_kddp.pruning.activity import activity_on, sampled
from keras_kddp.pruning.callback import DynamicPruning
from keras_kddp.pruning.ranking import rank_groups
from keras_kddp.surgery.graph import ChannelGraph

TEACHERS = Path("runs") / "benchmark"
CRITERIA = {
    "paper_criterion": "never_active",
    "mean_activity": "mean_activity",
}


def pruning_of(method: str, experiment: Experiment) -> DynamicPruning:
    """Returns the callback of a method that prunes dynamically."""
    arguments = dict(experiment.phases)
    if method not in ("paper_criterion", "penalty_steering"):
        arguments["budget"] = experiment.budget_object()
    if method == "no_warmup":
        arguments |= {"warmup_epochs": 0, "ramp_epochs": 0}
    if method == "no_finetune":
        arguments["finetune_epochs"] = 1
    kind = PruningAtTheEnd if method == "prune_at_end" else DynamicPruning
    return kind(CRITERIA.get(method, "contribution"), **arguments)


class Bench:
    """Trains the cells of a comparison.

    Args:
        name: A key of `COMPARISONS`.
    """

    def __init__(self, name: str) -> None:
        self._comparison: Comparison = COMPARISONS[name]
        self._name = name
        self._store = CellStore(name)
        self._data: Dataset | None = None
        self._splits: tuple[Any, Any] | None = None
        self._teacher_accuracy = 0.0

    def config(self, experiment: Experiment) -> dict[str, Any]:
        """Returns everything that the cells of a student follow from."""
        teacher = self._comparison.teacher_training
        return {
            **experiment.as_dict(),
            "data": self._comparison.data,
            "teacher": self._comparison.teacher.__name__,
            "teacher_training": vars(teacher),
        }

    def cells(
        self, student: str, methods: list[str] | None, seeds: list[int] | None
    ) -> list[tuple[str, int, dict[str, Any] | None]]:
        """Returns method, seed and finished cell, in the order of running."""
        experiment = self._comparison.experiments[student]
        config = self.config(experiment)
        return [
            (method, seed, self._store.find(student, method, seed, config))
            for seed in experiment.seeds
            for method in experiment.methods
            if method not in ABLATIONS or seed in experiment.seeds[:3]
            if (methods is None or method in methods)
            and (seeds is None or seed in seeds)
        ]

    def run(self, student: str, method: str, seed: int) -> dict[str, Any]:
        """Trains one cell and stores it."""
        experiment = self._comparison.experiments[student]
        config = self.config(experiment)
        if method == "warm_targets":
            warm = {"temperature": 4.0, "student_loss_weight": 0.1}
            common = self.common(replace(experiment, **warm), seed)
        else:
            common = self.common(experiment, seed)
        started = time.monotonic()
        widths = None
        if method not in ("kddp", "kd") and method in CONTROLS:
            pruned = self._store.find(student, "kddp", seed, config)
            widths = (pruned or self.run(student, "kddp", seed))["widths"]
            started = time.monotonic()
        model, removals = self._trained(method, experiment, common, widths)
        seconds = time.monotonic() - started
        return self._store.write(
            student,
            method,
            seed,
            config,
            seconds=round(seconds, 1),
            teacher_accuracy=self._teacher_accuracy,
            removals=removals,
            **self._measured(model, experiment, common),
        )

    def _trained(
        self,
        method: str,
        experiment: Experiment,
        common: rules.Setting,
        widths: Mapping[str, int] | None,
    ) -> tuple[keras.Model, int]:
        if method in CONTROLS:
            pruned = common.start
            if widths is not None:
                pruned = narrowed(common.start, widths)
            layers = list(widths or {})
            return train_control(method, common, pruned, layers), 0
        l1 = 0.0 if method == "no_penalty" else experiment.l1
        student = prepare(common.start, l1, experiment.layers)
        pruning = pruning_of(method, experiment)
        callbacks: list[keras.callbacks.Callback] = [pruning]
        if method == "penalty_steering":
            goal = experiment.budget_object()
            phases = pruning.phases(experiment.training.epochs)
            callbacks.append(PenaltySteering(goal, phases))
        model, _ = rules.train_distilled(student, common, callbacks)
        return model, len(pruning.removals)

    def _measured(
        self,
        model: keras.Model,
        experiment: Experiment,
        common: rules.Setting,
    ) -> dict[str, Any]:
        data = self.data
        prepared = prepare(common.start, 0.0, experiment.layers)
        names = prepared_layers(ChannelGraph(prepared))
        graph = ChannelGraph(model)
        inputs, _ = unpacked(common.train.x)
        activity = activity_on(graph, sampled(graph, inputs, SAMPLES))
        size = profile(model)
        return {
            "accuracy": rules.accuracy(model, data.test),
            "validation_accuracy": rules.accuracy(model, data.validation),
            "widths": {name: len(graph.units[name]) for name in names},
            "units": sum(len(graph.units[name]) for name in names),
            "live_units": sum(int(activity[n].live.sum()) for n in names),
            "parameters": size.parameters,
            "macs": size.macs,
        }

    def common(self, experiment: Experiment, seed: int) -> rules.Setting:
        data = self.data
        if self._splits is None:
            teacher = self._teacher(data)
            self._teacher_accuracy = rules.accuracy(teacher, data.test)
            train, validation = (
                replace(s, x=TeacherCache(teacher, s.x).pack(s.x))
                for s in (data.train, data.validation)
            )
            self._splits = train, validation
        start = rules.fresh(experiment.student, seed)
        recipe = self._recipe(experiment.training, start, data, seed)
        recipe = replace(
            recipe,
            temperature=experiment.temperature,
            student_loss_weight=experiment.student_loss_weight,
        )
        return rules.Setting(start, *self._splits, recipe)

    def _recipe(
        self, training: Training, model: keras.Model, data: Dataset, seed: int
    ) -> rules.Recipe:
        return rules.Recipe(
            epochs=training.epochs,
            batch_size=training.batch_size,
            optimizer=rules.cosine_adamw(
                training.learning_rate,
                epochs=training.epochs,
                batch_size=training.batch_size,
                examples=len(data.train),
            ),
            loss=rules.default_loss(model),
            seed=seed,
        )

    def _teacher(self, data: Dataset) -> keras.Model:
        training = self._comparison.teacher_training
        path = TEACHERS / f"{self._name}-{training.epochs}.keras"
        if path.exists():
            return keras.saving.load_model(path)
        print("training the teacher", flush=True)
        teacher = rules.fresh(self._comparison.teacher, 0)
        recipe = self._recipe(training, teacher, data, 0)
        rules.train_supervised(teacher, data.train, data.validation, recipe)
        path.parent.mkdir(parents=True, exist_ok=True)
        teacher.save(path)
        return teacher

    @property
    def data(self) -> Dataset:
        if self._data is None:
            self._data = load_dataset(self._comparison.data)
        return self._data


def narrowed(model: keras.Model, widths: Mapping[str, int]) -> keras.Model:
    """Returns a model of the same layers with other widths."""
    graph = ChannelGraph(model)
    scores = {
        number: float(group.members[0][1])
        for number, group in graph.groups().items()
        if not group.reason and all(n in widths for n, _ in group.members)
    }
    ranking = rank_groups(graph, scores, widths)
    return ranking.plan(len(ranking)).build()


def main() -> None:
    """Trains what is missing and reports."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", choices=COMPARISONS, default="fashion")
    parser.add_argument("--students", nargs="+")
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--seeds", nargs="+", type=int)
    parser.add_argument("--report-only", action="store_true")
    given = parser.parse_args()
    bench = Bench(given.data)
    students = given.students or list(COMPARISONS[given.data].experiments)
    for student in students:
        for method, seed, found in bench.cells(
            student, given.methods, given.seeds
        ):
            if found is not None or given.report_only:
                continue
            cell = bench.run(student, method, seed)
            print(
                f"{student:9} {method:17} seed {seed}  "
                f"{cell['accuracy']:.2%}  {cell['units']:4} units  "
                f"{cell['parameters']:8,} parameters  "
                f"{cell['seconds']:.0f} s",
                flush=True,
            )
    finished = {
        student: [cell for *_, cell in bench.cells(student, None, None) if cell]
        for student in COMPARISONS[given.data].experiments
    }
    write_report(given.data, finished)


if __name__ == "__main__":
    main()
