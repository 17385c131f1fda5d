"""Stored answers: any text is read back, a torn line is left out; hooks change prompts and answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.engines.base import Request, Response
from harness.methods.base import Method
from harness.steps.responses import answered, prompted, read_responses

ODD = "one\u2028two\u2029three\x85four\nfive\r\nsix \U0001f600 \x00"


class Quote(Method):
    """Marks what it is asked, and takes its mark off the answer."""

    name = "quote"

    def __init__(self, mark: str) -> None:
        super().__init__()
        self.mark = mark

    def prompt(self, request: Request, ctx: Any) -> Request:
        return request.but(text=f"{self.mark}{request.text}")

    def answer(self, text: str, request: Request, ctx: Any) -> str:
        return f"{text}{self.mark}[{request.text}]"


def test_any_text_survives_and_a_torn_line_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "responses.jsonl"
    lines = [json.dumps(Response(key, ODD, "stop").as_json(), ensure_ascii=False) for key in ("a", "b")]
    file.write_text("\n".join(lines) + '\n{"key": "c", "te', encoding="utf-8")
    assert [(r.key, r.text) for r in read_responses(file)] == [("a", ODD), ("b", ODD)]
    assert list(read_responses(tmp_path / "none")) == []


def test_prompts_compose_in_order_and_answers_in_reverse_each_seeing_its_own_request() -> None:
    stack, request = (Quote("a"), Quote("b")), Request(text="q")
    assert [r.text for r in prompted(stack, request)] == ["q", "aq", "baq"]
    assert answered(stack, request, Response(request.key, "t")).text == "tb[aq]a[q]"
