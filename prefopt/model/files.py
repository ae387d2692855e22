"""A model's files: where they lie, and a fingerprint of their content. Imports nothing heavy."""

from __future__ import annotations

import hashlib
from pathlib import Path

from prefopt.errors import RunError, UserError
from prefopt.model.trust import ADAPTER_CONFIG, check_adapter_folder, check_model_folder, read_object

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "sentencepiece.bpe.model")
"""A folder with one of these holds a tokenizer."""

_WANTED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


def model_folder(path: str, revision: str | None = None) -> Path:
    """The local folder of a model: `path` itself, or the cached copy of a hub repository, downloaded if need be.

    Raises: UserError for a local folder without config.json or weights, or with some that cannot be trusted
        (`trust.py`), or a name that is no repository;
        RunError where the hub cannot be reached and the model is not in the local cache.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        folder = _download(path, revision)
    if not (folder / "config.json").is_file():
        raise no_whole_model(folder, path)
    if not (list(folder.glob("*.safetensors")) or list(folder.glob("pytorch_model*.bin"))):
        raise UserError(f"model.path: {path} has no weights (*.safetensors)", "copy the weights beside config.json")
    check_model_folder(folder, path)
    return folder


def no_whole_model(folder: Path, path: str) -> UserError:
    """What to say of a folder without config.json: what it holds instead, and what to do about it."""
    if (folder / ADAPTER_CONFIG).is_file():
        said = f"model.path: {path} holds adapters and no whole model"
        return UserError(said, f"merge them: prefopt export {path} out=FOLDER, and give that folder")
    hint = "give a folder saved by transformers, or a hub name"
    if any((folder / "model" / name).is_file() for name in ("config.json", ADAPTER_CONFIG)):
        hint = f"did you mean {path.rstrip('/')}/model?"
    return UserError(f"model.path: {path} has no config.json", hint)


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_WANTED))
    except HFValidationError:
        raise UserError(f"model.path: there is no folder {name}", "check the path, or give a hub name") from None
    except RepositoryNotFoundError:
        raise UserError(
            f"model.path: the hub has no model {name} that you may read",
            "check the name, or log in with `hf auth login`",
        ) from None
    except (LocalEntryNotFoundError, ConnectionError, OSError) as error:
        raise RunError(
            f"model.path: {name} is neither a local folder nor in the local cache, and the hub did not answer"
            f" ({type(error).__name__})",
            "connect once to download it, or give the path of a local folder",
        ) from None


def adapter_folder(path: str) -> Path | None:
    """The folder that `path` means where it holds adapters; None for a whole model or a hub name.

    Raises: UserError for adapters that cannot be trusted (`trust.py`).
    """
    folder = Path(path).expanduser()
    if not (folder / ADAPTER_CONFIG).is_file():
        return None
    check_adapter_folder(folder)
    return folder


def base_of(folder: Path) -> str:
    """The model that the adapters in `folder` were trained on, as they name it.

    Raises: UserError where they name none.
    """
    base = read_object(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    if not base or not isinstance(base, str):
        raise UserError(f"{folder / ADAPTER_CONFIG} does not name the model that the adapters belong to")
    return base


def fingerprint(folder: Path) -> str:
    """sha256 over configuration and weights, by content: the same on any machine, another for another model."""
    return _fingerprint([folder / "config.json", *folder.glob("*.safetensors")])


def adapters_fingerprint(folder: Path) -> str:
    """The same of a folder of adapters."""
    return _fingerprint([folder / ADAPTER_CONFIG, *folder.glob("*.safetensors")])


def fingerprint_of(path: str) -> str:
    """The same of whatever `path` names: a whole model, or adapters together with the model they belong to.

    Raises: as `model_folder`.
    """
    adapters = adapter_folder(path)
    if adapters is None:
        return fingerprint(model_folder(path))
    return f"{fingerprint(model_folder(base_of(adapters)))} {adapters_fingerprint(adapters)}"


def _fingerprint(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.name.encode())
        with open(file, "rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()
