"""Experiments of many runs: the paper's tables, and grids of settings."""
