"""Sources of images, one file each: from "kind:rest", as in "cifar100:/data" or "arrays:mine.npz", to a data set.

Your own source is a function that registers itself, here or in a plugin:

    @sources.register("mine", form="mine:FILE", meaning="images as my camera keeps them")
    def open_mine(rest: str, options: SourceOptions) -> Source: ...

`form` is how a user writes it and `meaning` says in a phrase what it is; help texts and docs show both.
"""

import os

from hamjepa_jax.data.split import Source, SourceOptions, source_error
from hamjepa_jax.errors import UserError
from hamjepa_jax.parts import register_all, sources

FIELD = "data.source"


def open_source(spec: str, *, cache_dir: str | None = None, loader: str = "grain", field: str = FIELD) -> Source:
    """Opens a data set. It is fetched first if it is absent and its kind can be fetched.

    If several processes share a folder, one of them fetches and the others wait (see `download.fetch`).

    Args:
      spec: "kind:rest"; the kinds are those that are registered.
      cache_dir: folder for fetched files; `default_cache_dir` if None.
      loader: data.loader of the config; "tfdata" opens TFDS data sets in TFRecord files too.
      field: the field or flag that names it, for messages.

    Raises:
      UserError: if the kind is unknown, or the data are missing, damaged or not as the kind expects.
    """
    kind, _, rest = spec.partition(":")
    try:
        if kind not in sources:
            known = ", ".join(f"{name}:" for name in sorted(sources))
            raise source_error(
                spec, f"unknown kind; expected one of {known}, or one of your own from a module in config.plugins."
            )
        return sources.made(sources[kind], Source, rest, SourceOptions(cache_dir or default_cache_dir(), loader))
    except UserError as error:
        if field == FIELD:
            raise
        raise UserError(str(error).replace(f"{FIELD} ", f"{field} ", 1)) from None  # Sources know one field.


def default_cache_dir() -> str:
    """Folder for fetched and decoded data: hamjepa_jax in $XDG_CACHE_HOME or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "hamjepa_jax")


register_all(__name__, __path__)
