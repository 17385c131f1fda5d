"""From rows to tokens, targets and batches."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError
from harness.methods.base import NO_TARGET
from harness.training.batches import Order, split, steps_for
from harness.training.data import read_rows
from harness.training.opening import open_tokenizer
from harness.training.schedule import lr_factor
from harness.training.sequences import Seq, encode_row


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return open_tokenizer(tiny_model)


def encode(tokenizer: Any, row: dict[str, Any], limit: int = 500) -> Seq:
    return encode_row({"id": "r", **row}, tokenizer, lambda request: request, limit=limit, where="d.jsonl")[0]


def learned(tokenizer: Any, seq: Seq) -> str:
    return str(tokenizer.decode([t for t in seq.targets if t != NO_TARGET]))


def turn(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


TWO_TURNS = [turn("user", "a?"), turn("assistant", "b."), turn("user", "c?"), turn("assistant", "d.")]


def test_the_answer_and_its_end_token_are_learned_and_nothing_else(tokenizer: Any) -> None:
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    seq = encode(tokenizer, {"messages": [turn("user", "hi"), turn("assistant", "yes")]})
    assert learned(tokenizer, seq) == "yes<|im_end|>"


def test_targets_are_the_next_tokens(tokenizer: Any) -> None:
    seq = encode(tokenizer, {"messages": TWO_TURNS})
    assert all(t in (NO_TARGET, n) for t, n in zip(seq.targets, seq.ids[1:], strict=False))
    assert seq.targets[-1] == NO_TARGET


def test_tokens_are_those_of_the_whole_rendered_conversation(tokenizer: Any) -> None:
    seq = encode(tokenizer, {"messages": TWO_TURNS})
    assert tokenizer.decode(seq.ids) == tokenizer.apply_chat_template(TWO_TURNS, tokenize=False)


def test_every_assistant_turn_is_learned(tokenizer: Any) -> None:
    assert learned(tokenizer, encode(tokenizer, {"messages": TWO_TURNS})) == "b.<|im_end|>d.<|im_end|>"


def test_a_message_of_weight_zero_is_read_and_not_learned(tokenizer: Any) -> None:
    messages = [TWO_TURNS[0], turn("assistant", "b.", weight=0), *TWO_TURNS[2:]]
    seq = encode(tokenizer, {"messages": messages})
    assert learned(tokenizer, seq) == "d.<|im_end|>"
    assert "b.<|im_end|>" in tokenizer.decode(seq.ids)


def test_plain_text_is_learned_from_its_second_token_to_the_end_token(tokenizer: Any) -> None:
    assert learned(tokenizer, encode(tokenizer, {"text": "abc"})) == "bc<|im_end|>"


def test_a_pair_gives_two_sequences_of_one_row(tokenizer: Any) -> None:
    row = {"id": "p", "chosen": TWO_TURNS[:2], "rejected": [TWO_TURNS[0], turn("assistant", "x")], "score": 3}
    chosen, rejected = encode_row(row, tokenizer, lambda request: request, limit=500, pairs=True)
    assert (chosen.view, rejected.view, chosen.row, rejected.row) == ("chosen", "rejected", "p", "p")
    assert chosen.columns == {"score": 3}


def test_where_no_pair_is_wanted_the_rejected_answer_is_left_alone(tokenizer: Any) -> None:
    row = {"chosen": TWO_TURNS[:2], "rejected": [TWO_TURNS[0], turn("assistant", "x")]}
    assert learned(tokenizer, encode(tokenizer, row)) == "b.<|im_end|>"
    assert encode(tokenizer, {**row, "messages": TWO_TURNS[2:]}).view == ""
    assert learned(tokenizer, encode(tokenizer, {**row, "messages": TWO_TURNS[2:]})) == "d.<|im_end|>"


def test_a_text_beside_a_conversation_is_a_column(tokenizer: Any) -> None:
    seq = encode(tokenizer, {"messages": TWO_TURNS[:2], "text": "the article"})
    assert learned(tokenizer, seq) == "b.<|im_end|>"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({}, "no `messages`"),
        ({"messages": [turn("user", "a")]}, "nothing to learn"),
        ({"messages": [turn("user", "a"), turn("assistant", "b", weight=0)]}, "nothing to learn"),
        ({"messages": [turn("user", "a"), turn("assistant", "b", weight=0.5)]}, "`weight` is 0 or 1, not 0.5"),
        ({"messages": [turn("user", "a" * 600), turn("assistant", "b")]}, "the longest row allowed is 500"),
        ({"messages": [{"from": "user", "value": "a"}]}, "an object with `role` and `content`"),
        ({"ids": [1, 2], "targets": [2]}, "differ in length"),
    ],
)
def test_a_row_that_cannot_be_learned_is_named_with_its_file(tokenizer: Any, row: dict[str, Any], says: str) -> None:
    with pytest.raises(HarnessError, match=says) as caught:
        encode(tokenizer, row)
    assert caught.value.where == "d.jsonl, row r"


def test_a_model_without_chat_template_is_refused_for_conversations(tiny_model_without_template: Path) -> None:
    bare = open_tokenizer(tiny_model_without_template)
    with pytest.raises(HarnessError, match="no chat template"):
        encode(bare, {"messages": TWO_TURNS})
    assert encode(bare, {"text": "abc"}).loss_tokens == 3


def test_a_template_that_rewrites_earlier_turns_is_refused_for_several_turns(tokenizer: Any) -> None:
    forgetful = "{% for m in messages %}{{ loop.length }}{{ m['role'] }}:{{ m['content'] }}<|im_end|>{% endfor %}"
    was, tokenizer.chat_template = tokenizer.chat_template, forgetful
    try:
        with pytest.raises(HarnessError, match="rewrites what came before message"):
            encode(tokenizer, {"messages": TWO_TURNS})
    finally:
        tokenizer.chat_template = was


def test_a_template_that_refuses_a_conversation_is_reported_with_its_reason(tokenizer: Any) -> None:
    was, tokenizer.chat_template = tokenizer.chat_template, "{{ raise_exception('roles must alternate') }}"
    try:
        with pytest.raises(HarnessError, match="refuses the conversation") as caught:
            encode(tokenizer, {"messages": TWO_TURNS})
    finally:
        tokenizer.chat_template = was
    assert caught.value.why == "roles must alternate"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the data set is empty"),
        ('{"id": "a"}\n{oops\n', r"rows.jsonl:2: not a line of JSON"),
        ('{"text": "a"}\n', "object with an `id`"),
        ('{"id": 1}\n{"id": 1}\n', "the id '1' is used twice"),
    ],
)
def test_a_bad_data_file_is_reported_with_file_and_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(HarnessError, match=says) as caught:
        read_rows(path)
    assert str(path) in str(caught.value)


def test_every_row_once_an_epoch_and_a_new_order_each_time() -> None:
    order = Order(rows=24, size=4, seed=0, length=lambda i: i)
    first, second = ([i for k in range(e * 6, e * 6 + 6) for i in order.batch(k)] for e in (0, 1))
    assert Counter(first) == Counter(second) == Counter(range(24))
    assert first != second


def test_batches_are_a_function_of_seed_and_number() -> None:
    one, again, other = (Order(40, 4, seed, lambda i: i % 7) for seed in (0, 0, 1))
    forwards = [one.batch(k) for k in range(20)]
    assert [again.batch(k) for k in reversed(range(20))] == forwards[::-1]
    assert [other.batch(k) for k in range(20)] != forwards


def test_rows_of_a_batch_are_of_similar_length() -> None:
    order = Order(rows=256, size=8, seed=0, length=lambda i: i)
    waste = [8 * max(b) - sum(b) for b in (order.batch(k) for k in range(32))]
    assert sum(waste) / sum(range(256)) < 0.05


def test_fewer_rows_than_a_batch_make_a_smaller_batch() -> None:
    order = Order(rows=3, size=8, seed=0, length=lambda i: 1)
    assert sorted(order.batch(5)) == [0, 1, 2]


def test_a_token_budget_pays_for_a_known_number_of_steps() -> None:
    order = Order(rows=10, size=2, seed=0, length=lambda i: 5)
    assert steps_for(40, order) == 4
    assert steps_for(41, order) == 5


def test_micro_batches_never_split_a_pair() -> None:
    def seq(row: str, view: str = "") -> Seq:
        return Seq(ids=(1,), targets=(NO_TARGET,), row=row, view=view)

    pairs = [seq(r, v) for r in "abc" for v in ("chosen", "rejected")]
    assert [[q.row for q in part] for part in split(pairs, 2)] == [list("aabb"), list("cc")]
    assert [len(part) for part in split([seq(r) for r in "abcde"], 2)] == [2, 2, 1]


@pytest.mark.parametrize(("kind", "last"), [("linear", 1 / 8), ("cosine", 0.0381), ("constant", 1.0)])
def test_the_learning_rate_rises_over_the_warmup_and_still_moves_at_the_end(kind: str, last: float) -> None:
    factors = [lr_factor(kind, 0.2, i / 10, (i + 1) / 10) for i in range(10)]
    assert factors[:3] == pytest.approx([0.5, 1.0, 1.0])
    assert factors[-1] == pytest.approx(last, abs=1e-3)
