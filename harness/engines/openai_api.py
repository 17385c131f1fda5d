"""A client of any OpenAI-compatible chat completions endpoint, on the standard library.

Temperature 0, several requests in flight, patience with a busy or failing service. It is no engine: an endpoint serves
no artifacts of ours. The key is read from an environment variable when it is needed, is sent to that endpoint alone
(not on to where it redirects), and is written nowhere.
"""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any

from harness.engines.base import Request, Response
from harness.errors import HarnessError
from harness.matrix.schema import JudgeSettings

_BUSY = {408, 409, 425, 429, 500, 502, 503, 504, 529}
_LONGEST_WAIT = 60.0  # seconds between two tries
_TOO_LONG = ("context_length_exceeded", "context length", "context window", "prompt is too long")
_REFUSED = ("content_filter", "content management policy")
_BODY = 1 << 20  # bytes of a reply that are read


@dataclass
class ChatEndpoint:
    """url: of `/chat/completions`.  pause: seconds before the second try, doubled for each one after.

    reported: the names by which the endpoint's replies call their model, which may move behind one name.
    """

    url: str
    model: str
    key: str = field(default="", repr=False)
    at_once: int = 4
    timeout: float = 120.0
    tries: int = 6
    pause: float = 1.0
    reported: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, settings: JudgeSettings) -> ChatEndpoint:
        """HarnessError if the variable that should hold the key is not set."""
        assert settings.endpoint is not None
        key = os.environ.get(settings.key_variable, "").strip() if settings.key_variable else ""
        if settings.key_variable and not key:
            raise HarnessError(
                f"the variable {settings.key_variable}, which holds the key of the judge's endpoint, is not set",
                todo=f"export {settings.key_variable}=..., then run the same command again",
            )
        url = f"{settings.endpoint}/chat/completions"
        return cls(url, settings.model, key, settings.at_once, settings.timeout, settings.tries)

    def fits(self, request: Request) -> bool:
        """Only the endpoint knows; a request that it finds too long is answered with the finish "too_long"."""
        return True

    def facts(self) -> dict[str, Any]:
        return {"reported_models": sorted(self.reported)}

    def answer(self, requests: Sequence[Request]) -> Iterator[Response]:
        """Answer "generate" requests, each as soon as it is finished.

        finish: "stop", "length", "too_long" or "refused" (a filter of the endpoint). HarnessError if the endpoint
        refuses for another reason, or does not answer after all tries.
        """
        pool = ThreadPoolExecutor(self.at_once)
        try:
            for done in as_completed([pool.submit(self._ask, request) for request in requests]):
                yield done.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, request: Request) -> Response:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [dict(message) for message in request.messages or ()],
            "temperature": request.temperature,
            "max_tokens": request.max_tokens,
        }
        if request.stop:
            body["stop"] = list(request.stop)
        why = ""
        for number in range(self.tries):
            try:
                return self._read(request.key, self._post(body))
            except urllib.error.HTTPError as error:
                said = self._clean(error.read(_BODY).decode("utf-8", "replace"))
                if error.code not in _BUSY:
                    return self._not_answered(request.key, error.code, said)
                why, wait = f"status {error.code}: {said}", _seconds(error.headers.get("Retry-After"))
            except (OSError, http.client.HTTPException, ValueError) as error:  # the network; or no chat completion
                why, wait = self._clean(f"{type(error).__name__}: {error}"), 0.0
            if number + 1 < self.tries:
                time.sleep(min(_LONGEST_WAIT, max(wait, self.pause * 2**number)))
        raise HarnessError(
            f"the judge's endpoint did not answer in {self.tries} tries",
            where=self.url,
            why=why,
            todo="run the same command again; it goes on from here",
        )

    def _post(self, body: dict[str, Any]) -> Any:
        sent = urllib.request.Request(self.url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        if self.key:
            sent.add_unredirected_header("Authorization", f"Bearer {self.key}")
        with urllib.request.urlopen(sent, timeout=self.timeout) as reply:
            return json.loads(reply.read(_BODY))

    def _read(self, key: str, body: Any) -> Response:
        """ValueError for anything but a chat completion."""
        try:
            choice, usage = body["choices"][0], body.get("usage") or {}
            text, finish = choice["message"].get("content") or "", choice.get("finish_reason") or "stop"
            counts = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise ValueError(f"no chat completion: {json.dumps(body)[:200]}") from error
        self.reported.add(str(body.get("model") or self.model))
        known = {"length": "length", "content_filter": "refused"}
        return Response(key, str(text), known.get(finish, "stop"), prompt_tokens=counts[0], generated_tokens=counts[1])

    def _not_answered(self, key: str, code: int, said: str) -> Response:
        """What a refusal means: this request cannot be judged, or nothing can."""
        if code in (400, 413, 422):
            if code == 413 or any(phrase in said.lower() for phrase in _TOO_LONG):
                return Response(key, finish="too_long")
            if any(phrase in said.lower() for phrase in _REFUSED):
                return Response(key, finish="refused")
        todo = {
            401: "check the key in the variable that `judge.key_variable` names",
            403: "check the key in the variable that `judge.key_variable` names",
            404: "check `judge.endpoint` (it ends before `/chat/completions`) and `judge.model`",
        }.get(code, "check `judge:` in the matrix")
        raise HarnessError(f"the judge's endpoint refused: status {code}", where=self.url, why=said, todo=todo)

    def _clean(self, text: str) -> str:
        """One short line without the key."""
        short = " ".join(text.split())
        return (short.replace(self.key, "***") if self.key else short)[:300]


def _seconds(header: str | None) -> float:
    """What a `Retry-After` asks for, where it is a number."""
    try:
        return max(0.0, float(header or 0))
    except ValueError:
        return 0.0
