import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from graphgen import ops
from graphgen.ops import reference
from graphgen.ops.noise import Stream
from graphgen.ops.stepping import TABLEAUS, VE, VP, PreparedStep, SubVP
from graphgen.ops.stepping._affine import _dot, _step, noise_of

DTYPES = [torch.float32, torch.float64, torch.bfloat16]
SEEDS = st.integers(0, 10**6)
PTR = torch.tensor([0, 3, 3, 10, 11])
PAIRS = torch.tensor([0, 9, 9, 25, 26])
IDS = torch.tensor([7, 2**40, 0, 12])
SDES = [VP(), VE(), SubVP(0.2, 15.0)]


def randn(*shape, seed, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def rand(*shape, seed):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def leaf(*shape, seed):
    return randn(*shape, seed=seed).requires_grad_()


def sizes_to_ptr(sizes):
    return torch.tensor([0, *sizes]).cumsum(0)


# ---- values ---------------------------------------------------------------------------------------------------------


@given(
    seed=SEEDS,
    sizes=st.lists(st.integers(0, 9), max_size=6),
    features=st.sampled_from([0, 1, 2, 5, 17, 130]),
    count=st.integers(1, 8),
    dtype=st.sampled_from(DTYPES),
    index=st.sampled_from([torch.int32, torch.int64]),
    layout=st.sampled_from(["contiguous", "transposed", "strided", "expanded"]),
    noise=st.sampled_from(["none", "number", "graph", "array"]),
    keep=st.sampled_from([None, "row", "element"]),
    pairs=st.booleans(),
)
def test_affine_noise_step_values(
    assert_near, lay_out, seed, sizes, features, count, dtype, index, layout, noise, keep, pairs
):
    ptr = sizes_to_ptr([size**2 for size in sizes] if pairs else sizes).to(index)
    rows, graphs = int(ptr[-1]), len(sizes)
    terms = [lay_out(randn(rows, features, seed=seed + k, dtype=dtype), layout) for k in range(count)]
    numbers = [randn(graphs, seed=seed + 50 + k) if k % 2 else 0.5 - k for k in range(count)]
    options = dict(
        ptr=ptr, seed=seed, step=3, symmetric=pairs, graph_ids=None if seed % 2 else torch.arange(graphs) * 5
    )
    if noise != "none":
        options["noise"] = randn(graphs, seed=seed + 20) if noise == "graph" else 0.7
    if noise == "array":
        options["diffusion"] = lay_out(randn(rows, features, seed=seed + 21, dtype=dtype), layout)
    if keep is not None:
        options["keep"] = rand(*((rows,) if keep == "row" else (rows, features)), seed=seed + 22) < 0.5
    out = ops.affine_noise_step(terms, numbers, **options)
    assert out.dtype == dtype
    wide = dict(options)
    if noise == "array":
        wide["diffusion"] = options["diffusion"].double()
    exact = reference.affine_noise_step([term.double() for term in terms], numbers, **wide)
    scale = reference.affine_noise_step(
        [term.double().abs() for term in terms],
        [n.abs() if isinstance(n, torch.Tensor) else abs(n) for n in numbers],
        ptr=ptr,
    )
    assert_near(out, exact, scale + 6)
    reused = terms[0].contiguous().clone()
    ops.affine_noise_step([reused, *terms[1:]], numbers, out=reused, **options)
    assert torch.equal(reused, out)


def step_cases(dtype):
    x, f, g, k = (randn(11, 5, seed=s).to(dtype) for s in range(4))
    dt = torch.tensor([0.01, 0.2, 0.05, 0.1], dtype=torch.float64)
    t = torch.tensor([0.3, 0.9, 0.5, 1.0], dtype=torch.float64)
    alpha, after = torch.tensor([0.2, 0.5, 0.7, 0.9]), torch.tensor([0.3, 0.9, 0.8, 1.0])
    cases = {
        "euler": ("euler_maruyama_step", (x, f, 0.01)),
        "euler backwards": ("euler_maruyama_step", (x, f, -dt, -dt)),
        "euler diagonal": ("euler_maruyama_step", (x, f, dt, g)),
        "heun": ("heun_step", (x, f, k, dt, 0.5, 0.7)),
        "heun diagonal": ("heun_step", (x, f, k, 0.02, g, g.flip(0))),
        "flow VP": ("probability_flow_step", (x, f, t, 0.01, SDES[0])),
        "flow VE": ("probability_flow_step", (x, f, 0.5, 0.01, SDES[1])),
        "langevin": ("langevin_step", (x, f, dt)),
        "langevin number": ("langevin_step", (x, f, 0.1)),
        "rk": ("rk_combine", (x, [f, g, k], [0.5, 0.0, -2.0], dt)),
    }
    for sde in SDES:
        for predictor in ("euler_maruyama", "reverse_diffusion", "ancestral"):
            if predictor == "ancestral" and isinstance(sde, SubVP):
                continue
            for numbers in ((t, dt / 20), (0.5, 0.01)):
                name = f"{type(sde).__name__} {predictor} {type(numbers[0]).__name__}"
                cases[name] = ("reverse_sde_step", (x, f, *numbers, sde), dict(predictor=predictor, noise_scale=0.9))
    for predicts in ("noise", "data"):
        for options in (dict(eta=1.0), dict(eta=0.0), dict(eta=0.4), dict(variance="beta")):
            for numbers in ((alpha, after), (0.6, 0.7), (0.9, 1.0)):
                name = f"ddpm {predicts} {options} {numbers[1]}"
                cases[name] = ("ddpm_step", (x, f, *numbers), dict(predicts=predicts, **options))
    for norm in ("graph", "batch"):
        options = dict(norm=norm, alpha=after, noise_scale=0.7)
        cases[f"corrector {norm}"] = ("annealed_langevin_step", (x, f, 0.2), options)
    return cases


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", step_cases(torch.float64))
def test_steps_are_their_equations(assert_near, name, dtype):
    function, arguments, *rest = step_cases(dtype)[name]
    options = dict(ptr=PTR) if function == "rk_combine" else dict(ptr=PTR, seed=5, graph_ids=IDS, **(rest or [{}])[0])
    out = getattr(ops, function)(*arguments, **options)
    assert out.dtype == dtype
    wide = [a.double() if isinstance(a, torch.Tensor) else a for a in arguments]
    if function == "rk_combine":
        wide[1] = [stage.double() for stage in arguments[1]]
    exact = getattr(reference, function)(*wide, **options)
    assert_near(out, exact, 40 + exact.abs())


def test_a_float16_state_gets_the_reference():
    x, f = randn(11, 3, seed=1).half(), randn(11, 3, seed=2).half()
    out = ops.euler_maruyama_step(x, f, 0.1, 0.5, ptr=PTR, seed=1)
    torch.testing.assert_close(out, reference.euler_maruyama_step(x, f, 0.1, 0.5, ptr=PTR, seed=1))
    result, norm = ops.rk_combine_with_error(x, [f], [1.0], [0.5], 0.1, ptr=PTR, atol=1e-2, rtol=1e-2)
    assert result.dtype == torch.float16 and norm.shape == (4,)
    assert ops.annealed_langevin_step(x, f, 0.1, ptr=PTR).dtype == torch.float16


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("grad", [False, True])
def test_a_prepared_step_is_the_step(dtype, grad):
    x, f, g = (randn(11, 5, seed=s, dtype=dtype) for s in range(3))
    keep = rand(11, 5, seed=4) < 0.3
    sizes = torch.tensor([0.1, 0.2, 0.3, 0.4])
    with torch.set_grad_enabled(grad):
        prepared = PreparedStep(x, PTR, seed=5, stream=3, graph_ids=IDS, keep=keep)
        for terms, numbers, noise, array in (
            ((x, f), (1.0, 0.1), 0.5, None),
            ((x, f.t().contiguous().t(), g), (1.0, sizes, 0.2), sizes.double(), None),
            ((x, f), (1.0, 1), 1, g.t().contiguous().t()),
            ((x,), (0.5,), 0.0, None),
        ):
            options = dict(ptr=PTR, seed=5, stream=3, graph_ids=IDS, keep=keep, noise=noise, diffusion=array)
            expected = ops.affine_noise_step(terms, numbers, step=7, **options)
            assert torch.equal(prepared(7, terms, numbers, noise, array), expected)
            assert torch.equal(prepared(7, terms, numbers, noise, array, torch.empty_like(x)), expected)
        for terms, numbers in (((x, f), (1.0,)), ((x, f[:, :3]), (1.0, 1.0)), ((x, f), (1.0, sizes[:2]))):
            with pytest.raises(ValueError):
                prepared(7, terms, numbers)
    with pytest.raises(ValueError, match="keep"):
        PreparedStep(x, PTR, keep=keep[:3])


# ---- noise ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("ptr", "symmetric"), [(PTR, False), (PAIRS, True), (torch.tensor([0, 5000]), False)])
def test_a_step_draws_what_normal_draws(dtype, ptr, symmetric):
    ids = IDS[: ptr.numel() - 1]
    drawn = ops.normal(ptr, 5, 11, Stream.STEP, 9, ids, dtype, symmetric)
    ones = torch.ones_like(drawn)
    options = dict(ptr=ptr, seed=11, graph_ids=ids, symmetric=symmetric, noise=1.0)
    for step in (9, torch.tensor(9), torch.tensor([9])):
        assert torch.equal(ops.affine_noise_step([], [], diffusion=ones, step=step, **options), drawn)
    assert torch.equal(ops.affine_noise_step([ones * 0], [1.0], step=9, **options), drawn)


@pytest.mark.parametrize("draw", ["normal", "uniform", "rademacher"])
@pytest.mark.parametrize("features", [1, 3, 130])
def test_noise_of_pairs(draw, features):
    ptr = sizes_to_ptr([size**2 for size in (3, 0, 40, 1)])
    drawn = getattr(ops, draw)(ptr, features, 5, 1, 2, IDS, symmetric=True)
    expected = getattr(reference, draw)(ptr, features, 5, 1, 2, IDS, symmetric=True)
    assert torch.equal(drawn, expected)
    for first, last in pairwise(ptr.tolist()):
        n = math.isqrt(last - first)
        block = drawn[first:last].view(n, n, features)
        assert torch.equal(block, block.transpose(0, 1))
    # What pairs draw in their order is what nodes draw in theirs; and a pair keeps its noise in a larger graph.
    square = getattr(ops, draw)(torch.tensor([0, 9]), features, 5, 1, 2, IDS[2:3], symmetric=True).view(3, 3, -1)
    plain = getattr(ops, draw)(torch.tensor([0, 6]), features, 5, 1, 2, IDS[2:3])
    assert torch.equal(square[[0, 1, 1, 2, 2, 2], [0, 0, 1, 0, 1, 2]], plain)
    assert torch.equal(square, drawn[9 : 9 + 1600].view(40, 40, -1)[:3, :3])


def test_a_symmetric_state_stays_symmetric():
    e = torch.zeros(25, 2)
    for step in range(3):
        score = -e
        e = ops.langevin_step(e, score, 0.1, ptr=torch.tensor([0, 25]), symmetric=True, step=step)
        e = ops.annealed_langevin_step(e, -e, 0.1, ptr=torch.tensor([0, 25]), symmetric=True, step=step)
    block = e.view(5, 5, 2)
    assert torch.equal(block, block.transpose(0, 1)) and e.std() > 0.1


def everything(ptr, ids, arrays, symmetric=False):
    """One of each kernel, for a batch."""
    x, f, g, keep = arrays
    numbers = (ids % 7 + 1) / 50
    options = dict(ptr=ptr, graph_ids=ids, seed=3, symmetric=symmetric)
    yield ops.euler_maruyama_step(x, f, numbers, g, keep=keep, **options)
    yield ops.annealed_langevin_step(x, f, 0.2, keep=keep, **options)
    yield from ops.rk_combine_with_error(x, [f, g], [0.5, 0.5], [0.5, -0.5], numbers, ptr=ptr, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_graph_does_not_depend_on_its_batch_or_on_threads(threads, dtype, symmetric):
    sizes = [3, 0, 50, 1, 7, *range(2, 12)]
    counts = [size**2 if symmetric else 13 * size for size in sizes]
    ids = torch.arange(len(sizes)) * 31 + 5
    rows = [
        (*(randn(n, 5, seed=10 * k + m, dtype=dtype) for m in range(3)), rand(n, 5, seed=k) < 0.3)
        for k, n in enumerate(counts)
    ]

    def of(order):
        ptr = sizes_to_ptr([counts[k] for k in order])
        results = everything(
            ptr, ids[order], [torch.cat(part) for part in zip(*(rows[k] for k in order), strict=True)], symmetric
        )
        found = {k: [] for k in order}
        for result in results:
            for at, k in enumerate(order):
                found[k].append(result[ptr[at] : ptr[at + 1]] if result.dim() == 2 else result[at])
        return found

    together = of(list(range(len(sizes))))
    for order in ([4, 2, 0, 1, 3], [2], [14, 3, 9]):
        for k, results in of(order).items():
            assert all(map(torch.equal, results, together[k]))
    for count in (1, 2, 3):
        with threads(count):
            assert all(all(map(torch.equal, results, together[k])) for k, results in of(list(together)).items())


# ---- what the steps are for -----------------------------------------------------------------------------------------


def test_the_sdes_have_their_closed_forms():
    """Moments from ODEs of the drift and the diffusion: m' = a m, v' = 2 a v + g^2."""
    for sde in [VP(0.1, 1.0), SubVP(0.1, 5.0), VE(0.1, 1.0)]:
        n = 20_000
        t = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        mean = torch.exp((sde.drift(t) / n).sum())
        decay = torch.exp(2 * (sde.drift(t) / n).flip(0).cumsum(0).flip(0))
        variance = (sde.diffusion(t) ** 2 * decay / n).sum() + (sde.std(0.0) ** 2 if isinstance(sde, VE) else 0)
        assert abs(float(mean) - sde.mean(1.0)) < 1e-4
        assert abs(float(variance) - sde.std(1.0) ** 2) < 1e-4
        for at in (0.0, 0.3, 1.0):
            for name in ("drift", "diffusion", "mean", "std"):
                both = getattr(sde, name)(at), getattr(sde, name)(torch.tensor([at]))
                assert both[1].dtype == torch.float64 and abs(both[0] - float(both[1])) < 1e-7


def test_ddpm_is_the_posterior_of_the_chain():
    """q(x_next | x, x0) from Bayes' rule on q(x | x_next) q(x_next | x0)."""
    now, after = 0.3, 0.42
    x, data = randn(11, 3, seed=1), randn(11, 3, seed=2)
    precision = (now / after) / (1 - now / after) + 1 / (1 - after)
    mean = (math.sqrt(now / after) * x / (1 - now / after) + math.sqrt(after) * data / (1 - after)) / precision
    expected = mean + precision**-0.5 * ops.normal(PTR, 3, 4, Stream.STEP, dtype=torch.float64)
    eps = (x - math.sqrt(now) * data) / math.sqrt(1 - now)
    for predicts, prediction in (("data", data), ("noise", eps)):
        out = ops.ddpm_step(x, prediction, now, after, predicts=predicts, ptr=PTR, seed=4)
        torch.testing.assert_close(out, expected)
    alpha = now / after  # Ho et al., algorithm 2
    paper = (x - (1 - alpha) / math.sqrt(1 - now) * eps) / math.sqrt(alpha)
    out = ops.ddpm_step(x, eps, now, after, variance="beta", ptr=PTR, seed=4)
    noise = ops.normal(PTR, 3, 4, Stream.STEP, dtype=torch.float64)
    torch.testing.assert_close(out, paper + math.sqrt(1 - alpha) * noise)


def test_ddim_inverts_its_own_noising():
    data, eps = randn(11, 3, seed=1), randn(11, 3, seed=2)
    x = math.sqrt(0.2) * data + math.sqrt(0.8) * eps
    out = ops.ddpm_step(x, eps, 0.2, 0.7, eta=0.0, ptr=PTR)
    torch.testing.assert_close(out, math.sqrt(0.7) * data + math.sqrt(0.3) * eps)
    torch.testing.assert_close(ops.ddpm_step(x, eps, 0.2, 1.0, ptr=PTR), data)


@pytest.mark.parametrize("sde", [VP(0.1, 10.0), VE(0.1, 5.0), SubVP(0.1, 10.0)])
@pytest.mark.parametrize("predictor", ["euler_maruyama", "reverse_diffusion", "ancestral", "flow"])
def test_a_gaussian_comes_back(sde, predictor):
    """The exact score of N(2, 1/4) brought back from t = 1."""
    if predictor == "ancestral" and isinstance(sde, SubVP):
        with pytest.raises(ValueError, match="ancestral"):
            ops.reverse_sde_step(torch.zeros(11, 1), torch.zeros(11, 1), 1.0, 0.1, sde, predictor=predictor, ptr=PTR)
        return
    count, steps, mean, std = 20_000, 500, 2.0, 0.5
    ptr = torch.tensor([0, count])

    def moments(t):
        return mean * sde.mean(t), (std * sde.mean(t)) ** 2 + sde.std(t) ** 2

    at, variance = moments(1.0)
    x = at + math.sqrt(variance) * ops.normal(ptr, 1, 1, dtype=torch.float64)
    for k in range(steps):
        t = 1.0 - k / steps
        at, variance = moments(t)
        score = (at - x) / variance
        if predictor == "flow":
            x = ops.probability_flow_step(x, score, t, 1 / steps, sde, ptr=ptr)
        else:
            x = ops.reverse_sde_step(x, score, t, 1 / steps, sde, predictor=predictor, ptr=ptr, seed=2, step=k)
    at, variance = moments(0.0)
    assert abs(float(x.mean()) - at) < 4 * std / math.sqrt(count) + 0.01
    assert abs(float(x.var()) - variance) < 4 * variance * math.sqrt(2 / count) + 0.02


def test_the_corrector_steps_by_the_norms():
    x, score = randn(11, 5, seed=1), randn(11, 5, seed=2)
    noise = ops.normal(PTR, 5, 3, Stream.CORRECTOR, dtype=torch.float64)
    out = ops.annealed_langevin_step(x, score, 0.2, noise_scale=0.0, ptr=PTR, seed=3)
    for first, last in pairwise(PTR.tolist()):
        if first == last:
            continue
        size = 2 * (0.2 * noise[first:last].norm() / score[first:last].norm()) ** 2
        torch.testing.assert_close(out[first:last], x[first:last] + size * score[first:last])
    still = ops.annealed_langevin_step(x, score * 0, 0.2, ptr=PTR, seed=3)
    assert torch.equal(still, x)
    # What is kept counts for neither norm, and pairs count in both orders.
    e, s = randn(25, 2, seed=1), randn(25, 2, seed=2)
    keep = torch.eye(5, dtype=torch.bool).flatten()
    out = ops.annealed_langevin_step(e, s, 0.1, ptr=torch.tensor([0, 25]), symmetric=True, keep=keep, noise_scale=0.0)
    z = ops.normal(torch.tensor([0, 25]), 2, 0, Stream.PAIR_CORRECTOR, dtype=torch.float64, symmetric=True)
    size = 2 * (0.1 * z[~keep].norm() / s[~keep].norm()) ** 2
    torch.testing.assert_close(out[~keep], (e + size * s)[~keep])
    assert torch.equal(out[keep], e[keep])


@pytest.mark.parametrize("name", TABLEAUS)
def test_tableaus_meet_the_order_conditions(name):
    tableau = TABLEAUS[name]
    a = torch.zeros(len(tableau.b), len(tableau.b), dtype=torch.float64)
    for k, row in enumerate(tableau.a):
        a[k, : len(row)] = torch.tensor(row, dtype=torch.float64)
    b, c, error = (torch.tensor(part, dtype=torch.float64) for part in (tableau.b, tableau.c, tableau.error))
    torch.testing.assert_close(a.sum(1), c, atol=1e-14, rtol=0)
    for power in range(tableau.order):
        assert abs(float(b @ c**power) - 1 / (power + 1)) < 1e-13
    if tableau.order >= 3:
        assert abs(float(b @ (a @ c)) - 1 / 6) < 1e-13
    if tableau.order >= 5:
        for row, exact in ((a @ c**3, 1 / 20), (c * (a @ c**2), 1 / 15), (a @ (a @ (a @ c)), 1 / 120)):
            assert abs(float(b @ row) - exact) < 1e-13
    # The embedded method has one order less.
    for power in range(tableau.error_order - 1):
        assert abs(float(error @ c**power)) < 1e-10
    assert abs(float(error @ c ** (tableau.error_order - 1))) > 1e-6
    if tableau.fsal:
        assert tableau.a[-1] == tableau.b[:-1] and tableau.b[-1] == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", TABLEAUS)
def test_the_error_norm(assert_near, dtype, name):
    tableau = TABLEAUS[name]
    ptr = torch.tensor([0, 3, 3, 10, 900])
    y, *stages = (randn(900, 5, seed=k, dtype=dtype) for k in range(1 + len(tableau.b)))
    for h in (0.3, torch.tensor([0.1, 0.2, -0.3, 0.4])):
        arguments = (y, stages, tableau.b, tableau.error, h)
        result, norm = ops.rk_combine_with_error(*arguments, ptr=ptr, atol=1e-2, rtol=0.1)
        assert torch.equal(result, ops.rk_combine(y, stages, tableau.b, h, ptr=ptr))
        wide = (y.double(), [stage.double() for stage in stages])
        _, exact = reference.rk_combine_with_error(*wide, *arguments[2:], ptr=ptr, atol=1e-2, rtol=0.1)
        torch.testing.assert_close(norm.double(), exact, rtol=1e-4 if dtype != torch.float64 else 1e-12, atol=1e-12)
        assert norm[1] == 0
        traced = [stage.clone().requires_grad_() for stage in stages]
        again, same = ops.rk_combine_with_error(y, traced, *arguments[2:], ptr=ptr, atol=1e-2, rtol=0.1)
        assert again.requires_grad and not same.requires_grad
        assert torch.equal(same, norm) and torch.equal(again, result)
    y[4] = torch.nan
    _, norm = ops.rk_combine_with_error(*arguments, ptr=ptr, atol=1e-2, rtol=0.1)
    assert norm.isnan().tolist() == [False, False, True, False]


# ---- derivatives ----------------------------------------------------------------------------------------------------

KEEP = torch.tensor([False, True] * 5 + [False])
CASES = {
    "terms and numbers": (
        lambda x, f, a, s: ops.affine_noise_step([x, f], [a, 0.3], ptr=PTR, noise=s, seed=2, keep=KEEP),
        ((11, 2), (11, 2), (4,), (4,)),
    ),
    "no terms": (lambda g: ops.affine_noise_step([], [], ptr=PTR, noise=0.5, diffusion=g), ((11, 2),)),
    "euler": (
        lambda x, f, dt, g: ops.euler_maruyama_step(x, f, dt.exp(), g, ptr=PTR, seed=1),
        ((11, 2), (11, 2), (4,), (11, 2)),
    ),
    "pairs": (
        lambda x, f, dt, g: ops.euler_maruyama_step(x, f, dt.exp(), g, ptr=PAIRS, symmetric=True),
        ((26, 1), (26, 1), (4,), (26, 1)),
    ),
    "corrector": (lambda x, s: ops.annealed_langevin_step(x, s, 0.5, ptr=PTR), ((11, 2), (11, 2))),
    "rk": (lambda y, k, h: ops.rk_combine(y, [k, k.sin()], [0.5, 2.0], h, ptr=PTR), ((11, 2), (11, 2), (4,))),
}


@pytest.fixture(params=CASES)
def case(request):
    function, shapes = CASES[request.param]
    return function, tuple(leaf(*shape, seed=k) for k, shape in enumerate(shapes))


def test_first_derivatives(case):
    assert gradcheck(*case, check_forward_ad=True, check_batched_grad=True)


def test_second_derivatives(case):
    assert gradgradcheck(*case, check_fwd_over_rev=True)


def test_torch_func(case):
    function, leaves = case
    inputs = tuple(t.detach() for t in leaves)
    many = tuple(randn(3, *t.shape, seed=40 + k) for k, t in enumerate(inputs))
    stacked = torch.stack([function(*one) for one in zip(*many, strict=True)])
    torch.testing.assert_close(torch.vmap(function)(*many), stacked)
    forward = torch.func.jacfwd(function)(*inputs)
    torch.testing.assert_close(forward, torch.func.jacrev(function)(*inputs))


def test_registered_ops_are_what_torch_wants():
    noise = noise_of(PTR, IDS, 2**64 - 1, 6, torch.tensor(3), False)
    x, f, g = (randn(11, 2, seed=k) for k in range(3))
    a, s = randn(4, seed=5).requires_grad_(), randn(4, seed=6).requires_grad_()
    rest = (None,) * 6
    step = (x, f, *rest, None, a, *rest, g, s, KEEP, *noise[:3], [0.5, 2.0], 1.0, True, *noise[3:])
    torch.library.opcheck(torch.ops.graphgen.affine_noise_step.default, step)
    leaves = (leaf(11, 2, seed=1), leaf(11, 2, seed=2))
    torch.library.opcheck(torch.ops.graphgen.noise_dot.default, (*leaves, KEEP, *noise, 1))
    assert torch.equal(_step(*step).detach(), torch.ops.graphgen.affine_noise_step.default(*step).detach())
    assert _dot(*leaves, KEEP, *noise, 1).shape == (4,)


def test_compiles():
    def loss(x, f, dt):
        x = ops.euler_maruyama_step(x, f, dt, 0.5, ptr=PTR, seed=2**63 + 1, step=4)
        return ops.annealed_langevin_step(x, f, 0.1, ptr=PTR).square().sum()

    leaves = (leaf(11, 2, seed=1), leaf(11, 2, seed=2), rand(4, seed=3).requires_grad_())
    expected = torch.autograd.grad(loss(*leaves), leaves)
    found = torch.autograd.grad(torch.compile(loss, fullgraph=True)(*leaves), leaves)
    torch.testing.assert_close(found, expected)


# ---- errors ---------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused():
    x, f = randn(11, 2, seed=1), randn(11, 2, seed=2)
    wrong = [
        (dict(ptr=PTR, seed=-1), ValueError, "seed"),
        (dict(ptr=PTR, seed=2**64), ValueError, "seed"),
        (dict(ptr=PTR, stream=2**16), ValueError, "stream"),
        (dict(ptr=PTR, step=-1), ValueError, "step"),
        (dict(ptr=PTR, step=torch.tensor(1.0)), ValueError, "step"),
        (dict(ptr=PTR, graph_ids=IDS[:2]), ValueError, "graph_ids"),
        (dict(ptr=PTR, graph_ids=-IDS), ValueError, "graph_ids"),
        (dict(ptr=PTR, keep=torch.zeros(10, dtype=torch.bool)), ValueError, "keep"),
        (dict(ptr=PTR, keep=torch.zeros(11)), ValueError, "keep"),
        (dict(ptr=PTR, out=torch.zeros(11, 2)), ValueError, "out"),
        (dict(ptr=PTR[:-1]), IndexError, "ptr"),
        (dict(ptr=PTR + 1), IndexError, "ptr"),
        (dict(ptr=torch.tensor([0, 5, 3, 11])), IndexError, "ptr"),
        (dict(ptr=PTR, symmetric=True), IndexError, "square"),
        (dict(ptr=PTR[:0]), ValueError, "ptr"),
    ]
    for options, error, message in wrong:
        with pytest.raises(error, match=message):
            ops.euler_maruyama_step(x, f, 0.1, **options)
    for arguments in ((x, f[:5], 0.1), (x, f.float(), 0.1), (x, f, torch.zeros(3)), (x[0], f[0], 0.1)):
        with pytest.raises(ValueError, match="step|differ|coefficient"):
            ops.euler_maruyama_step(*arguments, ptr=PTR)
    with pytest.raises(ValueError, match="out"):
        ops.euler_maruyama_step(x.clone().requires_grad_(), f, 0.1, ptr=PTR, out=torch.zeros_like(x))
    with pytest.raises(ValueError, match="predictor"):
        ops.reverse_sde_step(x, f, 0.5, 0.1, VP(), predictor="heun", ptr=PTR)
    with pytest.raises(ValueError, match="smaller steps"):
        ops.reverse_sde_step(x, f, 1.0, 0.1, VP(), predictor="ancestral", ptr=PTR)
    with pytest.raises(ValueError, match="norm"):
        ops.annealed_langevin_step(x, f, 0.1, norm="all", ptr=PTR)
    with pytest.raises(ValueError, match="predicts"):
        ops.ddpm_step(x, f, 0.1, 0.2, predicts="x0", ptr=PTR)
    with pytest.raises(ValueError, match="both"):
        ops.heun_step(x, f, f, 0.1, x, 1.0, ptr=PTR)
    with pytest.raises(ValueError, match="weights"):
        ops.rk_combine(x, [f], [1.0, 2.0], 0.1, ptr=PTR)
    with pytest.raises(ValueError, match="stages"):
        ops.rk_combine_with_error(x, [f[:3]], [1.0], [0.5], 0.1, ptr=PTR, atol=1.0, rtol=1.0)
    with pytest.raises(ValueError, match="8"):
        ops.affine_noise_step([x] * 9, [1.0] * 9, ptr=PTR)
    with pytest.raises(TypeError):
        ops.euler_maruyama_step(x, f, 0.1, ptr=PTR, sed=3)


def test_nothing_to_do():
    for ptr, x in (
        (torch.tensor([0]), torch.zeros(0, 3)),
        (torch.tensor([0, 0, 0]), torch.zeros(0, 3)),
        (PTR, torch.zeros(11, 0)),
    ):
        out = ops.annealed_langevin_step(ops.euler_maruyama_step(x, x, 0.1, ptr=ptr), x, 0.1, ptr=ptr)
        assert out.shape == x.shape
        _, norm = ops.rk_combine_with_error(x, [x], [1.0], [1.0], 0.1, ptr=ptr, atol=1.0, rtol=1.0)
        assert norm.tolist() == [0.0] * (ptr.numel() - 1)
