# CIFAR-100, HamJEPA, 30 epochs (80 with --config=configs/cifar100.py:epochs=80).
#   python -m hamjepa_jax.main --config=configs/cifar100.py --workdir=runs/cifar100
#   Measured on one GPU: docs/results/cifar100_30.json. Paper (3 seeds): q kNN@20 31.45 ± 0.27, probe 33.95 ± 0.24.
from hamjepa_jax.config import default_config, parse_arg


def get_config(arg=None):
    arg = parse_arg(arg, epochs=30, source="cifar100:")
    config = default_config()

    config.data.source = arg.source
    config.data.image_size = 32
    config.data.mean = (0.5071, 0.4867, 0.4408)
    config.data.std = (0.2675, 0.2565, 0.2761)

    config.predictor.residual_warmup_epochs = 10

    config.optimizer.clip_norm = 1.0

    config.train.epochs = arg.epochs
    config.train.batch_size = 512
    return config
