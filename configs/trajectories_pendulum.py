from hamjepa_jax.config import default_config, parse_arg


def get_config(arg=None):
    arg = parse_arg(arg, epochs=40)
    config = default_config()
    dt = 0.2
    config.data.source = f"trajectories:pendulum?train=1000&test=200&frames=16&dt={dt}"
    config.views.stack, config.views.max_gap = 2, 4
    config.views.global_scale, config.views.ratio, config.views.flip_prob = (1.0, 1.0), (1.0, 1.0), 0.0
    config.views.jitter_prob = config.views.grayscale_prob = config.views.blur_prob = 0.0
    config.views.solarize_prob = 0.0

    config.encoder.stem, config.encoder.width, config.encoder.token_layer = "imagenet", 16, 2
    config.encoder.mode, config.encoder.embed_dim = "global", 4
    config.encoder.dtype = "float32"

    config.predictor.num_steps, config.predictor.step_size = 2, dt / 2
    config.predictor.hidden, config.predictor.residual_scale = 64, 1.0

    config.objective.hamjepa.match = "qp"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.clip_norm = 1.0
    config.optimizer.warmup = "5%"
    config.train.epochs = arg.epochs
    config.train.batch_size = 100
    config.log.every = "50 steps"
    config.evaluate.every = ""
    config.evaluate.probe.epochs = 0
    return config
