"""The table of trained encoders' task variances."""

from hamjepa_jax.report.price import price_table


def test_measured_values_stand_before_the_closed_form():
    content = {
        "trial": {"conditions": [1.0, 10.0]},
        "results": {
            "SIGReg": {"V": [[1.0, 1.2], [2.0, 2.0]], "closed_form": [1.0, 2.5]},
            "HamJEPA q": {"V": [[1.5], [3.0]], "closed_form": [None, None]},
        },
    }
    assert price_table(content).splitlines() == [
        "| encoder | cond(H) = 1 | cond(H) = 10 |",
        "| :-- | --: | --: |",
        "| SIGReg | 1.10 ± 0.14 (1.00) | 2.00 ± 0.00 (2.50) |",
        "| HamJEPA q | 1.50 (–) | 3.00 (–) |",
    ]
