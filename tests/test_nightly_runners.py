"""What `runners/nightly/` ships: files that name the command as it is, and stay readable by what reads them."""

from __future__ import annotations

import configparser
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from harness.cli import make_parser

FOLDER = Path(__file__).resolve().parents[1] / "runners" / "nightly"


def commands() -> list[list[str]]:
    """Every `harness ...` of the three examples, as words."""
    service = configparser.ConfigParser(strict=False, interpolation=None)
    service.read(FOLDER / "harness-nightly.service")
    lines = [service["Service"]["ExecStart"], (FOLDER / "crontab").read_text().splitlines()[-1].partition(">>")[0]]
    steps = yaml.safe_load((FOLDER / "workflow.yaml").read_text())["jobs"]["gate"]["steps"]
    lines += [line.strip() for step in steps for line in step.get("run", "").splitlines() if "harness nightly" in line]
    return [shlex.split(line.partition("bin/harness ")[2].replace('"$GATE"', "both")) for line in lines]


def test_every_example_runs_a_command_that_exists() -> None:
    parsed = [make_parser().parse_args(words) for words in commands()]
    assert len(parsed) == 3
    assert {args.command for args in parsed} == {"nightly:nightly"}
    assert all(args.bisect and args.report for args in parsed)


def test_the_workflow_keeps_forks_away_and_nights_apart() -> None:
    workflow = yaml.safe_load((FOLDER / "workflow.yaml").read_text())
    assert "head.repo.full_name == github.repository" in workflow["jobs"]["gate"]["if"]
    assert workflow["concurrency"]["cancel-in-progress"] is False
    assert workflow["permissions"] == {"contents": "read"}


def test_the_script_of_the_workflow_passes_codes_on_and_warns_of_five(tmp_path: Path) -> None:
    steps = yaml.safe_load((FOLDER / "workflow.yaml").read_text())["jobs"]["gate"]["steps"]
    script = next(step["run"] for step in steps if "harness nightly" in step.get("run", ""))
    fake = tmp_path / ".venv" / "bin" / "harness"
    fake.parent.mkdir(parents=True)
    for code, expected in ((0, 0), (3, 3), (4, 4), (1, 1), (5, 0)):
        fake.write_text(f"#!/bin/sh\nmkdir -p report; echo VERDICT > report/report.md; exit {code}\n")
        fake.chmod(0o755)
        env = {"PATH": "/usr/bin:/bin", "GATE": "both", "GITHUB_STEP_SUMMARY": str(tmp_path / "summary")}
        done = subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == expected
        assert ("::warning::VERDICT" in done.stdout) == (code == 5)


def test_systemd_reads_its_files() -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze here")
    files = [str(FOLDER / f"harness-nightly.{kind}") for kind in ("service", "timer")]
    done = subprocess.run(["systemd-analyze", "verify", *files], capture_output=True, text=True)
    assert "Unknown" not in done.stderr
    assert "Failed to parse" not in done.stderr
