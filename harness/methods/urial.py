"""`urial`: a constant prompt of a system text and worked exchanges that makes a base model answer as an assistant.

It trains nothing and leaves no file: what it is stands in the requests, and so in the key of their answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.errors import Refused
from harness.methods.base import Method, Stage
from harness.methods.facts import ModelFacts
from harness.methods.urial_examples import EXAMPLES, HELPFUL, INSTRUCTION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.engines.base import Message, Request

FENCE = "```"
ASKED, ANSWERED = "# Query:", "# Answer:"
STOPS = ("# Query", "# User")
CROWDED = 0.55  # share of a model's context above which P leaves too little room
CHARACTERS = 4  # about so many make a token of English; planning has no tokenizer to count with


class Params(BaseModel):
    """examples: exchanges before the question; the paper has 3, and 1 and 8 beside it.  style: "styled" answers, the
    same with a word problem for the refusal ("help"), or "plain" ones, which are ordinary in-context learning.

    instruction: whether the system text comes first.  template: turns between back-ticks ("fenced", one plain text),
    or turns of the model's own chat template ("chat").  keep_fences: leave code blocks in answers, and cut at the
    fence that closes the answer.  ends: tokens that end a text and are blanked where they stand in an answer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    examples: int = Field(default=3, ge=0, le=len(EXAMPLES))
    style: Literal["styled", "help", "plain"] = "styled"
    instruction: bool = True
    template: Literal["fenced", "chat"] = "fenced"
    keep_fences: bool = False
    ends: tuple[str, ...] = ("<|endoftext|>", "</s>")


class URIAL(Method):
    """The Unlocking Spell on Base LLMs: Rethinking Alignment via In-Context Learning, arXiv 2312.01552.

    Sent: P + "\\n# Query:\\n```\\n" + question + "\\n```\\n" + "\\n# Answer:\\n```\\n", where P is the system text and
    the exchanges in the same form; earlier turns of a conversation follow P likewise. Generation stops at "# Query"
    and "# User" besides the task's own stops. Of an answer every "```" is deleted, end tokens become a space, and it is
    stripped. A plain text that a task asks is the question, as one is a user's turn under a chat template.

    Defaults are the paper's: 3 exchanges, system text, fences. The system text and the exchanges are written anew and
    have the structure of the published ones (information, refusal, role-play), so rows are marked `urial_reauthored`.

    Deviations. A conversation's system turn is put before the question it precedes, so that P is the same for all. P
    is never shortened: a prompt that does not fit is refused or counts as wrong, as the matrix says, and where P alone
    would take more than 55 % of a model's context, by an estimate from its characters, the plan refuses it. Decoding is
    the task's, without the repetition penalty of the published runs. Deleting fences destroys code blocks, so take
    `keep_fences` for code. `template: chat` is ours; without exchanges and system text it is `base`, exactly.
    """

    name: ClassVar[str] = "urial"
    paper: ClassVar[str] = "arXiv 2312.01552"
    verified: ClassVar[str] = "the specification's rendered text; the empty prompt equals the base"
    family: ClassVar[str] = "prompt"
    Params: ClassVar[type[BaseModel]] = Params
    trains: ClassVar[bool] = False
    knobs: ClassVar[dict[str, tuple[float, float]]] = {"examples": (0, len(EXAMPLES))}
    flags = frozenset({"urial_reauthored: its examples are written anew in the published structure"})

    examples: int
    style: str
    instruction: bool
    template: str
    keep_fences: bool
    ends: tuple[str, ...]

    def check(self, model: ModelFacts, stack: Sequence[Method]) -> None:
        before = [turn for q, a in self._exchanges() for turn in _exchange(q, a)]
        size = sum(len(turn["content"]) for turn in before) + len(INSTRUCTION if self.instruction else "")
        tokens = size // CHARACTERS
        if model.context and tokens > CROWDED * model.context:
            raise Refused(
                f"the examples of `urial` take about {tokens} tokens, and the model holds {model.context}",
                why=f"more than {CROWDED:.0%} of the context would be the same for every question",
                todo="lower its `examples`",
            )

    def stages(self, ctx: Any) -> list[Stage]:
        return []

    def prompt(self, request: Request, ctx: Any) -> Request:
        turns = request.messages or ({"role": "user", "content": request.text},)
        before = [turn for q, a in self._exchanges() for turn in _exchange(q, a)]
        if self.template == "chat":
            if not (self.instruction or before):
                return request
            return request.but(messages=self._conversation(before, turns), text="")
        if request.tools:
            raise Refused(
                "`urial` writes a plain text, which cannot show a model the tools of a request",
                todo="set its `template: chat`, or leave that task out",
            )
        head = f"{INSTRUCTION_HEAD}{INSTRUCTION}\n" if self.instruction else ""
        text = head + "".join(map(_fenced, [*before, *_joined(turns)])) + f"\n{ANSWERED}\n{FENCE}\n"
        stops = tuple(s for s in STOPS if s not in request.stop) if request.kind == "generate" else ()
        return request.but(messages=None, text=text, stop=(*request.stop, *stops))

    def answer(self, text: str, request: Request, ctx: Any) -> str:
        if self.template == "chat":
            return text
        text = _closed(text) if self.keep_fences else text.replace(FENCE, "")
        for end in self.ends:
            text = text.replace(end, " ")
        for stop in STOPS:
            text = text.partition(stop)[0]
        return text.strip("\n").rstrip() if self.keep_fences else text.strip()  # code begins with its indentation

    def _conversation(self, before: Sequence[Message], turns: Sequence[Message]) -> tuple[Message, ...]:
        """One system turn, the request's own included, then the exchanges, then what is asked."""
        own = [turn["content"] for turn in turns if turn["role"] == "system"]
        texts = [INSTRUCTION, *own] if self.instruction else own
        system = [{"role": "system", "content": "\n\n".join(texts)}] if texts else []
        return (*system, *before, *(turn for turn in turns if turn["role"] != "system"))

    def _exchanges(self) -> list[tuple[str, str]]:
        chosen = (HELPFUL if self.style == "help" else EXAMPLES)[: self.examples]
        return [(e.query, e.plain if self.style == "plain" else e.styled) for e in chosen]


INSTRUCTION_HEAD = "# Instruction\n"


def _exchange(query: str, answer: str) -> tuple[Message, Message]:
    return {"role": "user", "content": query}, {"role": "assistant", "content": answer}


def _fenced(turn: Message) -> str:
    header = ANSWERED if turn["role"] == "assistant" else ASKED
    return f"\n{header}\n{FENCE}\n{turn['content']}\n{FENCE}\n"


def _joined(turns: Sequence[Message]) -> list[Message]:
    """Questions and answers in turn: what a system or a tool says belongs to the question beside it."""
    joined: list[Message] = []
    for turn in turns:
        role = "assistant" if turn["role"] == "assistant" else "user"
        if joined and joined[-1]["role"] == role:
            joined[-1] = {"role": role, "content": f"{joined[-1]['content']}\n\n{turn['content']}"}
        else:
            joined.append({"role": role, "content": turn["content"]})
    return joined


def _closed(text: str) -> str:
    """The answer up to the fence that closes it: a line of a fence alone, outside of any block the answer opened."""
    kept: list[str] = []
    inside = False
    for line in text.split("\n"):
        if line.startswith(FENCE):
            if not inside and line.rstrip() == FENCE:
                break
            inside = not inside or line.rstrip() != FENCE
        kept.append(line)
    return "\n".join(kept)
