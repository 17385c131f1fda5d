"""Which source is at work, and whether it has changes of its own: in a checkout, and as pip installed it."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import metadata
from pathlib import Path

import pytest

from harness import source

COMMIT = "0123456789" * 4


def install(root: Path, direct_url: object) -> None:
    """A package of one file as pip leaves it; direct_url: what pip notes about where it came from."""
    (root / "harness").mkdir()
    (root / "harness" / "source.py").write_text("x = 1\n")
    info = root / "harness-0.0.dist-info"
    info.mkdir()
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"x = 1\n").digest()).rstrip(b"=").decode()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: harness\nVersion: 0.0\n")
    (info / "RECORD").write_text(f"harness/source.py,sha256={digest},6\nharness-0.0.dist-info/RECORD,,\n")
    if direct_url is not None:
        (info / "direct_url.json").write_text(json.dumps(direct_url))


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(source, "__file__", str(tmp_path / "harness" / "source.py"))
    info = tmp_path / "harness-0.0.dist-info"
    monkeypatch.setattr(metadata, "distribution", lambda name: metadata.PathDistribution(info))
    return tmp_path


def state() -> tuple[str | None, bool | None]:
    found = source.source_state.__wrapped__()
    return found["commit"], found["clean"]


def test_a_package_that_pip_took_from_a_repository_knows_its_commit_until_a_file_changes(installed: Path) -> None:
    install(installed, {"url": "https://example.org/harness", "vcs_info": {"vcs": "git", "commit_id": COMMIT}})
    assert state() == (COMMIT, True)
    (installed / "harness" / "source.py").write_text("x = 2\n")
    assert state() == (COMMIT, False)
    (installed / "harness" / "source.py").unlink()
    assert state() == (COMMIT, False)


@pytest.mark.parametrize("direct_url", [None, {"url": "file:///harness.whl", "archive_info": {}}])
def test_a_wheel_from_elsewhere_tells_nothing(installed: Path, direct_url: object) -> None:
    install(installed, direct_url)
    assert state() == (None, None)


def test_metadata_of_another_installation_is_not_taken_for_this_one(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(installed, {"vcs_info": {"vcs": "git", "commit_id": COMMIT}})
    monkeypatch.setattr(source, "__file__", str(installed / "elsewhere" / "harness" / "source.py"))
    assert state() == (None, None)


def test_this_checkout_has_a_commit() -> None:
    if not (Path(__file__).parents[1] / ".git").exists():
        pytest.skip("no git checkout")
    commit, clean = state()
    assert commit is not None and len(commit) == 40 and isinstance(clean, bool)
