"""The arguments of dynamic pruning, as a run takes them."""

from dataclasses import dataclass

from keras_kddp.arguments import (
    MOST_EPOCHS,
    checked_range,
    require_count,
    require_share,
    require_verbose,
)
from keras_kddp.data.batches import Batches
from keras_kddp.pruning.budget.budget import Budget, checked_budget
from keras_kddp.pruning.criteria import Criterion
from keras_kddp.pruning.schedule import Phases, planned_phases


@dataclass(frozen=True, eq=False)
class PruningSettings:
    """What `keras_kddp.DynamicPruning` was told.

    Attributes:
        criterion: Scores the units of a layer.
        threshold: Scores at or below it are inactive, in [0, 1).
        warmup_epochs: Epochs without penalty, first; None: 1/8 of the run.
        ramp_epochs: Epochs in which the strength rises; None: 1/6.
        finetune_epochs: Epochs without penalty, last; None: 1/3.
        data: Inputs to observe the activity on; None: those of `fit`.
        samples: At most so many of their rows are observed.
        minimum_units: So many units stay in every layer.
        minimum_change: Share of the live units that a removal takes at least.
        budget: What the student must fit at the end; None: no limit.
        unit_multiple: What widths are rounded down to where it pays.
        input_range: (smallest, largest) number that an input may have, or
            None.
        verbose: 1 prints one line per removal.

    Raises:
        ValueError: If one is out of range.
    """

    criterion: Criterion
    threshold: float
    warmup_epochs: int | None
    ramp_epochs: int | None
    finetune_epochs: int | None
    data: Batches | None
    samples: int
    minimum_units: int
    minimum_change: float
    budget: Budget | None
    unit_multiple: int
    input_range: tuple[float, float] | None
    verbose: int

    def __post_init__(self) -> None:
        """Checks the numbers."""
        checked_budget(self.budget)
        checked_range(self.input_range)
        for name in ("threshold", "minimum_change"):
            require_share(name, getattr(self, name))
        require_count("samples", self.samples, smallest=1, largest=2**63 - 1)
        for name in ("minimum_units", "unit_multiple"):
            require_count(name, getattr(self, name), smallest=1)
        for name in ("warmup_epochs", "ramp_epochs", "finetune_epochs"):
            if getattr(self, name) is not None:
                require_count(
                    name, getattr(self, name), smallest=0, largest=MOST_EPOCHS
                )
        require_verbose(self.verbose)

    def phases(self, epochs: int) -> Phases:
        """Returns the phases of a run of so many epochs.

        Raises:
            ValueError: If they do not fit into it.
        """
        return planned_phases(
            epochs,
            self.warmup_epochs,
            self.ramp_epochs,
            self.finetune_epochs,
        )
