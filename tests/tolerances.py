"""Every tolerance of the tests, with its reason."""

CONVOLUTION_ORDER = 1e-4
"""Relative and absolute: float32 convolutions in another memory order add in another order; about
1e-6 a layer, over 13 layers of sums of up to 4,608 products."""

LOCAL_RESPONSE_NORM = 1e-5
"""Relative: two square roots instead of a power, and another order of five float32 sums."""
