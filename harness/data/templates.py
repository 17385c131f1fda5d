"""A model's chat template, read and rendered without its tokenizer: does it show tools to the model at all?

Planning may not import `transformers`, so the template is rendered with jinja2 alone, in its sandbox, with the names
and filters that templates rely on. It is compared with itself only: what a model gets is rendered by its tokenizer.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from harness.data import checkpoint
from harness.data.gguf_header import read_metadata
from harness.data.models import ModelSource

_GENERATION = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")  # marks of transformers, which say nothing in a prompt
_SAID: list[dict[str, Any]] = [{"role": "user", "content": "What is the time in Rome?"}]
_CALLED = {"name": "time_of_city", "description": "The time in a city.", "parameters": {"type": "object"}}
_TOOL: dict[str, Any] = {"type": "function", "function": _CALLED}
_TOOL["function"]["parameters"] |= {"properties": {"city": {"type": "string", "description": "its name"}}}
_TOOL["function"]["parameters"] |= {"required": ["city"]}


def shows_tools(model: ModelSource) -> bool:
    """Whether the model's template renders another text when it is given a tool. HarnessError for a damaged file."""
    if model.base is not None:
        return shows_tools(model.base)
    if model.kind == "gguf":
        return _renders_tools(str(read_metadata(model.path).get("tokenizer.chat_template") or ""))
    template = template_of(model.path)
    if isinstance(template, list):  # several by name, of which transformers takes this one where there are tools
        named = {entry["name"]: entry["template"] for entry in template}
        return "tool_use" in named or _renders_tools(named.get("default", ""))
    return (model.path / "additional_chat_templates" / "tool_use.jinja").exists() or _renders_tools(template)


def template_of(folder: Path) -> Any:
    written = folder / "chat_template.jinja"
    if written.exists():
        return written.read_text(encoding="utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        if template := (checkpoint.read_json(folder / name) or {}).get("chat_template"):
            return template
    return ""


def _renders_tools(template: str) -> bool:
    """A template that refuses a tool does not show it; one that cannot be rendered at all is left to the engine."""
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, **kwargs: json.dumps(value, ensure_ascii=False)
    environment.globals |= {"raise_exception": _refuse, "strftime_now": lambda form: form}
    names = {"add_generation_prompt": True, "bos_token": "<s>", "eos_token": "</s>", "messages": _SAID}
    try:
        compiled = environment.from_string(_GENERATION.sub("", template))
        without = compiled.render(**names, tools=None)
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError):
        return True
    try:
        return compiled.render(**names, tools=[_TOOL]) != without
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError):
        return False


def _refuse(message: str) -> str:
    from jinja2 import TemplateError

    raise TemplateError(message)
