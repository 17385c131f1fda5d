"""The step functions: tune, data, train, generate (by an engine or by trained heads), judge, score, overlap, items.

Each works inside one claimed attempt and publishes it. They run in workers (`jobs/worker.py`); what they need was
resolved by the plan, what they leave is in the store.
"""

from harness.steps.bench import Bench
from harness.steps.data import run_data
from harness.steps.generate import run_generate
from harness.steps.head import run_heads
from harness.steps.items import run_items
from harness.steps.judge import run_judge
from harness.steps.overlap import run_overlap
from harness.steps.score import run_score
from harness.steps.train import run_train
from harness.steps.tune import run_tune

__all__ = [
    "Bench",
    "run_data",
    "run_generate",
    "run_heads",
    "run_items",
    "run_judge",
    "run_overlap",
    "run_score",
    "run_train",
    "run_tune",
]
