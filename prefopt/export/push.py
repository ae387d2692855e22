"""An exported folder on the Hugging Face hub, by its own library."""

from __future__ import annotations

from pathlib import Path

from prefopt.errors import RunError, UserError


def check_push(name: str) -> None:
    """Refuse a push that cannot work before anything is loaded.

    Raises: UserError without a token, or where the network is switched off.
    """
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise UserError(f"push={name}: HF_HUB_OFFLINE is set", "unset it, or leave push out")
    if get_token() is None:
        raise UserError(f"push={name}: no token of the hub was found", "log in with `hf auth login`, or set HF_TOKEN")


def push(folder: Path, name: str, private: bool) -> str:
    """Make the repository where there is none and upload the folder; its address. private: of one that is made.

    Raises: RunError where the hub refuses or does not answer; the folder stays.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        address = str(api.create_repo(name, private=private, exist_ok=True))
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Upload by prefopt export")
    except (HfHubHTTPError, OSError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise RunError(
            f"push={name}: the hub refused it or did not answer: {said}",
            f"{folder} is whole: `hf upload {name} {folder}` pushes it",
        ) from None
    return address
