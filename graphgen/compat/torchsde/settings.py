"""torchsde.settings: the names that methods, noises and approximations go by."""

from __future__ import annotations


class _Names(type):
    """A class that is the collection of its attributes' values."""

    def all(cls) -> list[str]:
        return sorted(value for name, value in vars(cls).items() if not name.startswith("__"))

    def __contains__(cls, name: object) -> bool:
        return name in cls.all()

    def __str__(cls) -> str:
        return str(cls.all())


class METHODS(metaclass=_Names):
    adjoint_reversible_heun = "adjoint_reversible_heun"
    euler = "euler"
    euler_heun = "euler_heun"
    heun = "heun"
    log_ode_midpoint = "log_ode"
    midpoint = "midpoint"
    milstein = "milstein"
    reversible_heun = "reversible_heun"
    srk = "srk"


class NOISE_TYPES(metaclass=_Names):
    additive = "additive"
    diagonal = "diagonal"
    general = "general"
    scalar = "scalar"


class SDE_TYPES(metaclass=_Names):
    ito = "ito"
    stratonovich = "stratonovich"


class LEVY_AREA_APPROXIMATIONS(metaclass=_Names):
    davie = "davie"
    foster = "foster"
    none = "none"
    space_time = "space-time"


class METHOD_OPTIONS(metaclass=_Names):
    grad_free = "grad_free"
