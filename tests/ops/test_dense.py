from functools import partial

import pytest
import torch
from draws import FLOATS, LAYOUTS, SEEDS, any_float, leaf, randn
from hypothesis import given
from hypothesis import strategies as st
from promises import (
    Promises,
    refused,
    same_bits_every_time,
    tangents_have_two_derivatives,
    third_derivatives_are_the_last,
)

from graphgen import ops
from graphgen.ops import reference

SIZES = st.sampled_from([0, 1, 2, 5, 6, 7, 13, 16, 17, 33, 64, 70])
ACTIVATIONS = ["silu", "tanh", "relu", "softplus"]


# ---- values ---------------------------------------------------------------------------------------------------------


@given(SEEDS, SIZES, SIZES, SIZES, any_float, st.booleans(), LAYOUTS, LAYOUTS)
def test_linear_values(assert_near, lay_out, seed, rows, inner, outer, dtype, biased, layout, other):
    x = lay_out(randn(rows, inner, seed=seed, dtype=dtype), layout)
    weight = lay_out(randn(inner, outer, seed=seed + 1, dtype=dtype), other)
    bias = randn(2 * outer, seed=seed + 2, dtype=dtype)[::2] if biased else None
    out = ops.linear(x, weight, bias)
    assert out.dtype == dtype
    exact, size = x.double() @ weight.double(), x.double().abs() @ weight.double().abs()
    if biased:
        exact, size = exact + bias.double(), size + bias.double().abs()
    assert_near(out, exact, size)


@given(SEEDS, SIZES, SIZES, any_float, st.sampled_from(ACTIVATIONS), LAYOUTS)
def test_activation_values(assert_near, lay_out, seed, rows, features, dtype, kind, layout):
    x = lay_out(3 * randn(rows, features, seed=seed, dtype=dtype), layout)
    out = ops.activation(x, kind)
    assert out.dtype == dtype
    assert_near(out, reference.activation(x.double(), kind))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["silu", "tanh", "softplus"])
def test_activation_and_its_slopes_are_accurate_everywhere(kind, dtype):
    x = torch.cat([torch.linspace(-30, 30, 20001), torch.logspace(-30, 30, 500), -torch.logspace(-30, 30, 500)])
    x = x.to(dtype).requires_grad_()
    wide = x.detach().double().requires_grad_()
    ours, exact = ops.activation(x, kind), reference.activation(wide, kind)
    eps, tiny = torch.finfo(dtype).eps, torch.finfo(dtype).tiny
    for order in range(4):
        error = (ours.double() - exact).abs().detach()
        # Slopes hold 1 - s and 1 - t^2, which cancel: exact relative to 1, as torch is, and not to themselves.
        # Where x exp(x) is about to leave the normal numbers, it stays at its last value: below 1000 of the smallest.
        room = (4 * eps * exact.abs() + 1000 * tiny if order == 0 else 16 * eps * (exact.abs() + 1)).detach()
        worst = int((error - room).argmax())
        assert bool((error <= room)[worst]), f"order {order} at {float(x[worst])}: {float(error[worst]):.3g}"
        if order < 3:
            (ours,) = torch.autograd.grad(ours.sum(), x, create_graph=True)
            (exact,) = torch.autograd.grad(exact.sum(), wide, create_graph=True)
            # Far out the reference's own formula may be inf * 0.
            exact = exact.where(exact.isfinite(), (wide > 0) * (1.0 - order) * (kind == "silu"))


def test_activation_of_what_is_not_a_number():
    x = torch.tensor([torch.nan, torch.inf, -torch.inf])
    assert ops.activation(x, "tanh").nan_to_num(7).tolist() == [7, 1, -1]
    assert ops.activation(x, "silu")[:2].nan_to_num(7, posinf=9).tolist() == [7, 9]
    for kind in ("relu", "softplus"):
        for wide in (x, x.double(), x.bfloat16(), x.repeat(9)):
            assert torch.equal(ops.activation(wide, kind).nan_to_num(7), reference.activation(wide, kind).nan_to_num(7))
            slopes = []
            for function in (ops.activation, reference.activation):
                at = wide.clone().requires_grad_()
                slopes.append(torch.autograd.grad(function(at, kind).sum(), at)[0].nan_to_num(7))
            assert torch.equal(*slopes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_softplus_keeps_its_digits_where_it_is_small(dtype):
    x = torch.linspace(-86.9, 45, 100_003, dtype=torch.float64).to(dtype)
    found, exact = ops.activation(x, "softplus").double(), reference.activation(x.double(), "softplus")
    assert float(((found - exact) / exact).abs().max()) < 4 * torch.finfo(dtype).eps
    assert float(ops.activation(torch.tensor(-1e30, dtype=dtype), "softplus")) == 0


def test_slopes_of_relu_are_those_of_torch_and_0_at_0():
    x = torch.tensor([-2.0, -1e-30, -0.0, 0.0, 1e-30, 3.0], requires_grad=True)
    value = ops.activation(x, "relu")
    assert torch.equal(value, torch.relu(x))
    for expected in ([0, 0, 0, 0, 1, 1], [0] * 6, [0] * 6):
        (value,) = torch.autograd.grad(value.sum(), x, create_graph=True)
        assert value.tolist() == expected


def test_activation_of_other_shapes(assert_near):
    x = randn(3, 4, 5, seed=1)
    assert_near(ops.activation(x.permute(2, 0, 1)), reference.activation(x).permute(2, 0, 1))
    assert ops.activation(x[0, 0, 0]).shape == ()


@given(SEEDS, SIZES, SIZES, any_float, LAYOUTS, st.sampled_from([1.0, 30.0, 1e4]))
def test_softmax_values(assert_near, lay_out, seed, rows, features, dtype, layout, spread):
    x = lay_out(spread * randn(rows, features, seed=seed, dtype=dtype), layout)
    out = ops.softmax(x)
    assert out.dtype == dtype
    assert_near(out, reference.softmax(x.double()))


def test_softmax_shows_nan_in_its_row_only_and_passes_masked_entries():
    x = torch.zeros(3, 5)
    x[1, 3] = torch.nan
    x[2, 0] = -torch.inf
    out = ops.softmax(x)
    assert out.isnan().any(1).tolist() == [False, True, False]
    assert out[1].isnan().all()
    torch.testing.assert_close(out[2], torch.tensor([0, 0.25, 0.25, 0.25, 0.25]))


def test_other_dtypes_get_the_reference():
    x, weight = randn(5, 4, seed=1, dtype=torch.float16), randn(4, 3, seed=2, dtype=torch.float16)
    assert torch.equal(ops.linear(x, weight), reference.linear(x, weight))
    assert torch.equal(ops.activation(x), reference.activation(x))
    assert torch.equal(ops.softmax(x), reference.softmax(x))


# ---- derivatives ----------------------------------------------------------------------------------------------------

CASES = {
    "linear": (lambda x, w, b: ops.linear(x, w, b), ((4, 3), (3, 2), (2,))),
    "linear without bias": (lambda x, w: ops.linear(x, w), ((4, 3), (3, 2))),
    "silu": (lambda x: ops.activation(x, "silu"), ((3, 4),)),
    "tanh": (lambda x: ops.activation(x, "tanh"), ((3, 4),)),
    "relu": (lambda x: ops.activation(x, "relu"), ((3, 4),)),
    "softplus": (lambda x: ops.activation(x, "softplus"), ((3, 4),)),
    "softmax": (lambda x: ops.softmax(x), ((3, 4),)),
}


@pytest.fixture(params=CASES)
def case(request):
    function, shapes = CASES[request.param]
    return function, tuple(leaf(*shape, seed=k) for k, shape in enumerate(shapes))


class TestEveryCase(Promises):
    def test_tangents_have_two_derivatives(self, case):
        tangents_have_two_derivatives(*case)


def test_the_fourth_derivative_is_refused_by_name():
    third_derivatives_are_the_last(ops.activation, leaf(3, seed=1))


def test_gradients_exist_only_where_asked():
    x, weight, bias = randn(4, 3, seed=1), leaf(3, 2, seed=2), randn(2, seed=3)
    (grad,) = torch.autograd.grad(ops.linear(x, weight, bias).sum(), weight)
    torch.testing.assert_close(grad, x.sum(0).unsqueeze(1).expand(3, 2))
    (grad,) = torch.autograd.grad(ops.linear(x, weight.detach(), bias.requires_grad_()).sum(), bias)
    assert grad.tolist() == [4, 4]


# ---- torch.library ---------------------------------------------------------------------------------------------------


def test_opcheck():
    space = torch.ops.graphgen
    x, weight, bias = leaf(4, 3, seed=1), leaf(3, 2, seed=2), leaf(2, seed=3)
    torch.library.opcheck(space.linear.default, (x, weight, bias))
    torch.library.opcheck(space.linear.default, (x.t().detach().t(), weight, None))
    y, z = leaf(4, 3, seed=4), leaf(4, 3, seed=5)
    torch.library.opcheck(space.activation_0.default, (x, "silu", [0]))
    torch.library.opcheck(space.activation_1.default, (x, y, "tanh", [0, 1]))
    torch.library.opcheck(space.activation_2.default, (x, y, z, "silu", [2, 0]))
    for kind in ACTIVATIONS:
        parts = (part.detach() for part in (x, y, z, x))
        torch.library.opcheck(space.activation_3.default, (*parts, kind, [0, 3]))
    torch.library.opcheck(space.softmax.default, (x,))


# ---- the same bits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("inner", "outer"), [(1, 1), (5, 37), (64, 64), (67, 5), (129, 17)])
def test_a_row_has_the_same_bits_wherever_it_stands(dtype, inner, outer):
    rows = 41
    x = randn(rows, inner, seed=1, dtype=dtype)
    weight, bias = randn(inner, outer, seed=2, dtype=dtype), randn(outer, seed=3, dtype=dtype)

    def results(part):
        part = part.clone().requires_grad_()
        activations = (partial(ops.activation, kind=kind) for kind in ACTIVATIONS)
        for function in (lambda t: ops.linear(t, weight, bias), ops.softmax, *activations):
            out = function(part)
            yield out
            yield torch.autograd.grad(out.square().sum(), part)[0]

    together = list(results(x))
    for first, last in [(0, 1), (0, 7), (6, 13), (40, 41), (3, 40)]:
        for part, whole in zip(results(x[first:last]), together, strict=True):
            assert torch.equal(part, whole[first:last])


@pytest.mark.parametrize("dtype", FLOATS)
def test_twenty_runs_and_any_number_of_threads_give_the_same_bits(threads, dtype):
    x, weight = randn(4001, 67, seed=1, dtype=dtype), randn(67, 37, seed=2, dtype=dtype)

    def everything():
        return ops.linear(x, weight), ops.softmax(x), *(ops.activation(x, kind) for kind in ACTIVATIONS)

    same_bits_every_time(threads, everything)


# ---- errors ---------------------------------------------------------------------------------------------------------


def test_shapes_dtypes_and_names_that_do_not_fit():
    x, weight = torch.zeros(4, 3), torch.zeros(3, 2)
    calls = [
        lambda: ops.linear(x, weight.t()),
        lambda: ops.linear(x[0], weight),
        lambda: ops.linear(x, weight[:, 0]),
        lambda: ops.linear(x, weight.double()),
        lambda: ops.linear(x, weight, torch.zeros(3)),
        lambda: ops.linear(x, weight, torch.zeros(2).double()),
        lambda: ops.activation(x, "gelu"),
        lambda: reference.activation(x, "gelu"),
        lambda: ops.softmax(x[0]),
    ]
    refused(calls, "linear|activation|softmax")
