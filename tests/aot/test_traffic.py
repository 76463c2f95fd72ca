"""Memory traffic counted from schedules, against programs whose traffic is known."""

import importlib.util

import jax
import pytest
from known import KNOWN, program

from hamjepa_jax.aot.chips import Slice
from hamjepa_jax.aot.compile import tpu_devices
from hamjepa_jax.aot.hlo import arrays_of, parse
from hamjepa_jax.aot.traffic import KINDS, count_traffic


@pytest.mark.parametrize("name", KNOWN)
def test_traffic_of_a_known_program(name):
    traffic = count_traffic(program(name))
    counters = 300 if name == "scan" else 0  # The loop's scalars are in memory too.
    assert tuple(traffic) == KINDS and 0 <= sum(traffic.values()) - KNOWN[name].bytes <= counters


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
@pytest.mark.parametrize("name", ["copy", "chain", "sgd", "matmul", "gather"])
def test_traffic_of_a_known_program_compiled_now(name):
    known = KNOWN[name]
    (device,) = tpu_devices(Slice("v5e", (1, 1)))
    sharding = jax.sharding.SingleDeviceSharding(device)
    arguments = [jax.ShapeDtypeStruct(shape, dtype, sharding=sharding) for shape, dtype in known.arguments]
    step = jax.jit(known.function, donate_argnums=known.donated).lower(*arguments).compile()
    assert sum(count_traffic(parse(step.as_text())).values()) == known.bytes


def test_copies_and_slices_are_told_apart():
    assert count_traffic(program("copy"))["copies"] == KNOWN["copy"].bytes
    scan = count_traffic(program("scan"))
    assert scan["slices"] == 256 * 1024 * 4
    assert scan["copies"] == pytest.approx(256 * 1024 * 4, abs=200)
    assert scan["operations"] == pytest.approx(12 * 1024**2 * 4, abs=300)


def test_sizes_in_memory():
    """The dimensions that vary fastest are padded to the tile, whatever their place in the shape."""
    for text, size, padded in [
        ("f32[3,5]{1,0:T(8,128)}", 60, 8 * 128 * 4),
        ("f32[3,5]{0,1:T(8,128)}", 60, 8 * 128 * 4),
        ("bf16[256,4,4,64]{0,3,2,1:T(8,128)(2,1)}", 2 * 256 * 1024, 2 * 256 * 1024),
        ("bf16[256,4,4,64]{3,0,2,1:T(8,128)(2,1)}", 2 * 256 * 1024, 2 * 256 * 16 * 128),
        ("u8[100]{0:T(1024)(128)(4,1)}", 100, 1024),
        ("pred[]", 1, 1),
    ]:
        (array,) = arrays_of(text)
        assert (array.size, array.padded) == (size, padded), text
    spaces = arrays_of("(f32[8]{0:T(128)S(1)}, f32[8]{0:T(128)}, u32[]{:S(2)}, f32[8]{0:T(128)S(0)})")
    assert [a.in_memory for a in spaces] == [False, True, False, True]


# A loop of three trips: each reads a slice of an eighth, and writes an eighth in place, inside fusions. Beside it
# one asynchronous slice to the chip and back, and a buffer that is only given a name.
TEXT = """\
HloModule jit_step, is_scheduled=true

%named (w: f32[8,1024]) -> f32[8,1024] {
  %w = f32[8,1024]{1,0:T(8,128)} parameter(0)
  ROOT %name = f32[8,1024]{1,0:T(8,128)} bitcast(%w)
}

%fused (x: f32[64,1024], n: s32[]) -> f32[64,1024] {
  %x = f32[64,1024]{1,0:T(8,128)} parameter(0)
  %n = s32[]{:T(128)S(6)} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  %part = f32[8,1024]{1,0:T(8,128)} dynamic-slice(%x, %n, %zero), dynamic_slice_sizes={8,1024}
  %same = f32[8,1024]{1,0:T(8,128)} fusion(%part), kind=kLoop, calls=%named
  %twice = f32[8,1024]{1,0:T(8,128)} add(%same, %same)
  ROOT %new = f32[64,1024]{1,0:T(8,128)} dynamic-update-slice(%x, %twice, %n, %zero)
}

%condition (s: (s32[], f32[64,1024])) -> pred[] {
  %s = (s32[]{:T(128)}, f32[64,1024]{1,0:T(8,128)}) parameter(0)
  %bound = s32[]{:T(128)S(6)} constant(3)
  %i = s32[]{:T(128)S(6)} get-tuple-element(%s), index=0
  ROOT %less = pred[]{:T(512)S(6)} compare(%i, %bound), direction=LT
}

%body (t: (s32[], f32[64,1024])) -> (s32[], f32[64,1024]) {
  %t = (s32[]{:T(128)S(6)}, f32[64,1024]{1,0:T(8,128)}) parameter(0)
  %j = s32[]{:T(128)S(6)} get-tuple-element(%t), index=0
  %y = f32[64,1024]{1,0:T(8,128)} get-tuple-element(%t), index=1
  %z = f32[64,1024]{1,0:T(8,128)} fusion(%y, %j), kind=kLoop, calls=%fused
  ROOT %out = (s32[]{:T(128)S(6)}, f32[64,1024]{1,0:T(8,128)}) tuple(%j, %z)
}

ENTRY %main (p: f32[64,1024]) -> f32[64,1024] {
  %p = f32[64,1024]{1,0:T(8,128)} parameter(0)
  %start = ((f32[64,1024]{1,0:T(8,128)}), f32[16,1024]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) slice-start(%p), slice={[0:16], [0:1024]}
  %done = f32[16,1024]{1,0:T(8,128)S(1)} slice-done(%start)
  %back = (f32[16,1024]{1,0:T(8,128)}, f32[16,1024]{1,0:T(8,128)S(1)}, u32[]{:S(2)}) copy-start(%done)
  %there = f32[16,1024]{1,0:T(8,128)} copy-done(%back)
  %room = f32[64,1024]{1,0:T(8,128)} custom-call(), custom_call_target="AllocateBuffer"
  %init = (s32[]{:T(128)S(6)}, f32[64,1024]{1,0:T(8,128)}) tuple(%c, %p)
  %loop = (s32[]{:T(128)S(6)}, f32[64,1024]{1,0:T(8,128)}) while(%init), condition=%condition, body=%body
  ROOT %result = f32[64,1024]{1,0:T(8,128)} get-tuple-element(%loop), index=1
}
"""  # noqa: E501


def test_a_loop_counts_each_trip_and_parts_count_as_parts():
    row = 1024 * 4
    assert count_traffic(parse(TEXT)) == {
        "operations": 3 * 2 * 8 * row,
        "copies": 16 * row,
        "slices": 16 * row,
        "collectives": 0,
    }
    # The whole is read where an inner fusion hands it on.
    whole = TEXT.replace("fusion(%part)", "fusion(%x)").replace("f32[8,1024]{1,0:T(8,128)} add", "f32[64,1024] add")
    assert count_traffic(parse(whole))["operations"] == 3 * (64 + 64) * row


def test_a_slice_outside_a_fusion_counts_as_its_part_and_its_indices():
    text = """\
HloModule jit_step, is_scheduled=true

ENTRY %main (p: f32[64,1024], i: s32[]) -> f32[8,1024] {
  %p = f32[64,1024]{1,0:T(8,128)} parameter(0)
  %i = s32[]{:T(128)} parameter(1)
  %zero = s32[]{:T(128)S(6)} constant(0)
  ROOT %part = f32[8,1024]{1,0:T(8,128)} dynamic-slice(%p, %i, %zero), dynamic_slice_sizes={8,1024}
}
"""
    assert count_traffic(parse(text))["slices"] == 2 * 8 * 1024 * 4 + 4
