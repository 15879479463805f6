"""What makes data unlearnable. Importing this fills the registry."""

from unlearnable.protections import autoregressive as autoregressive
from unlearnable.protections import convolution as convolution
from unlearnable.protections import echo as echo
from unlearnable.protections import error_maximizing as error_maximizing
from unlearnable.protections import error_minimizing as error_minimizing
from unlearnable.protections import patches as patches
from unlearnable.protections import stack as stack
from unlearnable.protections import tone as tone
from unlearnable.protections import veil as veil
from unlearnable.protections.base import protections as protections
