# Clips of a mechanical system whose states are known (embedded, drawn when they are opened), HamJEPA, on CPU.
#   python -m hamjepa_jax.main --config=configs/trajectories.py:system=pendulum --workdir=runs/pendulum
#   python -m hamjepa_jax.evaluate runs/pendulum --trajectories
#   Arguments: system=…, predictor=hamiltonian, mlp or identity, friction=0.1, epochs=20. trajectories_SYSTEM and
#   trajectories_SYSTEM_mlp are this file with the first two.
#   Five minutes on one core of a busy CPU. Three seeds and controls: docs/results.md.
from hamjepa_jax.config import default_config, parse_arg

DT = 0.2  # Time from frame to frame.


def get_config(arg=None):
    arg = parse_arg(arg, system="pendulum", predictor="hamiltonian", friction=0.0, epochs=20)
    config = default_config()

    config.data.source = f"trajectories:{arg.system}?train=1000&test=200&frames=16&dt={DT}&friction={arg.friction}"
    config.data.std = (0.23, 0.23, 0.23)

    # Two frames show the momentum. Nothing but time tells the two views apart.
    config.views.stack, config.views.max_gap = 2, 4
    config.views.global_scale, config.views.ratio, config.views.flip_prob = (1.0, 1.0), (1.0, 1.0), 0.0
    for change in ("jitter", "grayscale", "blur", "solarize"):
        config.views[f"{change}_prob"] = 0.0

    # As many coordinates as the system has. The last map is 1×1, so pooling keeps all places.
    config.encoder.stem, config.encoder.width = "imagenet", 16
    config.encoder.mode, config.encoder.embed_dim = "global", 4 if arg.system == "two_body" else 2
    config.encoder.dtype = "float32"

    # Over one frame the flow takes two steps of half its time. The potential is learned: hardly any of it is given.
    config.predictor.kind = arg.predictor
    config.predictor.num_steps, config.predictor.step_size = 2, DT / 2
    config.predictor.hidden, config.predictor.residual_scale = 64, 1.0

    # A system of one degree of freedom has one direction in q and in p: only scale and volume are held up.
    config.objective.hamjepa.match = "qp"
    for name in ("pr_floor_q", "pr_floor_p", "eigmax_ceiling_q", "eigmax_ceiling_p"):
        config.objective.hamjepa[name] = None

    config.optimizer.learning_rate, config.optimizer.clip_norm, config.optimizer.warmup = 2e-3, 1.0, "5%"
    config.train.epochs, config.train.batch_size = arg.epochs, 64

    config.log.every = "50 steps"
    config.checkpoint.every = "10 epochs"
    config.evaluate.every, config.evaluate.probe.epochs = "", 0
    return config
