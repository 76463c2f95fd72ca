"""The one way from a config to everything that a run needs: devices, source, inputs, networks, training."""

import functools
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh

from hamjepa_jax import build
from hamjepa_jax import config as config_lib
from hamjepa_jax.data import ShapeSplit, Source, check_source, frames_of, is_encoded, open_source
from hamjepa_jax.run.inputs import Inputs, inputs_of
from hamjepa_jax.training import processes
from hamjepa_jax.training.mesh import make_mesh, replicated, state_sharding
from hamjepa_jax.training.state import TrainState

ConfigDict = ml_collections.ConfigDict
MakeObjective = build.MakeObjective
log = logging.getLogger(__name__)


class Setup(NamedTuple):
    """Attributes:
    config: of the run; its encoder.dtype is decided.
    mesh: devices that share a batch.
    source: of the images.
    inputs: the training images as the step takes them; nothing is read before `inputs.open()`.
    model: the networks as pure functions.
    training: the step and what it is made of.
    training_of: seed, may be traced -> the training of the same config with that seed.
    abstract: the training state's shapes, types and shardings.
    first_state: config -> the state that a run of it begins with; configs may differ in their seed.
    make_objective: (config, predictor) -> the objective that `training` has.
    """

    config: ConfigDict
    mesh: Mesh
    source: Source
    inputs: Inputs
    model: build.Model
    training: build.Training
    training_of: Callable[[jax.Array], build.Training]
    abstract: TrainState
    first_state: Callable[[ConfigDict], TrainState]
    make_objective: MakeObjective

    def init(self) -> TrainState:
        """The state that the run begins with."""
        return self.first_state(self.config)


def set_up(
    config: ConfigDict,
    *,
    source: Source | None = None,
    devices: Sequence[Any] | None = None,
    objective: MakeObjective | None = None,
    training: bool = True,
) -> Setup:
    """Checks a config and makes everything that a run of it needs; no image is read and nothing is computed.

    A mistake that one process meets ends all of them.

    Args:
      config: of the run; its plugins are loaded.
      source: images in place of config.data.source; a `ShapeSplit` suffices if no image is read later.
      devices: in place of all; descriptions of devices that are elsewhere will do.
      objective: (config, predictor) -> objective, in place of the one that config.objective names.
      training: False to look at a trained run: on any number of devices, every array whole on each.

    Raises:
      UserError: for settings, devices or images that cannot be used.
    """
    config = config_lib.complete(config.copy_and_resolve_references())
    with processes.agreed():
        build.check(config, objective, training=training)
        if training:
            config_lib.check_devices(config, jax.device_count() if devices is None else len(devices))
        else:
            config.mesh.fsdp = 1
        mesh = make_mesh(config.mesh.fsdp, devices)
        if source is None:
            source = open_source(config.data.source, loader=config.data.loader)
        if training and not isinstance(source.train, ShapeSplit):
            check_source(source)
            config_lib.check_labels_read(config, source.train.class_names)
            check_clips(config, source, training=True)
            if not is_encoded(source.test):
                config_lib.check_images(config, source.test.image_shape)
        config_lib.check_durations(config, len(source.train))
    _choose_dtype(config, mesh, told=training)
    for warning in build.warnings(config) if training else ():
        log.warning("%s", warning)
    labelled = objective is None and config_lib.reads_labels(config)
    inputs = inputs_of(config, source.train, mesh, labelled=labelled)
    model = build.build_model(config)
    make_objective = objective or build.build_objective
    trained = build.build_training(config, model, len(source.train), mesh, make_objective, inputs.reads())

    def training_of(seed: jax.Array) -> build.Training:
        own = (
            functools.partial(build.build_objective, seed=seed)
            if objective is None
            else lambda *_: trained.objective
        )
        return build.build_training(config, model, len(source.train), mesh, own, inputs.reads(seed))

    abstract = abstract_state(config, trained, mesh)
    init = jax.jit(lambda seed, key: training_of(seed).init(key), out_shardings=state_sharding(mesh, abstract))

    def first_state(config: ConfigDict) -> TrainState:
        return init(np.int32(config.seed), build.init_key(config))

    return Setup(config, mesh, source, inputs, model, trained, training_of, abstract, first_state, make_objective)


def check_clips(config: ConfigDict, source: Source, *, training: bool) -> None:
    """Refuses examples whose frames do not make the views; those of the test split are evaluated alone.

    Args:
      config: of the run.
      source: of images or clips.
      training: False if the training examples, too, are evaluated alone.

    Raises:
      UserError: as `config.check_frames`.
    """
    config_lib.check_frames(config, frames_of(source.train), training=training)
    config_lib.check_frames(config, frames_of(source.test), training=False, part="test")


def _choose_dtype(config: ConfigDict, mesh: Mesh, *, told: bool) -> None:
    """Puts the type that "auto" means for these devices, which may be elsewhere, in encoder.dtype."""
    platform = mesh.devices.flat[0].platform
    chosen = build.encoder_dtype(config, platform)
    if told and config.encoder.dtype == "auto":
        why = "; CPUs emulate bfloat16, which is slower" if platform == "cpu" else ""
        log.info("the encoder computes in %s (encoder.dtype='auto'%s)", chosen, why)
    config.encoder.dtype = chosen


def abstract_state(config: ConfigDict, training: build.Training, mesh: Mesh) -> TrainState:
    """Shapes, types and shardings of a training state, without computing one."""
    shapes = jax.eval_shape(lambda: training.init(build.init_key(config)))
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        shapes,
        state_sharding(mesh, shapes),
    )


class SeededStep(NamedTuple):
    """The compiled step of one run, (state, store, batch) -> (state, metrics).

    Attributes:
      program: of `lower_step`.
      seed: of the run, on every device.
    """

    program: jax.stages.Compiled
    seed: jax.Array

    def __call__(self, state: TrainState, store: Any, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        return self.program(self.seed, state, store, batch)


def compile_step(setup: Setup, store: Any, batch: Any, *, donate: bool = True) -> SeededStep:
    """The training step compiled ahead of time for these inputs: it cannot compile a second time later on.

    Args:
      setup: of the run.
      store, batch: arrays, or shapes with shardings.
      donate: whether the step may reuse the memory of its state.
    """
    return seeded(setup, compiled(lower_step(setup, store, batch, donate=donate)))


def lower_step(setup: Setup, store: Any, batch: Any, *, donate: bool = True) -> jax.stages.Lowered:
    """`trace_step`'s program for these devices, before compilation."""
    return trace_step(setup, store, batch, donate=donate).lower()


def trace_step(setup: Setup, store: Any, batch: Any, *, donate: bool = True) -> jax.stages.Traced:
    """The program (seed, state, store, batch) -> (state, metrics) for any devices; arguments of `compile_step`.

    The seed is no constant of it, so runs that differ in nothing else find one program in the compilation cache.
    """

    def train_step(seed, state, store, batch):
        return setup.training_of(seed).step(state, store, batch)

    made = jax.jit(
        train_step,
        donate_argnums=(1,) if donate else (),
        out_shardings=(state_sharding(setup.mesh, setup.abstract), replicated(setup.mesh)),
    )
    return made.trace(abstract_seed(setup.mesh), setup.abstract, store, batch)


def abstract_seed(mesh: Mesh) -> jax.ShapeDtypeStruct:
    """Shape, type and sharding of the seed that a step takes."""
    return jax.ShapeDtypeStruct((), jnp.int32, sharding=replicated(mesh))


def seeded(setup: Setup, program: jax.stages.Compiled) -> SeededStep:
    """The program of `lower_step` with the config's seed."""
    seed = np.asarray(setup.config.seed, np.int32)
    return SeededStep(program, jax.make_array_from_callback((), replicated(setup.mesh), lambda part: seed[part]))


def compiled(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """A program compiled; the log says that it takes a while, and how long it took."""
    log.info("compiling the training step …")
    start = time.perf_counter()
    program = lowered.compile()
    log.info("compiled the training step in %.1f s", time.perf_counter() - start)
    return program
