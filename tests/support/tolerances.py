"""Every tolerance of the tests, with its reason."""

CONVOLUTION_ORDER = 1e-4
"""Relative and absolute: float32 convolutions in another memory order add in another order; about
1e-6 a layer, over 13 layers of sums of up to 4,608 products."""

LOCAL_RESPONSE_NORM = 1e-5
"""Relative: two square roots instead of a power, and another order of five float32 sums."""

SUM_ORDER_FLOAT64 = 1e-12
"""Relative: float64 sums of up to about 1,000 terms of one sign, added in another order."""

FLOAT32_CENTERS = 1e-5
"""Relative: centres that scikit-learn adds up, or either side rounds, in float32."""

GRADIENT_ORDER = 1e-4
"""Relative and absolute: float32 gradients of a batch, summed over its parts in another order,
after a few steps of SGD."""

FAISS_FLOAT32 = 1e-5
"""Relative: objectives and centroids that faiss adds up in float32."""

FLOAT32_PRODUCTS = 2e-5
"""Absolute, on rows of length 1: float32 projections of features far from their mean."""
