"""Every field of a run, defined once: its type, its default and its meaning.

A run's file starts from get_config() and sets what differs. The config is locked: a mistyped key is refused.
Durations are strings, "10 epochs", "500 steps" or "5%" (of the training steps).
"""

from ml_collections import ConfigDict, config_dict


def _or_none(value: float) -> config_dict.FieldReference:
    """A field that has a value and may be set to None, as a placeholder may."""
    return config_dict.FieldReference(value)


def get_config() -> ConfigDict:
    c = ConfigDict()
    c.seed = 0  # Every random number is a function of this seed, a stream's name and a step.

    # -- Data ------
    c.data = ConfigDict()
    c.data.source = "digits"  # digits, arrays:FILE.npz, cifar100:DIR, folder:DIR, tfds:NAME, synthetic:N.
    # "device": uint8 images live on the accelerator; "host": in host memory; "stream": decoded as they are needed.
    c.data.store = "device"
    c.data.loader = "grain"  # Of streams; "tfdata": TFDS data sets in TFRecord files, by TensorFlow (extra tf).
    c.data.stored_size = config_dict.placeholder(
        int
    )  # Side of the squares that photographs are kept as, in pixels.
    c.data.cache_dir = config_dict.placeholder(str)  # Folder of these squares; None: the user's cache folder.
    c.data.num_threads = 8  # That decode, in each worker process.
    c.data.num_workers = 0  # Processes that decode; 0: threads of this process (squares decoded once: all cores).
    c.data.max_broken_share = 0.001  # Most unreadable training images to put up with, as a share of all.
    c.data.memory_budget_gb = 4.0  # Most gigabytes (1e9 bytes) of images to keep on each device.
    c.data.image_size = 32  # Side of the evaluation images and of the global views, in pixels.
    c.data.eval_resize = config_dict.placeholder(int)  # Shorter side before the centre crop; None: as they are.
    c.data.mean = (0.5, 0.5, 0.5)  # Per-channel mean of pixels in [0, 1], subtracted from every view.
    c.data.std = (0.25, 0.25, 0.25)  # Per-channel standard deviation, divided by.

    # -- Views: global ones, then local ones ------
    c.views = ConfigDict()
    c.views.num_global = 2
    c.views.num_local = 0
    c.views.local_size = 16  # Side of the local views, in pixels.
    c.views.global_scale = (0.3, 1.0)  # Range of a global crop's share of the image's area.
    c.views.local_scale = (0.05, 0.3)
    c.views.ratio = (3 / 4, 4 / 3)  # Range of a crop's aspect ratio, drawn log-uniformly.
    c.views.flip_prob = 0.5  # Horizontal flip.
    c.views.jitter_prob = 0.8  # Colour jitter, its four parts in random order.
    c.views.brightness = 0.4
    c.views.contrast = 0.4
    c.views.saturation = 0.2
    c.views.hue = 0.1
    c.views.grayscale_prob = 0.2
    c.views.blur_prob = 0.5
    c.views.blur_sigma = (0.1, 2.0)  # Range of the Gaussian blur's standard deviation, in pixels.
    c.views.blur_kernel = 3  # Side of the blur's kernel, in pixels; odd.
    c.views.solarize_prob = 0.2
    c.views.solarize_threshold = 128  # In levels of 0 … 255.

    # -- Encoder ------
    c.encoder = ConfigDict()
    c.encoder.mode = "token"  # "token": a state from the token grid; "global": pooling and a linear layer.
    c.encoder.stem = "cifar"  # "cifar" (3×3, stride 1) or "imagenet" (7×7, stride 2, max-pooling).
    c.encoder.width = 64  # Channels of the trunk's first layer; 64 is the ResNet-18.
    c.encoder.token_layer = 3  # 2, 3 or 4; later layers are not computed.
    c.encoder.token_hw = config_dict.placeholder(int)  # Side of the pooled token grid; None: the layer's own.
    c.encoder.token_dim = 32  # Channels of a token.
    c.encoder.split_qp = True  # Halve each token's channels into q and p.
    c.encoder.embed_dim = config_dict.placeholder(int)  # Embedding size; needed in global mode, else derived.
    c.encoder.projector = "identity"  # "identity", or "mlp" (for objectives that read no q and p).
    c.encoder.projector_dim = 2048
    c.encoder.dtype = "bfloat16"  # Computation type in training; parameters and statistics are float32.

    # -- Predictor ------
    c.predictor = ConfigDict()
    c.predictor.kind = "hamiltonian"  # "hamiltonian", "mlp" (the unstructured ablation) or "identity".
    c.predictor.energy = "separable"  # "separable", "quadratic" or "general".
    c.predictor.method = "leapfrog"  # "leapfrog", "symplectic_euler", "euler" or "yoshida4".
    c.predictor.num_steps = 2  # S.
    c.predictor.horizon = ()  # ((epoch, steps), …): S grows so far from that epoch (from 1) on; (): S throughout.
    c.predictor.step_size = 0.05  # Δt.
    c.predictor.learnable_step_size = False  # Refused for HamJEPA training, where it collapses.
    c.predictor.hidden = 256  # Width of the potential's (or the MLP predictor's) hidden layers.
    c.predictor.depth = 2  # Their number.
    c.predictor.base_coeff = 0.1  # α of ½·α‖q‖² in the separable energy.
    c.predictor.residual_scale = 0.02  # s of the learned part of the energy.
    c.predictor.residual_warmup_epochs = 0  # s grows to its value over this many epochs; 0: constant.

    # -- Objective: its name, and a block for each ------
    c.objective = ConfigDict()
    c.objective.name = "hamjepa"  # "hamjepa", "lejepa", "hamsigreg" or "vicreg".

    h = c.objective.hamjepa = ConfigDict()
    h.match = "q"  # "q": positions, and momenta with p_weight; "qp": the whole state.
    h.p_weight = 0.2
    h.both_directions = "reverse_time"  # "none", "reverse_time" (back with −Δt) or "forward" (back with +Δt).
    h.detach_target = True  # No gradient into the predicted view.
    h.energy_weight = 0.0  # Of the squared energy drift along the flow.
    h.budget_weight = 0.2  # λ_b, of (mean q² − q_target)² + (mean p² − p_target)².
    h.q_target = 1.0
    h.p_target = 1.0
    h.variance_weight = 0.5  # λ_v, of the hinge on each coordinate's standard deviation.
    h.variance_floor = 0.2
    h.variance_eps = 1e-4
    h.variance_on = "qp"  # "q" or "qp".
    h.logdet_weight = 0.5  # λ_l, of the three spectral hinges, on q and on p.
    h.logdet_floor_q = _or_none(-1.5)  # Nats per dimension; None turns a hinge off.
    h.logdet_floor_p = _or_none(-1.5)
    h.pr_floor_q = _or_none(0.12)  # Participation ratio per dimension.
    h.pr_floor_p = _or_none(0.16)
    h.eigmax_ceiling_q = _or_none(0.35)  # Largest eigenvalue's share of the trace.
    h.eigmax_ceiling_p = _or_none(0.30)
    h.logdet_eps = 1e-4
    h.projection_dim = 128  # Columns of the random projections.
    h.refresh_interval = 16  # Steps between their redraws.
    h.mean_weight = 0.05  # λ_m, of the squared batch mean.

    l = c.objective.lejepa = ConfigDict()  # Used by "hamsigreg" too.
    l.sigreg_weight = 0.02  # λ.
    l.num_directions = 64
    l.num_points = 9  # Of the quadrature on [0, t_max]; LeJEPA's own default is 17 on [0, 5].
    l.t_max = 3.0
    l.weight = "gaussian"  # "gaussian" or "uniform".
    l.subsample = config_dict.placeholder(int)  # Examples of a view that SIGReg looks at; None: all.
    l.clip = config_dict.placeholder(float)  # A slice whose statistic is below it counts as 0; None: all count.
    l.refresh_interval = 1  # Steps between redraws of the directions.

    s = c.objective.hamsigreg = ConfigDict()  # LeJEPA's settings, and a geometry H: SIGReg of H^{1/2}z.
    s.kind = "diag"  # "identity", "diag" (eigenvalues linear 1 … 2), "chain" or "learnable".
    s.chain = ConfigDict()  # Eigenvalues (1 − beta) + beta·(kappa·ν + eps)/mean, ν those of a periodic Laplacian.
    s.chain.mode = "grid"  # "grid": of the token grid, by channel; "1d": of the flattened embedding.
    s.chain.kappa = 1.0
    s.chain.eps = 1e-3
    s.chain.beta = 0.7
    s.chain.normalize = "trace"  # The mean: "trace" (arithmetic) or "logdet" (geometric).
    r = s.learnable = ConfigDict()  # Eigenvalues by radial frequency of the token grid, learned; see `spectrum`.
    r.bins = 8  # Radial bins.
    r.span_max = 0.4  # Largest total of the learned log-increments, in nats.
    r.init_loglambda_span = 0.05  # Their total at the start, in nats.
    r.eps_ridge = 0.0  # Share of the identity blended in at the end.
    r.alpha_start = 0.0  # Weight α of the learned part: 0 up to this epoch (counted from 1), …
    r.alpha_ramp = 0.0  # … then linear to 1 over this many epochs.
    r.beta_start = 0.0  # Weight β of the base, likewise.
    r.beta_ramp = 0.0
    r.adversarial = False  # Whether the spectrum ascends SIGReg or descends.
    r.adv_mult = 1.0  # Factor on λ·SIGReg in the spectrum's own loss.
    r.spectral_weight = 1.0  # Of the regulariser, which is minimised either way.
    r.shape = ConfigDict()
    r.shape.base = "laplacian"  # "identity", "r2" (ridge + strength·r²) or "laplacian" (ridge + strength·ν).
    r.shape.base_ridge = 1.0
    r.shape.base_strength = 4.0
    r.shape.gauge = "logdet"  # The mean eigenvalue that is kept at 1: "trace" (arithmetic), "logdet" (geometric).
    r.shape.delta_clip = config_dict.placeholder(float)  # Bends log-increments to within this; None: off.
    r.shape.center_delta = False  # Takes their mean over the frequencies off, in the regulariser.
    r.shape.binning = "linear_radius"  # "linear_radius", "linear_radius_sq" or "quantile_radius".
    r.penalty = ConfigDict()
    r.penalty.cond_max = config_dict.placeholder(float)  # Condition number that goes free; None: no penalty.
    r.penalty.cond_weight = 0.0
    r.penalty.curvature_weight = 1e-3
    r.penalty.l2_weight = 1e-4

    v = c.objective.vicreg = ConfigDict()
    v.invariance_weight = 25.0
    v.variance_weight = 25.0
    v.covariance_weight = 1.0
    v.std_target = 1.0  # Standard deviation below which a coordinate is penalised.
    v.variance_eps = 1e-4

    # -- Optimiser: AdamW, linear warm-up, cosine ------
    c.optimizer = ConfigDict()
    c.optimizer.learning_rate = 5e-4
    c.optimizer.predictor_learning_rate = config_dict.placeholder(float)  # None: the same.
    c.optimizer.weight_decay = 5e-4  # Decoupled, on every parameter.
    c.optimizer.b1 = 0.9
    c.optimizer.b2 = 0.999
    c.optimizer.eps = 1e-8
    c.optimizer.clip_norm = config_dict.placeholder(float)  # Global gradient norm; None: no clipping.
    c.optimizer.spectrum_learning_rate = 1e-3  # Of a learned HamSIGReg spectrum; constant, no decay, no clipping.
    c.optimizer.spectrum_interval = 1  # Steps between its updates.
    c.optimizer.warmup = "10 epochs"
    c.optimizer.warmup_start = 0.01  # Learning rate at the first step, as a share of learning_rate.
    c.optimizer.final = 1e-3  # Learning rate that the cosine ends at, as a share of learning_rate.

    # -- Training ------
    c.train = ConfigDict()
    c.train.epochs = 30
    c.train.steps = config_dict.placeholder(int)  # Total optimiser steps instead of epochs, if given.
    c.train.batch_size = 512  # Global batch, over all devices; the last partial batch of an epoch is dropped.
    c.train.accumulation = 1  # Micro-batches per step; batch statistics are then those of a micro-batch.
    c.train.steps_per_dispatch = 1  # Steps scanned in one device program.

    # -- Devices: a "data" × "fsdp" mesh, a batch split over both; another mesh does not make another run ------
    c.mesh = ConfigDict()
    c.mesh.fsdp = 1  # Devices that share one copy of the parameters and of the optimiser's state.
    c.mesh.data = config_dict.placeholder(int)  # Groups of them; None: as many as there are.

    # -- Logs, checkpoints, evaluation; changing these does not make another run ------
    c.log = ConfigDict()
    c.log.every = "20 steps"
    c.log.tensorboard = True
    c.log.compilation_cache = config_dict.placeholder(str)  # Directory; None: beside the workdir; "": off.

    c.checkpoint = ConfigDict()
    c.checkpoint.every = "1 epochs"
    c.checkpoint.keep_latest = 2
    c.checkpoint.keep_best = 1
    c.checkpoint.best_metric = (
        "q/knn_top1_k20_cosine_majority"  # An evaluation metric; the checkpoints highest in it are kept.
    )

    c.evaluate = ConfigDict()
    c.evaluate.every = "10 epochs"  # kNN in training; "" only at the end.
    c.evaluate.batch_size = 512  # Images per feature-extraction step.
    c.evaluate.ks = (1, 5, 10, 20, 50, 100, 200)
    c.evaluate.references = ()  # Rows to compare with at the end: "untrained", "pixels".
    p = c.evaluate.probe = ConfigDict()
    p.epochs = 50  # Of the linear probe at the end; 0 turns it off.
    p.batch_size = 256
    p.learning_rates = (1e-3,)  # All are trained at once; the first is the protocol's.
    p.weight_decay = 1e-6

    return c.lock()
