"""No countermeasure: the pictures as they were published."""

from dataclasses import dataclass
from typing import ClassVar

from unlearnable.countermeasures.base import Countermeasure, countermeasures


@countermeasures.register("none")
@dataclass(frozen=True, kw_only=True)
class Nothing(Countermeasure):
    """The row that every other one is compared with."""

    name: ClassVar[str] = "none"
