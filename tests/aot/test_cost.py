"""The model of a step's time against closed forms, and the slices it is for."""

import pytest
from known import program

from hamjepa_jax.aot.array import find_convolutions
from hamjepa_jax.aot.chips import CHIPS, SLICES, Slice, parse_slices
from hamjepa_jax.aot.collectives import Collective
from hamjepa_jax.aot.cost import HOP_SECONDS, StepTime, collective_seconds, step_time
from hamjepa_jax.aot.traffic import count_traffic
from hamjepa_jax.errors import UserError

W = CHIPS["v5e"].link_bandwidth
LARGE = 10**12  # bytes, beside which the hops' waiting is nothing


def seconds(kind, on, size=LARGE, group=None):
    return collective_seconds(Collective(kind, size, group or on.size, 1, ""), on)


def test_a_ring_of_sixteen_and_a_line_of_eight():
    assert Slice("v5e", (16, 1)).rings == (True, False)
    # Reduce-scatter and all-gather: each chip sends 15/16 of the bytes, over two links; an all-reduce is both.
    assert seconds("reduce-scatter", Slice("v5e", (16, 1))) == pytest.approx(LARGE * 15 / 16 / (2 * W), rel=1e-3)
    assert seconds("all-gather", Slice("v5e", (8, 1))) == pytest.approx(LARGE * 7 / 8 / W, rel=1e-3)
    assert seconds("all-reduce", Slice("v5e", (8, 1))) == pytest.approx(2 * LARGE * 7 / 8 / W, rel=1e-3)


@pytest.mark.parametrize("name, links", [("v5e:16x16", 4), ("v5e:4x4", 2), ("v4:4x4x4", 6), ("v4:2x2x1", 2)])
def test_all_links_of_a_slice_work_at_once(name, links):
    (on,) = parse_slices([name])
    bandwidth = links * on.chip.link_bandwidth
    assert seconds("all-gather", on) == pytest.approx(LARGE * (on.size - 1) / on.size / bandwidth, rel=1e-3)


def test_all_to_all_and_permutation():
    # Half of the chips' bytes cross the middle of the ring, half of those in each direction, on two links.
    assert seconds("all-to-all", Slice("v5e", (16, 16))) == pytest.approx(LARGE * 16 / 8 / W, rel=1e-3)
    assert seconds("all-to-all", Slice("v5e", (4, 8))) == pytest.approx(LARGE * 8 / 4 / W, rel=1e-3)
    assert seconds("collective-permute", Slice("v5e", (4, 8))) == pytest.approx(LARGE / W, rel=1e-3)


def test_small_messages_wait_for_hops():
    assert seconds("all-gather", Slice("v5e", (16, 16)), size=0) == pytest.approx(16 * HOP_SECONDS)
    assert seconds("all-gather", Slice("v5e", (4, 8)), size=0) == pytest.approx((3 + 7) * HOP_SECONDS)


def test_a_part_of_the_slice_is_a_line_and_one_chip_needs_nothing():
    assert seconds("all-gather", Slice("v5e", (16, 16)), group=4) == pytest.approx(LARGE * 3 / 4 / W, rel=1e-3)
    assert seconds("all-reduce", Slice("v5e", (1, 1))) == 0


def test_the_range_of_a_step():
    seconds_of = {"compute": 2, "array": 4, "memory": 3, "links": 1}
    time = StepTime(schedule=0, **seconds_of)
    assert (time.least, time.most) == (3 + 1, 4 + 3 + 1)
    assert StepTime(schedule=9, **seconds_of).most == 9 + 1  # The compiler expects more.


def time_of(name, flops, collectives, on):
    parsed = program(name)
    return step_time(flops, parsed, find_convolutions(parsed), count_traffic(parsed), collectives, on)


def test_a_large_product_is_bound_by_arithmetic_and_a_copy_by_traffic():
    on, chip = Slice("v5e", (1, 1)), CHIPS["v5e"]
    flops = 2 * 8192**3
    time = time_of("matmul", flops, [], on)
    assert time.least == time.compute == time.array == flops / chip.flops and time.links == 0
    assert time.memory == 3 * 8192**2 * 2 / chip.hbm_bandwidth
    time = time_of("copy", 0, [], on)
    assert time.least == time.memory == 2 * 8192**2 * 4 / chip.hbm_bandwidth > time.array == 0


def test_collectives_come_after_the_rest():
    many = Collective("all-gather", LARGE, 16, 5, "")
    on = Slice("v5e", (4, 4))
    time = time_of("copy", 0, [many, many], on)
    assert time.links == pytest.approx(10 * collective_seconds(many, on))
    assert time.least == time.memory + time.links


def test_names_of_slices():
    assert [s.size for s in parse_slices(["v5e", "v4"])] == [1, 4, 8, 16, 32, 64, 128, 256] * 2
    assert [s.name for s in parse_slices(["v5p:2x2x1", "v6e:2x4"])] == ["v5p:2x2x1", "v6e:2x4"]
    assert set(SLICES) == set(CHIPS)


@pytest.mark.parametrize("name", ["v7:2x2", "v5e:", "v5e:4", "v5e:axb", "4x4", "v5e-16"])
def test_a_name_that_is_none_lists_those_that_are(name):
    with pytest.raises(UserError, match=r"--topology .*v5e or v6e with one of 1x1, 2x2, .*16x16") as info:
        parse_slices([name])
    assert "\n" not in str(info.value)
