"""What makes data unlearnable. Importing this fills the registry."""

from unlearnable.protections import convolution as convolution
from unlearnable.protections.base import protections as protections
