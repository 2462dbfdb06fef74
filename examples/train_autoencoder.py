"""Train the autoencoder that both pipelines share, on rendered scenes: 64 px to 16 x 16 latents of 4 channels.

    python examples/train_autoencoder.py --work training

Scenes are rendered once and kept in the work folder. The loss is the mean absolute and squared error of colours, the
absolute error of differences between neighbours, the squared error of blurred colours and of blurred chroma, and a
little of the Kullback-Leibler divergence. Most steps see 32 px crops, the last fifth whole pictures. Initialisation
matters: with torch's default the residual branches drown the stream between them and colour is never learnt.
"""

# diffusers annotates some arguments more narrowly than it takes them, and outputs as unions.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportOptionalOperand=false
# pyright: reportOptionalCall=false, reportIncompatibleMethodOverride=false, reportOperatorIssue=false

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from _training import Schedule, Trainer, generator_of, options, parse, save_grid
from _training_data import Scenes, as_input, render_shard, training_scenes
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional

CROP = 32


def build(seed: int) -> AutoencoderKL:
    torch.manual_seed(seed)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        norm_num_groups=2,
        latent_channels=4,
        sample_size=64,
        mid_block_add_attention=False,
        scaling_factor=1.0,
        shift_factor=0.0,
    )
    initialise(vae)
    return vae


@torch.no_grad()
def initialise(vae: AutoencoderKL) -> None:
    """Residual branches start small, and what carries the stream keeps its variance."""
    for name, module in vae.named_modules():
        if not isinstance(module, nn.Conv2d) or name.endswith("quant_conv"):
            continue
        if name.endswith("conv2"):
            module.weight *= 0.1
            module.bias.zero_()
        elif "resnets" not in name or name.endswith("conv_shortcut"):
            module.weight *= 3**0.5
    channels = vae.config.latent_channels
    vae.quant_conv.weight[channels:] *= 0.1
    vae.quant_conv.bias[channels:] = -5.0  # the posterior's log variance


def loss_of(vae: AutoencoderKL, images: Tensor) -> Tensor:
    posterior = vae.encode(images).latent_dist
    decoded = vae.decode(posterior.sample()).sample.float()
    error = decoded - images
    blurred = functional.avg_pool2d(error, 4)
    chroma = functional.avg_pool2d(error - error.mean(1, keepdim=True), 4)
    return (
        error.abs().mean()
        + error.pow(2).mean()
        + 0.5 * (error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean())
        + 4 * (blurred.pow(2).mean() + chroma.pow(2).mean())
        + 2e-5 * posterior.kl().mean() / posterior.mean[0, 0].numel()
    )


def train(vae: AutoencoderKL, scenes: Scenes, trainer: Trainer, steps: int, batch: int, seed: int) -> None:
    def loss_of_step(step: int) -> Tensor:
        generator = generator_of(seed, step)
        torch.manual_seed(seed + step)
        whole = step >= 0.8 * steps
        chosen = torch.randint(len(scenes.images), (batch // 4 if whole else batch,), generator=generator).numpy()
        images = scenes.images[chosen]
        if not whole:
            y, x = (torch.randint((images.shape[1] - CROP) // 4 + 1, (2,), generator=generator) * 4).tolist()
            images = images[:, y : y + CROP, x : x + CROP]
        images = as_input(images[:, :, :: -1 if step % 2 else 1]).to(vae.device)
        return loss_of(vae, images)

    trainer.run(loss_of_step)


@torch.no_grad()
def standardise(vae: AutoencoderKL, images: np.ndarray) -> None:
    """Fold mean 0 and deviation 1 of every latent channel into the convolutions around the latents."""
    pictures = as_input(images).split(32)
    means = torch.cat([vae.encode(part.to(vae.device)).latent_dist.mean for part in pictures])
    centre, deviation = means.mean((0, 2, 3)), means.std((0, 2, 3))
    inner, outer, channels = vae.quant_conv, vae.post_quant_conv, vae.config.latent_channels
    outer.bias += outer.weight[:, :, 0, 0] @ centre
    outer.weight *= deviation[:, None, None]
    inner.bias[:channels] = (inner.bias[:channels] - centre) / deviation
    inner.weight[:channels] /= deviation[:, None, None, None]
    inner.bias[channels:] -= 2 * deviation.log()


@torch.no_grad()
def report(vae: AutoencoderKL, folder: Path) -> float:
    """Peak signal to noise ratio over unseen scenes, in dB; a picture of scenes above their reconstructions."""
    images = render_shard("development", 2, 0, 256, ("easy", "medium", "hard", "medium")).images
    decoded = torch.cat([vae.decode(vae.encode(part).latent_dist.mode()).sample for part in as_input(images).split(32)])
    pictures, truth = decoded.clamp(-1, 1).permute(0, 2, 3, 1).numpy() / 2 + 0.5, images / 255
    save_grid([truth[:12], pictures[:12], truth[12:24], pictures[12:24]], folder / "reconstructions.png")
    ratio = -10 * np.log10(((pictures - truth) ** 2).mean((1, 2, 3)))
    return float(ratio.mean())


def main() -> None:
    parser = options(__doc__, steps=9_000, batch=16, scenes=8_000)
    parser.add_argument("--render-only", action="store_true", help="render and store scenes, no more")
    parser.add_argument("--processes", type=int, default=1, help="that render (default: %(default)s)")
    arguments = parse(parser)
    scenes = training_scenes(arguments.work, arguments.scenes, arguments.seed, arguments.processes)
    if arguments.render_only:
        return
    vae = build(arguments.seed)
    schedule = Schedule(arguments.steps, peak=2e-3, warm_up=150, cool_down=0.7)
    trainer = Trainer("autoencoder", arguments.work, {"vae": vae}, schedule, arguments.batch, arguments.device, 0.999)
    train(vae, scenes, trainer, arguments.steps, arguments.batch, arguments.seed)
    vae.to("cpu").eval()
    standardise(vae, scenes.images[:1_000])
    vae.save_pretrained(arguments.work / "vae")
    print(f"PSNR on unseen scenes: {report(vae, arguments.work):.2f} dB")


if __name__ == "__main__":
    main()
