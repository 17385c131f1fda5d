"""matrix.yaml: what it may say (`schema`), and what it comes to (`matrix`, `cells`)."""

from harness.matrix.cells import Cell, Group, make_cell
from harness.matrix.entry import MethodEntry
from harness.matrix.matrix import Matrix, SuiteEntry, load_matrix
from harness.matrix.schema import Budget, DataEntry, EngineSettings, ModelEntry, Strict, TrainSettings, TuneSettings

__all__ = [
    "Budget",
    "Cell",
    "DataEntry",
    "EngineSettings",
    "Group",
    "Matrix",
    "MethodEntry",
    "ModelEntry",
    "Strict",
    "SuiteEntry",
    "TrainSettings",
    "TuneSettings",
    "load_matrix",
    "make_cell",
]
