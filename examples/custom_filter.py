"""A filter of your own: which activations are worth trying. Specifications name it.

filters: {further: [narrow]}
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import UNet2DConditionModel

from diffsift.backbones import Activation, read_activations
from diffsift.spaces import FilterSpecification, PropertyFilter, apply_filters, count_reasons, register_filter

WIDEST = 640


class NarrowFilter(PropertyFilter):
    """Drops wide activations, so that the bank stays small."""

    def reasons(self, activations: Sequence[Activation]) -> dict[str, str]:
        return {entry.name: f"more than {WIDEST} channels" for entry in activations if entry.channels > WIDEST}


register_filter("narrow", NarrowFilter)


def main() -> None:
    """Filter the activations of a U-Net, without weights."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768)
    decisions = apply_filters(read_activations(unet), FilterSpecification(further=("narrow",)))
    print(f"{sum(decision.kept for decision in decisions)} of {len(decisions)} activations kept")
    for reason, count in count_reasons(decisions):
        print(f"{count:4d} dropped: {reason}")


if __name__ == "__main__":
    main()
