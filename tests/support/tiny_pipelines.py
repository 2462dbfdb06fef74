"""Tiny pipelines of families that diffsift has no code for: text-to-image transformers, classes, and no text at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiffusionPipeline,
    DiTPipeline,
    DiTTransformer2DModel,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtAlphaPipeline,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    UNet2DModel,
)
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel, T5Tokenizer

from diffsift.backbones import LoadedPipeline, ModelSpecification, PipelineBackbone
from support import tiny

WIDTH = 32


def t5() -> tuple[T5EncoderModel, T5Tokenizer]:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -1.0), ("▁", -2.0), *((letter, -3.0) for letter in "abcdefgh")]
    words = T5Tokenizer(vocab=pieces, extra_ids=0)
    sizes = {"d_model": WIDTH, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    return T5EncoderModel(T5Config(vocab_size=len(words), **sizes)), words


def vae(channels: int = 4) -> AutoencoderKL:
    """Two pixels per place of the latents, as `tiny.vae`."""
    config = {**tiny.vae().config, "latent_channels": channels, "shift_factor": 0.1, "scaling_factor": 0.7}
    return AutoencoderKL.from_config(config)


def without_zeros(module: nn.Module) -> None:
    """Transformers start with gates and outputs at zero, behind which nothing could be seen."""
    for parameter in module.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)


def sd3() -> DiffusionPipeline:
    encoder, pieces = t5()
    words = tiny.tokenizer()
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=WIDTH,
            caption_projection_dim=WIDTH,
            pooled_projection_dim=2 * tiny.TEXT_WIDTH,
            in_channels=4,
            out_channels=4,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(),
        text_encoder=CLIPTextModelWithProjection(tiny.text_config(words)),
        tokenizer=words,
        text_encoder_2=CLIPTextModelWithProjection(tiny.text_config(words)),
        tokenizer_2=words,
        text_encoder_3=encoder,
        tokenizer_3=pieces,
    )


def flux() -> DiffusionPipeline:
    encoder, pieces = t5()
    words = tiny.tokenizer()
    return FluxPipeline(
        transformer=FluxTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            pooled_projection_dim=tiny.TEXT_WIDTH,
            axes_dims_rope=(4, 4, 8),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae(),
        text_encoder=CLIPTextModel(tiny.text_config(words)),
        tokenizer=words,
        text_encoder_2=encoder,
        tokenizer_2=pieces,
    )


def pixart() -> DiffusionPipeline:
    encoder, pieces = t5()
    return PixArtAlphaPipeline(
        transformer=PixArtTransformer2DModel(
            sample_size=8,
            num_layers=2,
            patch_size=2,
            attention_head_dim=8,
            num_attention_heads=4,
            caption_channels=WIDTH,
            in_channels=4,
            out_channels=8,
            cross_attention_dim=WIDTH,
            use_additional_conditions=False,
        ),
        scheduler=DPMSolverMultistepScheduler(),
        vae=vae(),
        text_encoder=encoder,
        tokenizer=pieces,
    )


def dit() -> DiffusionPipeline:
    return DiTPipeline(
        transformer=DiTTransformer2DModel(
            sample_size=8,
            num_layers=2,
            patch_size=2,
            attention_head_dim=8,
            num_attention_heads=2,
            in_channels=4,
            out_channels=4,
            num_embeds_ada_norm=3,
        ),
        vae=vae(),
        scheduler=DDIMScheduler(),
    )


def ddpm() -> DiffusionPipeline:
    network = UNet2DModel(
        sample_size=16,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        norm_num_groups=4,
    )
    return DDPMPipeline(unet=network, scheduler=DDPMScheduler())


FAMILIES: dict[str, Callable[[], DiffusionPipeline]] = {
    "SD 1.5": tiny.pipeline,
    "SDXL": tiny.xl_pipeline,
    "SD 3": sd3,
    "Flux": flux,
    "PixArt": pixart,
    "DiT": dit,
    "DDPM": ddpm,
}


def build(family: str) -> Any:
    torch.manual_seed(0)
    pipeline: Any = FAMILIES[family]()
    without_zeros(pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer)
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.eval()
    diffusers.utils.logging.set_verbosity_error()
    return pipeline


def backbone_of(
    pipeline: DiffusionPipeline, *, name: str = "main", offload: torch.device | None = None, **fields: Any
) -> PipelineBackbone:
    """A pipeline as a backbone; `fields` are those of the model's part of the specification."""
    model = ModelSpecification(**{"id": "tiny", **fields})
    return PipelineBackbone(LoadedPipeline(pipeline, model.id, offload=offload), model, name=name)
