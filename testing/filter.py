"""The contract of a filter."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import UNet2DConditionModel

from diffsift.backbones import Activation, read_activations
from diffsift.spaces import PropertyFilter


class FilterContract:
    """Tests that every `PropertyFilter` must pass.

    Subclass it under a name that pytest collects, and override the fixture `make_filter`::

        class TestMyFilter(FilterContract):
            @pytest.fixture
            def make_filter(self):
                return MyFilter

    Override `catalogue` too where the filter is made for other networks than U-Nets with cross-attention.
    """

    @pytest.fixture
    def make_filter(self) -> Callable[[], PropertyFilter]:
        """A function that makes a new filter, the same at each call."""
        raise NotImplementedError

    @pytest.fixture
    def catalogue(self) -> tuple[Activation, ...]:
        """What is filtered: the activations of a U-Net with three levels and cross-attention."""
        with torch.device("meta"):
            unet = UNet2DConditionModel(
                block_out_channels=(8, 16, 16),
                down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
                up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
                cross_attention_dim=16,
                attention_head_dim=2,
                norm_num_groups=4,
            )
        return read_activations(unet)

    def test_reasons_are_words_for_activations_of_the_catalogue(
        self, make_filter: Callable[[], PropertyFilter], catalogue: tuple[Activation, ...]
    ) -> None:
        reasons = make_filter().reasons(catalogue)
        assert set(reasons) <= {entry.name for entry in catalogue}
        assert all(reason.strip() and "\n" not in reason for reason in reasons.values())

    def test_something_is_kept(
        self, make_filter: Callable[[], PropertyFilter], catalogue: tuple[Activation, ...]
    ) -> None:
        assert len(make_filter().reasons(catalogue)) < len(catalogue)

    def test_decisions_are_repeatable_and_do_not_depend_on_the_order(
        self, make_filter: Callable[[], PropertyFilter], catalogue: tuple[Activation, ...]
    ) -> None:
        one = make_filter()
        reasons = one.reasons(catalogue)
        assert one.reasons(catalogue) == reasons
        assert make_filter().reasons(catalogue[::-1]) == reasons
