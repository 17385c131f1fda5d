"""`trainer: trl`: the same steps as the native trainer, the same files, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness import methods
from harness.errors import HarnessError, MissingExtra, Refused
from harness.matrix import Budget, TrainSettings, load_matrix
from harness.planning.plan import Where, make_plan
from harness.training.adapters import TrainResult, TrainTask, make, trl
from tests.runs import harness, write_matrix
from tests.training import make_pairs, make_rows, write_rows

pytest.importorskip("trl")

STACKS: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {
    "sft": (("sft", {}),),
    "dpo": (("dpo", {"beta": 0.3}),),
    "lora": (("lora", {"r": 4}),),
    "lora+sft": (("lora", {"r": 4}), ("sft", {})),
    "lora+dpo": (("lora", {"r": 4}), ("dpo", {})),
}


def run(work: Path, trainer: str, model: Path, stack: Any, rows: Any = None, **changes: Any) -> TrainResult:
    work.mkdir(parents=True)
    given = rows or (make_pairs(16) if any(name == "dpo" for name, _ in stack) else make_rows())
    init = changes.pop("init", None)
    settings = {"budget": Budget(steps=6), "batch_size": 4, "precision": "fp32", "lr": 1e-3, **changes}
    rows_file = write_rows(work / "rows.jsonl", given)
    task = TrainTask(model, stack, {"train": rows_file}, TrainSettings(**settings), seed=3, init=init)
    return make(trainer).train(task, work, [], lambda done, total, note: None)


def curve(work: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (work / "curve.jsonl").read_text().splitlines()]


def weights(work: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    (file,) = (work / "artifact").glob("*.safetensors")
    return load_file(file)


@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS.keys())
def test_a_run_is_the_native_run_step_by_step(tmp_path: Path, tiny_model: Path, stack: Any) -> None:
    settings: dict[str, Any] = {"micro_batch": 3, "schedule": "cosine", "warmup": 0.4, "weight_decay": 0.1, "clip": 0.5}
    made = {name: run(tmp_path / name, name, tiny_model, stack, **settings) for name in ("native", "trl")}
    ours, theirs = curve(tmp_path / "native"), curve(tmp_path / "trl")
    assert len(ours) == len(theirs) == 6
    for a, b in zip(ours, theirs, strict=True):
        assert a["step"] == b["step"] and a["lr"] == pytest.approx(b["lr"])
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)
        assert a["norm"] == pytest.approx(b["norm"], rel=1e-3, abs=1e-5)
    native, other = made["native"], made["trl"]
    assert native.status == other.status == "ok"
    assert native.cost.keys() == other.cost.keys() and native.summary.keys() == other.summary.keys()
    for name in ("loss_tokens", "trainable_parameters", "artifact_bytes"):
        assert native.cost[name] == other.cost[name], name
    paired = any(name == "dpo" for name, _ in stack)
    assert paired or native.cost["trained_tokens"] == other.cost["trained_tokens"]
    assert bool(other.cost["extra_forward_tokens"]) is paired
    assert {"forward", "backward", "optimizer"} <= other.cost["seconds"].keys() and other.cost["flops"] > 0


@pytest.mark.parametrize("name", ["sft", "lora"])
def test_the_artifact_has_the_same_files(tmp_path: Path, tiny_model: Path, name: str) -> None:
    import torch

    for trainer in ("native", "trl"):
        run(tmp_path / trainer, trainer, tiny_model, STACKS[name])
    found = [{p.name: p for p in (tmp_path / trainer / "artifact").iterdir()} for trainer in ("native", "trl")]
    assert found[0].keys() == found[1].keys()
    for file, path in found[0].items():
        if file != "model.safetensors" and file != "adapter_model.safetensors":
            assert path.read_bytes() == found[1][file].read_bytes(), file
    ours, theirs = weights(tmp_path / "native"), weights(tmp_path / "trl")
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        assert torch.allclose(value.float(), theirs[key].float(), rtol=1e-2, atol=1e-4), key
    assert {p.name for p in (tmp_path / "trl").iterdir()} == {"artifact", "curve.jsonl", "rows.jsonl"}


def test_bf16_after_fp32_in_one_process_and_a_budget_of_tokens(tmp_path: Path, tiny_model: Path) -> None:
    options: dict[str, Any] = {"budget": Budget(tokens=700), "precision": "bf16"}
    ours = run(tmp_path / "native", "native", tiny_model, STACKS["sft"], **options)
    theirs = run(tmp_path / "trl", "trl", tiny_model, STACKS["sft"], **options)
    assert ours.cost["trained_tokens"] == theirs.cost["trained_tokens"] >= 700
    assert ours.summary["steps"] == theirs.summary["steps"]
    assert ours.summary["final_loss"] == pytest.approx(theirs.summary["final_loss"], rel=0.02)


@pytest.mark.parametrize("name", ["dpo", "lora"])
def test_a_start_from_another_artifact(tmp_path: Path, tiny_model: Path, name: str) -> None:
    run(tmp_path / "first", "native", tiny_model, STACKS["sft"])
    init = tmp_path / "first" / "artifact"
    for trainer in ("native", "trl"):
        run(tmp_path / trainer, trainer, tiny_model, STACKS[name], init=init)
        assert json.loads((tmp_path / trainer / "artifact" / "artifact.json").read_text())["kind"] == "full"
    losses = [[line["loss"] for line in curve(tmp_path / trainer)] for trainer in ("native", "trl")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_a_loss_that_is_not_a_number_ends_the_run(tmp_path: Path, tiny_model: Path) -> None:
    for trainer in ("native", "trl"):
        result = run(tmp_path / trainer, trainer, tiny_model, STACKS["sft"], lr=1e30, warmup=0.0, clip=None)
        assert result.status == "diverged" and "is not finite at step" in result.summary["diverged"]
        assert not (tmp_path / trainer / "artifact").exists()
        assert result.summary["steps"] == len(curve(tmp_path / trainer)) - 1


def test_pairs_that_trl_has_no_form_for_are_named(tmp_path: Path, tiny_model: Path) -> None:
    rows = make_pairs(4)
    rows[1]["rejected"] = [{"role": "user", "content": "Another?"}, *rows[1]["rejected"][1:]]
    with pytest.raises(HarnessError, match=r"row r1: the two answers do not continue the same prompt"):
        run(tmp_path / "a", "trl", tiny_model, STACKS["dpo"], rows)
    rows = make_pairs(4)
    for view in ("chosen", "rejected"):
        rows[1][view] = [{k: v for k, v in m.items() if k != "weight"} for m in rows[1][view]]
    with pytest.raises(HarnessError, match="row r1: an answer in several pieces"):
        run(tmp_path / "b", "trl", tiny_model, STACKS["dpo"], rows)


def test_what_does_not_go_through_is_refused_by_name_and_hook() -> None:
    adapter = make("trl")
    for stack in STACKS.values():
        adapter.check(methods.build(stack))
    refused = {"dft": "loss", "mft": "collate", "otr": "loss", "bitfit": "wrap", "dora": "wrap", "lofit": "stages"}
    for name, hook in refused.items():
        with pytest.raises(Refused, match=f"`{name}` uses the hook `{hook}`, which TRL's trainers do not run"):
            adapter.check(methods.build((("lora", {}), (name, {})) if name in ("dft", "mft", "otr") else ((name, {}),)))
    with pytest.raises(Refused, match="`lora` and `lora` both replace layers"):
        adapter.check(methods.build((("lora", {}), ("lora", {}))))


def test_rollouts_are_refused() -> None:
    from harness.methods.base import Method

    class Sampler(Method):
        name = "sampler"
        rollouts = {"n": 4}  # noqa: RUF012

    with pytest.raises(Refused, match="`sampler` sets `rollouts`, which TRL's trainers do not do"):
        make("trl").check((Sampler(),))


def test_a_missing_package_is_named_at_plan_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trl, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"the trainer `trl` needs the package `trl`[^$]*pip install '.\[trl\]'"):
        make("trl").check(methods.build(STACKS["sft"]))


def test_rows_are_labelled_and_keys_differ(tmp_path: Path, tiny_model: Path) -> None:
    file = write_matrix(tmp_path, tiny_model)
    text = file.read_text().replace("  lora+dft: {}\n", "  theirs: {stack: [sft], trainer: trl}\n")
    file.write_text("\n".join(t for t in text.splitlines() if not t.startswith(("  base:", "  math:", "  glue:"))))
    ours, theirs = make_plan(load_matrix(file), Where()).cells
    assert (ours.flags, theirs.flags) == ((), ("trl",))
    assert ours.train[0].key != theirs.train[0].key
    out, _ = harness(tmp_path, "run", file, "--only", "*theirs*")
    row = next(line for line in out.splitlines() if line.startswith("| theirs"))
    assert "failed" not in row and "¹ trl" in out
