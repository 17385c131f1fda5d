"""harness: fine-tune every model x method pair, evaluate every result, compare honestly."""

__version__ = "0.1.0"
