"""`command`: any program that trains, as a line of a matrix. It is told where things are, and what it leaves is kept.

The program reads the model's folder and JSON lines of {"id", "messages", ...}, and leaves in {output} a Hugging Face
folder with safetensors, or a PEFT adapter. No shell is between: the line is split as a shell would split it, and each
part is filled in by itself, so a path may hold blanks. What is trained and spent inside the program is not seen, so no
tokens are billed. Its tokenizer files are left alone and the base's are served, as for every other method.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError, Refused, StepFailed
from harness.matrix.schema import COMMAND_SETTINGS, CommandTrainer
from harness.methods.base import EXCLUSIVE, Method, check_stack, overrides

if TYPE_CHECKING:
    from harness.training.adapters import TrainResult, TrainTask

LOG = "command.log"
TAIL = 15  # lines of the log in a failure's message
_LOOK = 0.5  # seconds between looks at the program
_PATIENCE = 10.0  # seconds to end in, once asked to
_HOOKS = (
    *EXCLUSIVE,
    *("prompt", "collate", "wrap", "unwrap", "train_only", "on_embeddings", "pick", "token_weight", "auxiliary"),
    *("after_backward", "after_step", "after_stage"),
)


class CommandAdapter:
    """Runs a program. Rows are curated before it starts, and answers may be read after; nothing in between is ours."""

    name = "command"
    version = 1
    hooks = frozenset({"curate", "answer"})

    def __init__(self, form: CommandTrainer) -> None:
        self.form = form

    def identity(self) -> list[Any]:
        """What of it is in a step's key: the line as written, which holds no path of this machine's making."""
        return [self.name, self.version, self.form.command, self.form.version]

    def check(self, stack: Sequence[Method]) -> None:
        """Refused for a member that does more than curate rows and read answers."""
        check_stack(stack)
        for member in stack:
            hook = next((h for h in _HOOKS if overrides(member, h)), None)
            if hook:
                raise Refused(
                    f"`{member.name}` uses the hook `{hook}`, which a command does not run",
                    todo="leave it out and have the command do it, or leave `trainer` out",
                )
            for attribute in ("freeze", "load", "norm", "pool", "every", "rollouts"):
                if getattr(member, attribute) != getattr(Method, attribute):
                    raise Refused(f"`{member.name}` sets `{attribute}`, which a command does not do")
            for need in sorted(member.needs):
                raise Refused(f"`{member.name}` needs `{need}`, which a command does not offer")

    def train(
        self, task: TrainTask, work: Path, earlier: Sequence[Path], report: Callable[[float, float, str], None]
    ) -> TrainResult:
        """Run the program to its end. StepFailed with the end of its log if it fails or leaves no model."""
        from harness.training.adapters import TrainResult

        if task.init is not None:
            raise HarnessError("a command starts from the model itself, not from another cell's artifact")
        output, artifact = work / "output", work / "artifact"
        started = time.perf_counter()
        _run(self.line(task, output), work / LOG, report)
        seconds = round(time.perf_counter() - started, 3)
        kind = _keep(output, artifact, task.model)
        body = {"kind": kind, "method": [name for name, _ in task.stack], "stage": "train", "seed": task.seed}
        (artifact / "artifact.json").write_text(json.dumps(body, indent=2, sort_keys=True) + "\n")
        (work / "curve.jsonl").touch()
        shutil.rmtree(output)  # what is left are checkpoints, which may be large
        size = sum(f.stat().st_size for f in artifact.iterdir())
        return TrainResult("ok", {"seconds": {"command": seconds}, "artifact_bytes": size}, {})

    def line(self, task: TrainTask, output: Path) -> list[str]:
        """The program and its arguments. HarnessError if the task has no rows under the name `train`."""
        if "train" not in task.rows:
            raise HarnessError(
                "a command reads one set of rows, named `train`", why=f"curation left {', '.join(sorted(task.rows))}"
            )
        budget = task.settings.budget
        values: Mapping[str, Any] = {
            **{name: getattr(task.settings, name) for name in COMMAND_SETTINGS},
            "model": task.model.absolute(),
            "data": task.rows["train"].absolute(),
            "output": output.absolute(),
            "seed": task.seed,
            "budget": budget.tokens or budget.steps,
            "unit": "tokens" if budget.tokens else "steps",
        }
        return [part.format_map(values) for part in shlex.split(self.form.command)]


def _run(line: list[str], log: Path, report: Callable[[float, float, str], None]) -> None:
    """Both outputs go to the log, after the line itself. The program ends when this process is interrupted."""
    with log.open("wb") as stream:
        stream.write(f"{shlex.join(line)}\n".encode())
        stream.flush()
        try:
            program = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT)
        except OSError as error:
            raise StepFailed(f"cannot start `{line[0]}`", kind="user", why=error.strerror or str(error)) from error
    try:
        while True:
            try:
                code = program.wait(_LOOK)
                break
            except subprocess.TimeoutExpired:
                report(0.0, 0.0, "".join(tail(log, 1))[:120])
    except BaseException:
        program.terminate()
        try:
            program.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()
        raise
    if code:
        how = f"ended with {code}" if code > 0 else f"was ended by signal {-code}"
        said = tail(log, TAIL)
        raise StepFailed(
            f"the command {how}: {said[-1][:200]}",
            kind="user" if code > 0 else "killed",
            why="\n    ".join([f"the end of {log}:", *said]),
        )


def tail(log: Path, lines: int) -> list[str]:
    """The last lines of a log that say something. A progress bar that was drawn anew counts line by line."""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - 2**14))
        text = stream.read().decode("utf-8", "replace")
    return [part.rstrip() for part in text.splitlines() if part.strip()][-lines:]


def _keep(output: Path, artifact: Path, base: Path) -> str:
    """Copy what is served, and no checkpoint, into the artifact; its kind. StepFailed if there is no model."""
    from harness.training.artifacts import TOKENIZER_FILES

    config = output / "adapter_config.json"
    weights = sorted(output.glob("adapter_model.safetensors" if config.exists() else "*.safetensors"))
    if not weights or not (config.exists() or (output / "config.json").exists()):
        found = ", ".join(sorted(p.name for p in output.iterdir())[:8]) if output.is_dir() else "no such folder"
        raise StepFailed(
            "the command ended well and left no model",
            kind="user",
            where=str(output),
            why=found or "the folder is empty",
            todo="have it write config.json and *.safetensors, or adapter_config.json and adapter_model.safetensors, "
            "into {output}",
        )
    artifact.mkdir()
    for path in weights:
        path.rename(artifact / path.name)
    if config.exists():
        about = {**json.loads(config.read_text()), "base_model_name_or_path": None}  # it differs between machines
        (artifact / config.name).write_text(json.dumps(about, indent=2, sort_keys=True) + "\n")
        return "adapter"
    for path in (*output.glob("*.safetensors.index.json"), output / "config.json", output / "generation_config.json"):
        if path.exists():
            path.rename(artifact / path.name)
    for path in {p for pattern in TOKENIZER_FILES for p in base.glob(pattern)}:
        shutil.copyfile(path, artifact / path.name)
    return "full"
