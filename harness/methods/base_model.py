"""`base`: the model as it is, the row that every other method is compared with."""

from __future__ import annotations

from typing import Any, ClassVar

from harness.methods.base import Method, Stage


class BaseModel(Method):
    """Leaves the model as it is: nothing is trained, and the base model's own files are evaluated."""

    name: ClassVar[str] = "base"
    verified: ClassVar[str] = "nothing is changed"
    family: ClassVar[str] = "baseline"
    trains: ClassVar[bool] = False

    def stages(self, ctx: Any) -> list[Stage]:
        return []
