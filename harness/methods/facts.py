"""What planning knows of a model: plain numbers and names from its files, read without opening a weight."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from harness.errors import Refused, nearest


@dataclass(frozen=True)
class ModelFacts:
    """None where the files do not say; what is not known refuses nothing.

    kind: the configuration's model type.  writes: whether it has a head that predicts the next token.
    heads: query heads a layer.  linear: by the last part of a layer's name, its (inputs, outputs), without the head.
    """

    kind: str = ""
    writes: bool = True
    layers: int | None = None
    heads: int | None = None
    tied: bool | None = None
    linear: Mapping[str, frozenset[tuple[int, int]]] | None = None

    def layers_named(self, targets: str | Iterable[str]) -> Iterator[tuple[str, int, int]]:
        """(name, inputs, outputs) of the layers that a member targets. Refused for a name that no layer has.

        A text is "all-linear" or a pattern, and what a pattern fits is not worked out here.
        """
        if self.linear is None or (isinstance(targets, str) and targets != "all-linear"):
            return
        for target in self.linear if isinstance(targets, str) else targets:
            name = target.rpartition(".")[2]
            if name not in self.linear:
                raise Refused(
                    f"no linear layer of it is named `{target}`",
                    todo=nearest(name, self.linear) or 'use "all-linear"',
                )
            for inputs, outputs in sorted(self.linear[name]):
                yield name, inputs, outputs
