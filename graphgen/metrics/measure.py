"""One number with everything that is needed to read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Measure:
    """A number, what it means and what it was computed from.

    Attributes:
        name: as the field calls it, with the authors' name where theirs differs from ours.
        value: None where it could not be computed; ``missing`` then says what to do about it.
        n: molecules it was computed from.
        definition: in a sentence or two, with which end is better where that is not obvious.
        n_reference: molecules it was compared with; None where there is no other side.
        floor: the same number of real molecules: a sample of the training split in the place of what was
            generated. None where nobody computed it.
        missing: why there is no value.
        processed: the same number of the reference molecules as they are encoded, against themselves as their
            source has them: what dropping stereo costs. None where the source is not at hand.
    """

    name: str
    value: float | None
    n: int
    definition: str
    n_reference: int | None = None
    floor: float | None = None
    missing: str | None = None
    processed: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields in types that JSON has, those without content left out."""
        return {key: value for key, value in vars(self).items() if value is not None or key == "value"}

    def text(self) -> str:
        """The value to four digits, or a dash."""
        return number(self.value)


def number(value: float | None) -> str:
    """A value to four digits; a dash where there is none."""
    if value is None:
        return "\N{EN DASH}"
    # Below the second bound there is nothing but the rounding of sums.
    return f"{value:.2e}" if 1e-12 < abs(value) < 1e-3 else f"{value:.4f}"
