"""Scenes to pictures with exact answers: labels, depth, normals, solid ids, points that two cameras see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .camera import TANGENT, Cameras, pixel_centres
from .geometry import FAR, KINDS, Solids, bounding_radius, soft_shadow, surface, trace
from .materials import Lights, Materials, haze, shade_ground, shade_solids, tone_curve
from .scenes import MOST_SOLIDS, Scene

CLASSES = ("background", *KINDS)
"""What a label means: ground and sky, or the kind of solid that the pixel's centre shows."""

SKY, GROUND = -2, -1
"""Solid ids of what is no solid."""

_SHADOWS_WITHIN = 22.0  # m
_SUBPIXELS = ((-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25))
_EDGE = 0.16  # difference in luminance of neighbours from which on a pixel is drawn with four rays


@dataclass(frozen=True)
class Rendering:
    """What one camera sees of several scenes.

    Attributes:
        image: uint8 (scenes, size, size, 3).
        solid: int64 (scenes, size, size), the position of the solid in its scene, or `GROUND` or `SKY`.
        label: uint8 (scenes, size, size), positions in `CLASSES`.
        depth: float32 (scenes, size, size), metres along the camera's axis; not a number for the sky.
        normal: float32 (scenes, size, size, 3) unit vectors in the camera frame (x right, y up, z towards the viewer);
            not a number for the sky.
    """

    image: Tensor
    solid: Tensor
    label: Tensor
    depth: Tensor
    normal: Tensor

    def visible_solids(self, scene: int, least: int = 12) -> tuple[int, ...]:
        """Solids of a scene that cover at least so many pixels, from left to right by the middle of what is seen."""
        solid = self.solid[scene].numpy()
        columns = {}
        for position in np.unique(solid[solid >= 0]):
            column = np.nonzero(solid == position)[1]
            if len(column) >= least:
                columns[int(position)] = column.mean()
        return tuple(sorted(columns, key=lambda position: columns[position]))


@dataclass(frozen=True)
class _Hits:
    """What rays show: colours (3, n) in linear light, distances (n,), solids (n,), normals (3, n) in the world."""

    colour: Tensor
    distance: Tensor
    solid: Tensor
    normal: Tensor


class Renderer:
    """Draws scenes; several at once take much less time than one by one.

    Args:
        scenes: what to draw.

    Examples:
        >>> from .scenes import draw_scene
        >>> drawn = Renderer([draw_scene("development", 0, index) for index in range(2)]).render(size=32)
        >>> tuple(drawn.image.shape), tuple(drawn.depth.shape)
        ((2, 32, 32, 3), (2, 32, 32))
    """

    def __init__(self, scenes: list[Scene]) -> None:
        self.scenes = list(scenes)
        solids = [solid for scene in scenes for solid in scene.solids]
        owners = [number for number, scene in enumerate(scenes) for _ in scene.solids]
        table = torch.full((len(scenes), max(MOST_SOLIDS, *(len(scene.solids) for scene in scenes))), -1)
        self._first = np.searchsorted(owners, np.arange(len(scenes)))
        for number, scene in enumerate(scenes):
            table[number, : len(scene.solids)] = int(self._first[number]) + torch.arange(len(scene.solids))

        def column(values: list[object]) -> Tensor:
            return torch.from_numpy(np.stack([np.asarray(value, np.float32) for value in values], -1))

        self.solids = Solids(
            kind=torch.tensor([solid.kind for solid in solids]),
            shape=column([solid.shape for solid in solids]),
            rounding=column([solid.rounding for solid in solids]),
            centre=column([solid.centre for solid in solids]),
            rotation=column([solid.rotation for solid in solids]),
            radius=column([bounding_radius(solid.kind, solid.shape) + 0.02 for solid in solids]),
            table=table,
        )
        self._materials = Materials.of([solid.material for solid in solids])
        self._grounds = Materials.of([scene.ground for scene in scenes])
        self._lights = Lights.of([scene.light for scene in scenes])
        self._yaw = column([scene.ground_yaw for scene in scenes])
        self.cameras = tuple(Cameras.of([scene.cameras[view] for scene in scenes]) for view in range(2))

    @torch.no_grad()
    def render(self, size: int = 64, view: int = 0, antialias: bool = True) -> Rendering:
        """Draw what a camera sees.

        Args:
            size: edge of the pictures in pixels, 16 to 256.
            view: 0 or 1, which camera.
            antialias: draw pixels at edges with four more rays; answers are those of pixel centres in any case.
        """
        if not 16 <= size <= 256:
            raise ValueError(f"size must be in [16, 256], but got {size}.")
        count = len(self.scenes)
        scene = torch.arange(count).repeat_interleave(size * size)
        pixels = pixel_centres(size).repeat(1, count)
        camera = self.cameras[view]
        origins, directions, length = camera.rays(scene, pixels, size)
        hits = self._look(scene, origins, directions, size)
        colour = tone_curve(hits.colour)
        if antialias:
            edges = _edges(hits.solid.view(count, size, size), colour.mean(0).view(count, size, size))
            colour[:, edges] = self._smooth(camera, scene[edges], pixels[:, edges], size)
        sky = hits.solid == SKY
        kind = torch.where(hits.solid >= 0, self.solids.kind[hits.solid.clamp(min=0)] + 1, 0)
        first = torch.from_numpy(self._first)[scene]
        normal = camera.to_camera(scene, hits.normal).masked_fill(sky, torch.nan)
        shape = (count, size, size)
        return Rendering(
            image=(colour * 255).round().to(torch.uint8).T.reshape(*shape, 3).contiguous(),
            solid=torch.where(hits.solid >= 0, hits.solid - first, hits.solid).view(shape),
            label=kind.to(torch.uint8).view(shape),
            depth=(hits.distance / length).masked_fill(sky, torch.nan).view(shape),
            normal=normal.T.reshape(*shape, 3).contiguous(),
        )

    @torch.no_grad()
    def sees(self, view: int, scene: Tensor, solid: Tensor, points: Tensor, tolerance: float = 2e-3) -> Tensor:
        """Whether points on solids are seen by a camera: in front of it and hidden by nothing; (n,) of bool.

        Args:
            view: 0 or 1, which camera.
            scene: (n,) which scene a point belongs to.
            solid: (n,) position of the point's solid in its scene.
            points: (3, n) on the surface, in the world, in metres.
            tolerance: how far from the point the ray may arrive, in metres.
        """
        origins = self.cameras[view].eye[:, scene]
        away = points - origins
        distance = away.pow(2).sum(0).sqrt()
        nearest, which = trace(self.solids, scene, origins, away / distance)
        same = (which == solid + torch.from_numpy(self._first)[scene]).nonzero()[:, 0]
        arrived = surface(self.solids, which[same], origins[:, same], (away / distance)[:, same], nearest[same])[0]
        seen = torch.zeros(scene.shape, dtype=torch.bool)
        seen[same] = (arrived > distance[same] - tolerance) & (arrived < distance[same] + tolerance)
        return seen & (self.cameras[view].project(scene, points, 1)[1] > 0)

    def _look(self, scene: Tensor, origins: Tensor, directions: Tensor, size: int) -> _Hits:
        """Follow rays and find the colours of what they meet."""
        nearest, solid = trace(self.solids, scene, origins, directions)
        down = directions[2] < -1e-4
        to_ground = torch.where(down, origins[2] / -directions[2].clamp(max=-1e-4), FAR)
        on_ground = (to_ground < nearest) & (to_ground < FAR)
        solid = torch.where(on_ground, GROUND, torch.where(solid >= 0, solid, SKY))
        distance = torch.where(on_ground, to_ground, nearest)
        colour, normal = self._lights.sky(scene, directions), torch.zeros_like(directions)
        pixel = 2 * TANGENT / size
        ground = on_ground.nonzero()[:, 0]
        rays = scene[ground], origins[:, ground], directions[:, ground]
        colour[:, ground] = self._ground_colours(*rays, to_ground[ground], pixel)
        normal[2, ground] = 1.0
        hit = (solid >= 0).nonzero()[:, 0]
        rays = scene[hit], origins[:, hit], directions[:, hit]
        exact, local, normal[:, hit] = surface(self.solids, solid[hit], rays[1], rays[2], distance[hit])
        distance[hit] = exact
        colour[:, hit] = self._solid_colours(*rays, solid[hit], exact, local, normal[:, hit], pixel)
        return _Hits(colour, distance, solid, normal)

    def _ground_colours(
        self, scene: Tensor, origins: Tensor, directions: Tensor, distance: Tensor, pixel: float
    ) -> Tensor:
        points = origins + distance * directions
        cosine, sine = self._yaw[scene].cos(), self._yaw[scene].sin()
        turned = torch.stack([points[0] * cosine - points[1] * sine, points[0] * sine + points[1] * cosine])
        turned = torch.cat([turned, torch.full_like(turned[:1], 0.7)])
        footprint = 0.6 * pixel * distance / (-directions[2]).clamp(min=0.02)
        albedo = self._grounds.albedo(scene, turned, footprint)
        near = (distance < _SHADOWS_WITHIN).nonzero()[:, 0]
        visible, open_sky = torch.ones_like(distance), torch.ones_like(distance)
        lights, of = self._lights, scene[near]
        towards = lights.direction[:, of]
        visible[near] = soft_shadow(self.solids, of, points[:, near], towards, lights.sharpness[of])
        open_sky[near] = self._open_sky(of, points[:, near])
        colours = shade_ground(lights, scene, albedo, visible, open_sky)
        return haze(lights, scene, colours, directions, distance)

    def _open_sky(self, scene: Tensor, points: Tensor) -> Tensor:
        """How much of the sky ground points see past the solids near them, in [0.45, 1]."""
        open_sky = torch.ones(scene.shape)
        for slot in range(self.solids.table.shape[1]):
            solid = self.solids.table[scene, slot]
            present = (solid >= 0).nonzero()[:, 0]
            solid = solid[present]
            distance = (points[:, present] - self.solids.centre[:, solid]).pow(2).sum(0).sqrt()
            part = 0.45 + 0.55 * (distance / (1.5 * self.solids.radius[solid])).clamp(max=1)
            open_sky[present] = torch.minimum(open_sky[present], part)
        return open_sky

    def _solid_colours(
        self,
        scene: Tensor,
        origins: Tensor,
        directions: Tensor,
        solid: Tensor,
        distance: Tensor,
        local: Tensor,
        normals: Tensor,
        pixel: float,
    ) -> Tensor:
        points = origins + distance * directions
        lights, materials = self._lights, self._materials
        towards = lights.direction[:, scene]
        lit = ((normals * towards).sum(0) > 0).nonzero()[:, 0]
        visible = torch.zeros_like(distance)
        lifted = points[:, lit] + 0.03 * normals[:, lit]
        sharpness = lights.sharpness[scene[lit]]
        visible[lit] = soft_shadow(self.solids, scene[lit], lifted, towards[:, lit], sharpness)
        albedo = materials.albedo(solid, local, 0.8 * pixel * distance)
        return shade_solids(
            lights,
            scene,
            albedo,
            self._grounds.colours[0][:, scene],
            normals,
            directions,
            points[2],
            visible,
            materials.highlight[solid],
            materials.gloss[solid],
        )

    def _smooth(self, camera: Cameras, scene: Tensor, pixels: Tensor, size: int) -> Tensor:
        """Colours of pixels as means over four rays each."""
        offsets = torch.tensor(_SUBPIXELS).T
        scene = scene.repeat_interleave(len(_SUBPIXELS))
        pixels = (pixels[:, :, None] + offsets[:, None]).flatten(1)
        origins, directions, _ = camera.rays(scene, pixels, size)
        colour = tone_curve(self._look(scene, origins, directions, size).colour)
        return colour.view(3, -1, len(_SUBPIXELS)).mean(-1)


def _edges(solid: Tensor, luminance: Tensor) -> Tensor:
    """Positions, in all pixels of all pictures, of those beside another solid or beside much lighter or darker ones."""
    edge = torch.zeros_like(solid, dtype=torch.bool)
    for axis in (1, 2):
        differs = (solid.diff(dim=axis) != 0) | (luminance.diff(dim=axis).abs() > _EDGE)
        length = solid.shape[axis]
        edge.narrow(axis, 1, length - 1).logical_or_(differs)
        edge.narrow(axis, 0, length - 1).logical_or_(differs)
    return edge.view(-1).nonzero()[:, 0]
