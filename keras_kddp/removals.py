"""The record of what dynamic pruning removed, and when."""

from typing import NamedTuple

from keras_kddp.certificates import Certificate, described


class Removal(NamedTuple):
    """One removal during `fit`.

    Attributes:
        epoch: The epoch, from 0, that began with it.
        units_before: Layer name -> units before.
        units_after: Layer name -> units after.
        parameters_before: Weights of the student before.
        parameters_after: Weights of the student after.
        certificates: The evidence for each unit that left.
    """

    epoch: int
    units_before: dict[str, int]
    units_after: dict[str, int]
    parameters_before: int
    parameters_after: int
    certificates: tuple[Certificate, ...] = ()

    def __str__(self) -> str:
        """Returns one line for people."""
        layers = ", ".join(
            f"{name} {before} -> {self.units_after[name]}"
            for name, before in self.units_before.items()
            if before != self.units_after[name]
        )
        evidence = described(self.certificates)
        return (
            f"Epoch {self.epoch + 1}: removed units ({layers}), parameters "
            f"{self.parameters_before:,} -> {self.parameters_after:,}"
            + (f"; {evidence}" if evidence else "")
        )
