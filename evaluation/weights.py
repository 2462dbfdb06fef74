"""Whether the weights of the selection found are worth keeping."""

from __future__ import annotations

from diffsift.objectives import Probe
from diffsift.spaces import Selection


def decide_weights(probe: Probe, found: Selection) -> tuple[Selection, str]:
    """Return to equal weights where the weights that were found gain nothing that stands out from noise.

    In a ridge probe a weight only rescales one block's penalty, so weights often matter little. The gain is the paired
    difference over held-out images, or groups of them, with its bootstrap interval.

    Args:
        probe: the search's own.
        found: the selection with the weights that the search proposed.

    Returns:
        The selection to use, and the decision in words.
    """
    equal = Selection.of(found.candidates)
    if equal == found:
        return found, "equal weights, as found"
    gain = probe.metric.gain(probe.held_out(found), probe.held_out(equal), groups=probe.groups)
    measured = f"{gain.difference:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}] over equal weights on held-out images"
    if gain.low > 0:
        return found, f"weights kept: {measured}"
    return equal, f"equal weights returned: the weights found gain {measured}"
