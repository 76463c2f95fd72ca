"""A run to a folder for others, in the layout of the Hugging Face hub, and back to a workdir.

`python -m hamjepa_jax.interop.export WORKDIR --out=DIR` writes
  model.safetensors     all networks' weights, named by their path in this package
  config.json           the run's config
  README.md             the model card, with the numbers of metrics.json
  torch.safetensors     the encoder's (and the potential's) weights with the published PyTorch models' names
  trunk.safetensors     the trunk's weights with the names of torchvision (ResNet) or timm (ViT, ResNet)
  encoder.stablehlo     the whole encoder as a program (jax.export): any number of images, on CPU, CUDA and TPU
The last three need nothing of this package. Trunks of your own have torch.safetensors and trunk.safetensors if they
state their names in PyTorch.
"""

from hamjepa_jax.interop.export.write import encoder_program, export_run, restore_workdir, torch_weights

__all__ = ["encoder_program", "export_run", "restore_workdir", "torch_weights"]
