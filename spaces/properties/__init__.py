"""Properties of activations, measured without labels: numbers for what the paper judged by eye.

Everything is computed per channel in units of that channel's own variance, so that neither the scale nor the number of
channels matters, and from products of different noise seeds where noise must cancel. Each file holds one property.
"""

from ._accumulate import Properties, Statistics
from ._measure import measure_properties
from ._reading import energy_of, window_of

__all__ = ["Properties", "Statistics", "energy_of", "measure_properties", "window_of"]
