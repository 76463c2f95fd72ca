"""Exports on the Hugging Face hub (extra hub): hf://owner/name@revision in place of a folder, and pushes.

huggingface_hub's own settings count: HF_TOKEN, HF_HOME (the cache), HF_HUB_OFFLINE, HF_ENDPOINT and the rest.
"""

import contextlib
import importlib.util
import pathlib
import re
from collections.abc import Iterator

from hamjepa_jax.errors import UserError
from hamjepa_jax.run.workdir import CONFIG_FILE, WEIGHTS_FILE

SCHEME = "hf://"
_NAME = r"[\w.-]+/[\w.-]+"


def is_address(path: object) -> bool:
    return isinstance(path, str) and path.startswith(SCHEME)


def fetch(address: str) -> pathlib.Path:
    """The folder in the hub's cache with an export's weights and config; what is there already is not loaded again.

    Args:
      address: hf://owner/name, or hf://owner/name@revision: a branch, tag or commit.

    Raises:
      UserError: for an address of another form, without huggingface_hub, and if the hub does not give the files.
    """
    found = re.fullmatch(rf"{SCHEME}(?P<name>{_NAME})(@(?P<revision>[^@\s]+))?", address)
    if not found:
        raise UserError(f"{address}: is no address on the hub; write hf://owner/name, or hf://owner/name@revision.")
    _check_installed(address)
    import huggingface_hub

    with _explained(address):
        folder = huggingface_hub.snapshot_download(
            found["name"], revision=found["revision"], allow_patterns=[WEIGHTS_FILE, CONFIG_FILE]
        )
    if not (pathlib.Path(folder) / WEIGHTS_FILE).is_file():
        raise UserError(f"{address}: holds no export of this package (it has no {WEIGHTS_FILE}).")
    return pathlib.Path(folder)


def check_push(name: str) -> None:
    """Refuses a push that cannot work, before there is anything to push.

    Raises:
      UserError: for a name of another form, without huggingface_hub, or without a token.
    """
    if not re.fullmatch(_NAME, name):
        raise UserError(f"--push={name}: must be owner/name, as in --push=me/hamjepa-cifar100.")
    _check_installed(f"--push={name}")
    import huggingface_hub

    if huggingface_hub.get_token() is None:
        raise UserError(
            f"--push={name}: there is no token for the hub; log in with `hf auth login`, or set HF_TOKEN."
        )


def push(folder: pathlib.Path, name: str) -> str:
    """Puts an exported folder on the hub, as one commit; the repository is made if it is missing.

    Args:
      folder: of an export.
      name: owner/name.

    Returns:
      The commit's address.

    Raises:
      UserError: if the hub does not take it.
    """
    import huggingface_hub

    api, address = huggingface_hub.HfApi(), f"--push={name}"
    with _explained(address):
        api.create_repo(name, exist_ok=True)
        commit = api.upload_folder(
            repo_id=name,
            folder_path=folder,
            commit_message=f"Export of {folder.resolve().name}",
            ignore_patterns=[".*"],
        )
    return str(commit.commit_url)


def _check_installed(what: str) -> None:
    if importlib.util.find_spec("huggingface_hub") is None:
        raise UserError(f"{what}: needs the package huggingface_hub; pip install 'hamjepa-jax[hub]'.")


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turns the hub's errors into one sentence about `what`."""
    from huggingface_hub import errors

    try:
        yield
    except errors.RevisionNotFoundError:
        raise UserError(f"{what}: the hub has no such revision of it; name a branch, tag or commit.") from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"{what}: the hub has no such model for you; check the name, or log in with `hf auth login` if it is "
            f"private."
        ) from None
    except errors.HFValidationError as error:
        raise UserError(f"{what}: {_line(error)}") from None
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "no status")
        if status in (401, 403):
            raise UserError(
                f"{what}: the hub does not allow it; log in with a token that may ({status})."
            ) from None
        raise UserError(f"{what}: the hub answered {status}; try again later.") from None
    except Exception as error:  # Without a network, each version of the package and of its HTTP client has its own.
        raise UserError(
            f"{what}: the hub cannot be reached, and the cache does not have it ({_line(error)})."
            if what.startswith(SCHEME)
            else f"{what}: the hub cannot be reached ({_line(error)})."
        ) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
