"""Products of an activation's derivative with further terms: what activations and message sums have in common.

With terms z_0 .. z_k, each of one or several parts, let

    A_k = sum of act^(k - 1)(z_0) z_1 ... z_k

over elements or edges. The op of order k gives the derivatives of A_k by those parts that are wanted: act^(k)(z_0)
z_1 ... z_k for z_0, and act^(k - 1)(z_0) times the other factors for z_1 .. z_k. The activation itself is order 0.
As A_k is linear in z_1 .. z_k, and act^(k - 1) has the derivative act^(k), every derivative of such an op is a sum of
such ops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from graphgen.ops._op import Op, transforming

MAX_ORDER = 3
Term = tuple[Tensor | None, ...]


class Products:
    """The ops of orders 0 to 3, whose arguments are the parts of every term, the rest, and the codes wanted.

    Args:
        name: of the public op, for messages.
        parts: how many parts a term has; part p of term m has the code ``parts * m + p``.
        make: ``make(order, rules) -> Op``, where the rules are the Op's vjp, jvp and, at order 0, push.
    """

    def __init__(self, name: str, parts: int, make: Callable[[int, dict[str, Any]], Op]) -> None:
        self.name, self.parts = name, parts
        self.ops = []
        for order in range(MAX_ORDER + 1):
            rules: dict[str, Any] = {"vjp": self._vjp(order), "jvp": self._jvp(order)}
            if order == 0:
                rules["push"] = self._push
            self.ops.append(make(order, rules))

    def terms(self, order: int, args: tuple[Any, ...]) -> tuple[list[Term], tuple[Any, ...]]:
        """The terms among an op's arguments, and what follows them."""
        count = self.parts * (order + 1)
        return [tuple(args[at : at + self.parts]) for at in range(0, count, self.parts)], args[count:]

    def gradients(self, terms: Sequence[Term], rest: Sequence[Any], wanted: Sequence[int]) -> Sequence[Tensor]:
        """The derivatives of A_k, k = len(terms) - 1, by the parts with these codes."""
        if not wanted:
            return ()
        order, of = len(terms) - 1, {code // self.parts for code in wanted}
        if order > MAX_ORDER and 0 in of:
            raise RuntimeError(
                f"{self.name}: this asks for a fourth derivative of the activation, which no kernel provides; "
                f"use ops.reference.{self.name}"
            )
        if of == {0} or (len(of) > 1 and order <= MAX_ORDER):
            return self.ops[order](*(part for term in terms for part in term), *rest, list(wanted))
        # By z_m alone, m > 0: what is left when z_m is taken away is a derivative by z_0 of the next lower order.
        results: dict[int, Tensor] = {}
        for m in of:
            codes = [code for code in wanted if code // self.parts == m]
            lower = self.gradients([*terms[:m], *terms[m + 1 :]], rest, [code % self.parts for code in codes])
            results |= zip(codes, lower, strict=True)
        return [results[code] for code in wanted]

    def _vjp(self, order: int) -> Callable[..., tuple[Tensor | None, ...]]:
        def vjp(args, grads, needs):
            terms, (*rest, wanted) = self.terms(order, args)
            along: list[list[Tensor | None]] = [[None] * self.parts for _ in terms]
            for code, grad in zip(wanted, grads, strict=True):
                along[code // self.parts][code % self.parts] = grad
            needed = [code for code in range(self.parts * len(terms)) if needs[code]]
            # <grads, derivatives of A_k by z_m> is A_k with z_m replaced, and for z_0 it is A_{k + 1}.
            pieces = self._along(terms, rest, along, needed)
            return tuple(pieces.get(code) for code in range(len(args)))

        return vjp

    def _jvp(self, order: int) -> Callable[..., tuple[Tensor | None, ...]]:
        def jvp(args, tangents):
            terms, (*rest, wanted) = self.terms(order, args)
            moved, _ = self.terms(order, tangents)
            pieces = self._along(terms, rest, moved, wanted)
            return tuple(pieces.get(code) for code in wanted)

        return jvp

    def _push(self, args, tangents):
        """Values and tangents at once: they are the derivatives of A_1 by z_1 and by z_0."""
        terms, (*rest, wanted) = self.terms(0, args)
        moved, _ = self.terms(0, tangents)
        both = self.gradients([*terms, *moved], rest, [*wanted, *(self.parts + code for code in wanted)])
        return tuple(both[len(wanted) :]), tuple(both[: len(wanted)])

    def _along(self, terms, rest, directions, wanted) -> dict[int, Tensor]:
        """Derivatives by the wanted parts of the derivative of A_k along these directions."""
        total: dict[int, Tensor] = {}
        for m, direction in enumerate(map(tuple, directions)):
            if all(part is None for part in direction):
                continue
            inner = [*terms, direction] if m == 0 else [*terms[:m], direction, *terms[m + 1 :]]
            codes = [code for code in wanted if m == 0 or code // self.parts != m]
            for code, piece in zip(codes, self.gradients(inner, rest, codes), strict=True):
                if code not in total:
                    total[code] = piece
                elif torch.is_grad_enabled() or transforming():
                    total[code] = total[code] + piece
                else:
                    total[code] += piece  # ours alone: a fresh array would cost more than the sum
        return total
