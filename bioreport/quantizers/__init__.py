"""Discrete codes for continuous vectors: one codebook, a sum of several, or implicit ones (QINCo).

All three take vectors [..., D], give codes [..., L] and are trained by the same loop: `forward` returns what
was quantized with a straight-through gradient and a loss to add to the reconstruction's.
"""

from bioreport.quantizers.implicit import QincoQuantizer
from bioreport.quantizers.output import Quantized
from bioreport.quantizers.residual import ResidualQuantizer, VectorQuantizer
from bioreport.quantizers.usage import CodeUsage

__all__ = ["CodeUsage", "QincoQuantizer", "Quantized", "ResidualQuantizer", "VectorQuantizer"]
