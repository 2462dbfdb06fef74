"""Rendered scenes: solids on a ground by sphere tracing, with exact answers to every task."""

from .camera import Camera, Cameras
from .geometry import KINDS
from .rendering import CLASSES, GROUND, SKY, Renderer, Rendering
from .scenes import COLOURS, FORMAT, LEVELS, Difficulty, Part, Scene, caption, draw_scene

__all__ = [
    "CLASSES",
    "COLOURS",
    "FORMAT",
    "GROUND",
    "KINDS",
    "LEVELS",
    "SKY",
    "Camera",
    "Cameras",
    "Difficulty",
    "Part",
    "Renderer",
    "Rendering",
    "Scene",
    "caption",
    "draw_scene",
]
