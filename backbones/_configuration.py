"""The settings of a network that decide what it computes, beside its weights: heads, norms, activations, scales."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from diffusers import ModelMixin
from transformers import PreTrainedModel

_ABOUT = ("dtype", "torch_dtype", "transformers_version", "model_type", "use_cache")
"""Settings that say how a network was saved or is used elsewhere."""


def settings_of(part: Any) -> dict[str, Any]:
    """The settings of a network that differ from its class's defaults: a later version may add others.

    Args:
        part: any part of a pipeline.

    Returns:
        Plain values by name; empty for what is no network of diffusers or transformers.
    """
    if isinstance(part, ModelMixin):
        config: dict[str, Any] = dict(part.config)
        parameters = inspect.signature(type(part).__init__).parameters
        default = {name: parameter.default for name, parameter in parameters.items()}
        changed = {name: value for name, value in config.items() if _plain(value) != _plain(default.get(name))}
    elif isinstance(part, PreTrainedModel):
        changed = part.config.to_diff_dict()
    else:
        return {}
    return {
        name: _plain(value)
        for name, value in sorted(changed.items())
        if name[0] != "_" and name not in _ABOUT and _is_plain(value)
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(entry) for entry in value)
    return value is None or isinstance(value, str | int | float)


def _plain(value: Any) -> Any:
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def earlier_identity(identity: Mapping[str, Any]) -> dict[str, Any]:
    """A backbone's identity as versions made it that knew neither its tokens nor its settings.

    Args:
        identity: of `Backbone.identity`.

    Returns:
        What a study of such a version recorded for the same model.
    """
    return {name: value for name, value in identity.items() if name not in ("tokens", "configuration")}
