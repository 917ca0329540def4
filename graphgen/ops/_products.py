"""Products of an activation's derivative with further terms: what activations and message sums have in common.

With terms z_0 .. z_k, each of one or several parts, let

    A_k = sum of act^(k - 1)(z_0) z_1 ... z_k

over elements or edges. The op of order k gives the derivatives of A_k by those parts that are wanted: act^(k)(z_0)
z_1 ... z_k for z_0, and act^(k - 1)(z_0) times the other factors for z_1 .. z_k. The activation itself is order 0.
As A_k is linear in z_1 .. z_k, and act^(k - 1) has the derivative act^(k), every derivative of such an op is a sum of
such ops. One such sum has an op of its own, for training on a trace asks for nothing else: what a value and its tangent
give back together, the derivatives by z_0, z_1, z_2 of A_2 + sum of act(z_0) z_3, called mixed.
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
    """The ops of orders 0 to 3 and the mixed one, of the parts of every term, the rest, and the codes wanted.

    Args:
        name: of the public op, for messages.
        parts: how many parts a term has; part p of term m has the code ``parts * m + p``.
        make: ``make(order, mixed, rules) -> Op``, where the rules are the Op's vjp, jvp and, at order 0, push.
    """

    def __init__(self, name: str, parts: int, make: Callable[[int, bool, dict[str, Any]], Op]) -> None:
        self.name, self.parts = name, parts
        self.ops = []
        for order in range(MAX_ORDER + 1):
            rules: dict[str, Any] = {"vjp": self._vjp(order), "jvp": self._jvp(order)}
            if order == 0:
                rules["push"] = self._push
            self.ops.append(make(order, False, rules))
        self.mixed = make(2, True, {"vjp": self._mixed_vjp, "jvp": self._mixed_jvp})

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
            if order == 1 and needed and not any(map(_absent, along)):
                found = self.mixed(*(part for term in (*terms, *along) for part in term), *rest, needed)
                pieces = dict(zip(needed, found, strict=True))
                return tuple(pieces.get(code) for code in range(len(args)))
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

    def _mixed_vjp(self, args, grads, needs):
        terms, (*rest, wanted) = self.terms(3, args)
        along: list[list[Tensor | None]] = [[None] * self.parts for _ in range(3)]
        for code, grad in zip(wanted, grads, strict=True):
            along[code // self.parts][code % self.parts] = grad
        needed = [code for code in range(4 * self.parts) if needs[code]]
        pieces = self._mixed_along(terms, rest, along, needed)
        return tuple(pieces.get(code) for code in range(len(args)))

    def _mixed_jvp(self, args, tangents):
        terms, (*rest, wanted) = self.terms(3, args)
        moved, _ = self.terms(3, tangents)
        pieces = self._mixed_along(terms, rest, moved[:3], wanted)
        if not _absent(moved[3]):
            # By z_3 only what is left of z_0 depends on it.
            of_first = [code for code in wanted if code < self.parts]
            slopes = self.gradients([terms[0], moved[3]], rest, of_first)
            for code, piece in zip(of_first, slopes, strict=True):
                pieces[code] = pieces[code] + piece if code in pieces else piece
        return tuple(pieces.get(code) for code in wanted)

    def _mixed_along(self, terms, rest, directions, wanted) -> dict[int, Tensor]:
        """As _along, of A_2 + sum of act(z_0) z_3, whose second part has a direction of z_0 only."""
        last = 3 * self.parts
        total = self._along(terms[:3], rest, directions, [code for code in wanted if code < last])
        if _absent(directions[0]):
            return total
        # With the terms (z_0, z_3, direction) this is A_2 again, where z_3 has the place of z_1.
        codes = [code for code in wanted if code < self.parts or code >= last]
        inner = [code if code < self.parts else code - 2 * self.parts for code in codes]
        pieces = self.gradients([terms[0], terms[3], tuple(directions[0])], rest, inner)
        for code, piece in zip(codes, pieces, strict=True):
            total[code] = total[code] + piece if code in total else piece
        return total

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
            if _absent(direction):
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


def _absent(term: Sequence[Tensor | None]) -> bool:
    return all(part is None for part in term)
