"""How full the convolutions of a program keep the systolic array."""

import jax
import jax.numpy as jnp
import pytest
from known import program

from hamjepa_jax.aot.array import array_seconds, find_convolutions, total_flops
from hamjepa_jax.aot.chips import CHIPS
from hamjepa_jax.aot.cycles import scheduled_cycles
from hamjepa_jax.aot.hlo import parse


def one(text):
    """The convolution of a line in a program of its own."""
    (found,) = find_convolutions(parse(f"ENTRY %main (a: f32[], b: f32[]) -> f32[] {{\n{text}\n}}"))
    return found


# As a TPU compiler writes them for 64 channels: the pass forward, the gradients of the input and of the kernel.
IMAGES, KERNEL = "bf16[256,32,32,64]{0,3,2,1:T(8,128)(2,1)}", "bf16[3,3,64,64]{3,2,1,0:T(8,128)(2,1)}"
FORWARD = f"""\
  %a = {IMAGES} parameter(0)
  %b = {KERNEL} parameter(1)
  ROOT %c = {IMAGES} convolution(%a, %b), window={{size=3x3 pad=1_1x1_1}}, dim_labels=b01f_01io->b01f"""
BACKWARD = FORWARD.replace("pad=1_1x1_1", "pad=1_1x1_1 rhs_reversal=1x1").replace("01io", "01oi")
WEIGHTS = f"""\
  %a = {IMAGES} parameter(0)
  %b = {IMAGES} parameter(1)
  ROOT %c = {KERNEL} convolution(%a, %b), window={{size=32x32 pad=1_1x1_1}}, dim_labels=f01b_i01o->01bf"""


@pytest.mark.parametrize("text", [FORWARD, BACKWARD, WEIGHTS])
def test_64_channels_fill_half_of_the_array(text):
    assert one(text).use(128) == 0.5
    assert one(text.replace(",64]", ",128]").replace("[3,3,64", "[3,3,128")).use(128) == 1


def test_a_larger_array_is_harder_to_fill():
    assert one(FORWARD).use(256) == 0.25
    colours = one(
        FORWARD.replace("64]{0,3,2,1:T(8,128)(2,1)} param", "3]{0,3,2,1:T(8,128)(2,1)} param").replace(
            "64,64", "3,64"
        )
    )
    assert colours.use(128) == 9 / 128 and colours.flops == one(FORWARD).flops * 3 / 64
    few = one(FORWARD.replace("[256,", "[192,"))  # images, which are the lanes: one tile and a half
    assert few.use(128) == 0.5 * 0.75


def test_gradients_of_a_kernel_do_the_work_of_the_pass_forward():
    assert one(FORWARD).flops == one(BACKWARD).flops == one(WEIGHTS).flops


def test_products_of_float32_at_the_highest_precision_take_six():
    assert one(FORWARD + ", operand_precision={highest,highest}").use(128) == 0.5 / 6


@pytest.mark.parametrize(
    "options",
    [
        {"window_strides": (1, 1), "padding": "SAME"},
        {"window_strides": (2, 2), "padding": "SAME"},
        {"window_strides": (2, 1), "padding": ((0, 1), (3, 2))},
        {"window_strides": (1, 1), "padding": ((1, 2), (1, 2)), "lhs_dilation": (2, 2)},
        {"window_strides": (1, 1), "padding": "VALID", "rhs_dilation": (2, 3)},
    ],
)
def test_flops_are_those_that_xla_counts(options):
    def function(x, w):
        return jax.lax.conv_general_dilated(x, w, **options, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    step = jax.jit(function).lower(jnp.ones((5, 13, 16, 6)), jnp.ones((3, 2, 6, 7))).compile()
    (found,) = find_convolutions(parse(step.as_text()))
    assert found.flops == step.cost_analysis()["flops"]


def test_a_large_product_takes_its_time_at_the_peak_and_trips_count():
    peak = CHIPS["v5e"].flops
    flops = 2 * 8192**3
    assert array_seconds(flops, find_convolutions(program("matmul")), peak, 128) == flops / peak
    scan = find_convolutions(program("scan"))
    once = 2 * 256 * 1024 * 1024
    assert sum(c.flops for c in scan) == 12 * once
    # XLA counts one pass of the twelve, and of the other work one of three micro-batches.
    assert total_flops(once + 7e6, scan, 1) == 12 * once + 7e6
    assert total_flops(once + 7e6, scan, 3) == 12 * once + 21e6
    # Half of the array, and other FLOPs at the peak.
    convolutions = find_convolutions(program("conv64"))
    own = sum(c.flops for c in convolutions)
    assert array_seconds(own + 1e9, convolutions, peak, 128) == pytest.approx((2 * own + 1e9) / peak)


def test_the_compiler_s_estimate_is_near_the_peak_where_the_array_is_full():
    """So the clock that is derived from the peak is the compiler's."""
    chip = CHIPS["v5e"]
    assert chip.clock == pytest.approx(1.5e9, rel=0.01)
    at_peak = 2 * 8192**3 / chip.flops
    assert at_peak < scheduled_cycles(program("matmul")) / chip.clock < 1.2 * at_peak
    half = 2 * 9.265e9 / chip.flops  # 64 channels: XLA counts 9.265 GFLOP
    assert half < scheduled_cycles(program("conv64")) / chip.clock < 1.6 * half
    assert scheduled_cycles(program("scan")) > 12 * 4352  # the products of all trips
