"""The theorems as figures: each function computes its content and returns (figure, numbers, caption)."""

import matplotlib.colors
import numpy as np
from matplotlib.figure import Figure

from hamjepa_jax.physics import canvas
from hamjepa_jax.theory import collapse, couplings, minimax, trained

Drawn = tuple[Figure, dict[str, float], str]


def price_of_isotropy() -> Drawn:
    """ρ(H) against the condition number and against the dimension, for three families of spectra."""
    families = {
        "one large eigenvalue": (_one_large, canvas.VERMILLION, "-"),
        "geometric": (_geometric, canvas.BLUE, "--"),
        "one small eigenvalue": (_one_small, canvas.GREEN, ":"),
    }
    conditions, dims = np.geomspace(1, 1e6, 61), np.unique(np.geomspace(2, 2048, 40).round().astype(int))
    d, condition = 64, 1000.0

    def price(family, d, condition):
        eigenvalues = family(d, condition)  # the price needs no eigenvectors, and 2048 dimensions no matrix
        return d * eigenvalues.max() / eigenvalues.sum()

    figure, axes = canvas.new_figure(8.4, 3.4, 1, 2)
    for label, (family, colour, line) in families.items():
        axes[0].plot(conditions, [price(family, d, k) for k in conditions], line, color=colour, label=label)
        axes[1].plot(dims, [price(family, n, condition) for n in dims], line, color=colour, label=label)
    axes[0].axhline(d, color=canvas.GREY, linewidth=0.8)
    axes[0].annotate(f"d = {d}", (1.0, d), xytext=(2, -3), textcoords="offset points", va="top", color=canvas.GREY)
    axes[1].plot(dims, dims, color=canvas.GREY, linewidth=0.8)
    axes[1].annotate("ρ = d", (10, 10), xytext=(-4, 4), textcoords="offset points", ha="right", color=canvas.GREY)
    axes[0].set(
        xlabel="condition number of H", title=f"dimension {d}", ylabel=r"$\rho(H)=d\,\lambda_{\max}/$tr$\,H$"
    )
    axes[1].set(xlabel="dimension d", title=f"condition number {condition:g}", ylabel=r"$\rho(H)$")
    for axis in axes:
        axis.set(xscale="log", yscale="log", ylim=(0.8, None))
    axes[1].legend(loc="upper left", bbox_to_anchor=(0.0, 0.86))
    figure.suptitle("Price of isotropy: worst-case variance of the isotropic over the minimax covariance")
    numbers = {
        f"price/d64_condition1000/{label}": float(price(f, d, condition)) for label, (f, _, _) in families.items()
    }
    worst = numbers["price/d64_condition1000/one large eigenvalue"]
    caption = f"""
        ρ(H), the factor by which the worst-case task variance of the isotropic covariance exceeds the minimax one
        at the same budget tr(HΣ) = c. Left: against the condition number in dimension {d}; right: against the
        dimension at condition number {condition:g}. Spectra: one eigenvalue κ and d − 1 of 1 (the worst,
        dκ/(κ + d − 1)); a geometric sequence from 1 to κ; d − 1 of κ and a single 1. ρ lies in [1, d] and is 1 only
        for H ∝ I; here at d = {d}, κ = {condition:g} the worst geometry costs {worst:.3g}."""
    return figure, numbers, caption


def misalignment() -> Drawn:
    """Distribution of the misalignment of fixed covariances over random geometries, with the worst under the same
    bound on the condition number."""
    d, draws, conditions = 16, 300, (10.0, 100.0, 1000.0)
    covariances = {
        "isotropic": np.eye(d),
        "geometric, 1…100": np.diag(_geometric(d, 100.0)),
        "one dominant": np.diag(_one_large(d, 100.0)),
        "two scales, 1 | 10": np.diag(np.repeat([1.0, 10.0], d // 2)),
    }
    colours = canvas.BLUE, canvas.GREEN, canvas.PURPLE, canvas.ORANGE
    rng = np.random.default_rng(0)
    figure, axes = canvas.new_figure(9.6, 3.6, 1, len(conditions), sharey=True)
    numbers = {}
    for axis, condition in zip(axes, conditions, strict=True):
        geometries = [_random_geometry(rng, d, condition) for _ in range(draws)]
        for i, (label, sigma) in enumerate(covariances.items()):
            values = [minimax.misalignment(sigma, H) for H in geometries]
            worst = minimax.worst_geometry(sigma, condition)[1]
            parts = axis.violinplot(values, [i], widths=0.8, showextrema=False, showmedians=True)
            parts["bodies"][0].set(facecolor=colours[i], alpha=0.55)
            parts["cmedians"].set(color=colours[i])
            axis.plot([i - 0.35, i + 0.35], [worst, worst], color=canvas.BLACK, linewidth=1.5)
            numbers[f"misalignment/condition{condition:g}/{label}/median"] = float(np.median(values))
            numbers[f"misalignment/condition{condition:g}/{label}/worst"] = worst
        axis.axhline(d, color=canvas.GREY, linewidth=0.8, linestyle="--")
        axis.set(title=f"cond(H) ≤ {condition:g}", ylim=(0, 1.08 * d))
        axis.set_xticks(range(len(covariances)), list(covariances), rotation=25, ha="right", fontsize=8)
    axes[0].set_ylabel(r"misalignment $d\,\lambda_{\max}(H^{1/2}\Sigma H^{1/2})/$tr$(H\Sigma)$")
    axes[0].annotate(f"supremum d = {d}", (-0.4, d), xytext=(0, 3), textcoords="offset points", color=canvas.GREY)
    figure.suptitle(f"No fixed covariance suits every geometry (d = {d}; violins: {draws} random H; bars: worst H)")
    caption = f"""
        Misalignment (worst-case variance over the least possible at the same budget; 1 is best) of four fixed
        covariances, d = {d}, with {draws} random geometries each: eigenvalues log-uniform between 1 and the bound,
        eigenvectors uniform. Black bars: the exact maximum over all geometries of at most that condition number,
        d·κλ_1/(κλ_1 + λ_2 + … + λ_d). As κ grows every one of them tends to d (dashed)."""
    return figure, numbers, caption


def equal_marginals() -> Drawn:
    """Two couplings with the same marginals, and the cost of each one's best predictor under the other."""
    sigma = np.array([[2.0, 0.8], [0.8, 0.7]])
    turn = couplings.quarter_turn(2)
    orthogonals = {"O = I": np.eye(2), "O = quarter turn": turn}
    errors = couplings.cross_errors(sigma, list(orthogonals.values()))
    z_a = np.random.default_rng(0).multivariate_normal(np.zeros(2), sigma, 600)
    angle = np.arctan2(*np.linalg.solve(np.linalg.cholesky(sigma), z_a.T)[::-1])

    figure, axes = canvas.new_figure(10.6, 3.2, 1, 4, width_ratios=[1, 1, 1, 0.9])
    views = {"first view $z_a$": z_a}
    for label, o in orthogonals.items():
        views[f"second view $z_b$, {label}"] = z_a @ couplings.optimal_predictor(sigma, o).T
    for axis, (title, z) in zip(axes, views.items(), strict=False):
        axis.scatter(*z.T, s=8, c=angle, cmap="twilight", edgecolors="0.4", linewidths=0.2)
        axis.set(title=title, xlabel="coordinate 1", xlim=(-5, 5), ylim=(-3.2, 3.2))
    axes[0].set_ylabel("coordinate 2")
    image = axes[3].imshow(errors, cmap=canvas.SEQUENTIAL, vmin=0)
    for (i, j), value in np.ndenumerate(errors):
        axes[3].text(j, i, f"{value:.2f}", ha="center", va="center", color="black" if value > 2 else "white")
    axes[3].set_xticks([0, 1], ["I", "turn"])
    axes[3].set_yticks([0, 1], ["I", "turn"])
    axes[3].set(xlabel="coupling in force", ylabel="predictor optimal for", title="squared error")
    figure.colorbar(image, ax=axes[3], shrink=0.8).set_label(r"E$\|Az_a-z_b\|^2$")
    figure.suptitle("Equal marginals, different couplings (a point keeps its colour from view to view)")
    numbers = {"couplings/cross_error": float(errors[0, 1]), "couplings/trace": float(np.trace(sigma))}
    caption = f"""
        Both views are N(0, Σ) under either coupling z_b = Σ^(1/2)·O·Σ^(−1/2)·z_a: the clouds' shapes agree, the
        colours (the angle of z_a after whitening) show who goes where. Right: mean squared error of each coupling's
        optimal predictor under each coupling, exact. The right predictor errs by 0, the other one by
        {errors[0, 1]:.3g} = 2·tr Σ, more than predicting 0 would (tr Σ = {np.trace(sigma):.3g}). No statistic of
        one view can tell them apart."""
    return figure, numbers, caption


def penalties_and_collapses() -> Drawn:
    """Each penalty's value on a healthy covariance and on the collapses that single penalties admit."""
    d, tiny, target, logdet_floor, pr_floor = 16, 1e-4, 1.0, -1.5, 0.12
    floors = dict(target=target, logdet_floor=logdet_floor)
    examples = collapse.collapse_examples(d, **floors, tiny=tiny)
    modes = {
        "healthy: geometric, condition 10": np.diag(_geometric(d, 10.0) / _geometric(d, 10.0).mean() * target),
        "one direction holds the budget": examples["scale budget"],
        "one direction pays for the rest": examples["log-det floor"],
        "spread evenly, of no size": examples["participation-ratio floor"],
    }
    table = np.array([list(collapse.penalties(s, **floors, pr_floor=pr_floor).values()) for s in modes.values()])
    figure, axis = canvas.new_figure(7.4, 3.2)
    accepted = table < 1e-9
    shown = np.where(accepted, np.nan, table)
    norm = matplotlib.colors.LogNorm(1e-3, 1e4, clip=True)
    image = axis.imshow(shown, cmap=canvas.colour_map(canvas.SEQUENTIAL), norm=norm, aspect="auto")
    for (i, j), value in np.ndenumerate(table):
        text = "accepts" if accepted[i, j] else _short(value)
        dark = not accepted[i, j] and value < 3
        axis.text(j, i, text, ha="center", va="center", color="white" if dark else "black")
    axis.set_xticks(range(3), collapse.PENALTIES)
    axis.set_yticks(range(len(modes)), list(modes))
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    figure.colorbar(image, ax=axis, pad=0.02, extend="both").set_label("penalty (logarithmic)")
    figure.suptitle("Covariances that each penalty alone accepts")
    bound = collapse.smallest_eigenvalue_bound(d, logdet_floor=logdet_floor, trace_ceiling=d * target)
    numbers = {"collapse/smallest_eigenvalue_bound": bound}
    caption = f"""
        Values of the scale budget (target {target:g}), the log-det floor ({logdet_floor:g} nats per dimension) and
        the participation-ratio floor ({pr_floor:g} of d = {d}) on a healthy covariance and on three collapsed ones,
        whose collapsed directions keep variance {tiny:g}; grey cells: the penalty accepts. Each penalty
        alone accepts one collapse, and each collapse is refused by another penalty. Together a log-det at the floor
        and the budget's trace bound the smallest eigenvalue by {bound:.2g} from below."""
    return figure, numbers, caption


def trained_price(trial: trained.Trial, results: dict[str, dict[str, list]]) -> Drawn:
    """Measured worst-case task variances of trained encoders beside the closed forms, and those of random tasks."""
    colours = dict(zip(trained.METHODS, (canvas.BLACK, canvas.GREEN, canvas.VERMILLION, canvas.BLUE), strict=True))
    markers = dict(zip(trained.METHODS, "Do^s", strict=True))
    x = np.asarray(trial.conditions)
    figure, axes = canvas.new_figure(8.8, 3.6, 1, 2)
    numbers = {}
    for name, of_method in results.items():
        for axis, key in zip(axes, ("V", "task_p99"), strict=True):
            values = np.asarray(of_method[key])
            look = dict(color=colours[name], marker=markers[name], markersize=5, capsize=2, linewidth=1)
            mean, std = values.mean(axis=1), values.std(axis=1, ddof=1) if values.shape[1] > 1 else None
            axis.errorbar(x, mean, std, linestyle="none" if key == "V" else ":", label=name, **look)
        if of_method["closed_form"][0] is not None:
            axes[0].plot(x, of_method["closed_form"], color=colours[name], linewidth=1)
        for i, condition in enumerate(trial.conditions):
            of = f"trained/condition{condition:g}/{name}"
            for key in ("V", "task_mean", "task_p99"):
                numbers[f"{of}/{key}"] = float(np.mean(of_method[key][i]))
            if of_method["closed_form"][i] is not None:
                numbers[f"{of}/closed_form"] = float(of_method["closed_form"][i])
    axes[0].axhline(trial.dim, color=canvas.GREY, linewidth=0.8, linestyle="--")
    axes[0].annotate(f"d = {trial.dim}", (x[0], trial.dim), xytext=(2, -3), textcoords="offset points", va="top",
                     color=canvas.GREY)  # fmt: skip
    axes[0].set(title="worst case over the class", ylabel="task variance at the budget tr(HΣ) = d")
    axes[1].set(title=f"99th percentile of {trial.tasks:,} random tasks")
    for axis in axes:
        axis.set(xscale="log", xlabel="condition number of H", ylim=(0, 1.08 * trial.dim))
    axes[1].legend(loc="upper left")
    figure.suptitle("Price of isotropy in trained encoders: markers measured, lines by theory")
    caption = f"""
        Linear encoders of {trial.dim} coordinates, trained with two views on data whose task geometry H is known
        (eigenvalues in geometric sequence), {len(trial.seeds)} seeds, mean and standard deviation. Tasks are w with
        wᵀH⁻¹w ≤ 1; new examples are scaled to tr(HΣ) = d, at which the least worst-case variance is 1. Left: the
        worst case, with the closed forms ρ(H) of the isotropic covariance, 1 of the matched one, and that of an H
        with the eigenvalues in reverse order; HamJEPA's q has no target covariance and knows no H. Right: random
        tasks on the boundary of the class, whose mean variance is 1 under every covariance of this budget."""
    return figure, numbers, caption


FIGURES = {
    "price_of_isotropy": price_of_isotropy,
    "misalignment": misalignment,
    "equal_marginals": equal_marginals,
    "penalties_and_collapses": penalties_and_collapses,
}


def _short(value):
    if value < 1e4:
        return f"{value:.2g}" if value < 10 else f"{value:.0f}"
    return rf"$10^{{{round(np.log10(value))}}}$"


def _one_large(d, condition):
    return np.r_[condition, np.ones(d - 1)]


def _one_small(d, condition):
    return np.r_[np.full(d - 1, condition), 1.0]


def _geometric(d, condition):
    return np.geomspace(1.0, condition, d)


def _random_geometry(rng, d, condition):
    eigenvalues = np.exp(rng.uniform(0.0, np.log(condition), d))
    vectors = np.linalg.qr(rng.normal(size=(d, d)))[0]
    return (vectors * eigenvalues) @ vectors.T
