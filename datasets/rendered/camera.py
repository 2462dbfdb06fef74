"""Pinhole cameras: rays through pixels, and where points of the world appear.

Image coordinates are pixels, x to the right, y down, (0, 0) the top left corner of the top left pixel, whose centre is
(0.5, 0.5). Camera frame: x right, y up, z towards the viewer (so a surface that faces the camera has a normal near
(0, 0, 1)). Depth is along the camera's axis, not along the ray.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

HALF_FIELD_OF_VIEW = 21.0
"""Degrees from the centre of a picture to the middle of an edge."""

TANGENT = math.tan(math.radians(HALF_FIELD_OF_VIEW))


@dataclass(frozen=True)
class Camera:
    """Where a camera stands and looks.

    Attributes:
        eye: (3,) in the world, in metres.
        axes: (3, 3), rows: right, up, forward; unit vectors in the world.
    """

    eye: np.ndarray
    axes: np.ndarray


def look_at(target: np.ndarray, azimuth: float, elevation: float, distance: float) -> Camera:
    """A level camera at a distance in metres from a target; angles in radians."""
    level = math.cos(elevation)
    towards_eye = np.array([math.cos(azimuth) * level, math.sin(azimuth) * level, math.sin(elevation)])
    forward = -towards_eye
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    return Camera(target + distance * towards_eye, np.stack([right, np.cross(right, forward), forward]))


@dataclass(frozen=True)
class Cameras:
    """One camera for each of several scenes.

    Attributes:
        eye: (3, scenes) in metres.
        axes: (3, 3, scenes); `axes[k]` is right, up, forward in the world.
    """

    eye: Tensor
    axes: Tensor

    @classmethod
    def of(cls, cameras: list[Camera]) -> Cameras:
        eye = np.stack([camera.eye for camera in cameras], axis=-1)
        axes = np.stack([camera.axes for camera in cameras], axis=-1)
        return cls(torch.from_numpy(eye).float(), torch.from_numpy(axes).float())

    def rays(self, scene: Tensor, pixels: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Rays through image coordinates.

        Args:
            scene: (n,) whose camera.
            pixels: (2, n) image coordinates.
            size: edge of the picture in pixels.

        Returns:
            (3, n) origins; (3, n) unit directions; (n,) the length of a ray per metre of depth.
        """
        offset = (pixels * (2.0 / size) - 1.0) * TANGENT
        axes = self.axes[:, :, scene]
        directions = axes[2] + offset[0] * axes[0] - offset[1] * axes[1]
        length = directions.pow(2).sum(0).sqrt()
        return self.eye[:, scene], directions / length, length

    def project(self, scene: Tensor, points: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Where points (3, n) of scenes (n,) appear: (2, n) image coordinates, and (n,) depths in metres."""
        seen = (self.axes[:, :, scene] * (points - self.eye[:, scene])[None]).sum(1)
        depth = seen[2]
        offset = torch.stack([seen[0], -seen[1]]) / (depth * TANGENT)
        return (offset + 1.0) * (size / 2.0), depth

    def to_camera(self, scene: Tensor, vectors: Tensor) -> Tensor:
        """Turn world vectors (3, n) into the camera frame: x right, y up, z towards the viewer."""
        turned = (self.axes[:, :, scene] * vectors[None]).sum(1)
        return torch.stack([turned[0], turned[1], -turned[2]])


def pixel_centres(size: int) -> Tensor:
    """(2, size * size) image coordinates of all pixels, row by row."""
    centre = torch.arange(size) + 0.5
    y, x = torch.meshgrid(centre, centre, indexing="ij")
    return torch.stack([x.reshape(-1), y.reshape(-1)])
