"""Evaluation protocols of papers by name: the fields that each sets in a specification."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PROTOCOLS: dict[str, dict[str, Any]] = {
    # Baranchuk et al., ICLR 2022: label-scarce segmentation; labels are scored at 256 x 256 px.
    "ddpm-segmentation": {
        "task": {"kind": "segmentation"},
        "timesteps": [50, 150, 250],
        "model": {"noise_shared": True},
        "data": {"ddpm-segmentation": {"label_size": 256}},
    },
    # Tang et al., NeurIPS 2023: zero-shot correspondence on SPair-71k, SD 2.1 told "a photo of a {category}".
    "dift": {
        "task": {
            "kind": "correspondence",
            "threshold": 0.1,
            "normalise": "box",
            "average": "point",
        },
        "timesteps": [261],
        "model": {"image_size": [768, 768], "resize": "stretch", "noise_seeds": 8},
        "data": {"spair": {"category_prompt": True}},
    },
    # El Banani et al., CVPR 2024: depth, per image; the other measures and the aligned ones are reported too.
    "probe3d": {"task": {"kind": "depth", "score": "rmse", "alignment": "none"}},
}
"""Fields by part of the specification; the fields of `data` depend on its kind."""


def with_protocol(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the fields that a specification's protocol sets; fields that are given stay.

    Args:
        values: fields by part, among them `protocol`.

    Returns:
        The completed fields; the same where no known protocol is named.

    Raises:
        ValueError: the protocol belongs to another task.
    """
    protocol = PROTOCOLS.get(values["protocol"]) if isinstance(values.get("protocol"), str) else None
    if protocol is None:
        return dict(values)
    task = values.get("task", {})
    given = task.get("kind") if isinstance(task, dict) else getattr(task, "kind", None)
    if given not in (None, protocol["task"]["kind"]):
        raise ValueError(
            f"protocol {values['protocol']} is one of task.kind {protocol['task']['kind']}, but task.kind is {given}: "
            "leave one of them out"
        )
    model, by_kind = protocol.get("model", {}), protocol.get("data", {})
    filled = {"timesteps": protocol["timesteps"], **values} if "timesteps" in protocol else dict(values)
    filled["task"] = _filled(task, protocol["task"])
    if "model" in values:
        filled["model"] = _filled(values["model"], model)
    if "data" in values:
        filled["data"] = _filled_data(values["data"], by_kind)
    if isinstance(values.get("further_models"), dict):
        filled["further_models"] = {name: _filled(entry, model) for name, entry in values["further_models"].items()}
    if isinstance(values.get("further_data"), dict):
        filled["further_data"] = {name: _filled_data(entry, by_kind) for name, entry in values["further_data"].items()}
    return filled


def departures(protocol: str, values: Mapping[str, Any]) -> list[str]:
    """List the fields in which a specification differs from its protocol.

    Args:
        protocol: name of the protocol.
        values: the specification as JSON, with all fields.

    Returns:
        One phrase per field, with both values.
    """
    parts: dict[str, Any] = dict(PROTOCOLS[protocol])
    expected = parts.pop("data", {}).get(values["data"]["kind"], {})
    found = []
    for part, fields in {**parts, "data": expected}.items():
        if part == "timesteps":
            if values[part] != fields:
                found.append(f"timesteps are {values[part]}, not {fields}")
            continue
        for field, value in fields.items():
            if values[part][field] != value:
                found.append(f"{part}.{field} is {values[part][field]}, not {value}")
    return found


def _filled(given: Any, fields: Mapping[str, Any]) -> Any:
    return {**fields, **given} if isinstance(given, dict) else given


def _filled_data(given: Any, by_kind: Mapping[str, Mapping[str, Any]]) -> Any:
    return _filled(given, by_kind.get(str(given.get("kind")), {})) if isinstance(given, dict) else given
