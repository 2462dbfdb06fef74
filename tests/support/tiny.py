"""A Stable Diffusion pipeline and a data set so small that whole searches run in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

TEXT_WIDTH, TOKENS = 16, 8
CLASSES = ("background", "left", "right")
IMAGES = 12

torch.set_num_threads(1)  # threads gain nothing at this size, and lose much where they share cores


def tokenizer() -> CLIPTokenizer:
    letters = "abcdefgh"
    names = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={name: i for i, name in enumerate(names)}, merges=[], model_max_length=TOKENS)


def text_config(words: CLIPTokenizer) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=TEXT_WIDTH,
        intermediate_size=16,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )


def vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=16,
        mid_block_add_attention=False,
    )


def unet(**options: Any) -> UNet2DConditionModel:
    """Two levels with attention, 8 x 8 places (16 px images)."""
    defaults: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D",) * 2,
        "up_block_types": ("CrossAttnUpBlock2D",) * 2,
        "cross_attention_dim": TEXT_WIDTH,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    return UNet2DConditionModel(**{**defaults, **options})


def pipeline() -> StableDiffusionPipeline:
    torch.manual_seed(0)
    words = tokenizer()
    return StableDiffusionPipeline(
        vae=vae(),
        text_encoder=CLIPTextModel(text_config(words)),
        tokenizer=words,
        unet=unet(),
        scheduler=DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def xl_pipeline() -> StableDiffusionXLPipeline:
    """Two text encoders, and size conditioning beside the text."""
    torch.manual_seed(0)
    words = tokenizer()
    return StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=CLIPTextModel(text_config(words)),
        text_encoder_2=CLIPTextModelWithProjection(text_config(words)),
        tokenizer=words,
        tokenizer_2=words,
        unet=unet(
            cross_attention_dim=2 * TEXT_WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=4,
            projection_class_embeddings_input_dim=6 * 4 + TEXT_WIDTH,
        ),
        scheduler=DDIMScheduler(),
        add_watermarker=False,
    )


def write_data(folder: Path) -> Path:
    """Noisy images with a reddish left part and a bluish right part, their masks, and a few ignored pixels."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for number in range(IMAGES):
        rng = np.random.default_rng(number)
        height, width = (int(edge) for edge in rng.integers(16, 25, 2))
        label = np.zeros((height, width), np.uint8)
        label[3:-3, 2 : width // 2] = 1
        label[3:-3, width // 2 + int(rng.integers(0, 4)) :] = 2
        colours = np.array([[90, 90, 90], [200, 60, 60], [60, 60, 200]])
        image = (colours[label] + rng.normal(0, 25, (height, width, 3))).clip(0, 255).astype(np.uint8)
        label[0, :4] = 255
        Image.fromarray(image).save(folder / "images" / f"image{number:02}.png")
        Image.fromarray(label).save(folder / "labels" / f"image{number:02}.png")
    return folder


def specification(model_folder: Path, data_folder: Path, **changes: Any) -> dict[str, Any]:
    """A search over the two, as a mapping; `changes` replace fields of its parts."""
    parts: dict[str, Any] = {
        "model": {"id": str(model_folder), "device": "cpu", "batch_size": 5},
        "data": {
            "kind": "folder",
            "images": str(data_folder / "images"),
            "labels": str(data_folder / "labels"),
            "classes": list(CLASSES),
        },
        "timesteps": [50, 300],
        "limits": {"activations": 3},
        "bank": {"pixels_per_image": 24, "max_channels": 12, "fit_images": 5},
        "study": {"name": "tiny", "trials": 8},
        "tracking": {"mlflow": False},  # its tables take longer than such a search
    }
    for name, change in changes.items():
        parts[name] = {**parts.get(name, {}), **change} if isinstance(change, dict) else change
    return parts
