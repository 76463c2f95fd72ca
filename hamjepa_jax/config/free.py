"""Which settings make another run, and which may change when a run goes on."""

import json
from collections.abc import Collection, Mapping
from typing import Any

# Fields that may differ when a run goes on in its workdir, since training is the same with any value. Source and
# plugins may have moved: the images are compared by their fingerprint.
FREE_FIELDS = (
    "log.", "checkpoint.", "evaluate.", "mesh.", "plugins", "data.source", "data.memory_budget_gb",
    "data.cache_dir", "data.loader", "data.num_threads", "data.num_workers", "data.max_broken_share",
    "train.steps_per_dispatch",
)  # fmt: skip


def differing_fields(saved: Any, config: Any, *, counting: Collection[str] = ()) -> list[str]:
    """Lines "field: saved → given" for every field that makes another run of one config than of the other.

    Args:
      saved: a ConfigDict; see `default.from_saved` for what a workdir holds.
      config: the other one.
      counting: free fields that make another one all the same.
    """
    old, new = (flat_fields(c) for c in (saved, config))
    names = [k for k in sorted(old | new) if not _agree(k, old.get(k), new.get(k), counting)]
    return [f"{k}: {old.get(k, '(absent)')!r} → {new.get(k, '(absent)')!r}" for k in names]


def _agree(name: str, old: Any, new: Any, counting: Collection[str]) -> bool:
    if name == "encoder.dtype" and "auto" in (old, new):  # The type that the run has.
        return True
    return old == new or (name.startswith(FREE_FIELDS) and name not in counting)


def flat_fields(config: Any) -> dict[str, Any]:
    """{dotted path: value, as in config.json} of every field of a ConfigDict."""
    return flatten(json.loads(config.to_json_best_effort()))


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat = {}
    for name, value in tree.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat
