"""A method of a matrix as cells use it: one entry of `methods:`, or one point of its grid."""

from __future__ import annotations

from dataclasses import dataclass

from harness.matrix.cells import Group, Members
from harness.matrix.schema import CommandTrainer, GroupsForm, TrainSettings, TuneSettings

UNTRAINED = ("base", "urial")  # methods that leave a model as it is: alone in a stack, with neither data nor seed


@dataclass(frozen=True)
class MethodEntry:
    """data: a label under `data:`, "" where nothing trains.  start: the method whose artifact it begins from, or "".
    tune: how its parameters are searched for, None where they are used as they stand.
    groups: by which column of the data it is to be trained apart.  group: the one group that this entry is.
    """

    label: str
    stack: Members
    train: TrainSettings
    data: str
    trainer: str | CommandTrainer
    start: str = ""
    tune: TuneSettings | None = None
    groups: GroupsForm | None = None
    group: Group | None = None

    @property
    def trains(self) -> bool:
        """Whether there is anything to train: the stack is not one of `UNTRAINED` alone."""
        return not (len(self.stack) == 1 and self.stack[0][0] in UNTRAINED)

    @property
    def untouched(self) -> bool:
        """Whether it is the model as it is."""
        return not self.trains and not self.start and self.stack[0][0] == UNTRAINED[0]

    @property
    def seeded(self) -> bool:
        """Whether it has a cell a seed: it trains, or it asks what was trained."""
        return self.trains or bool(self.start)
