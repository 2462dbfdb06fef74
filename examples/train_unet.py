"""Train a small Stable Diffusion pipeline on rendered scenes: a U-Net of four resolutions with a CLIP text model.

    python examples/train_autoencoder.py --work training
    python examples/train_unet.py --work training --out unet_pipeline

v-prediction with a noise schedule that ends without signal. Captions name colours and kinds of what is seen from left
to right ("red sphere and blue box"); three in ten images have no prompt, two in ten a prompt without colours. The text
model is trained together with the U-Net.
"""

# diffusers annotates some arguments more narrowly than it takes them, and outputs as unions.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from _training import Schedule, Trainer, generator_of, options, parse, spread
from _training_data import TEXT_WIDTH, Batch, Latents, build_tokenizer, text_config, training_scenes, validation_latents
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModel

CHANNELS = (32, 64, 80, 96)
HEAD = 16


def build_pipeline(work: Path, seed: int) -> StableDiffusionPipeline:
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=CHANNELS,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=tuple(width // HEAD for width in CHANNELS),  # diffusers reads this as the number of heads
        norm_num_groups=8,
    )
    initialise(unet)
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
    )
    return StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(work / "vae"),
        text_encoder=CLIPTextModel(text_config(tokenizer)),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@torch.no_grad()
def initialise(unet: UNet2DConditionModel) -> None:
    """Residual branches start small: otherwise they drown the stream between them."""
    for name, module in unet.named_modules():
        if name.endswith("conv2"):
            module.weight *= 0.1
            module.bias.zero_()
        elif name.endswith(("proj_out", "to_out.0", "ff.net.2")):
            module.weight *= 0.3
    unet.conv_out.weight *= 0.1


class Loss(nn.Module):
    """The error of predicted velocities, averaged over a batch."""

    def __init__(self, pipeline: StableDiffusionPipeline, compiled: bool) -> None:
        super().__init__()
        self._unet = torch.compile(pipeline.unet) if compiled else pipeline.unet
        self._text, self._scheduler = pipeline.text_encoder, pipeline.scheduler

    def forward(self, batch: Batch, noise: Tensor, timesteps: Tensor) -> Tensor:
        device = self._text.device
        latents, noise, timesteps = batch.latents.to(device), noise.to(device), timesteps.to(device)
        embedded = self._text(batch.tokens.to(device)).last_hidden_state
        noisy = self._scheduler.add_noise(latents, noise, timesteps)
        predicted = self._unet(noisy, timesteps, embedded).sample
        return functional.mse_loss(predicted.float(), self._scheduler.get_velocity(latents, noise, timesteps))


def train(pipeline: StableDiffusionPipeline, trainer: Trainer, arguments: argparse.Namespace) -> None:
    scenes = training_scenes(arguments.work, arguments.scenes, arguments.seed)
    latents = Latents(arguments.work, scenes, pipeline.tokenizer, arguments.device)
    held_out = validation_latents(arguments.work, pipeline.tokenizer)
    loss = Loss(pipeline, compiled=arguments.device.startswith("cuda"))
    steps = pipeline.scheduler.config.num_train_timesteps

    def loss_of_step(step: int) -> Tensor:
        generator = generator_of(arguments.seed, step)
        batch = latents.batch(arguments.batch, generator)
        noise = torch.randn(batch.latents.shape, generator=generator)
        return loss(batch, noise, (spread(arguments.batch, generator) * steps).long())

    def validation() -> float:
        generator = generator_of(arguments.seed, 0)
        noise = torch.randn(held_out.latents.shape, generator=generator)
        return loss(held_out, noise, (spread(len(noise), generator) * steps).long()).item()

    pipeline.unet.train()
    trainer.run(loss_of_step, validation)


def main() -> None:
    arguments = parse(options(__doc__, steps=40_000, batch=32, scenes=40_000))
    pipeline = build_pipeline(arguments.work, arguments.seed)
    modules = {"unet": pipeline.unet, "text_encoder": pipeline.text_encoder}
    schedule = Schedule(arguments.steps, peak=1.2e-3)
    trainer = Trainer("unet", arguments.work, modules, schedule, arguments.batch, arguments.device)
    if arguments.export:
        trainer.average()
    else:
        train(pipeline, trainer, arguments)
    if arguments.out:
        pipeline.to("cpu", torch.float16).save_pretrained(arguments.out, safe_serialization=True)
        sizes = {name: sum(p.numel() for p in getattr(pipeline, name).parameters()) for name in ("vae", *modules)}
        print(json.dumps({"step": trainer.step, "parameters": sizes}))


if __name__ == "__main__":
    main()
