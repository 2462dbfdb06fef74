"""Published architectures at full size with random weights, made from configurations in this file: nothing is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PNDMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    AutoTokenizer,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def build(name: str, dtype: torch.dtype, device: torch.device) -> DiffusionPipeline:
    """A pipeline of full size; only its text encoders have a single layer, since they run once.

    Args:
        name: one of `MODELS`.
        dtype: type of all weights.
        device: where they are made.

    Returns:
        The pipeline, with random weights of a fixed seed; gates and outputs that start at zero are random too.
    """
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            pipeline = MODELS[name]()
    finally:
        torch.set_default_dtype(before)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.to(device, dtype).requires_grad_(False)
            for parameter in part.parameters():
                if not parameter.any():
                    torch.nn.init.normal_(parameter, std=0.02)
    return pipeline


def _sd15() -> DiffusionPipeline:
    return StableDiffusionPipeline(
        unet=UNet2DConditionModel(sample_size=64, cross_attention_dim=768),
        vae=_vae(),
        text_encoder=CLIPTextModel(_clip(768)),
        tokenizer=_words(),
        scheduler=PNDMScheduler(**NOISE, skip_prk_steps=True, set_alpha_to_one=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl() -> DiffusionPipeline:
    unet = UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    return StableDiffusionXLPipeline(
        unet=unet,
        vae=_vae(sample_size=1024, scaling_factor=0.13025),
        text_encoder=CLIPTextModel(_clip(768)),
        tokenizer=_words(),
        text_encoder_2=CLIPTextModelWithProjection(_clip(1280)),
        tokenizer_2=_words(),
        scheduler=EulerDiscreteScheduler(**NOISE, timestep_spacing="leading"),
    )


def _sd35_large() -> DiffusionPipeline:
    transformer = SD3Transformer2DModel(
        sample_size=128,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=38,
        attention_head_dim=64,
        num_attention_heads=38,
        joint_attention_dim=4096,
        caption_projection_dim=2432,
        pooled_projection_dim=2048,
        pos_embed_max_size=192,
        qk_norm="rms_norm",
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        vae=_vae(latent_channels=16, sample_size=1024, scaling_factor=1.5305, shift_factor=0.0609),
        text_encoder=CLIPTextModelWithProjection(_clip(768)),
        tokenizer=_words(),
        text_encoder_2=CLIPTextModelWithProjection(_clip(1280)),
        tokenizer_2=_words(),
        text_encoder_3=None,
        tokenizer_3=None,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def _flux() -> DiffusionPipeline:
    t5, pieces = _t5(4096)
    return FluxPipeline(
        transformer=FluxTransformer2DModel(guidance_embeds=True),
        vae=_vae(latent_channels=16, sample_size=1024, scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=CLIPTextModel(_clip(768)),
        tokenizer=_words(),
        text_encoder_2=t5,
        tokenizer_2=pieces,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
    )


def _tiny() -> DiffusionPipeline:
    """For trying the benchmark itself."""
    pipeline = _sd15()
    small = UNet2DConditionModel(sample_size=16, cross_attention_dim=768, block_out_channels=(32, 64, 64, 64))
    pipeline.register_modules(unet=small, vae=_vae(block_out_channels=(16, 32, 32, 32), norm_num_groups=8))
    return pipeline


def _vae(**changes: Any) -> AutoencoderKL:
    config: dict[str, Any] = {
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
        "sample_size": 512,
        "scaling_factor": 0.18215,
    }
    return AutoencoderKL(**{**config, **changes})


def _words() -> Any:
    from diffsift.demo import PIPELINE

    return AutoTokenizer.from_pretrained(PIPELINE / "tokenizer")


def _clip(width: int) -> CLIPTextConfig:
    words = _words()
    return CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=width,
        projection_dim=width,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=words.model_max_length,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )


def _t5(width: int) -> tuple[T5EncoderModel, T5Tokenizer]:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -1.0), ("▁", -2.0), *((letter, -3.0) for letter in "abcdefgh")]
    words = T5Tokenizer(vocab=pieces, extra_ids=0)
    return T5EncoderModel(
        T5Config(vocab_size=len(words), d_model=width, d_kv=64, d_ff=64, num_layers=1, num_heads=4)
    ), words


MODELS: dict[str, Callable[[], DiffusionPipeline]] = {
    "sd-1.5": _sd15,
    "sdxl": _sdxl,
    "sd-3.5-large": _sd35_large,
    "flux": _flux,
    "tiny": _tiny,
}
