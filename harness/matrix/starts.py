"""`start:` of methods: which entry each begins from, and the names that show it, such as `sft>dpo`.

Entries may stand in any order, and a start may have one itself. Whether what a method leaves can be started from is
for the plan, which knows the methods.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from harness.errors import nearest
from harness.matrix.entry import MethodEntry

ARROW = ">"
Report = Callable[[int, str, str, str], None]  # number of the entry, what is wrong, why, what to do


def link(entries: Sequence[MethodEntry], report: Report | None) -> dict[int, MethodEntry]:
    """Entries by their numbers, with whole names; without those whose start is wrong, which is reported.

    An entry that starts from an untouched model starts from nothing. report: None where entries may be missing.
    """
    linker = _Linker(entries)
    linker.run()
    if report:
        for number in linker.left:
            linker.explain(number, report)
    return linker.named


class _Linker:
    def __init__(self, entries: Sequence[MethodEntry]) -> None:
        self.entries = entries
        self.named = {n: e for n, e in enumerate(entries) if not e.start}
        self.left = [n for n, e in enumerate(entries) if e.start]

    def run(self) -> None:
        """An entry has its whole name as soon as what it starts from has."""
        while ready := [(n, at) for n in self.left if (at := self.target(self.entries[n].start)) in self.named]:
            for number, at in ready:
                entry, begun = self.entries[number], self.named[at]
                whole = entry.label if begun.untouched else f"{begun.label}{ARROW}{entry.label}"
                self.named[number] = replace(entry, label=whole, start="" if begun.untouched else begun.label)
                self.left.remove(number)

    def target(self, name: str) -> int | None:
        """The entry of this whole name, or the only one that is written so; None if there is none, or no name yet."""
        for number, entry in self.named.items():
            if entry.label == name:
                return number
        written = self.written(name)
        return written[0] if len(written) == 1 else None

    def written(self, name: str) -> list[int]:
        return [n for n, e in enumerate(self.entries) if e.label == name]

    def explain(self, number: int, report: Report) -> None:
        """Why an entry has no start; nothing where the reason is that its start has none."""
        label, name = self.entries[number].label, self.entries[number].start
        same = self.written(name)
        points = [e.label for e in self.entries if e.label.partition("[")[0] == name]
        if len(same) > 1:
            names = " or ".join(f"`{self.named[n].label}`" for n in same if n in self.named)
            report(number, f"`{label}` starts from `{name}`, of which there are {len(same)}", "", f"write {names}")
        elif number in same:
            report(number, f"`{label}` starts from itself", "", "name another method")
        elif same and number == min(circle := self.circle(number), default=-1):
            way = f" {ARROW} ".join(self.entries[n].label for n in [*circle, number])
            report(number, "methods start from each other, so none can be first", way, "take one `start` away")
        elif not same and points:
            what = f"`{label}` starts from `{name}`, which is a grid of {len(points)} methods"
            report(number, what, "", f"name one of them, such as `{points[0]}`")
        elif not same:
            known = [e.label for n, e in self.named.items()]
            report(number, f"`{label}` starts from `{name}`, which is no method here", "", nearest(name, known))

    def circle(self, number: int) -> list[int]:
        """The entries between one and itself, along their starts; none if the way does not come back."""
        way, at = [number], self.written(self.entries[number].start)
        while len(at) == 1 and at[0] not in way:
            way.append(at[0])
            at = self.written(self.entries[at[0]].start)
        return way if at == [number] else []
