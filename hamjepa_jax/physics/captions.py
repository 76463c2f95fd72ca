"""Captions of the still figures: their content and computation; `gallery` fills in the numbers."""

CAPTIONS = {
    "energy_drift_map": """
        Relative energy drift (H_T − H_0)/H_0 after {num_steps} steps of Δt = {step_size:g},
        for {window_grid}² starts (q0, p0). One symmetric-logarithmic colour scale (linear within ±1e-4) for both
        panels; grey: starts with less than 0.5% of the window's largest energy, where a relative drift means
        nothing. Explicit Euler gains up to {euler/energy_drift_largest:.3g} times the energy it started with;
        leapfrog stays within {leapfrog/energy_drift_largest:.2g} of it everywhere.""",
    "return_error_map": """
        Distance from the start after {num_steps} steps with +Δt and {num_steps} with −Δt, in float64, for
        {window_grid}² starts; one logarithmic scale. Leapfrog is its own inverse under Δt → −Δt and returns to
        roundoff (median {leapfrog/return_error_median:.1e}, largest {leapfrog/return_error_largest:.1e}; a
        separatrix, where there is one, shows, because roundoff grows exponentially along it); explicit Euler does
        not return (median {euler/return_error_median:.2g}; inf is overflow).""",
    "liouville": """
        A {blob_grid}² square grid of starts with centre {blob_center} and half-width {blob_radius:g}, carried along
        by each method. Left: the sum of its cells' (unsigned) areas over the first sum. Leapfrog ends at
        {leapfrog/area_ratio:.6f}: its map preserves area exactly, and the difference from 1 is the curvature of
        cell edges; explicit Euler ends at {euler/area_ratio:.2f}. Middle and right: the grid before and after
        (every other line), q not wrapped. The convex hull's area changes by factors {euler/hull_ratio:.2f} (Euler)
        and {leapfrog/hull_ratio:.2f} (leapfrog), but no law binds it.""",
    "symplectic_defect": """
        ‖JᵀΩJ − Ω‖_F of the Jacobian J of one step (Δt = {step_size:g}), by automatic differentiation in float64, at
        {num_starts} starts uniform over the window. Leapfrog: at most {leapfrog/symplectic_defect_largest:.1e},
        roundoff; explicit Euler: up to {euler/symplectic_defect_largest:.2g}, of order Δt²·|V''|.""",
    "energy_drift": """
        |H_t − H_0|/H_0 against time: median (line) and quartiles (band) over {num_starts} starts uniform over the
        window, Δt = {step_size:g}, logarithmic axis. Explicit Euler's error grows throughout (median at the end
        {euler/energy_drift_median:.2g}); leapfrog's oscillates under a bound of order Δt² and does not grow (median
        at the end {leapfrog/energy_drift_median:.1g}).""",
    "covariance": """
        Trace, log-determinant and smallest eigenvalue of the covariance of the same {num_starts} states (q not
        wrapped) along the rollout. The reference is leapfrog at Δt = {reference_step_size:g}. Leapfrog lies on the
        reference; explicit Euler inflates the cloud. A flow conserves volume, not covariance: the log-determinant
        is constant under linear flows only.""",
    "sliced_discrepancy": """
        Wasserstein-1 distance between the projections of the model's and the reference's cloud at T = {duration:g}
        on (cos θ, sin θ), {num_angles} angles in [0°, 180°). Cloud: {num_starts} starts uniform over the window, q
        not wrapped. Reference: leapfrog at Δt = {reference_step_size:g}, {reference_num_steps} steps. Mean and
        largest over angles: explicit Euler {euler/sliced_w1_mean:.3g}, {euler/sliced_w1_max:.3g}; leapfrog
        {leapfrog/sliced_w1_mean:.3g}, {leapfrog/sliced_w1_max:.3g}.""",
    "projection_sketch": """
        One slice of the sliced discrepancy. Left: the clouds at the end and the direction at {sketch_angle:g}°
        (grey). Middle and right: distribution functions of the projections of the model's cloud (dashed) and of the
        reference; the shaded area between them is W1.""",
}

# Other draws of the 256 starts move Euler's figures by 5% and leapfrog's by a factor of two.
PUBLISHED_SLICES = """
    The paper prints means and largest values 4.90 and 7.22 for Euler, 0.0137 and 0.0206 for leapfrog, on a cloud
    and directions it does not state; these choices matter."""
