"""CLEAR with and without NLI: confidences, the filter, what is replaced, and both trainings."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import methods
from harness.engines.base import Request, Response
from harness.errors import HarnessError, Refused
from harness.methods import clear_asking as asking
from harness.methods.base import Method, Stage
from harness.methods.clear import Clear, cut
from harness.methods.clear_logit import ClearLogit
from harness.methods.clear_steps import Pair, Settings, agree_by_text, grade_by_label, grade_by_text, judge
from harness.methods.clear_steps import score as scored
from harness.methods.confidence import (
    action,
    agreement,
    confidence,
    expected,
    kept,
    observed,
    token_f1,
    with_median,
)
from harness.methods.lora import LoRA
from harness.methods.sft import SFT
from harness.methods.sstoken import SsToken
from harness.training.adapters import make
from harness.training.context import Context
from harness.training.curation import curate
from tests.scripted_generator import Apart, Sums, sums
from tests.training import Watch, train

Kind = type[Clear] | type[ClearLogit]
BOTH = pytest.mark.parametrize("kind", [Clear, ClearLogit], ids=["clear", "clear_logit"])


def fed(kind: Kind, generator: Any, **params: Any) -> Method:
    """The method with what an engine and an NLI model would give it."""

    class Fed(kind):  # type: ignore[misc, valid-type]
        def curate(self, rows: Any, ctx: Any) -> Any:
            ctx.generator, ctx.nli = generator, Apart()
            return super().curate(rows, ctx)

        def stages(self, ctx: Any) -> list[Stage]:
            if ctx is not None:
                ctx.generator, ctx.nli = generator, Apart()
            return super().stages(ctx)  # type: ignore[no-any-return]

    return Fed(**params)


def context(generator: Any, seed: int = 0) -> Context:
    ctx = Context(seed=seed, device=torch.device("cpu"), tokenizer=None, limit=512, precision="fp32")
    ctx.generator, ctx.nli = generator, Apart()
    return ctx


def ways(kind: Kind) -> Any:
    from harness.methods.clear_logit import WAYS

    return WAYS if kind is ClearLogit else Clear()._ways()


# --- closed form ----------------------------------------------------------------------------------------------------
def test_the_worked_example() -> None:
    """o = 1, .72, .64, .16, .08; O = .52; grades A and C: S = .75; C = .589."""
    similar, equal = [1, 0.9, 0.8, 0.2, 0.1], [True, False, False, False, False]
    each = [observed([s], [r], 0.8) for s, r in zip(similar, equal, strict=True)]
    assert each == pytest.approx([1, 0.72, 0.64, 0.16, 0.08])
    assert observed(similar, equal, 0.8) == pytest.approx(0.52)
    assert confidence(0.52, (1 + 0.5) / 2, 0.7) == pytest.approx(0.589, abs=1e-12)


def test_the_worked_example_asked_of_a_model() -> None:
    """The same numbers through the requests: samples by similarity, grades A and C."""

    class Says:
        def answer(self, requests: Any, model: str) -> list[Response]:
            assert model == "base"
            samples = [i for i, r in enumerate(requests) if r.temperature > 0]
            return [
                Response(r.key, text=f"Answer: {'gold' if i == 0 else i}" if samples else "AC"[i % 2])
                for i, r in enumerate(requests)
            ]

    class Measured:
        read = 0
        values = (1, 0.9, 0.8, 0.2, 0.1)

        def contradiction(self, pairs: Any) -> list[float]:
            return [1 - s for s in self.values for _ in range(2)]

    ctx = context(Says())
    ctx.nli = Measured()
    row = {"id": "r", "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": " gold "}]}
    found = scored([row], Settings(), Clear()._ways(), ctx)["r"]
    assert (found.o, found.s, found.c) == pytest.approx((0.52, 0.75, 0.589))


def test_confidence_reaches_both_bounds_and_leaves_neither() -> None:
    assert confidence(observed([1] * 5, [True] * 5, 0.8) or 0, 1.0, 0.7) == pytest.approx(1)
    contradicted = [agreement(1.0, 1.0)] * 5
    assert confidence(observed(contradicted, [False] * 5, 0.8) or 0, 0.0, 0.7) == 0
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        s, r, alpha, beta, said = (torch.rand(5, generator=generator) for _ in range(5))
        seen = observed(s.tolist(), [v > 0.5 for v in r.tolist()], float(alpha[0]))
        assert seen is not None
        assert 0 <= confidence(seen, float(said[0]), float(beta[0])) <= 1


def test_similarity_is_symmetric_in_the_order_of_the_texts() -> None:
    assert agreement(0.3, 0.9) == agreement(0.9, 0.3) == pytest.approx(0.4)
    assert token_f1("a b b c", "b c d") == token_f1("b c d", "a b b c") == pytest.approx(4 / 7)
    assert (token_f1("Yes, 4!", "yes , 4 !"), token_f1("", ""), token_f1("a", "")) == (1, 1, 0)


def test_labels_are_renormalised() -> None:
    logs = [math.log(p) for p in (0.03, 0.01, 0.01)]
    assert expected(logs, [1, 0, 0.5]) == pytest.approx(0.03 / 0.05 + 0.5 * 0.01 / 0.05)
    assert expected([-900.0, -901.0], [1, 0]) == pytest.approx(1 / (1 + math.exp(-1)))


# --- the filter -----------------------------------------------------------------------------------------------------
FIVE = dict(zip("abcde", (0.9, 0.2, 0.6, 0.4, 0.6), strict=True))


def test_ties_at_the_median() -> None:
    assert kept(FIVE, "median", "half") == {"a", "c", "e"}
    assert kept(FIVE, "median", "strict") == {"a"}
    assert kept(dict.fromkeys("dcba", 0.5), "median", "half") == {"a", "b"}
    assert kept(dict.fromkeys("dcba", 0.5), "median", "strict") == set()
    assert kept(FIVE, 0.6, "half") == {"a"}
    assert kept(FIVE, 0.3, "strict") == {"a", "c", "d", "e"}


def test_a_row_without_a_confidence_counts_as_the_median_and_none_at_all_is_an_error() -> None:
    assert with_median({"a": 0.1, "b": None, "c": 0.5, "d": 0.7})["b"] == 0.5
    with pytest.raises(HarnessError, match="not one sampled answer could be read"):
        with_median({"a": None})


@pytest.mark.parametrize(("p", "stays", "wanted"), [
    (0.8, True, "keep"), (0.8, False, "drop"), (0.1 + 0.7, False, "drop"), (0.8000001, False, "replace"),
    (0.81, True, "replace"), (None, True, "keep"), (None, False, "drop"), (0.0, True, "keep"),
])  # fmt: skip
def test_at_the_threshold_nothing_is_replaced(p: float | None, stays: bool, wanted: str) -> None:
    assert action(stays, p, 0.8) == wanted


def area(confidences: dict[str, float], bad: set[str]) -> float:
    """AUROC of the confidence for rows that are not bad."""
    good = [c for i, c in confidences.items() if i not in bad]
    pairs = [(g > b) + 0.5 * (g == b) for g in good for i, b in confidences.items() if i in bad]
    return sum(pairs) / len(pairs)


@BOTH
@pytest.mark.parametrize("wrong", [0.0, 0.3])
def test_planted_noise_is_found(kind: Kind, wrong: float) -> None:
    rows, bad = sums(40, swapped=0.2)
    assert len(bad) == 8
    _, ledger = curate((fed(kind, Sums(wrong)),), rows, seed=0)
    confidences = {line["id"]: line["c"] for line in ledger}
    assert len(confidences) == 40
    assert area(confidences, bad) > 0.9
    if not wrong:
        assert confidences == pytest.approx({row["id"]: float(row["id"] not in bad) for row in rows}, abs=1e-5)
        stay = {line["id"] for line in ledger if line["action"] == "keep"}
        assert len(stay) == 20
        assert not stay & bad


@BOTH
def test_a_seed_decides_and_the_base_alone_scores(kind: Kind) -> None:
    rows, _ = sums(12)
    runs = [curate((fed(kind, generator := Sums(0.4)),), rows, seed=seed) for seed in (0, 0, 1)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    assert {model for model, _ in generator.calls} == {"base"}


# --- what is asked --------------------------------------------------------------------------------------------------
def test_samples_reason_and_then_answer_and_only_the_answer_is_read() -> None:
    assert asking.answer_part("So 3.\nAnswer: maybe\nAnswer: 4 \n", reason=True) == "4"
    assert asking.answer_part("I think 4", reason=True) is None
    assert asking.answer_part("Answer:  ", reason=True) is None
    assert asking.answer_part(" 4\n", reason=False) == "4"
    assert asking.answer_part("\n", reason=False) is None


@pytest.mark.parametrize(("text", "wanted"), [
    ("A", "A"), ("(B)", "B"), ("C) Not sure", "C"), ("The answer is B.", "B"), ("A\nBecause", "A"),
    ("A proposed answer", None), ("", None), ("Correct", None), ("ABC", None),
])  # fmt: skip
def test_letters_are_read_and_articles_are_not(text: str, wanted: str | None) -> None:
    assert asking.letter(text) == wanted


def test_a_conversation_is_asked_with_its_history_and_judged_by_its_last_answer() -> None:
    said = [("user", "one"), ("assistant", "two"), ("user", "three"), ("assistant", "four")]
    row = {"id": "r", "messages": [{"role": r, "content": c} for r, c in said]}
    request = asking.answer_request(row, reason=True, max_tokens=9)
    assert [m["content"].partition("\n")[0] for m in request.messages or ()] == ["one", "two", "three"]
    assert row["messages"][2]["content"] == "three"
    assert asking.target(row) == "four"
    assert asking.question(row) == "User: one\n\nAssistant: two\n\nUser: three"
    for other in ({"id": "r", "text": "t"}, {**row, "chosen": [], "rejected": []}, {**row, "messages": said[:1]}):
        with pytest.raises(HarnessError, match="not a conversation that ends with one"):
            asking.history(other)


def test_grades_that_cannot_be_read_count_half() -> None:
    class Mumbles:
        def answer(self, requests: Any, model: str) -> list[Response]:
            return [Response(r.key, text=("B", "who knows")[i % 2]) for i, r in enumerate(requests)]

    assert grade_by_text([Pair("x", "y")], context(Mumbles())) == [0.25]
    assert agree_by_text([("which?", "B")], Settings(k=4), context(Mumbles())) == [0.75]


def test_labels_stand_under_every_letter_equally_often() -> None:
    """A model that always prefers A, whatever stands there, says nothing."""

    class Likes:
        def answer(self, requests: Any, model: str) -> list[Response]:
            return [Response(r.key, logprobs=(0.0, -60.0, -60.0)) for r in requests]

    assert grade_by_label([Pair("x", "y"), Pair("z", "y")], context(Likes())) == pytest.approx([0.5, 0.5])
    assert len(asking.ORDERS) == 6


@BOTH
def test_both_orders_of_a_pair_take_the_bias_for_a_position_away(kind: Kind) -> None:
    class Likes:
        def answer(self, requests: Any, model: str) -> list[Response]:
            return [Response(r.key, "A", logprobs=(0.0, *[-60.0] * (len(r.choices) - 1))) for r in requests]

    rows, _ = sums(1)
    both = judge(rows, {"r00": "5"}, Settings(beta=1.0), ways(kind), context(Likes()))
    one = judge(rows, {"r00": "5"}, Settings(beta=1.0, swap_order=False), ways(kind), context(Likes()))
    assert (both["r00"], one["r00"]) == pytest.approx((0.5, 0.0))


def test_nli_sees_both_orders_with_the_question_before_both() -> None:
    ctx = context(Sums())
    assert Clear(span=2)._similar([("x", "a b c", "a b d"), ("x", "a b", "c")], ctx) == [1.0, 0.0]
    assert ctx.nli.pairs == [("x\na b", "x\na b")] * 2 + [("x\na b", "x\nc"), ("x\nc", "x\na b")]  # type: ignore[union-attr]
    assert cut("a  b", 2) == "a  b"


# --- correction -----------------------------------------------------------------------------------------------------
def after_filter(kind: Kind, generator: Any, rows: Any, **params: Any) -> tuple[Any, list[Any]]:
    """The rows of the stage `correct`, and what was noted of each."""
    method = fed(kind, generator, **params)
    sets, _ = curate((method,), rows, seed=0)
    ctx = context(generator)
    ctx.enter(Stage("correct"), (method,))
    for name, found in sets.items():
        ctx.add_rows(name, found)
    return method.correct(ctx), [{"id": i, **note} for i, note in ctx.notes.items()]  # type: ignore[attr-defined]


@BOTH
def test_wrong_answers_are_replaced_and_the_rest_of_the_poorer_half_is_left_out(kind: Kind) -> None:
    rows, bad = sums(20, swapped=0.2)
    generator = Sums()
    made, notes = after_filter(kind, generator, rows)
    done = {note["id"]: note["action"] for note in notes}
    assert {i for i, a in done.items() if a == "replace"} == bad
    assert list(done.values()).count("keep") == 10
    assert list(done.values()).count("drop") == 6  # right already: the tuned model says the same, so nothing changes
    assert {row["id"]: row for row in made} == {row["id"]: row for row in sums(20)[0] if done[row["id"]] != "drop"}
    assert {note["was"] for note in notes if note["action"] == "replace"} == {"7777"}
    assert all(set(note) >= {"action", "c", "O", "S", "p"} for note in notes)
    proposed = [r for model, r in generator.calls if model == "filter"]
    assert len(proposed) == 10
    assert all(r.temperature == 0 for r in proposed)
    assert {model for model, _ in generator.calls} == {"base", "filter"}


@BOTH
def test_scope_all_tries_every_row(kind: Kind) -> None:
    rows, _ = sums(8)
    generator = Sums()
    made, notes = after_filter(kind, generator, rows, scope="all")
    assert len([r for model, r in generator.calls if model == "filter"]) == 8
    assert [row["id"] for row in made] == [note["id"] for note in notes if note["action"] == "keep"]


@pytest.mark.parametrize("said", ["", "  ", "7777", " 7777\n"])
def test_a_new_answer_that_is_empty_or_equal_changes_nothing(said: str) -> None:
    rows, bad = sums(10, swapped=0.2)
    generator = Sums(proposals={row["messages"][0]["content"]: said for row in rows if row["id"] in bad})
    _, notes = after_filter(ClearLogit, generator, rows)
    assert {note["id"]: (note["action"], note["p"]) for note in notes if note["id"] in bad} == dict.fromkeys(
        bad, ("drop", None)
    )


def test_an_unfinished_new_answer_changes_nothing() -> None:
    class Cut(Sums):
        def _one(self, request: Request, model: str) -> Response:
            said = super()._one(request, model)
            return said if model == "base" else Response(said.key, said.text, "length")

    rows, _ = sums(10, swapped=0.2)
    _, notes = after_filter(ClearLogit, Cut(), rows)
    assert "replace" not in {note["action"] for note in notes}


def test_a_worse_answer_is_not_taken() -> None:
    rows, _ = sums(10)
    generator = Sums(proposals={row["messages"][0]["content"]: "1" for row in rows})
    for kind in (Clear, ClearLogit):
        _, notes = after_filter(kind, generator, rows, scope="all")
        assert {note["action"] for note in notes} == {"keep", "drop"}
        assert {note["p"] for note in notes if note["id"] != "r00"} == {0.0}


# --- training -------------------------------------------------------------------------------------------------------
@BOTH
def test_keeping_every_row_without_correction_is_sft_bit_for_bit_over_twenty_steps(
    tmp_path: Path, tiny_model: Path, kind: Kind
) -> None:
    rows, _ = sums(12, swapped=0.25)
    method = fed(kind, Sums(), gamma=-1.0, rounds=0)
    sets, ledger = curate((method,), rows, seed=0)
    assert sets == {"train": rows}
    assert {line["change"] for line in ledger} == {"kept"}
    mine, plain = Watch(), Watch()
    a = train(tmp_path / "a", tiny_model, method, LoRA(r=2), mine, sets=sets, steps=20)
    b = train(tmp_path / "b", tiny_model, SFT(), LoRA(r=2), plain, rows=rows, steps=20)
    assert a.curve == b.curve
    for x, y in zip(mine.gradients, plain.gradients, strict=True):
        assert all(torch.equal(x[n], y[n]) for n in x)


def stage_lines(work: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (work / name).read_text().splitlines()]


Stack = Callable[[Any], tuple[Method, ...]]


def both_stages(
    folder: Path, model: Path, generator: Any, stack: Stack, **options: Any
) -> tuple[Any, Any, dict[str, Any]]:
    rows, _ = sums(20, swapped=0.2)
    sets, _ = curate(stack(generator), rows, seed=0)
    first = train(folder / "0", model, *stack(generator), sets=sets, **options)
    done = {"filter": folder / "0" / "artifact"}
    second = train(folder / "1", model, *stack(generator), sets=sets, stage=1, done=done, **options)
    return first, second, {"sets": sets, "stage": 1, "done": done, **options}


def plain_stack(generator: Any) -> tuple[Method, ...]:
    return (fed(ClearLogit, generator), LoRA(r=2))


def test_both_trainings_start_from_the_base_and_the_second_leaves_a_ledger(tmp_path: Path, tiny_model: Path) -> None:
    first, second, given = both_stages(tmp_path, tiny_model, Sums(), plain_stack, steps=4)
    assert first.result.status == second.result.status == "ok"
    made = stage_lines(second.work, "rows.jsonl")
    for done, rows in ((first, given["sets"]["train"]), (second, made)):
        plain = train(tmp_path / f"plain{len(rows)}", tiny_model, LoRA(r=2), rows=rows, steps=1)
        assert done.losses[0] == plain.losses[0]
    lines = stage_lines(second.work, "ledger.jsonl")
    assert {(line["action"], line["change"]) for line in lines} == {
        ("keep", "kept"),
        ("replace", "changed"),
        ("drop", "dropped"),
    }
    assert {line["by"] for line in lines} == {"clear_logit"}
    assert len(lines) == 20
    assert [row["id"] for row in made] == sorted(line["id"] for line in lines if line["action"] != "drop")


def test_the_correction_is_continued_without_asking_again(tmp_path: Path, tiny_model: Path) -> None:
    _, whole, given = both_stages(tmp_path, tiny_model, Sums(), plain_stack, steps=12)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", tiny_model, *plain_stack(Sums()), Watch(4), checkpoint_seconds=1e-9, **given)
    silent = Sums()
    on = train(tmp_path / "on", tiny_model, *plain_stack(silent), Watch(), earlier=[tmp_path / "cut"], **given)
    assert on.result.summary["resumed_at"] == 3
    assert on.curve == whole.curve
    assert not silent.calls
    for name in ("rows.jsonl", "ledger.jsonl"):
        assert (on.work / name).read_bytes() == (whole.work / name).read_bytes()


def test_micro_batches_cannot_change_the_answer(tmp_path: Path, tiny_model: Path) -> None:
    losses = [
        both_stages(tmp_path / str(micro), tiny_model, Sums(), plain_stack, steps=4, micro_batch=micro)[1].losses
        for micro in (4, 2, 1)
    ]
    assert losses[1] == pytest.approx(losses[0], abs=1e-6)
    assert losses[2] == pytest.approx(losses[0], abs=1e-6)


@BOTH
def test_it_stacks_with_an_adapter_and_a_selection_of_tokens(tmp_path: Path, tiny_model: Path, kind: Kind) -> None:
    def stack(generator: Any) -> tuple[Method, ...]:
        return (fed(kind, generator), LoRA(r=2), SsToken(warmup=0.0))

    first, second, given = both_stages(tmp_path, tiny_model, Sums(), stack, steps=4)
    for done in (first, second):
        assert len(done.losses) == 2
        rows = given["sets"]["train"] if done is first else stage_lines(second.work, "rows.jsonl")
        whole = train(tmp_path / f"whole{len(rows)}", tiny_model, LoRA(r=2), rows=rows, steps=2).result.cost
        assert whole["trained_tokens"] == done.result.cost["trained_tokens"]
        assert whole["loss_tokens"] > done.result.cost["loss_tokens"]
        assert done.result.cost["extra_forward_tokens"]["base"] == done.result.cost["trained_tokens"]
    assert json.loads((second.work / "artifact" / "artifact.json").read_text())["kind"] == "adapter"


def test_two_rounds_ask_the_model_of_the_round_before() -> None:
    rows, _ = sums(8)
    method = fed(ClearLogit, generator := Sums(), rounds=2)
    assert [s.name for s in method.stages(None)] == ["filter", "correct", "correct2"]
    assert {s.init for s in method.stages(None)} == {"base"}
    sets, _ = curate((method,), rows, seed=0)
    ctx = context(generator)
    ctx.enter(Stage("correct2"), (method,))
    for name, found in sets.items():
        ctx.add_rows(name, found)
    method.correct(ctx)  # type: ignore[attr-defined]
    assert {model for model, _ in generator.calls} == {"base", "correct"}


# --- plan and NLI ---------------------------------------------------------------------------------------------------
def nli_folder(folder: Path, labels: dict[int, str]) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"id2label": labels}))
    return folder


def test_without_an_nli_model_it_is_refused_with_what_to_do(tmp_path: Path) -> None:
    native = make("native")
    with pytest.raises(Refused, match="`clear` needs a model for natural language inference") as caught:
        native.check(methods.build((("clear", {}), ("lora", {}), ("sstoken", {}))))
    assert "parameter `nli`" in str(caught.value)
    folder = nli_folder(tmp_path / "nli", {0: "entailment", 1: "neutral", 2: "contradiction"})
    native.check(methods.build((("clear", {"nli": str(folder)}), ("lora", {}), ("sstoken", {}))))
    native.check(methods.build((("clear_logit", {}), ("lora", {}), ("sstoken", {}))))


def test_a_folder_that_cannot_serve_is_refused_when_it_is_named(tmp_path: Path) -> None:
    unnamed = nli_folder(tmp_path / "unnamed", {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"})
    for given, said in (
        ("nli", "absolute path"),
        (str(tmp_path), "no model in this folder"),
        (str(unnamed), "its labels are LABEL_0, LABEL_1, LABEL_2"),
    ):
        with pytest.raises(HarnessError, match=said):
            methods.build((("clear", {"nli": given}),))


def test_two_owners_of_stages_are_refused() -> None:
    with pytest.raises(Refused, match="`clear_logit` and `lt_sft` both change `stages`"):
        methods.build((("clear_logit", {}), ("lt_sft", {})))


@pytest.mark.parametrize(
    "order", [("contradiction", "neutral", "entailment"), ("ENTAILMENT", "NEUTRAL", "CONTRADICTION")]
)
def test_a_model_is_read_by_the_order_of_its_own_labels(tmp_path: Path, order: tuple[str, str, str]) -> None:
    import transformers

    from tests.tiny import make_tiny_encoder

    folder = make_tiny_encoder(tmp_path / "nli", "bert")
    config = transformers.BertConfig.from_pretrained(folder)
    config.id2label = dict(enumerate(order))
    config.num_labels = 3
    torch.manual_seed(0)
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    pairs = [("the film is good", "the film is bad"), ("a play", "the cast was great"), ("good " * 200 + "bad", "bad")]
    ctx = Context(seed=0, device=torch.device("cpu"), tokenizer=None, limit=1, precision="fp32")
    found = ctx.contradiction(pairs, str(folder))
    at = [name.lower() for name in order].index("contradiction")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        alone = [model(**tokenizer(a, b, return_tensors="pt")).logits.softmax(-1)[0, at] for a, b in pairs[:2]]
    assert found[:2] == pytest.approx([float(p) for p in alone], abs=1e-5)
    assert [ctx.contradiction([pair], str(folder))[0] for pair in pairs] == pytest.approx(found, abs=1e-5)
    end = ("good " * 400 + "bad", "bad")
    assert ctx.contradiction([end], str(folder)) == pytest.approx([found[2]], abs=1e-5)
    other = ("good " * 200 + "great", "bad")
    assert ctx.contradiction([other], str(folder))[0] != pytest.approx(found[2], abs=1e-7)
