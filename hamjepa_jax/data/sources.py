"""From a line of configuration to a data set: "kind:rest", as in "cifar100:/data" or "arrays:mine.npz"."""

import os

from hamjepa_jax.data.arrays import open_arrays
from hamjepa_jax.data.cifar100 import open_cifar100
from hamjepa_jax.data.digits import open_digits
from hamjepa_jax.data.folder import open_folder
from hamjepa_jax.data.records import open_records
from hamjepa_jax.data.split import Source, source_error
from hamjepa_jax.data.synthetic import open_synthetic

# kind -> function(rest of the spec, cache folder) -> Source
KINDS = {
    "arrays": open_arrays,
    "cifar100": open_cifar100,
    "digits": open_digits,
    "folder": open_folder,
    "synthetic": open_synthetic,
    "tfds": open_records,
}


def open_source(spec: str, *, cache_dir: str | None = None, loader: str = "grain") -> Source:
    """Opens a data set, fetching it if its kind can be fetched and it is absent.

    With several processes on one folder, one of them fetches and the others wait (see download.fetch).

    Args:
      spec: "kind:rest"; the kinds and what they expect are in KINDS.
      cache_dir: folder for fetched files, by default hamjepa_jax in $XDG_CACHE_HOME or ~/.cache.
      loader: config.data.loader; "tfdata" opens TFDS data sets in TFRecord files too.

    Raises:
      UserError: if the kind is unknown, or the data are missing, damaged or not as the kind expects.
    """
    kind, _, rest = spec.partition(":")
    if kind not in KINDS:
        raise source_error(spec, f"unknown kind; expected one of {', '.join(f'{k}:' for k in sorted(KINDS))}.")
    options = {"loader": loader} if kind == "tfds" else {}
    return KINDS[kind](rest, cache_dir or default_cache_dir(), **options)


def default_cache_dir() -> str:
    """Folder for fetched and decoded data: hamjepa_jax in $XDG_CACHE_HOME or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "hamjepa_jax")
