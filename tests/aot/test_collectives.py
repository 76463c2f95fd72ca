"""What the text of programs compiled here says of their collectives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from hamjepa_jax.aot.collectives import find_collectives
from hamjepa_jax.aot.hlo import parse
from hamjepa_jax.training.mesh import batch_sharded, make_mesh, parameters_sharded, replicated

DEVICES = 8


def collectives_of(function, *arguments, **options):
    """{(kind, bytes of the array, group, times)} of the compiled function."""
    text = jax.jit(function, **options).lower(*arguments).compile().as_text()
    return sorted((c.kind, c.bytes, c.group, c.times) for c in find_collectives(parse(text), DEVICES))


def mapped(body, mesh, out=None, axis=None):
    spec = PartitionSpec(axis or mesh.axis_names)
    return jax.shard_map(body, mesh=mesh, in_specs=spec, out_specs=spec if out is None else out, check_vma=False)


def rows(mesh, *shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharded(mesh))


@pytest.mark.parametrize(
    "body, out, expected",
    [
        (lambda x: jax.lax.psum(x, "data"), PartitionSpec(), ("all-reduce", 4 * 10, DEVICES, 1)),
        (lambda x: jax.lax.all_gather(x, "data"), PartitionSpec(), ("all-gather", 4 * 80, DEVICES, 1)),
        (lambda x: jax.lax.ppermute(x, "data", [(i, (i + 1) % 8) for i in range(8)]), None,
         ("collective-permute", 4 * 10, DEVICES, 1)),
    ],
)  # fmt: skip
def test_bytes_of_a_collective_on_vectors(body, out, expected):
    mesh = make_mesh()
    assert collectives_of(mapped(body, mesh, out), rows(mesh, 80)) == [expected]


def test_bytes_of_what_is_scattered_and_exchanged():
    mesh = make_mesh()
    scatter = mapped(lambda x: jax.lax.psum_scatter(x, "data", tiled=True), mesh)
    assert collectives_of(scatter, rows(mesh, 128, 3)) == [("reduce-scatter", 16 * 3 * 4, DEVICES, 1)]
    exchange = mapped(lambda x: jax.lax.all_to_all(x, "data", 0, 0, tiled=True), mesh)
    assert collectives_of(exchange, rows(mesh, 64, 5, dtype=jnp.int16)) == [("all-to-all", 8 * 5 * 2, DEVICES, 1)]


def test_several_arrays_of_one_collective_are_added_up():
    mesh = make_mesh()
    both = mapped(lambda x: jax.lax.psum((x, x.astype(jnp.int8)), "data"), mesh, PartitionSpec())
    found = collectives_of(both, rows(mesh, 800))
    assert sum(size for _, size, _, _ in found) == 100 * (4 + 1)


def test_a_loop_multiplies_and_a_branch_counts():
    mesh = make_mesh()

    def body(x):
        def step(carry, _):
            return jax.lax.psum(jnp.sin(carry), "data"), None

        x, _ = jax.lax.scan(step, x, None, length=5)
        return jax.lax.cond(x[0] > 0, lambda: jax.lax.psum(x[:2], "data"), lambda: x[:2])

    found = collectives_of(mapped(body, mesh, PartitionSpec()), rows(mesh, 80))
    assert found == [("all-reduce", 4 * 2, DEVICES, 1), ("all-reduce", 4 * 10, DEVICES, 5)]


def test_parameters_split_over_fsdp_are_gathered_in_groups():
    mesh = make_mesh(fsdp=4)
    params = {"kernel": jax.ShapeDtypeStruct((256, 512), jnp.float32)}
    (sharding,) = jax.tree.leaves(parameters_sharded(mesh, params))
    kernel = jax.ShapeDtypeStruct((256, 512), jnp.float32, sharding=sharding)
    gathered = collectives_of(lambda w: w, kernel, out_shardings=replicated(mesh))
    assert gathered == [("all-gather", 4 * 256 * 512, 4, 1)]
    grouped = mapped(lambda x: jax.lax.psum(x, "fsdp"), mesh, PartitionSpec("data"))
    assert collectives_of(grouped, rows(mesh, 80)) == [("all-reduce", 4 * 10, 4, 1)]


def test_a_program_of_one_device_has_none():
    assert collectives_of(lambda x: x @ x, np.ones((4, 4))) == []


# A TPU's compiler writes asynchronous pairs, groups as meshes, layouts, and one gather spread over two fusions.
TPU_TEXT = """\
HloModule jit_step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[]{:T(128)} parameter(0)
  ROOT %sum = f32[]{:T(128)} add(%x, %y)
}

%fused.1 (p: f32[2,8]) -> f32[2,32] {
  ROOT %ag.1 = f32[2,32]{1,0:T(2,128)S(1)} all-gather(%p), channel_id=5, replica_groups=mesh['a'=2,'b'=4] {'b'}, dimensions={1}
}

%fused.2 (p: f32[2,8]) -> f32[2,32] {
  ROOT %ag.2 = f32[2,32]{1,0:T(2,128)} all-gather(%p), channel_id=5, replica_groups=mesh['a'=2,'b'=4] {'b'}, dimensions={1}
}

%condition (s: (s32[], f32[4])) -> pred[] {
  %bound = s32[]{:T(128)} constant(3)
  %counter = s32[]{:T(128)} get-tuple-element(%s), index=0
  ROOT %less = pred[]{:T(512)} compare(%counter, %bound), direction=LT
}

%body (s: (s32[], f32[4])) -> (s32[], f32[4]) {
  %ar = f32[4]{0:T(128)} all-reduce(%v), channel_id=6, replica_groups=[1,8]<=[8], to_apply=%add
  ROOT %out = (s32[], f32[4]) tuple(%c, %ar)
}

ENTRY %main (p: f32[2,8]) -> f32[2,32] {
  %start = (f32[2,8]{1,0:T(2,128)}, bf16[2,64]{1,0:T(4,128)(2,1)}) all-gather-start(%q), channel_id=7, replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={1}
  %done = bf16[2,64]{1,0:T(4,128)(2,1)} all-gather-done(%start)
  %sent = (u32[6]{0}, u32[6]{0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%r), channel_id=8, source_target_pairs={{0,1}}
  %both = (f32[]{:T(128)}, /*index=1*/f32[3]{0}) all-reduce-start(%u, %v), channel_id=9, replica_groups={{0,1},{2,3}}, to_apply=%add
  %loop = (s32[]{:T(128)}, f32[4]{0}) while(%init), condition=%condition, body=%body
  %f1 = f32[2,32]{1,0} fusion(%p), kind=kCustom, calls=%fused.1
  ROOT %f2 = f32[2,32]{1,0} fusion(%p), kind=kCustom, calls=%fused.2
}
"""  # noqa: E501


def test_forms_that_only_a_tpu_compiler_writes():
    found = sorted((c.kind, c.bytes, c.group, c.times) for c in find_collectives(parse(TPU_TEXT), DEVICES))
    assert found == [
        ("all-gather", 2 * 32 * 4, 4, 1),
        ("all-gather", 2 * 64 * 2, 8, 1),
        ("all-reduce", 4 * 4, 2, 1),
        ("all-reduce", 4 * 4, 8, 3),
        ("collective-permute", 6 * 4, 8, 1),
    ]
