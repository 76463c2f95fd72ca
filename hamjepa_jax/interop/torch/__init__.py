"""PyTorch checkpoints and weights, read and named without PyTorch.

`python -m hamjepa_jax.interop.torch CKPT.pth --out DIR` makes a workdir of a whole checkpoint.
"""

from hamjepa_jax.interop.torch.file import read_file
from hamjepa_jax.interop.torch.importer import import_checkpoint
from hamjepa_jax.interop.torch.names import (
    encoder_from_state_dict,
    mlp_from_state_dict,
    state_dict_from_encoder,
    state_dict_from_mlp,
)

__all__ = [
    "encoder_from_state_dict",
    "import_checkpoint",
    "mlp_from_state_dict",
    "read_file",
    "state_dict_from_encoder",
    "state_dict_from_mlp",
]
