"""A wide and shallow transformer: maps as large as those of the largest models, in a network that runs in a second."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, DDPMScheduler, DiffusionPipeline, HunyuanDiT2DModel, HunyuanDiTPipeline
from torch import nn
from transformers import BertConfig, BertModel, BertTokenizer

from support import tiny_pipelines

CHANNELS, TOKENS, PIXELS = 9728, 64 * 64, 512
"""Of the widest activations, as in SD 3.5 Large; of an image at the only size; edge of an image."""

MAP_BYTES = 2 * CHANNELS * TOKENS
"""Of one widest activation of one image: 80 MB."""

_WIDTH, _TEXT = 64, 16


def pipeline() -> DiffusionPipeline:
    """Two blocks of 64 channels and feed-forwards of 9,728, over 4,096 tokens; random weights in bfloat16."""
    torch.manual_seed(0)
    encoder, pieces = tiny_pipelines.t5()
    words = BertTokenizer(vocab={name: i for i, name in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"))})
    made = HunyuanDiTPipeline(
        transformer=HunyuanDiT2DModel(
            sample_size=64,
            patch_size=1,
            in_channels=4,
            num_layers=2,
            num_attention_heads=2,
            attention_head_dim=_WIDTH // 2,
            hidden_size=_WIDTH,
            mlp_ratio=CHANNELS / _WIDTH,
            cross_attention_dim=_TEXT,
            cross_attention_dim_t5=tiny_pipelines.WIDTH,
            pooled_projection_dim=_TEXT,
            use_style_cond_and_image_meta_size=False,
        ),
        scheduler=DDPMScheduler(),
        vae=AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(4,) * 4,
            layers_per_block=1,
            norm_num_groups=4,
            mid_block_add_attention=False,
        ),
        text_encoder=BertModel(
            BertConfig(
                vocab_size=8, hidden_size=_TEXT, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
            )
        ),
        tokenizer=words,
        text_encoder_2=encoder,
        tokenizer_2=pieces,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    tiny_pipelines.without_zeros(made.transformer)
    for part in made.components.values():
        if isinstance(part, nn.Module):
            part.to(torch.bfloat16).eval()
    return made
