"""Pictures of a checkpoint: OUT/step_<N>/pictures/*.png, and all of them in one page, report.html."""

import contextlib
import json
import pathlib
from collections.abc import Sequence

import jax
import ml_collections
import numpy as np

from hamjepa_jax import build, report
from hamjepa_jax.data import Source, eval_batches, frames_of, is_encoded
from hamjepa_jax.evaluate.evaluator import Evaluator
from hamjepa_jax.evaluate.portraits import draw_portraits, has_portraits
from hamjepa_jax.evaluate.random_views import RandomViews
from hamjepa_jax.evaluate.trajectories import measured_trajectories
from hamjepa_jax.files import make_folder, write_json
from hamjepa_jax.run.restore import flow_of, learns_flow, load_run
from hamjepa_jax.training.state import TrainState

ConfigDict = ml_collections.ConfigDict
ON_MAP, OF_TOKENS, PAIRS, PAIRS_SHOWN, PATHS, APPLICATIONS = 1000, 10, 200, 12, 12, 20
CAPTIONS_FILE = "captions.json"
EACH = 5  # Queries whose nearest neighbour has their class, and as many whose nearest has another.


def draw_pictures(
    config: ConfigDict,
    model: build.Model,
    state: TrainState,
    evaluator: Evaluator,
    source: Source,
    *,
    features: Sequence[np.ndarray],
    epoch: int,
    folder: pathlib.Path,
) -> list[report.Figure]:
    """Draws what can be drawn of the run: the flow only where one is learned, tokens only in token mode.

    Args:
      config: of the evaluation.
      model: the networks.
      state: the weights.
      evaluator: that has made the features.
      source: the images.
      features: states of the training and the test images.
      epoch: of the checkpoint, counted from 1, for the flow.
      folder: for the figures and the page.

    Returns:
      The figures.
    """
    labels = source.test.labels if source.labelled else None
    found = evaluator.gallery(features, EACH)
    figures = [
        (
            report.neighbours_figure(found, folder / "gallery.png"),
            gallery_caption(next(iter(found.by)), labelled=source.labelled),
        )
    ]
    rows = np.sort(np.random.default_rng(config.seed).permutation(len(source.test))[:ON_MAP])
    maps = _maps(features[1][rows], config.seed)
    figures.append(
        (
            report.map_figure(
                maps, None if labels is None else labels[rows], source.test.class_names, folder / "map.png"
            ),
            f"{len(rows)} test images in two dimensions.",
        )
    )
    if config.encoder.mode == "token":
        images = evaluation_images(config, source, OF_TOKENS)
        path = report.tokens_figure(images, _colours(tokens_of(config, state, images)), folder / "tokens.png")
        figures.append(
            (path, "Test images and the colours of their tokens, before pooling: like tokens, like colours.")
        )
    if learns_flow(config):
        flow, energy = flow_of(config, model.predictor, state.params["predictor"], epoch)
        pairs = _pairs(config, model, state, evaluator, source, jax.jit(lambda z: flow(z, 1)))
        path = report.pairs_figure(pairs, PAIRS_SHOWN, folder / "pairs.png")
        figures.append(
            (path, "Pairs of random views, and how far apart their states are before and after the flow.")
        )
        plane, energies = _paths(features[1][:PATHS], jax.jit(lambda z: flow(z, 1)), energy)
        shown = None if labels is None else labels[:PATHS]
        path = report.trajectories_figure(plane, energies, folder / "trajectories.png", labels=shown)
        figures.append((path, "Latent states of test images under repeated application of the learned flow."))
    drawn = [report.Figure(path, caption) for path, caption in figures]
    report.write_page("Pictures", drawn, folder)
    return drawn


def gallery_caption(readout: str, *, labelled: bool) -> str:
    """What the gallery shows, whose queries are chosen by their nearest by `readout` where there are labels."""
    text = "Test images and their nearest training images."
    if not labelled:
        return text
    return (
        f"{text} The nearest by {readout} has the query's class in the first rows, another in the others. Green "
        f"frames: the same class."
    )


def pictures_of(workdir: pathlib.Path, images: Source) -> list[report.Figure]:
    """The pictures of a run's newest checkpoint, in WORKDIR/pictures; those that are there are not drawn again.

    Of clips they are portraits, if their states are known and the run has learned a motion; else there are none.

    Args:
      workdir: of a run that is evaluated.
      images: that it was trained on.

    Raises:
      UserError: if the run cannot be read.
    """
    folder = workdir / "pictures"
    known, step = folder / CAPTIONS_FILE, (report.measured(workdir) or {}).get("step")
    try:
        found = json.loads(known.read_text(encoding="utf-8"))
        if step is not None and found["step"] == step:
            return [report.Figure(folder / name, caption) for name, caption in found["captions"].items()]
    except (OSError, ValueError, LookupError, TypeError):
        pass  # They are drawn (again).
    run = load_run(workdir, step=step, images=images)
    epoch, clips = run.epoch_at(int(run.state.step)), frames_of(images.test) is not None
    if clips and not has_portraits(run.config, images):
        return []
    folder = make_folder(folder, "pictures")
    if clips:
        figures = draw_portraits(
            run.config, run.model, run.state, images, run.mesh,
            measured=measured_trajectories(run.config, workdir, images), epoch=epoch, folder=folder,
        )  # fmt: skip
    else:
        evaluator = Evaluator(run.config, run.model, images, run.mesh)
        figures = draw_pictures(
            run.config, run.model, run.state, evaluator, images,
            features=evaluator.features(run.state), epoch=epoch, folder=folder,
        )  # fmt: skip
    captions = {figure.path.name: figure.caption for figure in figures}
    write_json(known, {"step": int(run.state.step), "captions": captions})
    return figures


def evaluation_images(config: ConfigDict, source: Source, count: int) -> np.ndarray:
    """[count, size, size, 3] uint8: the first test images as they are evaluated."""
    c, count = config.data, min(count, len(source.test))
    resize = c.eval_resize if c.eval_resize is not None or is_encoded(source.test) else None
    batches = eval_batches(source.test, resize=resize, size=c.image_size, batch_size=count, num_threads=1)
    with contextlib.closing(batches):
        return next(batches)


def _maps(z: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """{title: [n, 2]} of the states."""
    from sklearn.decomposition import PCA  # Slow to import.
    from sklearn.manifold import TSNE

    linear = PCA(2, svd_solver="full").fit(z)
    share = linear.explained_variance_ratio_.sum()
    perplexity = min(30.0, (len(z) - 1) / 3)
    around = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(z)
    return {
        f"PCA ({share:.0%} of the variance)": linear.transform(z),
        f"t-SNE (perplexity {perplexity:.3g})": around,
    }


def tokens_of(config: ConfigDict, state: TrainState, images: np.ndarray) -> np.ndarray:
    """[n, rows, columns, token_dim]: tokens of evaluation images [n, size, size, 3] uint8, before they are pooled.

    Their averages over each bin are the tokens of the state: the token layer is linear once it is trained.
    """
    config = config.copy_and_resolve_references()
    config.encoder.token_hw, config.data.eval_resize = None, None
    encoder = build.build_encoder(config, dtype=np.float32)
    networks = state.evaluated(teacher=config.evaluate.teacher)
    variables = {name: of_all["encoder"] for name, of_all in networks.items()}
    z = np.asarray(encoder.apply(variables, build.eval_transform(config)(images), train=False))
    rows, columns = build.token_grid(config)
    halves = np.split(z, 2, axis=1) if config.encoder.split_qp else [z]
    return np.concatenate([half.reshape(len(z), rows, columns, -1) for half in halves], axis=-1)


def _colours(tokens: np.ndarray) -> np.ndarray:
    """[n, rows, columns, 3] in [0, 1]: the first three principal components, over all the tokens."""
    flat = tokens.reshape(-1, tokens.shape[-1])
    flat = flat - flat.mean(axis=0)
    axes = np.linalg.svd(flat, full_matrices=False)[2][:3]
    seen = np.zeros((len(flat), 3))
    seen[:, : len(axes)] = flat @ axes.T
    low, high = np.percentile(seen, [1, 99], axis=0)
    return np.clip((seen - low) / np.maximum(high - low, 1e-9), 0, 1).reshape(*tokens.shape[:3], 3)


def _pairs(config, model, state, evaluator: Evaluator, source: Source, forward) -> list[report.Pair]:
    """Pairs of random views of test images, compared by their whole states."""
    config = config.copy_and_resolve_references()
    config.evaluate.lidar.images, config.evaluate.lidar.views = PAIRS, 2
    views = RandomViews(config, model, source.test, evaluator.mesh)
    z, images = views.states(state), views.images(PAIRS_SHOWN)
    one, other = z[:, 0], z[:, 1]
    before = np.linalg.norm(one - other, axis=1)
    after = np.linalg.norm(np.asarray(forward(one)) - other, axis=1)
    none = (np.zeros((1, 1, 3), np.uint8),) * 2
    return [
        report.Pair(tuple(images[i]) if i < len(images) else none, float(b), float(a))
        for i, (b, a) in enumerate(zip(before, after, strict=True))
    ]


def _paths(z: np.ndarray, forward, energy) -> tuple[np.ndarray, np.ndarray | None]:
    """Repeated applications of the flow: [k + 1, n, 2] in q and p along the states' first component of q, and H."""
    states = [z]
    for _ in range(APPLICATIONS):
        states.append(np.asarray(forward(states[-1])))
    states = np.stack(states)
    q, p = np.split(states, 2, axis=-1)
    direction = np.linalg.svd(q[0] - q[0].mean(axis=0), full_matrices=False)[2][0]
    energies = None if energy is None else np.stack([np.asarray(energy(s)) for s in states])
    return np.stack([q @ direction, p @ direction], axis=-1), energies
