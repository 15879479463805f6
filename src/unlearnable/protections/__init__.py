"""What makes data unlearnable. Importing this fills the registry."""

from unlearnable.protections import convolution as convolution
from unlearnable.protections import error_maximizing as error_maximizing
from unlearnable.protections import error_minimizing as error_minimizing
from unlearnable.protections.base import protections as protections
