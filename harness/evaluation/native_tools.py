"""Refuses, while planning, tasks in a model's own tool format where the model has none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.data.models import ModelSource
from harness.data.templates import shows_tools
from harness.errors import Problems, Refused
from harness.evaluation.task import Task


def check_tools(models: Mapping[str, ModelSource | None], tasks: Sequence[Task]) -> None:
    """Problems where tasks offer tools and a model's chat template renders the same text with and without them.

    models: by their name in the matrix.  One without a template at all is refused for that, elsewhere.
    """
    native = [task.name for task in tasks if task.form.tools]
    if not native:
        return
    blind = {label for label, model in models.items() if model and model.chat_template and not shows_tools(model)}
    if blind:
        raise Problems([_refusal(label, native) for label in sorted(blind)])


def _refusal(label: str, native: Sequence[str]) -> Refused:
    prompted = ", ".join(f"`{name.removesuffix('_native')}`" for name in native)
    return Refused(
        f"model `{label}` cannot be asked {', '.join(f'`{name}`' for name in native)} in its own tool format",
        why="its chat template writes the same text with and without tools",
        todo=f"leave these tasks out, ask in prompt mode ({prompted}), or use a model whose template shows tools",
    )
