"""The tables of objectives' costs and of a chip's memory."""

from hamjepa_jax.report.memory import memory_table
from hamjepa_jax.report.objectives import objectives_table


def test_objectives_are_sorted_by_their_share_of_the_encoder():
    times = {"loss": 0.0021, "teacher": 0.0, "ratio": 0.021}
    content = {
        "encoder": 0.1,
        "objectives": {"byol": {"loss": 0.01, "teacher": 0.03, "ratio": 0.4}, "vicreg": times},
        "batch_size": 64,
        "views": 2,
        "embed_dim": 128,
        "clock": "CPU",
        "processor": "2 × X",
    }
    lines = objectives_table(content).splitlines()
    assert lines[2:5] == [
        "| encoder alone | 100.0 | – | 100% |",
        "| `vicreg` | 2.1 | – | 2.1% |",
        "| `byol` | 10.0 | 30.0 | 40.0% |",
    ]
    assert lines[-1] == "Batch 64 × 2 views, embeddings of 128, CPU time, 2 × X."


def test_memory_is_that_of_a_chip():
    report = {
        "topology": "v5e:4x4",
        "batch_size": 64,
        "memory": {"state": 67e6, "temporaries": 1.5e9, "program": 3e6},
        "collectives": {"all-gather": {"number": 4, "bytes": 198e6}},
        "time": {"links": 0.002, "least": 0.0100, "most": 0.0204},
    }
    *_, line = memory_table({"reports": [report]}).splitlines()
    cells = "| v5e:4x4 | 64 | 67 MB | 1,500 MB | 1,570 MB | 198 MB | 0 MB | 0 MB | 0 MB | 0 MB |"
    assert line == f"{cells} 2.00 ms | 10.0–20.4 ms |"
