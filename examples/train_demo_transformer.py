"""Train a small diffusion transformer (DiT) on digit scenes, in the latent space of the built-in pipeline.

    python examples/train_demo_transformer.py --out examples/demo_transformer

It is what the measured filter is checked on: a network of another kind, for which no rule was derived. Conditioned on
one of the scene's digits, which is dropped for one image in ten; epsilon-prediction. Checkpoints are picked up when the
command is repeated. On two CPU cores the defaults take about half an hour.
"""

# diffusers annotates some arguments more narrowly than it takes them, and outputs as unions.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel
from torch import Tensor
from torch.nn import functional
from train_demo_pipeline import DIGIT_WORDS, TRAINING_SEED, Stage, save_grid

from diffsift.datasets import SceneGenerator
from diffsift.demo import PIPELINE


def build_pipeline(seed: int) -> DiTPipeline:
    torch.manual_seed(seed)
    transformer = DiTTransformer2DModel(
        num_attention_heads=6,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        num_layers=8,
        sample_size=16,
        patch_size=2,
        num_embeds_ada_norm=len(DIGIT_WORDS),
        norm_type="ada_norm_zero",
    )
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="epsilon",
        clip_sample=False,
        set_alpha_to_one=False,
    )
    vae = AutoencoderKL.from_pretrained(PIPELINE, subfolder="vae", use_safetensors=True)
    return DiTPipeline(transformer=transformer, vae=vae, scheduler=scheduler, id2label=dict(enumerate(DIGIT_WORDS)))


def train(pipeline: DiTPipeline, scenes: SceneGenerator, folder: Path, steps: int, batch: int) -> None:
    transformer, vae, scheduler = pipeline.transformer, pipeline.vae.eval(), pipeline.scheduler
    stage = Stage("transformer", folder, torch.nn.ModuleList([transformer]), steps, rate=1e-3)
    transformer.train()

    def loss_of_step(step: int) -> Tensor:
        torch.manual_seed(step)
        drawn = [scenes.scene(step * batch + offset) for offset in range(batch)]
        images = torch.stack([torch.from_numpy(scene.image) for scene in drawn]).permute(0, 3, 1, 2).float()
        labels = torch.tensor([scene.digits[int(torch.randint(len(scene.digits), ()))] for scene in drawn])
        with torch.no_grad():
            latents = vae.encode(images / 127.5 - 1.0).latent_dist.sample() * vae.config.scaling_factor
        noise = torch.randn_like(latents)
        # Spread over the batch: evener cover of the noise levels than independent draws.
        spread = (torch.arange(batch) + torch.rand(batch)) / batch
        timesteps = (spread * scheduler.config.num_train_timesteps).long()[torch.randperm(batch)]
        noisy = scheduler.add_noise(latents, noise, timesteps)
        predicted = transformer(noisy, timestep=timesteps, class_labels=labels).sample
        return functional.mse_loss(predicted, noise)

    stage.run(loss_of_step)
    transformer.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the pipeline")
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"), help="folder for checkpoints")
    parser.add_argument("--steps", type=int, default=6_000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (default: all)")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    arguments.checkpoints.mkdir(parents=True, exist_ok=True)

    pipeline = build_pipeline(arguments.seed)
    scenes = SceneGenerator("train", TRAINING_SEED + arguments.seed)
    train(pipeline, scenes, arguments.checkpoints, arguments.steps, arguments.batch)
    pipeline.vae.register_to_config(_name_or_path="")  # no path of this machine in what is committed
    pipeline.to(dtype=torch.float16).save_pretrained(arguments.out, safe_serialization=True)
    pipeline.to(dtype=torch.float32).set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(arguments.seed)
    rows = [
        pipeline([digit] * 8, num_inference_steps=50, guidance_scale=1.0, generator=generator, output_type="np").images
        for digit in range(len(DIGIT_WORDS))
    ]
    save_grid(
        torch.stack([torch.from_numpy(row) for row in rows]).numpy(), arguments.out.parent / "transformer_samples.png"
    )
    print(sum(parameter.numel() for parameter in pipeline.transformer.parameters()), "parameters")


if __name__ == "__main__":
    main()
