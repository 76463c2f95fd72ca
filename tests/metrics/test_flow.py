"""Metrics of a learned flow against closed forms, and how tables write them."""

import jax.numpy as jnp
import numpy as np
import pytest

from hamjepa_jax import evaluation, physics, report
from hamjepa_jax.metrics import FLOW_TABLE

D = 3


def measured(flow, energy=lambda z: (z * z).sum(axis=-1)):
    states = jnp.asarray(np.random.default_rng(0).standard_normal((5, 2 * D)))
    found = physics.learned_flow_measurements(flow, energy, states, num_applications=2, num_jacobians=4)
    return evaluation.flow_metrics(found, has_energy=True)


def linear(matrix):
    """z ↦ Mz forward, and its inverse back."""
    inverse = np.linalg.inv(matrix)
    return lambda z, direction: z @ jnp.asarray(matrix if direction > 0 else inverse).T


def test_the_identity_has_every_structure_exactly(x64):
    assert set(measured(lambda z, direction: z).values()) == {0.0}


def test_a_linear_flow_has_its_own_determinant(x64):
    matrix = np.diag([2.0, 1.0, 0.5, 3.0, 0.25, 1.0])
    matrix[0, 3] = matrix[4, 1] = 0.7  # Triangular up to order: the determinant stays the diagonal's product.
    found = measured(linear(matrix))
    np.testing.assert_allclose(found["flow/mean_abs_log_abs_det"], abs(np.log(0.75)), rtol=1e-12)
    assert found["flow/median_reversal_error"] < 1e-14
    omega = np.block([[np.zeros((D, D)), np.eye(D)], [-np.eye(D), np.zeros((D, D))]])
    defect = np.linalg.norm(matrix.T @ omega @ matrix - omega)
    np.testing.assert_allclose(found["flow/max_symplectic_defect"], defect, rtol=1e-12)


def test_a_contraction_loses_volume_energy_and_its_way_back(x64):
    found = measured(lambda z, direction: 0.5 * z)  # The same in either direction: it does not reverse.
    assert found["flow/mean_abs_log_abs_det"] == pytest.approx(2 * D * np.log(2), rel=1e-12)
    assert found["flow/max_symplectic_defect"] == pytest.approx(0.75 * np.sqrt(2 * D), rel=1e-12)
    assert found["flow/median_reversal_error"] == pytest.approx(0.75, rel=1e-12)
    assert found["flow/median_energy_drift_x2"] == pytest.approx(1 - 0.25**2, rel=1e-12)


def test_a_table_writes_numbers_of_roundings_size():
    runs = [{"mean_abs_log_abs_det": v, "median_energy_drift_x50": 2.0} for v in (1e-7, 3e-7)]
    columns = report.metric_columns(FLOW_TABLE, runs[0])
    assert [column.title for column in columns] == ["mean |log|det J||", "median energy drift"]
    assert [report.cell(column, runs) for column in columns] == ["2.0e-07 ± 1.4e-07", "2.0e+00 ± 0.0e+00"]
    others = [column.title for column in report.metric_columns("methods", runs[0])]
    assert not {"mean |log|det J||", "median energy drift"} & set(others)
