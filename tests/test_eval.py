"""`harness eval`: any checkpoint or adapter without training; an adapter is merged into its base, once, and rightly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.commands.eval import suites_of
from harness.data.models import find_model, materialise
from harness.errors import HarnessError
from tests.runs import harness
from tests.tiny import make_tiny_model

ASK = ("--suites", "glue:made_sentiment", "--limit", "5", "--engine", "fake")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A LoRA folder as PEFT saves it, with random weights."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    folder = tmp_path_factory.mktemp("eval") / "my-adapter"
    get_peft_model(model, config).save_pretrained(folder)
    return folder


def copy_of(adapter: Path, folder: Path, base: str | None) -> Path:
    """The adapter under another base's name."""
    folder.mkdir()
    for path in adapter.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": base}))
    return folder


def test_a_checkpoint_is_evaluated_and_kept_like_any_run(tmp_path: Path, tiny_model: Path) -> None:
    out, _ = harness(tmp_path, "eval", tiny_model, *ASK, "--name", "mine")
    assert "made_sentiment [5]" in out
    assert harness(tmp_path, "table", "mine")[0] == out
    assert json.loads(harness(tmp_path, "status", "mine", "--json")[0])["cells"][0]["tasks"] == {"ok": 1}
    assert "verdict:" in harness(tmp_path, "show", "mine", "--n", "1")[0]
    assert harness(tmp_path, "eval", tiny_model, *ASK, "--name", "mine")[0] == out
    plan = json.loads(harness(tmp_path, "eval", tiny_model, *ASK, "--name", "mine", "--dry-run", "--json")[0])
    assert plan["steps"] == []


def test_an_adapter_is_named_after_its_folder_and_a_name_stands_for_one_model(
    tmp_path: Path, adapter: Path, tiny_model: Path
) -> None:
    harness(tmp_path, "eval", adapter, *ASK)
    assert (tmp_path / "store" / "runs" / "eval-my-adapter" / "run.json").exists()
    assert len([p for p in (tmp_path / "home" / ".cache" / "harness" / "models").iterdir() if p.is_dir()]) == 1
    err = harness(tmp_path, "eval", tiny_model, *ASK, "--name", "eval-my-adapter", code=2)[1]
    assert "--name" in err


def test_the_merged_adapter_computes_what_peft_computes(tmp_path: Path, adapter: Path, tiny_model: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = find_model(str(adapter), cache=tmp_path)
    assert model.kind == "adapter"
    assert model.chat_template
    folder = materialise(model, tmp_path)
    assert materialise(model, tmp_path) == folder
    assert {p.name for p in tiny_model.iterdir()} <= {p.name for p in folder.iterdir()} | {"training_args.bin"}
    ids = torch.tensor([[5, 6, 7, 8]])
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        plain = base(ids).logits.clone()
        want = PeftModel.from_pretrained(base, adapter)(ids).logits
        got = AutoModelForCausalLM.from_pretrained(folder)(ids).logits
    torch.testing.assert_close(got.float(), want.float(), rtol=0.05, atol=0.05)
    assert (want - plain).abs().max() > 5 * (got.float() - want.float()).abs().max()


def test_the_digest_is_of_weights_and_base_and_not_of_places(tmp_path: Path, adapter: Path, tiny_model: Path) -> None:
    moved = copy_of(adapter, tmp_path / "moved", "nowhere/at-all")
    again = find_model(str(moved), base=str(tiny_model), cache=tmp_path)
    assert again.digest == find_model(str(adapter), cache=tmp_path).digest
    other = find_model(str(moved), base=str(make_tiny_model(tmp_path / "other", seed=1)), cache=tmp_path)
    assert other.digest != again.digest


def test_what_is_wrong_with_an_adapter_is_said_before_anything_starts(
    tmp_path: Path, adapter: Path, tiny_model: Path
) -> None:
    lost = copy_of(adapter, tmp_path / "lost", "nowhere/at-all")
    with pytest.raises(HarnessError, match="nowhere/at-all") as missing:
        find_model(str(lost), cache=tmp_path)
    assert "--base" in missing.value.todo
    silent = copy_of(adapter, tmp_path / "silent", None)
    with pytest.raises(HarnessError, match="does not say which model"):
        find_model(str(silent), cache=tmp_path)
    with pytest.raises(HarnessError, match="does not fit") as shapes:
        find_model(str(adapter), base=str(make_tiny_model(tmp_path / "wide", width=64)), cache=tmp_path)
    assert "64x128 in the base, 32x64 in the adapter" in shapes.value.why
    with pytest.raises(HarnessError, match="no adapter"):
        find_model(str(tiny_model), base=str(tiny_model), cache=tmp_path)
    with pytest.raises(HarnessError, match="is an adapter itself"):
        find_model(str(lost), base=str(adapter), cache=tmp_path)
    (silent / "adapter_model.safetensors").unlink()
    with pytest.raises(HarnessError, match="no weights"):
        find_model(str(silent), base=str(tiny_model), cache=tmp_path)
    (lost / "adapter_config.json").unlink()
    with pytest.raises(HarnessError, match="adapter_config"):
        find_model(str(lost), cache=tmp_path)


def test_an_adapter_of_layers_that_the_base_lacks(tmp_path: Path, adapter: Path, tiny_model: Path) -> None:
    from safetensors.torch import load_file, save_file

    deep = copy_of(adapter, tmp_path / "deep", str(tiny_model))
    tensors = load_file(deep / "adapter_model.safetensors")
    tensors |= {name.replace("layers.0", "layers.9"): value.clone() for name, value in tensors.items()}
    save_file(tensors, deep / "adapter_model.safetensors")
    with pytest.raises(HarnessError, match="does not fit") as error:
        find_model(str(deep), cache=tmp_path)
    assert "layers.9" in error.value.why


def test_suites_are_named_whole_or_by_their_tasks() -> None:
    assert suites_of("math,code:humaneval,code:mbpp,glue:all") == {
        "math": {},
        "code": {"tasks": ["humaneval", "mbpp"]},
        "glue": {"tasks": "all"},
    }
    for wrong in ("", "math,,code", "math:", ":gsm8k", "math,math:gsm8k"):
        with pytest.raises(HarnessError):
            suites_of(wrong)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("./nowhere", *ASK), ["nowhere"]),
        (("--suites", "glu:cola", "--engine", "fake"), ["glu", '"glue"']),
        (("--suites", "glue:made_sentimint", "--engine", "fake"), ["made_sentimint", '"made_sentiment"']),
        ((*ASK[:4], "--engine", "fakee"), ["fakee"]),
        ((*ASK, "--name", "a b"), ["`a b`"]),
        ((*ASK, "--base", "nowhere/at-all"), ["no adapter"]),
    ],
)
def test_mistakes_leave_no_store(tmp_path: Path, tiny_model: Path, args: tuple[str, ...], words: list[str]) -> None:
    model = () if args[0].startswith("./") else (tiny_model,)
    err = harness(tmp_path, "eval", *model, *args, code=2)[1]
    assert all(word in err for word in words), err
    assert "Traceback" not in err
    assert not (tmp_path / "store").exists()
