import numpy as np

from hamjepa_jax.benchmark.evaluation import benchmark_evaluation, describe, published_knn
from hamjepa_jax.evaluation import knn_accuracy
from hamjepa_jax.report.evaluation_speed import evaluation_table


def test_the_published_steps_in_numpy_count_as_the_package_does():
    """Nothing ties: features are drawn, and k is odd for two classes."""
    rng = np.random.default_rng(0)
    data = rng.standard_normal((300, 8)), rng.integers(0, 2, 300), rng.standard_normal((90, 8)), np.arange(90) % 2
    found = published_knn(*data, ks=(1, 5, 21), num_classes=2)
    assert found == knn_accuracy(*data, ks=(1, 5, 21), num_classes=2)["top1"]


def test_the_benchmark_sets_the_three_side_by_side():
    found = benchmark_evaluation(400, 60, 8, 4, epochs=1, rounds=2)
    lines = describe(found).splitlines()
    assert evaluation_table(found).count("|") == 4 * (2 + len(found["rows"]))
    assert "published protocol's kNN in NumPy" in "\n".join(lines)
    assert lines[-1].startswith("kNN takes ") and "of numpy's and" in lines[-1]
