"""Programs of others as trainers: what they are told, what is kept of what they leave, and how they fail."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from harness import methods
from harness.errors import HarnessError, Refused, StepFailed
from harness.matrix import Budget, TrainSettings, load_matrix
from harness.matrix.schema import CommandTrainer
from harness.planning.plan import Where, make_plan
from harness.training.adapters import TrainResult, TrainTask, make
from tests.runs import harness, write_matrix
from tests.training import make_rows, train, write_rows

PROGRAM = """
import json, shutil, sys, time
from pathlib import Path
args = dict(zip(sys.argv[2::2], sys.argv[3::2]))
output = Path(args["--output"])
print("reading", sum(1 for _ in open(args["--data"])), "rows", flush=True)
if sys.argv[1] == "fail":
    print("\\rstep 1\\rstep 2", flush=True)
    sys.exit("no such optimiser")
if sys.argv[1] == "hang":
    time.sleep(600)
if sys.argv[1] != "nothing":
    shutil.copytree(args["--adapter"] if sys.argv[1] == "adapter" else args["--model"], output)
    (output / "checkpoint-1").mkdir()
    (output / "checkpoint-1" / "optimizer.safetensors").write_bytes(b"large")
    (output / "tokenizer.json").write_text("rewritten")
    (output / "told.json").write_text(json.dumps(args))
    (output / "config.json").touch()
"""
LINE = (
    "{python} {program} {do} --model {{model}} --data {{data}} --output {{output}} --seed {{seed}} --budget {{budget}}"
)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """In a folder whose name holds a blank."""
    folder = tmp_path / "a tool"
    folder.mkdir()
    (folder / "tool.py").write_text(PROGRAM)
    return folder / "tool.py"


def line(program: Path, do: str, more: str = "") -> str:
    return LINE.format(python=sys.executable, program=f'"{program}"', do=do) + more


def run(work: Path, model: Path, command: str, **changes: Any) -> TrainResult:
    work.mkdir()
    task = TrainTask(
        model=model,
        stack=(("sft", {}),),
        rows={"train": write_rows(work.parent / f"{work.name} rows.jsonl", make_rows(5))},
        settings=TrainSettings(budget=Budget(steps=7)),
        seed=3,
    )
    form = CommandTrainer(command=command)
    task = TrainTask(**{**vars(task), **changes})
    return make(form).train(task, work, [], lambda done, total, note: None)


def test_a_full_model_is_kept_with_the_bases_tokenizer_and_without_checkpoints(
    tmp_path: Path, tiny_model: Path, program: Path
) -> None:
    work = tmp_path / "the work"
    result = run(work, tiny_model, line(program, "full"))
    names = {p.name for p in (work / "artifact").iterdir()}
    assert names == {*(p.name for p in tiny_model.iterdir()), "artifact.json"}
    assert (work / "artifact" / "tokenizer.json").read_bytes() == (tiny_model / "tokenizer.json").read_bytes()
    assert (work / "artifact" / "model.safetensors").read_bytes() == (tiny_model / "model.safetensors").read_bytes()
    body = json.loads((work / "artifact" / "artifact.json").read_text())
    assert body == {"kind": "full", "method": ["sft"], "stage": "train", "seed": 3}
    assert not (work / "output").exists()
    assert result.status == "ok" and result.cost["seconds"]["command"] > 0
    assert result.cost["artifact_bytes"] > (tiny_model / "model.safetensors").stat().st_size
    assert "reading 5 rows" in (work / "command.log").read_text()


def test_an_adapter_is_kept_and_can_be_opened(tmp_path: Path, tiny_model: Path, program: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    train(tmp_path / "lora", tiny_model, *methods.build((("lora", {"r": 2}),)), steps=1)
    left = tmp_path / "lora" / "artifact"
    work = tmp_path / "work"
    run(work, tiny_model, line(program, "adapter", f" --adapter '{left}'"))
    artifact = work / "artifact"
    assert {p.name for p in artifact.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "artifact.json",
    }
    assert json.loads((artifact / "artifact.json").read_text())["kind"] == "adapter"
    assert json.loads((artifact / "adapter_config.json").read_text())["base_model_name_or_path"] is None
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), artifact)


def test_the_line_is_filled_in_part_by_part_without_a_shell(tmp_path: Path, tiny_model: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", make_rows(2))
    command = "tool '--set=x y' --m={model} {data} {output} -s{seed} {budget}:{unit} {lr:.0e} $HOME;ls {{}}"
    adapter: Any = make(CommandTrainer(command=command))
    settings = TrainSettings(budget=Budget(tokens=900), lr=2e-5)
    task = TrainTask(tiny_model, (("sft", {}),), {"train": rows}, settings, seed=4)
    assert adapter.line(task, tmp_path / "a b") == [
        *("tool", "--set=x y", f"--m={tiny_model}", str(rows), str(tmp_path / "a b")),
        *("-s4", "900:tokens", "2e-05", "$HOME;ls", "{}"),
    ]
    with pytest.raises(HarnessError, match="reads one set of rows, named `train`"):
        adapter.line(TrainTask(tiny_model, (("sft", {}),), {"a": rows}), tmp_path)


def test_a_failure_shows_the_end_of_the_log_and_keeps_it(tmp_path: Path, tiny_model: Path, program: Path) -> None:
    work = tmp_path / "work"
    with pytest.raises(StepFailed, match="ended with 1") as caught:
        run(work, tiny_model, line(program, "fail"))
    assert (caught.value.what, caught.value.kind) == ("the command ended with 1: no such optimiser", "user")
    assert caught.value.why.splitlines()[-3:] == ["    step 1", "    step 2", "    no such optimiser"]
    assert (work / "command.log").read_text().endswith("no such optimiser\n")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("nowhere-at-all {model} {data} {output}", "cannot start `nowhere-at-all`"),
        ("true {model} {data} {output}", "ended well and left no model"),
        ("mkdir -p {output} /tmp/{model} /tmp/{data}", "ended well and left no model"),
        ("sh -c 'kill -9 $$' {model} {data} {output}", "was ended by signal 9"),
    ],
)
def test_programs_that_leave_no_model_fail_with_the_reason(
    tmp_path: Path, tiny_model: Path, command: str, words: str
) -> None:
    with pytest.raises(StepFailed, match=words):
        run(tmp_path / "work", tiny_model, command.replace("/tmp/", f"{tmp_path}/"))


def test_the_program_ends_when_the_run_is_interrupted(
    tmp_path: Path, tiny_model: Path, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "work" / "command.log"

    def interrupt() -> None:
        while not (log.exists() and "reading" in log.read_text()):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def spy(*args: Any, **options: Any) -> Any:
        started.append(popen(*args, **options))
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", spy)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "work", tiny_model, line(program, "hang"))
    finally:
        signal.signal(signal.SIGINT, before)
    assert started[0].returncode == -signal.SIGTERM


def test_members_that_a_command_cannot_honour_are_refused() -> None:
    adapter = make(CommandTrainer(command="x {model} {data} {output}"))
    adapter.check(methods.build((("sft", {}),)))
    for stack, says in {
        "lora": "`lora` uses the hook `wrap`, which a command does not run",
        "dft": "`dft` uses the hook `loss`",
        "dpo": "`dpo` uses the hook `loss`",
    }.items():
        with pytest.raises(Refused, match=says):
            adapter.check(methods.build(((stack, {}),)))


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("x {model} {data}", "never uses {output}"),
        ("x {model} {data} {output} {epochs}", "nothing is known as {epochs}"),
        ("x {model.parent} {data} {output}", "nothing is known as {model.parent}"),
        ("x {model} {data} {output} {}", "nothing is known as {}"),
        ("x {model} {data} {output", "expected '}'"),
        ("x '{model} {data} {output}", "No closing quotation"),
    ],
)
def test_a_line_that_cannot_be_filled_in_is_refused(command: str, says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        CommandTrainer(command=command)
    assert says in str(caught.value)


def matrix(folder: Path, model: Path, entries: str) -> Path:
    file = write_matrix(folder, model)
    file.write_text(file.read_text().replace("  sft: {}\n  lora+dft: {}\n", entries))
    return file


def test_the_line_and_its_version_are_in_the_key(tmp_path: Path, tiny_model: Path) -> None:
    keys = set()
    for trainer in ("{command: 'x %s'}", "{command: 'x -q %s'}", "{command: 'x %s', version: 2}"):
        file = matrix(tmp_path, tiny_model, f"  tool: {{trainer: {trainer % '{model} {data} {output}'}}}\n")
        cell = make_plan(load_matrix(file), Where()).cells[1]
        assert [m.name for m in cell.stack] == ["sft"] and cell.flags == ("command",)
        keys.add(cell.train[0].key)
    assert len(keys) == 3


def test_a_wrong_line_is_named_with_its_place(tmp_path: Path, tiny_model: Path) -> None:
    file = matrix(tmp_path, tiny_model, "  tool: {trainer: {command: 'x {model}'}}\n  lora: {trainer: command}\n")
    with pytest.raises(HarnessError) as caught:
        make_plan(load_matrix(file), Where())
    assert "small.yaml:9" in str(caught.value) and "never uses {data}" in str(caught.value)
    file.write_text(file.read_text().replace("  tool: {trainer: {command: 'x {model}'}}\n", ""))
    with pytest.raises(HarnessError, match=r"unknown trainer adapter `command`[^$]*trainer: \{command"):
        make_plan(load_matrix(file), Where())


def test_a_run_keeps_what_programs_leave_and_goes_on_where_one_fails(
    tmp_path: Path, tiny_model: Path, program: Path
) -> None:
    shutil.copy(program, tmp_path / "tool.py")
    lines = {do: line(Path("tool.py"), do) for do in ("fail", "full")}
    entries = "".join(f"  {do}: {{trainer: {{command: '{text}'}}}}\n" for do, text in lines.items())
    file = matrix(tmp_path, tiny_model, entries)
    left_out = ("  base:", "  math:", "  tool_use:")
    file.write_text("\n".join(t for t in file.read_text().splitlines() if not t.startswith(left_out)))
    out, err = harness(tmp_path, "run", file, code=1)
    assert "no such optimiser" in err
    rows = [text for text in out.split("**Cost**")[0].splitlines() if text.startswith("| f")]
    assert ["failed" in row for row in rows] == [True, False]
    assert "train failed: user (the command ended with 1: no such optimiser)" in out
    assert "¹ command" in out
    logs = {p.read_text().splitlines()[-1] for p in tmp_path.glob("store/**/command.log")}
    assert logs == {"no such optimiser", "reading 40 rows"}
