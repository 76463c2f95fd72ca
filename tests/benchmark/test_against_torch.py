"""The encoder in PyTorch that the step is timed against is the same network, forwards and backwards."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hamjepa_jax import build
from hamjepa_jax.benchmark import __main__ as benchmark_page
from hamjepa_jax.benchmark.against_torch import _in_torch, _tokens
from hamjepa_jax.interop.torch import encoder_from_state_dict, state_dict_from_encoder

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("stem, token_hw", [("cifar", None), ("cifar", 3), ("imagenet", None)])
def test_states_and_gradients_are_those_of_our_encoder(stem, token_hw, tiny_config):
    c = tiny_config
    c.encoder.stem, c.encoder.token_hw, c.data.image_size = stem, token_hw, 16
    model = build.build_model(c)
    params, stats = model.init(jax.random.key(0))
    images = np.random.default_rng(0).standard_normal((6, 16, 16, 3)).astype(np.float32)
    variables = {"params": params["encoder"], "batch_stats": stats["encoder"]}
    encode, _ = _in_torch(torch, c, variables, [images])
    want = model.encode(params, stats, jnp.asarray(images))[0]
    np.testing.assert_allclose(encode(0), want, atol=1e-4)

    weights = {k: torch.from_numpy(np.array(v)) for k, v in state_dict_from_encoder(variables).items()}
    learned = {k: w.requires_grad_() for k, w in weights.items() if k.endswith((".weight", ".bias"))}
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    (_tokens(torch.nn.functional, weights, pixels, c.encoder) ** 3).sum().backward()
    theirs = {k: v.detach().numpy() for k, v in weights.items()} | {k: w.grad.numpy() for k, w in learned.items()}
    settings = dict(stem=stem, token_layer=2, token_hw=token_hw, split_qp=True)
    _, theirs = encoder_from_state_dict(theirs, **settings)
    ours = jax.grad(lambda p: jnp.sum(model.encode(p, stats, jnp.asarray(images))[0] ** 3))(params)["encoder"]
    scale = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(ours))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * scale), theirs["params"], ours)


def test_the_command_writes_its_numbers(tmp_path, capsys):
    arguments = ["step", "--config=tests/tiny.py", "--against_torch", "--rounds=2", f"--json={tmp_path / 'n.json'}"]
    assert benchmark_page.main(arguments) == 0
    assert "times PyTorch's time" in capsys.readouterr().out
    found = json.loads((tmp_path / "n.json").read_text())
    assert set(found["seconds"]) == {"step", "encoder", "encoder in PyTorch"}
    assert all(len(times) == 2 and min(times) > 0 for times in found["seconds"].values())
    assert found["difference"] < 1e-3 and found["dtype"] == "float32" and found["batch_size"] == 16
