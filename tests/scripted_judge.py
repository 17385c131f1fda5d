"""A judge that follows a script, and an endpoint on the loopback interface that it answers at."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from harness.evaluation.judge.calibration import items

Messages = list[dict[str, str]]
Reply = tuple[int, dict[str, str], bytes]

BETTER = {item.question: item.better for item in items()}


def quoted(messages: Messages) -> list[str]:
    """What stands between marks: the question and one or two answers."""
    return [text for _, text in re.findall(r"<<(\w{8})\n(.*?)\n\1>>", messages[-1]["content"], re.DOTALL)]


def sound(messages: Messages) -> str:
    """Right on every calibration pair; otherwise the longer answer wins, and grades grow with length."""
    question, *answers = quoted(messages)
    if len(answers) == 2:
        best = BETTER.get(question) or max(answers, key=len)
        if answers[0] == answers[1]:
            return "They are the same.\nVerdict: tie"
        return f"One is better.\nVerdict: {answers.index(best) + 1}"
    asked = re.findall(r"^(\w+): <1 to (\d+)>$", messages[0]["content"], re.MULTILINE)
    top = int(asked[0][1])
    grade = (top if answers[0] == BETTER[question] else 1) if question in BETTER else 1 + len(answers[0]) % top
    return "\n".join(f"{name}: {grade}" for name, _ in asked)


def completion(text: str, finish: str = "stop") -> Reply:
    """A chat completion as an endpoint sends it."""
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": finish}
    usage = {"prompt_tokens": 7, "completion_tokens": 3}
    return 200, {}, json.dumps({"model": "scripted-1", "choices": [choice], "usage": usage}).encode()


class Endpoint:
    """`with Endpoint(answer) as e`: e.url answers at /v1/chat/completions with answer(body, number of the request).

    asked: bodies and authorization headers of what came in, in order.
    """

    def __init__(self, answer: Callable[[dict[str, Any], int], Reply]) -> None:
        endpoint = self
        self.asked: list[tuple[dict[str, Any], str]] = []
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    endpoint.asked.append((body, self.headers.get("Authorization", "")))
                    number = len(endpoint.asked)
                if self.path != "/v1/chat/completions":
                    status, headers, content = 404, {}, b'{"error": {"message": "no such route"}}'
                else:
                    status, headers, content = answer(body, number)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def __enter__(self) -> Endpoint:
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def judge_soundly(body: dict[str, Any], number: int) -> Reply:
    """An endpoint with the sound judge."""
    return completion(sound(body["messages"]))
