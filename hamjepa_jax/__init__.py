"""HamJEPA in JAX: phase-space joint-embedding predictive learning, its baselines, theory and figures."""

__version__ = "0.1.0"
