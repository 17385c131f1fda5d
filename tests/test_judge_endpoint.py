"""The client of an OpenAI-compatible endpoint, against a server on the loopback interface."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.engines.base import EngineSpec, Request
from harness.engines.openai_api import ChatEndpoint
from harness.errors import HarnessError
from harness.evaluation.judge.judges import JudgeSpec, open_judge
from harness.matrix.schema import JudgeSettings
from tests.scripted_judge import Endpoint, Reply, completion

KEY = "sk-very-secret"


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def question(text: str) -> Request:
    return Request(messages=({"role": "user", "content": text},), max_tokens=5)


def client(endpoint: Endpoint, **settings: Any) -> ChatEndpoint:
    return ChatEndpoint(f"{endpoint.url}/chat/completions", "m", KEY, pause=0.01, timeout=5, **settings)


def error(status: int, message: str, **headers: str) -> Reply:
    return status, headers, json.dumps({"error": {"message": message}}).encode()


def test_every_request_gets_its_own_answer() -> None:
    with Endpoint(lambda body, n: completion(body["messages"][0]["content"] * 2)) as endpoint:
        judge = client(endpoint, at_once=8)
        asked = [question(f"q{i}") for i in range(40)]
        found = {r.key: r for r in judge.answer(asked)}
        assert {r.key: found[r.key].text for r in asked} == {r.key: f"q{i}" * 2 for i, r in enumerate(asked)}
        assert {(r.finish, r.prompt_tokens, r.generated_tokens) for r in found.values()} == {("stop", 7, 3)}
        body, authorization = endpoint.asked[0]
        assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0.0, 5)
        assert authorization == f"Bearer {KEY}" and KEY not in json.dumps(body)
        assert judge.facts() == {"reported_models": ["scripted-1"]}


@pytest.mark.parametrize("busy", [error(429, "slow down", **{"Retry-After": "0"}), error(500, "oops"), error(503, "")])
def test_a_busy_endpoint_is_asked_again(busy: Reply) -> None:
    with Endpoint(lambda body, n: busy if n < 3 else completion("fine")) as endpoint:
        (reply,) = client(endpoint).answer([question("q")])
        assert reply.text == "fine" and len(endpoint.asked) == 3


@pytest.mark.parametrize("junk", [b"<html>", b"{}", b'{"choices": []}', b"[1]", b'{"choices": [{"message": null}]}'])
def test_a_reply_that_is_none_is_asked_again_and_then_reported(junk: bytes) -> None:
    with Endpoint(lambda body, n: (200, {}, junk)) as endpoint:
        with pytest.raises(HarnessError, match="did not answer in 3 tries") as caught:
            list(client(endpoint, tries=3).answer([question("q")]))
        assert len(endpoint.asked) == 3 and "goes on from here" in caught.value.todo


def test_an_endpoint_that_is_not_there_is_named() -> None:
    with Endpoint(lambda body, n: completion("")) as endpoint:
        judge = client(endpoint, tries=2)
    with pytest.raises(HarnessError, match="did not answer in 2 tries") as caught:
        list(judge.answer([question("q")]))
    assert "refused" in caught.value.why.lower()


@pytest.mark.parametrize(("status", "hint"), [(401, "key_variable"), (404, "judge.model"), (400, "judge:")])
def test_a_refusal_is_final_and_shows_no_key(status: int, hint: str, capfd: pytest.CaptureFixture[str]) -> None:
    with Endpoint(lambda body, n: error(status, f"bad key {KEY}")) as endpoint:
        with pytest.raises(HarnessError, match=f"status {status}") as caught:
            list(client(endpoint).answer([question("q")]))
        assert len(endpoint.asked) == 1
    assert hint in caught.value.todo and "bad key ***" in caught.value.why
    assert KEY not in str(caught.value) + repr(client(endpoint)) + "".join(capfd.readouterr())


def test_what_does_not_fit_or_is_filtered_is_an_answer_of_its_own() -> None:
    said = {
        "long": error(400, "This model's maximum context length is 8 tokens"),
        "bad": error(400, "content_filter triggered"),
        "mute": completion("", "content_filter"),
        "cut": completion("so", "length"),
    }
    with Endpoint(lambda body, n: said[body["messages"][0]["content"]]) as endpoint:
        asked = {question(text).key: text for text in said}
        found = {asked[r.key]: r.finish for r in client(endpoint).answer([question(text) for text in said])}
    assert found == {"long": "too_long", "bad": "refused", "mute": "refused", "cut": "length"}


def test_the_key_does_not_follow_a_redirect() -> None:
    with Endpoint(lambda body, n: completion("stolen")) as other:
        there = f"{other.url}/chat/completions"
        moved = Endpoint(lambda body, n: (307, {"Location": there}, b""))
        with moved as endpoint, pytest.raises(HarnessError, match="status 307"):
            list(client(endpoint).answer([question("q")]))
        assert other.asked == []


def test_a_key_that_is_not_set_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    settings = JudgeSettings(model="m", endpoint="http://h/v1/", key_variable="JUDGE_KEY")
    assert settings.endpoint == "http://h/v1"
    with pytest.raises(HarnessError, match="JUDGE_KEY"):
        open_judge(JudgeSpec(settings, EngineSpec()))
    monkeypatch.setenv("JUDGE_KEY", KEY)
    assert KEY not in repr(open_judge(JudgeSpec(settings, EngineSpec())))
