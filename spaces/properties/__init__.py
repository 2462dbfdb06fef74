"""Properties of activations, measured without labels: numbers for what the paper judged by eye.

Everything is computed per channel in units of that channel's own variance, so that neither the scale nor the number of
channels matters, and from products of different noise seeds where noise must cancel. Each file holds one property.
"""

from ._accumulate import Properties, Statistics
from ._measure import measure_properties

__all__ = ["Properties", "Statistics", "measure_properties"]
