"""The training step, its state and optimiser, the mesh, checkpoints and logs."""
