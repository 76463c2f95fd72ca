# ImageNet-100, HamJEPA, 45 epochs.
#   python -m hamjepa_jax.main --config=configs/imagenet100.py:source=folder:DIR --workdir=runs/imagenet100
#   DIR holds train/<class>/*.JPEG and val/<class>/*.JPEG. Photographs are decoded as they are needed; to keep them
#   on the device as squares: --config.data.store=device --config.data.stored_size=256 (25 GB over all devices).
#   Hardware, wall time, accuracy: not measured. Paper: q kNN@20 24.92, probe 31.92.
from hamjepa_jax.config import default_config, parse_arg


def get_config(arg=None):
    arg = parse_arg(arg, epochs=45, source="folder:imagenet100")
    config = default_config()

    config.data.source = arg.source
    config.data.store = "stream"
    config.data.memory_budget_gb = 40.0
    config.data.image_size = 224
    config.data.eval_resize = 256
    config.data.mean = (0.485, 0.456, 0.406)
    config.data.std = (0.229, 0.224, 0.225)

    config.views.global_scale = (0.4, 1.0)
    config.views.local_scale = (0.05, 0.4)
    config.views.local_size = 98
    config.views.blur_kernel = 23

    config.encoder.stem = "imagenet"
    config.encoder.token_hw = 8

    hamjepa = config.objective.hamjepa
    hamjepa.match = "qp"
    hamjepa.both_directions = "forward"
    hamjepa.variance_weight = 1.0
    hamjepa.variance_on = "q"
    hamjepa.logdet_weight = 1.0
    hamjepa.logdet_floor_q = hamjepa.logdet_floor_p = -1.2
    hamjepa.pr_floor_q = hamjepa.pr_floor_p = 0.25
    hamjepa.eigmax_ceiling_q = hamjepa.eigmax_ceiling_p = 0.10

    config.optimizer.predictor_learning_rate = 5e-5
    config.optimizer.clip_norm = 1.0

    config.train.epochs = arg.epochs
    config.train.batch_size = 256
    return config
