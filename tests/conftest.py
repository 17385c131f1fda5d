"""Fixtures that several test files share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from tests.runs import harness, write_matrix
from tests.tiny import make_tiny_model

MIRROR = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random chat model (see tests/tiny.py)."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny"), context=4096)


@pytest.fixture(scope="session")
def tiny_model_without_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model without a chat template."""
    return make_tiny_model(tmp_path_factory.mktemp("bare"), chat=False)


@pytest.fixture(scope="session")
def site_of_a_run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The pages that `harness site` makes of a small run: a base and a fine-tune that were trained and asked."""
    folder = tmp_path_factory.mktemp("run")
    write_matrix(folder, tiny_model)
    harness(folder, "run", "small.yaml", "--only", "base", "--only", "sft")
    out, _ = harness(folder, "site", "small.yaml", "--out", "pages", "--title", "Mine", "--outputs")
    assert out == "pages/index.html: 2 cells; open it in a browser\n"
    return folder / "pages"


@pytest.fixture(scope="session")
def mirror() -> Path:
    """The mirror of real data sets that may lie beside the checkout; the test is skipped where it does not."""
    if not (MIRROR / "mirror.yaml").exists():
        pytest.skip("no data mirror at ../shared/data")
    return MIRROR
