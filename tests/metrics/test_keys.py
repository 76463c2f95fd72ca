"""Every key prints to the documented string and parses back."""

import itertools

import numpy as np
import pytest

from hamjepa_jax import evaluation
from hamjepa_jax.metrics import PROBE, Protocol, expected_keys, keys
from hamjepa_jax.metrics.keys import Applications, Key, Knn, Leading, Probe, Surrogates, parse

DOCUMENTED = {
    "q/knn_top1_k20_cosine_majority": Key("knn_top1", Knn(20), "q"),
    "q/knn_top5_published_k20_cosine_majority": Key("knn_top5_published", Knn(20), "q"),
    "qp/knn_top5_k1_cosine_softmax0.07_5shot": Key("knn_top5", Knn(1, "softmax", 0.07, 5), "qp"),
    "knn_top1_k200_cosine_softmax1e-05": Key("knn_top1", Knn(200, "softmax", 1e-5)),
    "z/probe_top1_adamw_lr0.001_wd1e-06_bs256_ep50": Key("probe_top1", Probe(1e-3, 1e-6, 256, 50), "z"),
    "p/probe_top5_adamw_lr1_wd0_bs1_ep2_3shot": Key("probe_top5", Probe(1.0, 0.0, 1, 2, 3), "p"),
    "q/effective_rank_top256": Key("effective_rank", Leading(256), "q"),
    "q/participation_ratio_top8": Key("participation_ratio", Leading(8), "q"),
    "q/uniformity": Key("uniformity", None, "q"),
    "q/p10_cosine": Key("p10_cosine", None, "q"),
    "q/alignment_views": Key("alignment_views", None, "q"),
    "flow/mean_abs_log_abs_det": Key("mean_abs_log_abs_det", None, "flow"),
    "flow/median_energy_drift_x50": Key("median_energy_drift", Applications(50), "flow"),
    "q/lidar_n1000_v50": Key("lidar", Surrogates(1000, 50), "q"),
    "q/alpha_req_top100": Key("alpha_req", Leading(100), "q"),
    "q/coding_rate_eps0.5": Key("coding_rate_eps0.5", None, "q"),
}


@pytest.mark.parametrize("text", DOCUMENTED)
def test_documented_keys_print_and_parse(text):
    assert parse(text) == DOCUMENTED[text] and str(DOCUMENTED[text]) == text


ODD = [
    "",
    "/",
    "a/b/c",
    "knn_top1",
    "knn_top1_k020_cosine_majority",
    "probe_top1_adamw_lr1e-3_wd0_bs1_ep1",
    "x5",
    "_x5",
]


@pytest.mark.parametrize("text", ODD)
def test_any_other_string_is_kept_as_it_is(text):
    assert str(parse(text)) == text


def test_every_key_of_every_protocol_comes_back_equal():
    votes = [("majority", 0.07), *(("softmax", t) for t in (0.07, 1.0, 1e-7, 1 / 3, 123456.7))]
    rates = [1e-3, (1e-4, 0.3, 2.0, 1 / 7, 1e6)]
    for (vote, temperature), shots, top, rate, decay in itertools.product(
        votes, (None, 1, 100), (1, 256), rates, (0, 1e-6, 0.05)
    ):
        probe = {"epochs": 50, "batch_size": 256, "learning_rate": rate, "weight_decay": decay}
        protocol = Protocol((1, 5, 200), probe, vote, temperature, shots, top, views=True)
        found = expected_keys(protocol, ("q", "p", "qp", "z"))
        assert len(set(found)) == len(found) > 80
        assert all(str(parse(text)) == text for text in found)
        made = [
            keys.knn(k, top=t, vote=vote, temperature=temperature, shots=shots) for k in (1, 200) for t in (1, 5)
        ]
        made += [keys.probe(r, probe, shots=shots) for r in np.atleast_1d(rate).tolist()]
        for key in made:
            assert parse(str(key.of("qp"))) == key.of("qp")
            assert str(key.of("qp")) in found


@pytest.mark.parametrize("vote", ["majority", "softmax"])
@pytest.mark.parametrize("shots", [None, 2])
@pytest.mark.parametrize("split", [True, False])
def test_the_expected_keys_are_those_that_are_measured(vote, shots, split):
    rng = np.random.default_rng(0)
    z, y = rng.standard_normal((30, 6)).astype(np.float32), np.arange(30, dtype=np.int32) % 3
    probe = {"epochs": 1, "batch_size": 16, "learning_rate": (1e-3, 0.1), "weight_decay": 1e-6}
    for views, probe_settings, ks in ((None, None, (1, 5)), ((z, z), probe, ()), ((z, z), probe, (5, 1))):
        asked = dict(ks=ks, probe=probe_settings, vote=vote, shots=shots, top=4, num_pairs=10)
        found = evaluation.evaluate_features(z, y, z, y, num_classes=3, split=split, views=views, **asked)
        readouts = ("q", "p", "qp") if split else ("z",)
        assert list(found) == expected_keys(Protocol(**asked, views=views is not None), readouts)


def test_a_sweep_never_mixes_protocols():
    metrics = {"knn_top1_k5_cosine_majority": 0.5, "knn_top1_k1_cosine_majority": 0.4}
    metrics |= {"knn_top5_k9_cosine_majority": 1.0, "knn_top1_k20_cosine_softmax0.07": 0.9, "uniformity": -1.0}
    assert list(keys.knn_sweep(metrics).items()) == [(1, 0.4), (5, 0.5)]
    assert keys.knn_sweep(metrics, Knn(1, "softmax", 0.07)) == {20: 0.9}
    assert keys.knn_sweep({"uniformity": -1.0}) == {}
    assert keys.best_knn({f"q/{k}": v for k, v in metrics.items()} | {"z/mean_norm": 1.0}) == {"q": (5, 0.5)}


def test_headline_accuracies_are_told_from_other_numbers():
    accuracies = ["q/knn_top1_k20_cosine_majority", str(keys.probe(1e-3, PROBE).of("q"))]
    others = ["q/knn_top5_k20_cosine_majority", "q/probe_top5_adamw_lr0.001_wd1e-06_bs256_ep50", "q/knn_top1"]
    assert [text for text in accuracies + others if keys.is_accuracy(text)] == accuracies
