"""Products of an activation's derivative with further terms: what activations and message sums have in common.

With terms z_0 .. z_k, each of one or several parts, let

    A_k = sum of act^(k - 1)(z_0) z_1 ... z_k

over elements or edges. The op of order k gives the derivatives of A_k by those parts that are wanted: act^(k)(z_0)
z_1 ... z_k for z_0, and act^(k - 1)(z_0) times the other factors for z_1 .. z_k. The activation itself is order 0.
As A_k is linear in z_1 .. z_k, and act^(k - 1) has the derivative act^(k), every derivative of such an op is a sum of
such ops.

A value is often wanted together with several tangents of it. With a gradient w of the value and, per tangent, its
direction a and its gradient y, both are derivatives of

    P = A_1(z, w) + sum over tangents of A_2(z, a, y)

by w and by every y: the op `push`, which finds act and act' once. Its transpose `pull` gives the derivatives of P by
z and by every a.
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
    """The ops of orders 0 to 3, of the parts of every term, the rest, and the codes wanted; with push and pull.

    The arguments of push are the parts of z, then [K, ...] the parts of K directions, and the rest; its results the
    tangents [K, ...] and the value. Those of pull have between them the gradients of the value (or None) and of the
    tangents, and behind the rest the codes wanted: of the parts of z, then of the directions'.

    Args:
        name: of the public op, for messages.
        parts: how many parts a term has; part p of term m has the code ``parts * m + p``.
        moving: how many of them, the first ones, a direction of push has. The gradients of a value and of its tangents
            are first parts.
        make: ``make(order, rules) -> Op``, where the rules are the Op's vjp, jvp and, at order 0, push.
        make_push, make_pull: ``make_push(rules) -> Op``.
    """

    def __init__(
        self,
        name: str,
        parts: int,
        moving: int,
        make: Callable[[int, dict[str, Any]], Op],
        make_push: Callable[[dict[str, Any]], Op],
        make_pull: Callable[[dict[str, Any]], Op],
    ) -> None:
        self.name, self.parts, self.moving = name, parts, moving
        self.ops = []
        for order in range(MAX_ORDER + 1):
            rules: dict[str, Any] = {"vjp": self._vjp(order), "jvp": self._jvp(order)}
            if order == 0:
                rules["push"] = self._push
            self.ops.append(make(order, rules))
        self.push = make_push({"vjp": self._push_vjp, "jvp": self._push_jvp})
        self.pull = make_pull({"vjp": self._pull_vjp, "jvp": self._pull_jvp})

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

    def _along(self, terms, rest, directions, wanted) -> dict[int, Tensor]:
        """Derivatives by the wanted parts of the derivative of A_k along these directions."""
        total: dict[int, Tensor] = {}
        for m, direction in enumerate(map(tuple, directions)):
            if _absent(direction):
                continue
            inner = [*terms, direction] if m == 0 else [*terms[:m], direction, *terms[m + 1 :]]
            codes = [code for code in wanted if m == 0 or code // self.parts != m]
            _add(total, zip(codes, self.gradients(inner, rest, codes), strict=True))
        return total

    def _push(self, args, tangents):
        """Of order 0: value and tangent at once."""
        terms, (*rest, wanted) = self.terms(0, args)
        z, along, still = terms[0], tangents[: self.moving], tangents[self.moving : self.parts]
        if wanted == (0,) and _absent(still) and None not in along:
            tangent, value = self.push(*z, *(part.unsqueeze(0) for part in along), *rest)
            return (value,), (tangent.squeeze(0),)
        both = self.gradients([z, tangents[: self.parts]], rest, [*wanted, *(self.parts + code for code in wanted)])
        return tuple(both[len(wanted) :]), tuple(both[: len(wanted)])

    def _split(self, args: tuple[Any, ...]) -> tuple[Term, Term, tuple[Any, ...]]:
        """The parts of z, those of the directions, and what follows them."""
        behind = self.parts + self.moving
        return tuple(args[: self.parts]), tuple(args[self.parts : behind]), args[behind:]

    def _push_vjp(self, args, grads, needs):
        z, along, rest = self._split(args)
        of_tangents, of_value = grads
        wanted = [code for code in range(self.parts + self.moving) if needs[code]]
        if of_tangents is None and of_value is None:
            return (None,) * len(args)
        if of_tangents is None:
            codes = [code for code in wanted if code < self.parts]
            pieces = dict(
                zip(codes, self.gradients([z, (of_value, *(None,) * (self.parts - 1))], rest, codes), strict=True)
            )
        else:
            found = self.pull(*z, *along, of_value, of_tangents, *rest, wanted)
            pieces = dict(zip(wanted, found, strict=True))
        return tuple(pieces.get(code) for code in range(len(args)))

    def _push_jvp(self, args, tangents):
        z, along, rest = self._split(args)
        moved, turned, _ = self._split(tangents)
        value, tangent = self.parts + self.moving, self.parts + self.moving + 1
        found = self._along_of_both((z, along, None, None), rest, (moved, turned, None, None), [value, tangent])
        return found[tangent], found[value] if value in found else torch.zeros_like(args[0])

    def _pull_vjp(self, args, grads, needs):
        z, along, (of_value, of_tangents, *rest, wanted) = self._split(args)
        given = dict(zip(wanted, grads, strict=True))
        moved, turned, _ = self._split(tuple(given.get(code) for code in range(self.parts + self.moving)))
        needed = [code for code in range(self.parts + self.moving + 2) if needs[code]]
        directions = (moved, turned, None, None)
        pieces = self._along_of_both((z, along, of_value, of_tangents), rest, directions, needed)
        return tuple(pieces.get(code) for code in range(len(args)))

    def _pull_jvp(self, args, tangents):
        z, along, (of_value, of_tangents, *rest, wanted) = self._split(args)
        moved, turned, (value_moved, tangents_moved, *_) = self._split(tangents)
        directions = (moved, turned, value_moved, tangents_moved)
        pieces = self._along_of_both((z, along, of_value, of_tangents), rest, directions, wanted)
        return tuple(pieces[code] if code in pieces else torch.zeros_like(args[code]) for code in wanted)

    def _along_of_both(self, inputs, rest, directions, wanted) -> dict[int, Tensor]:
        """Derivatives by the wanted ones of (z, a, w, y) of the derivative of P along these directions of them."""
        (z, along, of_value, of_tangents), (dz, dalong, dvalue, dtangents) = inputs, directions
        at_along, at_value, at_tangents = self.parts, self.parts + self.moving, self.parts + self.moving + 1
        total: dict[int, Tensor] = {}

        def add(terms: Sequence[Term | None], places: Sequence[int | None], into: dict[int, Tensor]) -> None:
            """The derivatives of A of these terms; places[m] is where the codes of term m begin, None if it has none.

            A term that is missing is one that the derivative is taken by.
            """
            missing = [m for m, term in enumerate(terms) if term is None]
            pairs = []
            for m, place in enumerate(places):
                if place is None or (missing and missing != [m]):
                    continue
                width = self.parts if m == 0 else self.moving if place == at_along else 1
                pairs += [(place + p, self.parts * m + p) for p in range(width) if place + p in wanted]
            filled = [(None,) * self.parts if term is None else term for term in terms]
            found = self.gradients(filled, rest, [code for _, code in pairs])
            _add(into, zip((code for code, _ in pairs), found, strict=True))

        w, dw = self._first(of_value), self._first(dvalue)
        if not _absent(dz):
            add([z, w, dz], [0, at_value, None], total)
        if dw is not None:
            add([z, dw], [0, None], total)
        stacks: dict[int, list[Tensor | None]] = {}
        count = next(t.shape[0] for t in (*along, *dalong, of_tangents, dtangents) if t is not None)
        for k in range(count):
            one: dict[int, Tensor] = {}
            a, da = self._one(along, k), self._one(dalong, k)
            y, dy = (self._first(None if t is None else t[k]) for t in (of_tangents, dtangents))
            if not _absent(dz):
                add([z, a, y, dz], [0, at_along, at_tangents, None], one)
            if not _absent(da):
                add([z, da, y], [0, None, at_tangents], one)
            if dy is not None:
                add([z, a, dy], [0, at_along, None], one)
            _add(total, ((code, piece) for code, piece in one.items() if code < self.parts))
            for code in wanted:
                if code >= self.parts and code != at_value:
                    stacks.setdefault(code, []).append(one.get(code))
        for code, pieces in stacks.items():
            there = [piece for piece in pieces if piece is not None]
            if there:
                total[code] = torch.stack(there)
        return total

    def _first(self, part: Tensor | None) -> Term | None:
        return None if part is None else (part, *(None,) * (self.parts - 1))

    def _one(self, parts: Term, k: int) -> Term:
        return (*(None if part is None else part[k] for part in parts), *(None,) * (self.parts - self.moving))


def _add(total: dict[int, Tensor], pieces) -> None:
    for code, piece in pieces:
        if code not in total:
            total[code] = piece
        elif torch.is_grad_enabled() or transforming():
            total[code] = total[code] + piece
        else:
            total[code] += piece  # ours alone: a fresh array would cost more than the sum


def _absent(term: Sequence[Tensor | None]) -> bool:
    return all(part is None for part in term)
