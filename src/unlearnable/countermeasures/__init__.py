"""What a scraper does to protected pictures to learn from them anyway. Importing this fills the registry."""

from unlearnable.countermeasures import adversarial_transformation as adversarial_transformation
from unlearnable.countermeasures import bit_depth as bit_depth
from unlearnable.countermeasures import blur as blur
from unlearnable.countermeasures import class_mean_removal as class_mean_removal
from unlearnable.countermeasures import coin as coin
from unlearnable.countermeasures import color_jitter as color_jitter
from unlearnable.countermeasures import deconvolution as deconvolution
from unlearnable.countermeasures import filters as filters
from unlearnable.countermeasures import grayscale as grayscale
from unlearnable.countermeasures import jpeg as jpeg
from unlearnable.countermeasures import none as none
from unlearnable.countermeasures import orthogonal_projection as orthogonal_projection
from unlearnable.countermeasures import paired_regression as paired_regression
from unlearnable.countermeasures import resize as resize
from unlearnable.countermeasures import rsk as rsk
from unlearnable.countermeasures import spectrum_equalization as spectrum_equalization
from unlearnable.countermeasures import tones as tones
from unlearnable.countermeasures import ueraser as ueraser
from unlearnable.countermeasures.base import BatchChange as BatchChange
from unlearnable.countermeasures.base import Composition as Composition
from unlearnable.countermeasures.base import Countermeasure as Countermeasure
from unlearnable.countermeasures.base import Leak as Leak
from unlearnable.countermeasures.base import Published as Published
from unlearnable.countermeasures.base import compose as compose
from unlearnable.countermeasures.base import countermeasures as countermeasures
from unlearnable.countermeasures.base import named as named
