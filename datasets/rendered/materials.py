"""What surfaces and skies look like: solid textures of two colours, light and shade, the tone curve.

Colours are linear RGB, float tensors of shape (3, n), until `tone_curve`. All formulas are of the kind that looks right
rather than of the kind that is right: one lamp with a soft shadow, an ambient term from sky and ground, a highlight.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

TEXTURES = ("plain", "checkered", "striped", "marbled", "dotted")
"""What a texture can be. A texture's kind is a position in this tuple."""


@dataclass(frozen=True)
class Material:
    """What one surface is made of.

    Attributes:
        texture: position in `TEXTURES`.
        colours: (2, 3) linear RGB; the first is what a plain surface shows and what captions name.
        frequency: of the texture, per metre.
        phase: (3,) of the texture, in radians.
        highlight: strength of reflections of the lamp, in [0, 1].
        gloss: the highlight's exponent; larger is smaller and sharper.
    """

    texture: int
    colours: np.ndarray
    frequency: float
    phase: np.ndarray
    highlight: float = 0.0
    gloss: float = 1.0


@dataclass(frozen=True)
class Materials:
    """The materials of several surfaces: the fields of `Material` with the surfaces as last axis."""

    texture: Tensor
    colours: Tensor  # (2, 3, surfaces)
    frequency: Tensor
    phase: Tensor  # (3, surfaces)
    highlight: Tensor
    gloss: Tensor

    @classmethod
    def of(cls, materials: list[Material]) -> Materials:
        def column(name: str) -> Tensor:
            values = np.stack([np.asarray(getattr(material, name), dtype=np.float32) for material in materials], -1)
            return torch.from_numpy(values)

        texture = torch.tensor([material.texture for material in materials])
        return cls(texture, *(column(name) for name in ("colours", "frequency", "phase", "highlight", "gloss")))

    def albedo(self, surface: Tensor, points: Tensor, footprint: Tensor) -> Tensor:
        """Colours of surfaces (n,) at points.

        Args:
            surface: (n,) which surface.
            points: (3, n) in the surface's own frame, in metres.
            footprint: (n,) width of a pixel on the surface in metres; texture finer than it fades.

        Returns:
            (3, n) linear RGB.
        """
        frequency = self.frequency[surface]
        blur = footprint * frequency
        phase = self.phase[:, surface]
        mix = texture_mix(self.texture[surface], points * (2.2 * frequency) + phase, phase, blur)
        colours = self.colours[:, :, surface]
        return colours[0] + (colours[1] - colours[0]) * mix


def texture_mix(texture: Tensor, phases: Tensor, shift: Tensor, blur: Tensor) -> Tensor:
    """How much of the second colour shows, in [0, 1].

    Args:
        texture: (n,) positions in `TEXTURES`.
        phases: (3, n) points as phases of the texture, in radians.
        shift: (3, n) constant along a surface; makes marble differ from surface to surface.
        blur: (n,) width of a pixel in periods, from which on the texture fades to its mean.
    """
    mix = torch.zeros_like(blur)
    fade = (1.0 - blur).clamp(0, 1)
    for kind in range(1, len(TEXTURES)):
        chosen = (texture == kind).nonzero()[:, 0]
        if len(chosen):
            pattern = _PATTERNS[kind](phases[:, chosen], shift[:, chosen], 0.12 + blur[chosen].clamp(max=2))
            mix[chosen] = 0.5 + 0.5 * pattern.clamp(-1, 1) * fade[chosen]
    return mix


def _checkered(phases: Tensor, shift: Tensor, width: Tensor) -> Tensor:
    waves = torch.sin(phases)
    third = waves[2].abs().clamp(min=0.25) * waves[2].sign()
    return waves[0] * waves[1] * third / (0.35 * width)


def _striped(phases: Tensor, shift: Tensor, width: Tensor) -> Tensor:
    return torch.sin(1.1 * phases[0] + 0.9 * phases[2]) / width


def _marbled(phases: Tensor, shift: Tensor, width: Tensor) -> Tensor:
    x, y, z = phases
    return 0.3 * (
        torch.sin(x + 1.7 * torch.sin(0.9 * y + shift[2]))
        + torch.sin(1.3 * y + 1.5 * torch.sin(1.1 * z + 0.5 * x))
        + torch.sin(1.2 * z + 1.6 * torch.sin(0.8 * x + shift[1]))
    )


def _dotted(phases: Tensor, shift: Tensor, width: Tensor) -> Tensor:
    return (torch.sin(phases).pow(2).sum(0) - 1.9) / (0.6 * width)


_PATTERNS = {1: _checkered, 2: _striped, 3: _marbled, 4: _dotted}


@dataclass(frozen=True)
class Light:
    """One scene's light.

    Attributes:
        direction: (3,) towards the lamp, of unit length.
        colour: (3,) of the lamp.
        ambient: strength of what comes from everywhere.
        sharpness: of shadows; larger is a smaller lamp.
        horizon: (3,) the sky's colour at the horizon.
        zenith: (3,) the sky's colour above.
    """

    direction: np.ndarray
    colour: np.ndarray
    ambient: float
    sharpness: float
    horizon: np.ndarray
    zenith: np.ndarray


@dataclass(frozen=True)
class Lights:
    """The light of several scenes: the fields of `Light` with the scenes as last axis."""

    direction: Tensor
    colour: Tensor
    ambient: Tensor
    sharpness: Tensor
    horizon: Tensor
    zenith: Tensor

    @classmethod
    def of(cls, lights: list[Light]) -> Lights:
        names = ("direction", "colour", "ambient", "sharpness", "horizon", "zenith")
        columns = (np.stack([np.asarray(getattr(light, name), np.float32) for light in lights], -1) for name in names)
        return cls(*(torch.from_numpy(column) for column in columns))

    def sky(self, scene: Tensor, directions: Tensor) -> Tensor:
        """What rays (3, n) of scenes (n,) see of the sky."""
        height = directions[2].clamp(min=0).sqrt()
        return self.horizon[:, scene] * (1 - height) + self.zenith[:, scene] * height


def shade_ground(lights: Lights, scene: Tensor, albedo: Tensor, visible: Tensor, open_sky: Tensor) -> Tensor:
    """Colours of ground points.

    Args:
        lights: of all scenes.
        scene: (n,) which scene a point belongs to.
        albedo: (3, n).
        visible: (n,) how much of the lamp is seen, in [0, 1].
        open_sky: (n,) how much of the sky is seen, in [0, 1].
    """
    lamp = lights.colour[:, scene] * (lights.direction[2, scene] * visible)
    sky = (lights.ambient[scene] * open_sky) * (0.6 + 0.4 * lights.horizon[:, scene])
    return 1.15 * albedo * (lamp + sky)


def haze(lights: Lights, scene: Tensor, colours: Tensor, directions: Tensor, distance: Tensor) -> Tensor:
    """Fade colours (3, n) at distances (n,) in metres into the sky behind them."""
    clear = torch.exp(-((distance / 24.0) ** 2))
    return colours * clear + lights.sky(scene, directions) * (1 - clear)


def shade_solids(
    lights: Lights,
    scene: Tensor,
    albedo: Tensor,
    ground: Tensor,
    normals: Tensor,
    directions: Tensor,
    height: Tensor,
    visible: Tensor,
    highlight: Tensor,
    gloss: Tensor,
) -> Tensor:
    """Colours of points on solids.

    Args:
        lights: of all scenes.
        scene: (n,) which scene a point belongs to.
        albedo: (3, n).
        ground: (3, n) colour of the ground, which shines on what faces it.
        normals: (3, n) unit vectors.
        directions: (3, n) of the rays that arrive.
        height: (n,) above the ground, in metres.
        visible: (n,) how much of the lamp is seen, in [0, 1].
        highlight: (n,) see `Material`.
        gloss: (n,) see `Material`.
    """
    lamp, towards = lights.colour[:, scene], lights.direction[:, scene]
    facing = (normals * towards).sum(0).clamp(min=0) * visible
    half = torch.nn.functional.normalize(towards - directions, dim=0)
    reflected = highlight * (normals * half).sum(0).clamp(min=0) ** gloss * visible
    above = 0.5 + 0.5 * normals[2]
    around = above * (0.6 + 0.4 * lights.zenith[:, scene]) + (1 - above) * 0.9 * ground
    near_ground = 0.6 + 0.4 * (2 * height).clamp(0, 1)
    rim = (1 + (normals * directions).sum(0)).clamp(0, 1) ** 4
    diffuse = albedo * (lamp * facing + lights.ambient[scene] * near_ground * around)
    return 1.15 * diffuse + reflected * lamp + 0.12 * rim * lights.horizon[:, scene]


def tone_curve(colours: Tensor) -> Tensor:
    """Linear light to display values in [0, 1], with a soft shoulder."""
    light = colours.clamp(min=0)
    return (1.25 * light * (1 + light / 4) / (1 + 0.8 * light)).clamp(0, 1) ** (1 / 2.2)
