"""Strict YAML into pydantic models: every mistake at once, with file, line and the nearest valid name."""

from harness.config.loading import Loaded, load

__all__ = ["Loaded", "load"]
