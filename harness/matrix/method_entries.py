"""The `methods:` of a matrix spelled out: every form it may be written in, and every point of every grid.

Checks what can be known without loading a method: stacks well written, data named, grids that fit their stack. Whether
methods of these names exist is for the plan.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from harness.config.schema_errors import place_of
from harness.errors import HarnessError, nearest
from harness.matrix.cells import Members, fits
from harness.matrix.entry import UNTRAINED, MethodEntry
from harness.matrix.grid import Report, merged, points
from harness.matrix.schema import CommandTrainer, GroupsForm, MatrixFile, MethodForm, TrainSettings, TuneSettings
from harness.matrix.starts import link

TUNED = "+tuned"  # what is added to the label of a method for the row with the parameters found


@dataclass
class Methods:
    """entries: by label, in order.  aliases: `methods.LABEL` -> its dotted path in the file."""

    entries: dict[str, MethodEntry] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    problems: list[HarnessError] = field(default_factory=list)


@dataclass(frozen=True)
class _Written:
    """One entry as the file has it. path, stack_path: where it and the list of its stack stand, dotted."""

    label: str
    form: MethodForm
    path: str
    stack_path: str


def spell_out(file: MatrixFile, places: Mapping[str, str], *, partial: bool = False) -> Methods:
    """All methods of a matrix file. partial: the file had mistakes, so what seems to be missing may be there."""
    speller = _Speller(file, places, partial)
    first: dict[tuple[str, str | None], str] = {}
    for written in _written(file):
        name = (written.label, written.form.start)
        if name in first:
            why = f"it stands at {first[name]} already"
            speller.problem(written.path, f"method `{written.label}` is given twice", why=why)
        else:
            first[name] = place_of(written.path, places)
            speller.add(written)
    speller.link()
    if file.tune:
        speller.add_tuned(file.tune)
    return speller.found


def unknown_data(label: str, file: MatrixFile, where: str) -> HarnessError:
    """The problem of a label that is not under `data:`."""
    todo = nearest(label, file.data) if file.data else "add a block `data:` with that label"
    return HarnessError(f"there is no data `{label}`", where=where, todo=todo)


def _written(file: MatrixFile) -> Iterator[_Written]:
    if isinstance(file.methods, dict):
        yield from _labelled(file.methods, "methods")
        return
    for number, item in enumerate(file.methods):
        path = f"methods.{number}"
        if isinstance(item, str):
            yield _Written(item, MethodForm(), path, path)
        elif isinstance(item, list):
            label = "+".join(name for member in item for name in ([member] if isinstance(member, str) else member))
            yield _Written(label, MethodForm(stack=item), path, path)
        else:
            yield from _labelled(item, path)


def _labelled(entries: Mapping[str, Any], path: str) -> Iterator[_Written]:
    for label, form in entries.items():
        here = f"{path}.{label}"
        if isinstance(form, list):
            yield _Written(label, MethodForm(stack=form), here, here)
        else:
            yield _Written(label, form or MethodForm(), here, f"{here}.stack")


def _groups(form: MethodForm) -> GroupsForm | None:
    return GroupsForm(column=form.groups) if isinstance(form.groups, str) else form.groups


class _Speller:
    """Turns what is written into entries, and collects what is wrong on the way."""

    def __init__(self, file: MatrixFile, places: Mapping[str, str], partial: bool) -> None:
        self.file, self.places, self.partial = file, places, partial
        self.shared = TrainSettings(**{name: getattr(file.train, name) for name in TrainSettings.model_fields})
        self.found = Methods()
        self.drafts: list[tuple[MethodEntry, _Written]] = []

    def problem(self, path: str, what: str, **more: str) -> None:
        self.found.problems.append(HarnessError(what, where=place_of(path, self.places), **more))

    def report(self, path: str) -> Report:
        return lambda below, what, todo: self.problem(f"{path}.{below}", what, todo=todo)

    def add(self, written: _Written) -> None:
        label, form = written.label, written.form
        stack = self.stack(written)
        own = merged(self.shared, form.train)
        entry = MethodEntry(label, stack, own, "", form.trainer)
        data = self.data(written) if entry.trains else self.untouched(written, entry)
        # A stack may be missing because it was a mistake; the grid would then be held against the wrong one.
        grid = {} if self.partial and form.stack is None else form.grid
        for name, members, train in points(label, grid, stack, own, self.report(f"{written.path}.grid")):
            draft = MethodEntry(name, members, train, data, form.trainer, form.start or "", groups=_groups(form))
            self.drafts.append((draft, written))

    def link(self) -> None:
        """Give every entry its whole name, which shows what it starts from."""

        def report(number: int, what: str, why: str, todo: str) -> None:
            self.problem(f"{self.drafts[number][1].path}.start", what, why=why, todo=todo)

        named = link([entry for entry, _ in self.drafts], None if self.partial else report)
        for number, (_, written) in enumerate(self.drafts):
            if number in named:
                name = named[number].label
                self.found.entries[name] = named[number]
                self.found.aliases |= {f"methods.{name}": written.path, f"methods.{name}.stack": written.stack_path}
                begun = next((e for e in named.values() if e.label == named[number].start), None)
                if begun and begun.groups:
                    what = f"`{name}` starts from `{begun.label}`, which leaves one artifact a `{begun.groups.column}`"
                    self.problem(f"{written.path}.start", what, todo="start from a method without `groups`")

    def add_tuned(self, tune: TuneSettings) -> None:
        """Beside every chosen method one with the parameters that the search finds."""
        single = [e for e in self.found.entries.values() if e.trains and not e.start and "[" not in e.label]
        labels, grouped = [e.label for e in single if not e.groups], [e.label for e in single if e.groups]
        if not labels and not self.partial:
            self.problem("tune", "no method here trains from the model and is no grid, so there is nothing to tune")
        for number, pattern in enumerate(tune.methods if not self.partial else ()):
            if named := [label for label in grouped if fits(pattern, label)]:
                what = f"`{named[0]}` has `groups`, and a method is tuned as a whole"
                self.problem(f"tune.methods.{number}", what, todo="tune it without groups, then write its parameters")
            elif not any(fits(pattern, label) for label in labels):
                what = f"`{pattern}` is no method here that trains from the model and is no grid"
                self.problem(f"tune.methods.{number}", what, todo=nearest(pattern, labels))
        entries: dict[str, MethodEntry] = {}
        for entry in self.found.entries.values():
            entries[entry.label] = entry
            if entry.label in labels and any(fits(pattern, entry.label) for pattern in tune.methods or ["*"]):
                label = entry.label + TUNED
                if label in self.found.entries:
                    self.problem(f"methods.{label}", f"`{label}` is the row of `{entry.label}` after its tuning")
                entries[label] = replace(entry, label=label, tune=tune)
                path = self.found.aliases[f"methods.{entry.label}"]
                self.found.aliases.setdefault(f"methods.{label}", path)
        self.found.entries = entries

    def stack(self, written: _Written) -> Members:
        members: dict[str, dict[str, Any]] = {}
        named_by_label = ["sft"] if isinstance(written.form.trainer, CommandTrainer) else written.label.split("+")
        for number, member in enumerate(written.form.stack or named_by_label):
            path = f"{written.stack_path}.{number}"
            named = {member: None} if isinstance(member, str) else member
            if len(named) != 1:
                what = f"a member of the stack of `{written.label}` names {len(named)} methods, not one"
                self.problem(path, what, todo="write each as an item of its own: `- name: {parameters}`")
            for name, params in named.items():
                if name in members:
                    self.problem(path, f"`{name}` stands twice in the stack of `{written.label}`")
                members[name] = params or {}
        return tuple(members.items())

    def data(self, written: _Written) -> str:
        """The label of the training data. An unknown `train.data` is reported once, by the matrix."""
        own = written.form.data
        if own is not None and own not in self.file.data:
            self.found.problems.append(unknown_data(own, self.file, place_of(f"{written.path}.data", self.places)))
        data = own or self.file.train.data or ""
        if not data and not self.partial:
            todo = "give every method data with `train: {data: LABEL}`, or this one with `data: LABEL`"
            self.problem(written.path, f"there is no data to train `{written.label}` on", todo=todo)
        return data

    def untouched(self, written: _Written, entry: MethodEntry) -> str:
        base = entry.stack[0][0] == UNTRAINED[0]
        for name in ("train", "data", "groups", *(("grid", "start") if base else ())):  # the others may have parameters
            if name in written.form.model_fields_set:
                state = "is the untouched model" if base else "trains nothing"
                what = f"`{written.label}` {state}, so its `{name}` would do nothing"
                self.problem(f"{written.path}.{name}", what, todo="remove it, or stack a method that trains")
        return ""
