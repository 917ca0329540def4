import itertools
import math
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphgen import ops
from graphgen.ops import noise, reference

PTR = torch.tensor([0, 3, 3, 10])
SOURCES = Path(__file__).parents[2] / "csrc"


def drawn(start, end, seed=7, ptr=PTR, features=2, dtype=torch.float64, integral=True, **options):
    return ops.brownian_increment(ptr, features, start, end, seed, dtype=dtype, integral=integral, **options)


def many(start, end, count=100_000, **options):
    return drawn(start, end, ptr=torch.tensor([0, count]), features=1, **options)


def same(ours, other):
    return all(torch.equal(a.view(torch.uint8), b.view(torch.uint8)) for a, b in zip(ours, other, strict=True))


# ---- the contract ---------------------------------------------------------------------------------------------------


def test_the_contract_does_not_change():
    """float32 bits of version 1; a change here is a new version of the noise contract."""
    assert noise.CONTRACT_VERSION == 1
    assert (noise.Stream.BROWNIAN, noise.Stream.BROWNIAN_KEY) == (16, 17)
    ids = torch.tensor([0x123456789ABC])
    w, u = ops.brownian_increment(
        torch.tensor([0, 2]), 3, -0.3, 1.7, 0x0123456789ABCDEF, cell=0.75, depth=20, graph_ids=ids, integral=True
    )
    found = [" ".join(f"{bits & 0xFFFFFFFF:08x}" for bits in x.flatten().view(torch.int32).tolist()) for x in (w, u)]
    assert found == [
        "bf00ac28 bf411ddc 3e775696 bf415893 bd8e430e beb42080",
        "bf6c998a bf149f89 3eb73566 bf2de4c4 3ecf8346 bf86daf0",
    ]


@settings(max_examples=40)
@given(
    sizes=st.lists(st.integers(0, 9), max_size=5),
    features=st.sampled_from([0, 1, 3, 9]),
    seed=st.integers(0, 2**64 - 1),
    ids=st.one_of(st.none(), st.lists(st.integers(0, 2**48 - 1), min_size=5, max_size=5)),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    cell=st.sampled_from([0.25, 1.0, 0.1]),
    depth=st.sampled_from([0, 1, 7, 24, 47]),
    times=st.lists(st.floats(-1.5, 1.5) | st.sampled_from([0.0, 0.25, 0.3, 1.0]), min_size=10, max_size=10),
    per_graph=st.booleans(),
)
def test_engine_bits_are_the_reference_bits(sizes, features, seed, ids, dtype, cell, depth, times, per_graph):
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    graph_ids = None if ids is None else torch.tensor(ids[: len(sizes)], dtype=torch.int64)
    start, end = times[:5], times[5:]
    if per_graph:
        start, end = (torch.tensor(t[: len(sizes)], dtype=torch.float64) for t in (start, end))
    else:
        start, end = start[0], end[0]
    options = dict(cell=cell, depth=depth, graph_ids=graph_ids, dtype=dtype)
    ours = ops.brownian_increment(ptr, features, start, end, seed, integral=True, **options)
    theirs = reference.brownian_increment(ptr, features, start, end, seed, integral=True, **options)
    assert same(ours, theirs)
    # The increment does not change when the integral is not asked for.
    assert same([ops.brownian_increment(ptr, features, start, end, seed, **options)], ours[:1])


def test_a_step_between_cells_is_a_draw_of_the_contract():
    """What lets a fused step and a Brownian motion share their noise."""
    for k in (0, 3, 1000):
        w = drawn(k * 0.25, (k + 1) * 0.25, cell=0.25, integral=False)
        assert torch.equal(w, 0.5 * ops.normal(PTR, 2, 7, noise.Stream.BROWNIAN, k, dtype=torch.float64))
    x = torch.zeros(10, 2)
    stepped = ops.euler_maruyama_step(x, x, 0.25, ptr=PTR, seed=7, stream=noise.Stream.BROWNIAN, step=3)
    assert torch.equal(stepped, drawn(0.75, 1.0, cell=0.25, dtype=torch.float32, integral=False))


@pytest.mark.skipif(not SOURCES.is_dir(), reason="needs the engine's sources beside the tests")
def test_scalar_arithmetic_of_the_header_has_the_same_bits(tmp_path):
    """The CUDA kernel takes an element at a time, the CPU kernel strips of them."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler on the PATH")
    program = tmp_path / "scalar.cpp"
    program.write_text(r"""
        #include "noise/brownian.h"
        #include <initializer_list>
        #include <stdio.h>
        using namespace gg;
        static float normal(uint64_t seed, int64_t cell, uint32_t element) {
          uint32_t word[4] = {element / 4, static_cast<uint32_t>(cell), 5, last_counter_word(16, 5)};
          philox(word, seed);
          float x[4];
          box_muller(word[0], word[1], x[0], x[1]);
          box_muller(word[2], word[3], x[2], x[3]);
          return x[element % 4];
        }
        int main() {
          const double length = 0.7;
          const int depth = 30;
          for (double time : {0.1, 0.35, 0.699999, -0.2}) {
            const BrownianPlace place = BrownianPlace::of(time, length, depth);
            for (uint32_t e = 0; e < 6; ++e) {
              const BrownianKeys root = BrownianKeys::of(9, 16, place.cell, kCellLevel, 0);
              Descent<double> d{sqrt(length) * normal(9, place.cell, e),
                                sqrt(length / 12.0) * normal(root.across, place.cell, e), {0.0, 0.0}};
              double part = length;
              int level = 0;
              for (; place.goes_on(level, depth); ++level, part *= 0.5) {
                const BrownianKeys k = BrownianKeys::of(9, 16, place.cell, level, place.index(level, depth));
                d.halve(place.right(level, depth), normal(k.along, place.cell, e), normal(k.across, place.cell, e),
                        Halving<double>::of(part));
              }
              if (place.rest != 0.0) d.finish(place.rest, part);
              printf("%a %a\n", d.left.w, d.left.u);
            }
          }
        }""")
    built = tmp_path / "scalar"
    command = [compiler, "-std=gnu++17", "-O2", "-ffp-contract=off", f"-I{SOURCES}", str(program), "-o", str(built)]
    subprocess.run(command, check=True)
    lines = subprocess.run([built], check=True, capture_output=True, text=True).stdout.split("\n")[:-1]
    found = torch.tensor([[float.fromhex(x) for x in line.split()] for line in lines], dtype=torch.float64)
    expected = []
    for time in (0.1, 0.35, 0.699999, -0.2):
        begin = -0.7 if time < 0 else 0.0
        one = drawn(begin, time, 9, torch.tensor([0, 6]), 1, cell=0.7, depth=30, graph_ids=torch.tensor([5]))
        expected.append(torch.cat(one, 1))
    assert torch.equal(found, torch.cat(expected))


# ---- a function -----------------------------------------------------------------------------------------------------


def test_a_path_is_the_same_in_any_order_batch_and_number_of_threads(threads):
    times = [0.0, 0.125, 0.3, 0.31, 1.0, 1.7, -0.4]
    forwards = {t: drawn(0.1, t) for t in times}
    assert all(same(drawn(0.1, t), forwards[t]) for t in reversed(times))
    ids = torch.tensor([12, 99, 2**40 + 1])
    per_graph = torch.tensor([0.2, 0.9, 0.4], dtype=torch.float64)
    for end in (0.77, per_graph):
        together = drawn(0.1, end, graph_ids=ids)
        for g in range(3):
            alone = slice(int(PTR[g]), int(PTR[g + 1]))
            own = end if isinstance(end, float) else end[g : g + 1]
            one = drawn(0.1, own, ptr=torch.tensor([0, alone.stop - alone.start]), graph_ids=ids[g : g + 1])
            assert same([part[alone] for part in together], one)
    wide = torch.arange(0, 30_000, 3)
    with threads(1):
        one = drawn(0.1, 0.77, ptr=wide)
    with threads(2):
        assert same(drawn(0.1, 0.77, ptr=wide), one)


def test_increments_and_integrals_add_up():
    cuts = [-0.9, -0.3, 0.0, 0.11, 0.5, 0.5000001, 1.3, 2.0]
    for a, b, c in [(cuts[i], cuts[j], cuts[k]) for i in range(8) for j in range(i, 8) for k in range(j, 8)]:
        (w1, u1), (w2, u2), (w, u) = drawn(a, b), drawn(b, c), drawn(a, c)
        assert torch.allclose(w1 + w2, w, atol=1e-13)
        assert torch.allclose(u1 + (c - b) * w1 + u2, u, atol=1e-13)
        back_w, back_u = drawn(c, a)
        assert torch.allclose(back_w, -w, atol=1e-13)
        assert torch.allclose(back_u, (c - a) * w - u, atol=1e-13)


def test_the_integral_is_that_of_the_path():
    count = 512
    at = [drawn(0.2, 0.2 + 0.5 * k / count, integral=False) for k in range(count + 1)]
    sum_ = sum((a + b) / 2 for a, b in itertools.pairwise(at)) * (0.5 / count)
    assert torch.allclose(sum_, drawn(0.2, 0.7)[1], atol=6e-4)  # 4 deviations of a trapezoid's error


def test_a_path_is_continuous_in_time():
    for t in (0.3, 0.5, 0.75, 1.0):
        for near in (1e-13, 1e-10):
            w = drawn(t - near, t + near, integral=False)
            assert float(w.abs().max()) < 6 * math.sqrt(2 * near) + 1e-7


# ---- its law --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end", "cell"), [(0.0, 1.0, 1.0), (0.1, 0.35, 1.0), (0.3, 0.3001, 1.0), (-0.2, 1.7, 0.3), (2.0, 2.3, 0.1)]
)
def test_increments_and_areas_are_normal_of_the_right_size(start, end, cell):
    w, u = many(start, end, cell=cell)
    span, room = end - start, 4 / math.sqrt(w.numel())
    h = (u / span - w / 2) * math.sqrt(12 / span)
    w = w / math.sqrt(span)
    for x in (w, h):
        assert abs(float(x.mean())) < room
        assert abs(float(x.square().mean()) - 1) < room * math.sqrt(2)
        assert abs(float((x**3).mean())) < room * math.sqrt(15)
        assert abs(float((x**4).mean()) - 3) < room * math.sqrt(96)
    assert abs(float((w * h).mean())) < room


def test_increments_of_times_apart_are_independent():
    cuts = [0.0, 0.07, 0.25, 0.4, 0.41, 1.2]
    parts = torch.stack([many(a, b)[0].flatten() / math.sqrt(b - a) for a, b in itertools.pairwise(cuts)])
    correlation = parts @ parts.t() / parts.shape[1]
    assert float((correlation - torch.eye(5, dtype=torch.float64)).abs().max()) < 4.5 * math.sqrt(2 / parts.shape[1])


def test_a_point_between_is_a_bridge():
    (early, _), (late, _) = many(0.15, 0.4), many(0.15, 0.9)
    mean, variance = late * (0.25 / 0.75), 0.25 * 0.5 / 0.75
    rest = (early - mean) / math.sqrt(variance)
    room = 4 / math.sqrt(rest.numel())
    assert abs(float(rest.square().mean()) - 1) < room * math.sqrt(2)
    assert abs(float((rest * late).mean())) < room * math.sqrt(0.75)


def test_cells_seeds_streams_and_steps_are_told_apart():
    first = drawn(0.1, 0.6, integral=False)
    others = [
        drawn(0.1, 0.6, seed=8, integral=False),
        drawn(0.1, 0.6, seed=7 + 2**32, integral=False),
        drawn(0.1, 0.6, stream=3, integral=False),
        drawn(1.1, 1.6, integral=False),
        drawn(-0.9, -0.4, integral=False),
        drawn(0.1, 0.6, graph_ids=torch.tensor([2**32, 5, 6]), integral=False),
    ]
    assert all(float((first - other).abs().min()) > 0 for other in others)


# ---- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [ops, reference])
@pytest.mark.parametrize(
    ("start", "end", "options", "says"),
    [
        (0.0, 1.0, dict(cell=0.0), "cell"),
        (0.0, 1.0, dict(cell=math.inf), "cell"),
        (0.0, 1.0, dict(depth=48), "depth"),
        (0.0, 1.0, dict(depth=-1), "depth"),
        (0.0, math.nan, {}, "end"),
        (-1e10, 1.0, {}, "start"),
        (torch.zeros(2), 1.0, {}, "start"),
        (0.0, 1.0, dict(stream=2**16), "stream"),
    ],
)
def test_what_has_no_path_is_refused(module, start, end, options, says):
    with pytest.raises(ValueError, match=says):
        module.brownian_increment(PTR, 2, start, end, 7, **options)


def test_a_bad_time_of_one_graph_is_refused():
    with pytest.raises(ValueError, match="end nan"):
        ops.brownian_increment(PTR, 2, 0.0, torch.tensor([0.0, math.nan, 0.0]), 7)
    with pytest.raises(IndexError, match="ptr"):
        ops.brownian_increment(torch.tensor([0, 5, 3]), 2, 0.0, 1.0, 7)
