# ImageNet-100, HamJEPA on the tokens of a ResNet-50, two global and six local views, 45 epochs.
#   python -m hamjepa_jax.main --config=configs/imagenet100_resnet50.py:source=folder:DIR --workdir=runs/resnet50
#   predictor=mlp and predictor=identity are the controls: the same encoder, losses and schedule with a predictor
#   without structure, or with none. The constants are those of imagenet100 (ResNet-18, two views), not tuned anew.
#   Hardware, wall time, accuracy: not measured.
from hamjepa_jax.config import parse_arg, shipped
from hamjepa_jax.errors import UserError

PREDICTORS = ("hamiltonian", "mlp", "identity")


def get_config(arg=None):
    arg = parse_arg(arg, epochs=45, source="folder:imagenet100", predictor="hamiltonian")
    if arg.predictor not in PREDICTORS:
        raise UserError(f"config argument 'predictor={arg.predictor}': must be one of {', '.join(PREDICTORS)}.")
    config = shipped("imagenet100", f"epochs={arg.epochs},source={arg.source}")
    config.encoder.trunk = "resnet50"
    config.predictor.kind = arg.predictor
    config.views.num_local = 6
    return config
