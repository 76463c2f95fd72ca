import json

import numpy as np
import pytest

from hamjepa_jax import evaluation

PROBE = {"epochs": 2, "batch_size": 64, "learning_rate": (1e-3, 1e-2), "weight_decay": 1e-6}


def states(goldens):
    g = goldens("evaluation")
    return g["Xtr"], g["ytr"], g["Xte"], g["yte"]


@pytest.mark.slow
def test_keys_name_the_protocol_and_values_come_from_the_public_functions(goldens):
    train_z, train_y, test_z, test_y = states(goldens)
    found = evaluation.evaluate_features(
        train_z, train_y, test_z, test_y, num_classes=12, split=True, ks=(1, 20), probe=PROBE, top=8, seed=3
    )
    assert all(type(v) is float for v in found.values())
    statistics = [
        f"{s}_{q}" for q in ("cosine", "norm") for s in ("mean", "std", "p10", "p50", "p90", "min", "max")
    ]
    measured = [
        *(f"knn_{t}_k{k}_cosine_majority" for t in ("top1", "top5") for k in (1, 20)),
        *(f"probe_{t}_adamw_lr{lr}_wd1e-06_bs64_ep2" for lr in ("0.001", "0.01") for t in ("top1", "top5")),
        "effective_rank_top8",
        "effective_rank_randomised_top8",
        "participation_ratio_top8",
        "rankme",
        "stable_rank",
        "alpha_req_top8",
        "uniformity",
        *statistics,
    ]
    assert list(found) == [f"{readout}/{key}" for readout in ("q", "p", "qp") for key in measured]

    p_train, p_test = train_z[:, 20:], test_z[:, 20:]
    accuracy = evaluation.knn_accuracy(p_train, train_y, p_test, test_y, ks=(20,), num_classes=12)
    assert found["p/knn_top1_k20_cosine_majority"] == accuracy["top1"][20]
    spectrum = evaluation.covariance_spectrum(p_test, 8)
    assert found["p/effective_rank_top8"] == evaluation.effective_rank(spectrum)
    cosines = evaluation.random_pair_cosines(p_test, num_pairs=20_000, seed=3)
    assert found["p/mean_cosine"] == cosines.mean()
    assert found["p/p90_norm"] == np.percentile(evaluation.norms(p_test), 90)
    assert found["p/uniformity"] == evaluation.uniformity(p_test)


def test_the_published_top5_has_its_own_key_and_only_on_request(goldens):
    train_z, train_y, test_z, test_y = states(goldens)
    arguments = dict(num_classes=12, split=True, names=("p",), ks=(1, 20), probe=None, seed=3)
    data = train_z, train_y, test_z, test_y
    plain = evaluation.evaluate_features(*data, **arguments)
    asked = evaluation.evaluate_features(*data, **arguments, published_top5=True)
    more = ["p/knn_top5_published_k1_cosine_majority", "p/knn_top5_published_k20_cosine_majority"]
    assert {key: value for key, value in asked.items() if key not in more} == plain
    assert set(asked) - set(plain) == set(more)
    assert asked[more[0]] > asked["p/knn_top5_k1_cosine_majority"] == asked["p/knn_top1_k1_cosine_majority"]
    assert asked[more[1]] >= asked["p/knn_top5_k20_cosine_majority"]


def test_parts_can_be_left_out_and_views_add_alignment(goldens):
    train_z, train_y, test_z, test_y = states(goldens)
    arguments = dict(num_classes=12, ks=(), probe=None, max_samples=100, seed=0)
    found = evaluation.evaluate_features(
        train_z, train_y, test_z, test_y, split=False, views=(test_z, test_z + 0.1), **arguments
    )
    assert {k.split("/")[0] for k in found} == {"z"}
    assert not any("knn" in k or "probe" in k for k in found)
    assert 0 < found["z/alignment_views"] < 0.1
    assert abs(found["z/uniformity_views"] - found["z/uniformity"]) < 0.2
    only_p = evaluation.evaluate_features(train_z, train_y, test_z, test_y, split=True, names=("p",), **arguments)
    assert all(k.startswith("p/") for k in only_p)
    # 100 of 500 samples: an estimate of the same thing, but not the same number.
    assert found["z/mean_norm"] != evaluation.norms(test_z).mean()
    assert abs(found["z/mean_norm"] - evaluation.norms(test_z).mean()) < 0.3


def test_summary_for_the_figure_survives_json_and_matches_the_metrics(goldens):
    train_z, train_y, test_z, test_y = states(goldens)
    metrics = evaluation.evaluate_features(
        train_z, train_y, test_z, test_y, num_classes=12, split=True, ks=(1, 5), probe=None, top=8
    )
    summary = evaluation.feature_summary(test_z, metrics, split=True, top=8)
    assert list(summary) == ["q", "p", "qp"]
    for name, part in summary.items():
        assert part["knn_top1"] == {k: metrics[f"{name}/knn_top1_k{k}_cosine_majority"] for k in (1, 5)}
        assert evaluation.effective_rank(part["spectrum"]) == metrics[f"{name}/effective_rank_top8"]
        assert sum(part["cosine_histogram"]["counts"]) == 20_000
        assert sum(part["norm_histogram"]["counts"]) == 500
    json.dumps(summary)


@pytest.mark.parametrize("noise", [0, 1e-8, 3e-7])
def test_collapsed_features_have_a_summary_too(noise):
    rng = np.random.default_rng(0)
    z = (rng.standard_normal(8) * (1 + noise * rng.standard_normal((300, 8)))).astype(np.float32)
    for part in evaluation.feature_summary(z, {}, split=True).values():
        for name, count in (("cosine_histogram", 20_000), ("norm_histogram", 300)):
            assert sum(part[name]["counts"]) == count and (np.diff(part[name]["edges"]) > 0).all()


def test_impossible_requests_are_refused(goldens):
    train_z, train_y, test_z, test_y = states(goldens)
    with pytest.raises(ValueError, match=r"\['q'\] do not exist.*\['z'\]"):
        evaluation.evaluate_features(train_z, train_y, test_z, test_y, num_classes=12, split=False, names=("q",))
    with pytest.raises(ValueError, match=r"views \[\(5, 40\).*\(500, 40\)"):
        evaluation.evaluate_features(
            train_z, train_y, test_z, test_y, num_classes=12, split=True, views=(test_z[:5], test_z[:5])
        )


def test_few_shots_and_votes_have_keys_of_their_own(goldens):
    train_z, train_y, test_z, test_y = states(goldens)
    found = evaluation.evaluate_features(
        train_z,
        train_y,
        test_z,
        test_y,
        num_classes=12,
        split=False,
        ks=(1, 5),
        probe=PROBE,
        shots=3,
        vote="softmax",
    )
    rows = evaluation.few_shot_rows(train_y, 3, num_classes=12, seed=0)
    assert np.bincount(train_y[rows]).tolist() == [3] * 12
    expected = evaluation.knn_accuracy(
        train_z[rows], train_y[rows], test_z, test_y, ks=(1, 5), num_classes=12, vote="softmax"
    )
    assert found["z/knn_top1_k5_cosine_softmax0.07_3shot"] == expected["top1"][5]
    assert "z/probe_top1_adamw_lr0.01_wd1e-06_bs64_ep2_3shot" in found
    assert set(evaluation.few_shot_rows(train_y, 2, num_classes=12, seed=0)) < set(rows)
    with pytest.raises(ValueError, match="smallest class"):
        evaluation.few_shot_rows(train_y, 10**6, num_classes=12, seed=0)


def test_accuracy_keys_are_those_that_are_measured(goldens):
    train_z, train_y, test_z, test_y = states(goldens)
    found = evaluation.evaluate_features(
        train_z, train_y, test_z, test_y, num_classes=12, split=False, ks=(1, 20), probe=PROBE
    )
    expected = {f"z/{key}" for key in evaluation.accuracy_keys(ks=(1, 20), probe=PROBE)}
    assert expected == {key for key in found if "_top1_" in key}


def test_a_k_beyond_the_labelled_examples_is_said_once(goldens, caplog):
    train_z, train_y, test_z, test_y = states(goldens)
    asked = dict(num_classes=12, split=True, ks=(1, 37), probe=None, shots=3)
    for _ in range(2):
        found = evaluation.evaluate_features(train_z, train_y, test_z, test_y, **asked)
    (said,) = [record.getMessage() for record in caplog.records if "kNN" in record.getMessage()]
    assert "k = 37" in said and "only 36 labelled" in said and "q/knn_top1_k37_cosine_majority_3shot" in found
