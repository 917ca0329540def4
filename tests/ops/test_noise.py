import math
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphgen import ops
from graphgen.ops import noise, reference
from graphgen.ops.reference.noise import philox

DISTRIBUTIONS = ["uniform", "normal", "rademacher"]
SOURCES = Path(__file__).parents[2] / "csrc"

# The known answers of the Random123 distribution (Salmon et al.): counter, key, result.
KNOWN = [
    ([0] * 4, 0, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, 2**64 - 1, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        0x299F31D0_A4093822,
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


def bits(tensor):
    return [f"{value & 0xFFFFFFFF:08x}" for value in tensor.flatten().view(torch.int32).tolist()]


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_reference_philox_gives_the_known_answers(counter, key, result):
    words = philox([torch.tensor([word]) for word in counter], key)
    assert [int(word) for word in words] == result


def test_engine_gives_the_known_answer_it_can_be_asked_for():
    signs = ops.rademacher(torch.tensor([0, 1]), 128, seed=0).flatten()
    words = [sum(1 << k for k in range(32) if signs[32 * w + k] > 0) for w in range(4)]
    assert words == KNOWN[0][2]
    assert ops.uniform(torch.tensor([0, 1]), 4, seed=0).mul(2**24).long().tolist() == [
        [word >> 8 for word in KNOWN[0][2]]
    ]


def test_the_contract_does_not_change():
    """First eight values of version 1, as float32 bits; a change here is a new version of the contract."""
    assert noise.CONTRACT_VERSION == 1
    golden = {
        "uniform": "3ee14da2 3e7923e4 3e5e1978 3f2d9b48 3f7f6dc8 3e8ca8cc 3f645523 3f7e7998",
        "normal": "3d5cd6c2 3fa3dcc5 bf4342c7 bfc95e42 bc297054 3d873bfd 3ef4b4c4 bc929da5",
        "rademacher": "3f800000 3f800000 bf800000 3f800000 3f800000 3f800000 bf800000 bf800000",
    }
    for distribution, expected in golden.items():
        drawn = getattr(ops, distribution)(
            torch.tensor([0, 2]),
            4,
            seed=0x0123456789ABCDEF,
            stream=3,
            step=5,
            graph_ids=torch.tensor([0x123456789ABC]),
        )
        assert bits(drawn) == expected.split()
    assert [stream.value for stream in noise.Stream][:6] == list(range(6))


@given(
    sizes=st.lists(st.integers(0, 9), max_size=7),
    features=st.sampled_from([0, 1, 2, 3, 4, 5, 9, 17, 64, 130]),
    seed=st.integers(0, 2**64 - 1),
    stream=st.integers(0, 2**16 - 1),
    step=st.integers(0, 2**32 - 1),
    ids=st.one_of(st.none(), st.lists(st.integers(0, 2**48 - 1), min_size=7, max_size=7)),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    index=st.sampled_from([torch.int32, torch.int64]),
)
def test_engine_bits_are_the_reference_bits(sizes, features, seed, stream, step, ids, dtype, index):
    ptr = torch.tensor([0, *sizes]).cumsum(0).to(index)
    graph_ids = None if ids is None else torch.tensor(ids[: len(sizes)], dtype=torch.int64)
    for distribution in DISTRIBUTIONS:
        arguments = (ptr, features, seed, stream, step, graph_ids)
        drawn = getattr(ops, distribution)(*arguments, dtype=dtype)
        expected = getattr(reference, distribution)(*arguments, dtype=dtype)
        assert drawn.dtype == dtype
        assert drawn.shape == (sum(sizes), features)
        assert torch.equal(drawn.view(torch.uint8), expected.view(torch.uint8))
        # Every dtype holds the float32 value, converted.
        assert torch.equal(drawn, getattr(ops, distribution)(*arguments).to(dtype))


def test_a_million_normals_have_the_reference_bits():
    """Enough to meet every quarter turn, exponent and rounding that a handful would miss."""
    ptr = torch.tensor([0, 1_000_003])
    assert torch.equal(ops.normal(ptr, 1, seed=9), reference.normal(ptr, 1, seed=9))


@pytest.mark.skipif(not SOURCES.is_dir(), reason="needs the engine's sources beside the tests")
def test_scalar_arithmetic_of_the_header_has_the_same_bits(tmp_path):
    """The CUDA kernel runs these scalar functions, the CPU kernel their vector twins."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler on the PATH")
    program = tmp_path / "scalar.cpp"
    program.write_text(r"""
        #include "noise/philox.h"
        #include <stdio.h>
        static uint32_t bits(float x) { return gg::bit_cast<uint32_t>(x); }
        int main() {
          uint32_t known[3][4] = {{0, 0, 0, 0}, {~0u, ~0u, ~0u, ~0u},
                                  {0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}};
          const uint64_t keys[3] = {0, ~0ull, 0x299f31d0a4093822ull};
          for (int k = 0; k < 3; ++k) {
            gg::philox(known[k], keys[k]);
            for (uint32_t word : known[k]) printf("%u\n", word);
          }
          for (uint32_t block = 0; block < 5000; ++block) {
            uint32_t words[4] = {block, 5, 7, gg::last_counter_word(3, 7)};
            gg::philox(words, 11);
            float element[4];
            gg::box_muller(words[0], words[1], element[0], element[1]);
            gg::box_muller(words[2], words[3], element[2], element[3]);
            for (float x : element) printf("%u\n", bits(x));
          }
        }""")
    built = tmp_path / "scalar"
    command = [compiler, "-std=gnu++17", "-O2", "-ffp-contract=off", f"-I{SOURCES}", str(program), "-o", str(built)]
    subprocess.run(command, check=True)
    found = [int(line) for line in subprocess.run([built], check=True, capture_output=True).stdout.split()]
    assert found[:12] == [word for _, _, result in KNOWN for word in result]
    normals = ops.normal(torch.tensor([0, 5000]), 4, 11, stream=3, step=5, graph_ids=torch.tensor([7]))
    assert found[12:] == [value & 0xFFFFFFFF for value in normals.flatten().view(torch.int32).tolist()]


# ---- what a number may depend on ------------------------------------------------------------------------------------


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_a_graph_draws_the_same_in_any_batch(distribution):
    draw = getattr(ops, distribution)
    sizes, features = [3, 0, 50, 1, 7], 5
    ids = torch.tensor([12, 99, 2**40 + 1, 0, 77])

    def drawn(order):
        ptr = torch.tensor([0, *(sizes[g] for g in order)]).cumsum(0)
        out = draw(ptr, features, seed=4, stream=2, step=8, graph_ids=ids[order])
        return {g: out[first:last] for g, first, last in zip(order, ptr, ptr[1:], strict=False)}

    together = drawn([0, 1, 2, 3, 4])
    for order in ([4, 2, 0, 1, 3], [2], [3, 4]):
        for g, values in drawn(order).items():
            assert torch.equal(values, together[g])


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_threads_do_not_matter(threads, distribution):
    ptr = torch.arange(0, 40_000, 13)
    with threads(1):
        one = getattr(ops, distribution)(ptr, 7, seed=1)
    for count in (2, 3):
        with threads(count):
            assert torch.equal(getattr(ops, distribution)(ptr, 7, seed=1), one)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_every_part_of_the_counter_matters(distribution):
    draw = getattr(ops, distribution)
    ptr, ids = torch.tensor([0, 40]), torch.tensor([5])
    first = draw(ptr, 5, 1, 2, 3, ids)
    others = [
        draw(ptr, 5, 2, 2, 3, ids),
        draw(ptr, 5, 1 + 2**32, 2, 3, ids),
        draw(ptr, 5, 1, 3, 3, ids),
        draw(ptr, 5, 1, 2, 4, ids),
        draw(ptr, 5, 1, 2, 3, ids + 1),
        draw(ptr, 5, 1, 2, 3, ids + 2**32),
    ]
    assert all(not torch.equal(first, other) for other in others)
    assert torch.equal(first, draw(ptr, 5, 1, 2, 3, ids))
    plain = draw(torch.tensor([0, 40, 80]), 5, 1)
    assert torch.equal(plain, draw(torch.tensor([0, 40, 80]), 5, 1, graph_ids=torch.tensor([0, 1])))


# ---- how it is distributed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_moments_within_four_standard_errors(distribution):
    count = 1 << 20
    # Many graphs, so that values of different counters are compared and not one graph's only.
    x = getattr(ops, distribution)(torch.arange(0, count + 1, 64), 1, seed=17).double().flatten()
    # Exact moments E x^k for k = 1..8.
    exact = {
        "uniform": [1 / (k + 1) for k in range(1, 9)],
        "normal": [0, 1, 0, 3, 0, 15, 0, 105],
        "rademacher": [0, 1] * 4,
    }[distribution]
    for k in range(1, 5):
        deviation = math.sqrt(max(exact[2 * k - 1] - exact[k - 1] ** 2, 0) / count)
        # Uniforms are multiples of 2^-24 and so 2^-25 too small on average.
        assert abs(float((x**k).mean()) - exact[k - 1]) <= 4 * deviation + 2**-24
    centred = x - exact[0]
    variance = exact[1] - exact[0] ** 2
    for lag in (1, 2, 3, 4, 64):
        correlation = float((centred[lag:] * centred[:-lag]).mean()) / variance
        assert abs(correlation) < 4 / math.sqrt(count)


def test_normals_are_float64_mathematics_to_four_ulp():
    count = 1 << 20
    ptr = torch.tensor([0, count])
    x = ops.normal(ptr, 4, seed=23).double()
    counter = [torch.arange(count), *(torch.zeros(count, dtype=torch.int64) for _ in range(3))]
    words = philox(counter, 23)
    pairs = []
    for radial, angular in (words[:2], words[2:]):
        # The uniform is a float32 by contract; what follows should be exact.
        u = (radial.float() * 2.0**-32 + 2.0**-33).double()
        angle = angular.double() * (2 * math.pi * 2.0**-32)
        pairs += [(-2 * u.log()).sqrt() * angle.cos(), (-2 * u.log()).sqrt() * angle.sin()]
    exact = torch.stack(pairs, 1)
    ulp = torch.ldexp(torch.ones_like(exact), torch.frexp(exact).exponent - 24)
    # Where the cosine is nearly 0, float64's own 2 pi is not exact either.
    error = ((x - exact).abs() - 1e-15).clamp(min=0) / ulp
    assert float(error.max()) <= 4
    assert bool(x.isfinite().all())


# ---- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [ops, reference])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_numbers_the_counter_cannot_hold_are_refused(module, distribution):
    draw = getattr(module, distribution)
    ptr = torch.tensor([0, 2, 4])
    refused = [
        dict(seed=-1),
        dict(seed=2**64),
        dict(seed=0, stream=2**16),
        dict(seed=0, step=2**32),
        dict(seed=0, step=-1),
        dict(seed=0, graph_ids=torch.tensor([0])),
        dict(seed=0, graph_ids=torch.tensor([0, -1])),
        dict(seed=0, graph_ids=torch.tensor([2**48, 0])),
    ]
    for arguments in refused:
        with pytest.raises(ValueError, match="seed|stream|step|graph_ids"):
            draw(ptr, 3, **arguments)
    with pytest.raises(ValueError, match="features"):
        draw(ptr, -1, seed=0)
    with pytest.raises(ValueError, match="ptr"):
        draw(ptr[:0], 3, seed=0)
    for bad in ([0, 5, 3], [2, 4], [-1, 2]):
        with pytest.raises(IndexError, match="ptr"):
            draw(torch.tensor(bad), 3, seed=0)
