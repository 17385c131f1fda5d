"""`ctx`: the run as a method sees it: models, rows, clock, random numbers, memory.

Services that need an index or another model (judging, retrieval, embedding) are not offered by this trainer; asking
for one is refused in one sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, nn

from harness.engines.base import Request, Response
from harness.errors import HarnessError, Refused, nearest
from harness.methods.base import Method, Row, Stage, overrides
from harness.methods.nli import Classifier, Nli
from harness.training import randomness
from harness.training.budget import Meter
from harness.training.forward import Batch
from harness.training.generator import Generator
from harness.training.sequences import Seq, encode_row
from harness.training.tokens import Tokens

if TYPE_CHECKING:
    from harness.training.rollouts import Rolls


class Context:
    """One stage of one run.

    stage, stack: the phase and the members that act in it.  step: optimiser steps done.
    progress: share of the budget spent, 0 to 1.  model: the live model.  batch: the one last run.
    touched: names of the parameters that train or have trained in this stage.
    tokenizer: a `wrap` may replace it, and the artifact then carries the new one.
    memory: a method's only store; plain values and tensors; kept with the stage and restored on resume.
    needs: what the members asked for.  limit: tokens a row at most.
    """

    def __init__(self, *, seed: int, device: torch.device, tokenizer: Any, limit: int, precision: str) -> None:
        self.seed, self.device, self.tokenizer, self.limit = seed, device, tokenizer, limit
        self.meter = Meter(device)
        self.stage, self.stack = Stage(), ()  # type: tuple[Stage, tuple[Method, ...]]
        self.step, self.progress = 0, 0.0
        self.model: nn.Module = nn.Identity()
        self.batch: Batch | None = None
        self.memory: dict[str, Any] = {}
        self.needs: frozenset[str] = frozenset()
        self.embedding_hooks: list[Callable[[Tensor, Batch, Context], Tensor]] = []
        self.cursors: dict[str, int] = {}
        self.saved: dict[str, Any] = {}
        self.logged: dict[str, Any] = {}
        self.means: dict[str, tuple[float, int]] = {}
        self.touched: set[str] = set()
        self.kept: dict[str, Tensor] | None = None
        self.generator: Generator | None = None
        self.nli: Nli | None = None
        self.notes: dict[str, dict[str, Any]] = {}
        self.open_frozen: Callable[[str], nn.Module] | None = None
        self.read_start: Callable[[], dict[str, Tensor]] | None = None
        self._bf16 = precision == "bf16"
        self._sets: dict[str, list[Row]] = {}
        self._files: dict[str, str] = {}
        self._frozen: dict[str, nn.Module] = {}
        self._encoded: dict[tuple[str, str], list[Seq]] = {}
        self._start: dict[str, Tensor] | None = None
        self._row: str | None = None
        self._encoding = False

    def enter(self, stage: Stage, stack: Sequence[Method]) -> None:
        """The host turns to a stage (to run it, or to rebuild its model)."""
        self.stage, self.stack = stage, tuple(stack)
        self.needs = frozenset().union(*(m.needs for m in self.stack))
        self.embedding_hooks = [m.on_embeddings for m in self.stack if overrides(m, "on_embeddings")]

    @contextmanager
    def on_cpu(self) -> Iterator[None]:
        """Models are opened and wrapped on the CPU and then moved, so what is drawn there is drawn on the CPU."""
        device, self.device = self.device, torch.device("cpu")
        try:
            yield
        finally:
            self.device = device

    def autocast(self) -> Any:
        """bf16 arithmetic over fp32 weights, or fp32 throughout."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16)

    # --- rows -----------------------------------------------------------------------------------------------------
    def add_rows(self, name: str, rows: list[Row], file: Path | str = "") -> None:
        """A named set, and the file it is from."""
        self._sets[name], self._files[name] = rows, str(file)

    def rows(self, name: str) -> list[Row]:
        """A named set of rows. HarnessError if there is none."""
        if name not in self._sets:
            raise HarnessError(f"there is no set of rows named `{name}`", todo=nearest(name, self._sets))
        return self._sets[name]

    def encode(self, rows: Sequence[Row], *, where: str = "") -> list[Seq]:
        """Rows -> sequences, through every member's `prompt`. A row is encoded once a stage."""
        return [seq for row in rows for seq in self._encode(row, where)]

    def draw(self, name: str, n: int) -> list[Seq]:
        """The next n rows of another set, in turn, through `collate`: a stream beside the batch. Draw in proportion to
        the rows of `tok`, so that the answer does not depend on how a step is split."""
        rows, start = self.rows(name), self.cursors.get(name, 0)
        self.cursors[name] = start + n
        return self.collate(self.encode([rows[(start + i) % len(rows)] for i in range(n)], where=self._files[name]))

    def collate(self, seqs: list[Seq]) -> list[Seq]:
        """Every member's `collate`, in stack order."""
        for member in self.stack:
            seqs = member.collate(seqs, self)
        return seqs

    def _encode(self, row: Row, where: str) -> list[Seq]:
        key = (where, str(row["id"]))
        if key not in self._encoded or self._encoded[key][0].source is not row:
            self._encoding = True
            try:
                self._encoded[key] = encode_row(
                    row, self.tokenizer, self.prompted, limit=self.limit, where=where, pairs="pairs" in self.needs
                )
            finally:
                self._encoding = False
        return self._encoded[key]

    def prompted(self, request: Request) -> Request:
        """A request through every member's `prompt`, in stack order."""
        for member in self.stack:
            request = member.prompt(request, self)
        return request

    # --- models ---------------------------------------------------------------------------------------------------
    @property
    def trainable(self) -> list[nn.Parameter]:
        """The parameters that train in this stage."""
        return [p for p in self.model.parameters() if p.requires_grad]

    @property
    def start(self) -> Mapping[str, Tensor]:
        """The weights at the start of the stage, by name; made when first asked for."""
        if self._start is None:
            if self.read_start is None:
                raise Refused("`ctx.start` can only be read inside a stage")
            self._start = self.read_start()
        return self._start

    def forward(
        self,
        rows: Sequence[Row] | Sequence[Seq] | Tokens,
        model: str = "live",
        embeds: Callable[[Tensor], Tensor] | None = None,
        grad: bool = True,
    ) -> Tokens:
        """The loss tokens of some rows under a model: "live", "base", "ref" or a stage's name. Lazy, and billed.

        embeds: changes the input embeddings.  grad: only the live model has one.
        """
        seqs: Any = rows.seqs if isinstance(rows, Tokens) else rows
        if seqs and not isinstance(seqs[0], Seq):
            seqs = self.encode(seqs)
        if model == "live":
            return Tokens(self, seqs, self.model, grad=grad, embeds=embeds)
        name = self.stage.ref if model == "ref" else model
        if name not in self._frozen:
            if self.open_frozen is None:
                raise Refused(f"model `{name}` is not at hand here")
            self._frozen[name] = self.open_frozen(name)
        return Tokens(self, seqs, self._frozen[name], name=name, grad=False, embeds=embeds)

    def grad(self, value: Tensor, of: Sequence[Tensor], create_graph: bool = False) -> tuple[Tensor, ...]:
        """Gradients of a scalar, inside a hook; the graph stays."""
        self.meter.backwards += 1
        made: tuple[Tensor, ...] = torch.autograd.grad(value, of, create_graph=create_graph, retain_graph=True)
        return made

    def keep(self) -> None:
        """Remember the weights as they are now: the stage ends with the last ones kept."""
        later = any(m.every for m in self.stack)  # what is still frozen may be trained afterwards
        self.kept = {n: p.detach().clone() for n, p in self.model.named_parameters() if later or p.requires_grad}

    # --- randomness and records -----------------------------------------------------------------------------------
    def rng(self, purpose: str, row: str | None = None) -> torch.Generator:
        """A generator keyed by seed, purpose, stage, step and row: no state to save, no order to keep. Inside
        `tok.vocab` the row is the slice's own."""
        step = "encode" if self._encoding else self.step
        return randomness.generator(
            self.seed, purpose, self.stage.name, step, self._row if row is None else row, device=self.device
        )

    @contextmanager
    def drawing_for(self, row: str) -> Iterator[None]:
        """Numbers drawn inside belong to a row. Undone in any case: a recomputed slice may end by raising."""
        before, self._row = self._row, row
        try:
            yield
        finally:
            self._row = before

    def log(self, **values: float) -> None:
        """Numbers for this step's line of the curve."""
        self.logged |= values

    def log_mean(self, **values: Tensor) -> None:
        """Likewise, the mean over all elements that the micro-batches or the pools of a step give in turn."""
        for name, given in values.items():
            total, count = self.means.get(name, (0.0, 0))
            self.means[name] = total + float(given.sum()), count + given.numel()
            self.logged[name] = self.means[name][0] / max(self.means[name][1], 1)

    def save(self, name: str, value: Any) -> None:
        """A side file of the artifact: tensors or plain values, under a name."""
        self.saved[name] = value

    def note(self, row: str, **fields: Any) -> None:
        """What a ledger of rows is to say of one, by its id: plain values. While rows are curated or made."""
        self.notes.setdefault(row, {}).update(fields)

    # --- answers ----------------------------------------------------------------------------------------------------
    def generate(self, requests: Sequence[Request], model: str = "live", n: int = 1) -> list[list[Response]]:
        """n answers of a model to every request, each with a sampling seed of its own. Requests are sent as they are:
        nobody's `prompt` changes them. Needs `generator` among the method's needs."""
        asked = [
            r.but(seed=randomness.number(self.seed, "generate", self.stage.name, self.step, r.key, i) >> 32)
            for r in requests
            for i in range(n)
        ]
        given = self._answers(asked, model)
        return [given[i : i + n] for i in range(0, len(given), n)]

    def choose(self, requests: Sequence[Request], model: str = "live") -> list[Response]:
        """The log-probabilities of every request's choices under a model."""
        return self._answers(list(requests), model)

    def _answers(self, requests: list[Request], model: str) -> list[Response]:
        if self.generator is None:
            raise Refused("nothing generates here", todo="the method says `generator` among its needs")
        given = self.generator.answer(requests, model)
        self.meter.answered(sum(r.prompt_tokens for r in given), sum(len(r.tokens) for r in given))
        return given

    def contradiction(self, pairs: Sequence[tuple[str, str]], model: str) -> list[float]:
        """P(contradiction) of each (premise, hypothesis) under an NLI model, a folder. Needs `nli`."""
        if self.nli is None:
            self.nli = Classifier(Path(model), self.device)
        before = self.nli.read
        found = self.nli.contradiction(pairs)
        self.meter.forward("nli", self.nli.read - before, training=False)
        return found

    def verify(self, rolls: Rolls) -> Tensor:
        """What the scorers of the suites give each answer to its own row, [sequences]."""
        from harness.training.verify import scores

        return torch.tensor(scores(rolls.source, rolls.text), device=self.device)

    # --- services that this trainer does not have -----------------------------------------------------------------
    def _absent(self, service: str) -> NoReturn:
        raise Refused(f"`ctx.{service}` needs a service that the native trainer does not offer")

    def embed(self, *args: Any, **options: Any) -> NoReturn:
        self._absent("embed")

    def search(self, *args: Any, **options: Any) -> NoReturn:
        self._absent("search")

    def judge(self, *args: Any, **options: Any) -> NoReturn:
        self._absent("judge")
