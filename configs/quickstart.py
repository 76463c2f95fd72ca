# Ten drawn shapes (embedded, 5,000 training images of 32×32 pixels), HamJEPA with a narrow encoder, on CPU.
#   python -m hamjepa_jax.main --config=configs/quickstart.py --workdir=runs/quickstart      (= make quickstart)
#   Three seeds (docs/results/quickstart.json, commit e562cc7efd), kNN@20 and probe in %: q 78.20 ± 0.40,
#   68.77 ± 0.86; untrained q 23.03 ± 2.03, 17.23 ± 2.12; raw pixels 27.00 ± 0.00, 13.23 ± 0.46. Wall times on a
#   busy machine: docs/results.md; on an idle one: not measured.
from hamjepa_jax.config import default_config, parse_arg


def get_config(arg=None):
    arg = parse_arg(arg, epochs=8)
    config = default_config()

    config.data.source = "shapes:5000"
    config.data.std = (0.23, 0.23, 0.23)

    # Two views of a shape agree in its form; its colours are made to differ, as are place and size.
    config.views.global_scale = (0.6, 1.0)
    config.views.saturation = 0.4
    config.views.hue = 0.5
    config.views.grayscale_prob = 0.3
    config.views.blur_prob = 0.0
    config.views.solarize_prob = 0.0  # It would make a bright shape as dark as its background.

    # One token, the average over the map. In a grid of few tokens much of the energy is in each position's average,
    # on which two views agree without seeing the image. With one token, batch normalisation leaves no average. In
    # single runs it was ahead of a 4×4 grid with mean_weight 1.
    config.encoder.stem = "imagenet"
    config.encoder.width = 32
    config.encoder.token_layer = 2
    config.encoder.token_hw = 1
    config.encoder.token_dim = 128
    config.encoder.dtype = "float32"

    # The paper's −1.5 works too, but lets q use fewer directions: its effective rank and kNN were lower (one seed).
    config.objective.hamjepa.logdet_floor_q = -0.5
    config.objective.hamjepa.logdet_floor_p = -0.5

    config.predictor.residual_warmup_epochs = 2
    config.optimizer.learning_rate = 2e-3
    config.optimizer.clip_norm = 1.0
    config.optimizer.warmup = "5%"

    config.train.epochs = arg.epochs
    config.train.batch_size = 128

    config.log.every = "13 steps"
    config.evaluate.every = "4 epochs"
    config.evaluate.references = ("untrained", "pixels")
    return config
