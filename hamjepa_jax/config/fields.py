"""The settings of a run that belong to no part: each stated once, with default, meaning and bounds.

Durations are texts: "10 epochs", "500 steps" or "5%" (of the training steps).
"""

from hamjepa_jax.parts import field, settings

_SHARE = dict(least=0, most=1)

RUN = settings(
    seed=field(0, "Every random number is a function of this seed, a stream's name and a step.", least=0),
    plugins=field((), "Modules, or Python files, that register parts of your own.", of=str),
)

DATA = settings(
    source=field("digits", "The images, as KIND or KIND:WHERE; the guide to data lists the kinds."),
    store=field(
        "device",
        "Where training images are kept: uint8 on the accelerators, in host memory, or read as they are needed.",
        choices=("device", "host", "stream"),
    ),
    loader=field(
        "grain",
        "Reader of streams; tfdata reads TFDS data sets in TFRecord files with TensorFlow (extra tf).",
        choices=("grain", "tfdata"),
    ),
    stored_size=field(
        None, "Side in pixels of the squares that photographs are kept as.", kind=int, least=4, most=2**14
    ),
    cache_dir=field(None, "Folder of the squares of decoded photographs; None: the user's cache folder.", kind=str),
    num_threads=field(8, "Threads that decode, in each worker process.", least=1, most=1024),
    num_workers=field(
        0,
        "Processes that decode a stream; 0: threads of this process. Squares are decoded once, by all cores if 0.",
        least=0,
        most=1024,
    ),
    max_broken_share=field(0.001, "Largest share of training images that may be unreadable.", **_SHARE),
    memory_budget_gb=field(4.0, "Most gigabytes (10⁹ bytes) of images on each device.", above=0),
    image_size=field(32, "Side of the evaluation images and of the global views, in pixels.", least=4, most=2**14),
    eval_resize=field(
        None,
        "Shorter side that evaluation images are resized to before the centre crop; None does not resize them.",
        kind=int,
        least=1,
        most=2**14,
    ),
    mean=field((0.5, 0.5, 0.5), "Mean of each channel, of pixels in [0, 1]; subtracted from every view.", length=3),
    std=field(
        (0.25, 0.25, 0.25), "Standard deviation of each channel; every view is divided by it.", length=3, above=0
    ),
)

VIEWS = settings(
    num_global=field(2, "Global views of an image.", least=1, most=64),
    num_local=field(0, "Local views of an image.", least=0, most=64),
    local_size=field(16, "Side of the local views, in pixels.", least=4, most=2**14),
    global_scale=field(
        (0.3, 1.0), "Range of a global crop's share of the image's area.", length=2, above=0, most=1
    ),
    local_scale=field((0.05, 0.3), "Range of a local crop's share of the image's area.", length=2, above=0, most=1),
    ratio=field((3 / 4, 4 / 3), "Range of a crop's aspect ratio, drawn log-uniformly.", length=2, above=0),
    flip_prob=field(0.5, "Probability of a horizontal flip.", **_SHARE),
    jitter_prob=field(0.8, "Probability of colour jitter, whose four parts come in random order.", **_SHARE),
    brightness=field(0.4, "Strength of the jitter's brightness.", least=0),
    contrast=field(0.4, "Strength of the jitter's contrast.", least=0),
    saturation=field(0.2, "Strength of the jitter's saturation.", least=0),
    hue=field(0.1, "Strength of the jitter's hue, as a share of a whole turn.", least=0, most=0.5),
    grayscale_prob=field(0.2, "Probability of grayscale.", **_SHARE),
    blur_prob=field(0.5, "Probability of Gaussian blur.", **_SHARE),
    blur_sigma=field((0.1, 2.0), "Range of the blur's standard deviation, in pixels.", length=2, above=0),
    blur_kernel=field(3, "Side of the blur's kernel, in pixels; odd.", least=1, most=2**15 - 1),
    solarize_prob=field(0.2, "Probability of solarisation.", **_SHARE),
    solarize_threshold=field(128, "Level, of 0 … 255, from which solarisation inverts.", least=0, most=256),
    stack=field(1, "Consecutive frames of a clip that make one view, along its channels.", least=1, most=64),
    max_gap=field(1, "Largest gap between two views of a clip, in frames; drawn from 1 on.", least=1, most=2**12),
    shared=field(True, "Whether all views of a clip have the same crop and colours; views of images never have."),
)

ENCODER = settings(
    trunk=field("resnet18", "Network from an image to a feature map, by name."),
    mode=field(
        "token",
        "token: the state is the token grid; global: average pooling and a linear layer.",
        choices=("token", "global"),
    ),
    token_hw=field(
        None, "Side of the pooled token grid; None: the feature map's own.", kind=int, least=1, most=1024
    ),
    token_dim=field(32, "Channels of a token.", least=1, most=2**14),
    token_norm=field(
        "batch",
        "Normalisation of the tokens after their projection: over the batch, or layer: over each token's channels.",
        choices=("batch", "layer"),
    ),
    split_qp=field(True, "Whether the channels of each token are halved into q and p."),
    embed_dim=field(
        None, "Size of an embedding: needed in global mode, derived in token mode.", kind=int, least=1, most=2**16
    ),
    projector=field(
        "identity",
        "Network after the encoder that only the loss sees; mlp is for objectives that read no q and p.",
        choices=("identity", "mlp"),
    ),
    projector_dim=field(2048, "Output size of the mlp projector.", least=1, most=2**15),
    projector_hidden=field(
        None, "Width of its hidden layers; None: that of its output.", kind=int, least=1, most=2**15
    ),
    projector_layers=field(2, "Linear layers of the mlp projector.", least=1, most=16),
    projector_norm=field(
        "batch", "Normalisation after each of its hidden layers.", choices=("batch", "layer", "none")
    ),
    dtype=field(
        "auto",
        "Type of the encoder's computation in training; parameters and statistics are float32. auto: bfloat16 on "
        "GPUs and TPUs, float32 on CPUs; a run keeps the type that it began with.",
        choices=("auto", "float32", "bfloat16"),
    ),
)

PREDICTOR = settings(kind=field("hamiltonian", "Map from one view's state to another's, by name."))

OBJECTIVE = settings(name=field("hamjepa", "Loss on the views' embeddings, by name."))

OPTIMIZER = settings(
    name=field(
        "adamw",
        "Optimiser of the networks: adamw, lars, sgd, or muon for kernels with AdamW for everything else.",
        choices=("adamw", "lars", "sgd", "muon"),
    ),
    learning_rate=field(5e-4, "Peak learning rate.", least=0),
    predictor_learning_rate=field(
        None, "Peak learning rate of the predictor; None: the same.", kind=float, least=0
    ),
    weight_decay=field(
        5e-4, "Weight decay: decoupled for adamw and muon, part of the gradient for lars and sgd.", least=0
    ),
    weight_decay_final=field(None, "Weight decay that half a cosine ends at; None: constant.", kind=float, least=0),
    decay_mask=field(
        False,
        "Whether norms, biases, tokens and position embeddings are spared weight decay, and the scaling of lars.",
    ),
    layer_decay=field(
        1.0,
        "Factor of the learning rate from a block of the trunk (a layer of a ResNet) to the one before; 1: none.",
        above=0,
        most=1,
    ),
    momentum=field(0.9, "Decay of the average of gradients of lars, sgd and muon.", least=0, below=1),
    b1=field(0.9, "Decay of AdamW's average of gradients.", least=0, below=1),
    b2=field(0.999, "Decay of AdamW's average of squared gradients.", least=0, below=1),
    eps=field(1e-8, "Added to the root of AdamW's average of squared gradients.", above=0),
    clip_norm=field(None, "Largest global norm of the gradient; None: no clipping.", kind=float, above=0),
    spectrum_learning_rate=field(
        1e-3, "Learning rate of a learned HamSIGReg spectrum: constant, without decay and clipping.", least=0
    ),
    spectrum_interval=field(1, "Steps between updates of a learned HamSIGReg spectrum.", least=1),
    warmup=field("10 epochs", "Duration of the linear warm-up."),
    warmup_start=field(0.01, "Learning rate at the first step, as a share of the peak.", least=0),
    final=field(1e-3, "Learning rate that the cosine ends at, as a share of the peak.", least=0),
)

TRAIN = settings(
    epochs=field(30, "Length of training.", least=1, most=10**6),
    steps=field(None, "Length in steps, in place of epochs.", kind=int, least=1, most=10**9),
    batch_size=field(512, "Images in a step, over all devices together.", least=1),
    accumulation=field(1, "Micro-batches whose gradients make one step.", least=1),
    steps_per_dispatch=field(1, "Steps that one device program takes.", least=1, most=2**14),
)

MESH = settings(
    fsdp=field(1, "Devices that share one copy of the parameters and of the optimiser's state.", least=1)
)

LOG = settings(
    every=field("20 steps", "Time between lines of the log."),
    trackers=field(
        ("tensorboard",),
        "Records of the run besides metrics.jsonl; wandb and mlflow need the extras of these names.",
        of=str,
        choices=("tensorboard", "wandb", "mlflow"),
    ),
    tensorboard=field(True, "False leaves TensorBoard out of log.trackers."),
    compilation_cache=field(
        None, 'Folder of compiled programs; None: .jax_cache beside the workdir; "": none are kept.', kind=str
    ),
)

CHECKPOINT = settings(
    every=field("1 epochs", "Time between checkpoints."),
    keep_latest=field(2, "How many of the newest checkpoints are kept.", least=1),
    keep_best=field(1, "How many of the best checkpoints are kept as well.", least=0),
    best_metric=field(
        "q/knn_top1_k20_cosine_majority", "Evaluation metric that is highest in the best checkpoints."
    ),
)

EVALUATE = settings(
    teacher=field(False, "Whether the features are those of the teacher, for objectives that have one."),
    every=field(
        "10 epochs", 'Time between evaluations in training; "": at the end alone.', hint='use "" for the end alone'
    ),
    source=field(
        None, "Images to evaluate on in place of the training's own, as data.source; they have labels.", kind=str
    ),
    probes=field(
        (),
        "Further labelled sources, as data.source: kNN and label-free measures at every evaluation, and the linear "
        "probe at the end, under their names.",
        of=str,
    ),
    batch_size=field(512, "Images in a step of the feature extraction.", least=1),
    ks=field((1, 5, 10, 20, 50, 100, 200), "Numbers of neighbours of the kNN.", least=1, empty=False),
    references=field((), "Features to compare with at the end.", of=str, choices=("untrained", "pixels")),
    flow=field(
        0,
        "Test states at which the Jacobian of the learned flow is taken at the end; 0: no flow is measured.",
        least=0,
        most=2**16,
    ),
    lidar=settings(
        images=field(
            0,
            "Test images whose random views LiDAR is measured from, in training too; 0: none. Take more than a "
            "readout has coordinates; the paper has 1000.",
            least=0,
            most=2**20,
        ),
        views=field(50, "Random views of each of these images.", least=2, most=2**12),
    ),
    online_probe=settings(
        enabled=field(
            False,
            "Whether a linear classifier of each readout is trained beside the networks, which it does not touch; "
            "needs labels.",
        ),
        log=field(False, "Whether its loss and accuracy on the batch stand in every line of the log."),
        learning_rate=field(1e-3, "Learning rate of its AdamW, constant.", above=0),
        weight_decay=field(1e-6, "Weight decay of its AdamW.", least=0),
    ),
    probe=settings(
        epochs=field(50, "Length of the linear probe at the end; 0: no probe.", least=0, most=10**6),
        batch_size=field(256, "Examples in a step of the probe.", least=1),
        learning_rates=field(
            (1e-3,),
            "Learning rates of probes, trained side by side; the first is the protocol's.",
            above=0,
            empty=False,
        ),
        weight_decay=field(1e-6, "Weight decay of the probe.", least=0),
    ),
)

# By block of the config; RUN stands at its top.
BLOCKS = {
    "data": DATA,
    "views": VIEWS,
    "encoder": ENCODER,
    "predictor": PREDICTOR,
    "objective": OBJECTIVE,
    "optimizer": OPTIMIZER,
    "train": TRAIN,
    "mesh": MESH,
    "log": LOG,
    "checkpoint": CHECKPOINT,
    "evaluate": EVALUATE,
}
