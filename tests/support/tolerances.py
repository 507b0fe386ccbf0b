"""Every tolerance of the tests with its reason; each reason is a difference in rounding."""

CONVOLUTION_ORDER = 1e-4
"""Relative and absolute: float32 convolutions in another memory layout add in another order. The
error is about 1e-6 per layer, and the network has 13 layers with sums of up to 4,608 products."""

LOCAL_RESPONSE_NORM = 1e-5
"""Relative: two square roots replace a power, and five float32 numbers are added in another
order."""

SUM_ORDER_FLOAT64 = 1e-12
"""Relative: float64 sums of about 1,000 terms of equal sign, added in another order."""

FLOAT32_CENTERS = 1e-5
"""Relative: scikit-learn adds up centres in float32, or one side rounds centres to float32."""

FLOAT64_CENTERS = 1e-15
"""Relative: a sum, a total weight and their quotient are rounded to float64 once each."""

GRADIENT_ORDER = 1e-4
"""Relative and absolute: float32 gradients of the parts of a batch are added in another order; the
tests compare weights after a few steps of SGD."""

FAISS_FLOAT32 = 1e-5
"""Relative: faiss adds up objectives and centroids in float32."""

FLOAT32_PRODUCTS = 2e-5
"""Absolute, for rows of length 1: float32 projections of features that lie far from their mean."""
