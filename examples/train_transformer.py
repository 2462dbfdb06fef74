"""Train a small Stable Diffusion 3 pipeline on rendered scenes: a transformer of joint blocks, by flow matching.

    python examples/train_autoencoder.py --work training
    python examples/train_transformer.py --work training --out transformer_pipeline

Captions are those of `train_unet.py`; two small CLIP text models are trained together with the transformer. The T5 that
such a pipeline cannot be loaded without says nothing: it gives zeros, as the pipeline does in the place of a missing
one, as many as its `max_sequence_length` says, 256 unless told otherwise. They are all alike and stay alike from block
to block, so training carries one of them and adds the logarithm of their number to its attention logits, which is the
same and much faster; the number varies, so that the network works with any.
"""

# diffusers annotates some arguments more narrowly than it takes them, and outputs as unions.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportOptionalOperand=false
# pyright: reportOptionalCall=false, reportIncompatibleMethodOverride=false

from __future__ import annotations

import argparse
import json
import math
import string
from pathlib import Path

import torch
from _training import Schedule, Trainer, generator_of, options, parse, spread
from _training_data import TEXT_WIDTH, Batch, Latents, build_tokenizer, text_config, training_scenes, validation_latents
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from diffusers.models.attention_processor import Attention, JointAttnProcessor2_0
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModelWithProjection, T5Config, T5EncoderModel, T5Tokenizer

BLOCKS, HEADS, HEAD = 9, 6, 16
TEXT_MODELS = ("text_encoder", "text_encoder_2")
DEFAULT_ZEROS = 256
ZEROS = (16, 64, DEFAULT_ZEROS, DEFAULT_ZEROS)


def build_pipeline(work: Path, seed: int) -> StableDiffusion3Pipeline:
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    transformer = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=BLOCKS,
        attention_head_dim=HEAD,
        num_attention_heads=HEADS,
        joint_attention_dim=len(TEXT_MODELS) * TEXT_WIDTH,
        caption_projection_dim=HEADS * HEAD,
        pooled_projection_dim=len(TEXT_MODELS) * TEXT_WIDTH,
        pos_embed_max_size=16,
        qk_norm="rms_norm",
    )
    initialise(transformer)
    silent, letters = silent_t5(width=len(TEXT_MODELS) * TEXT_WIDTH)
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        vae=AutoencoderKL.from_pretrained(work / "vae"),
        text_encoder=CLIPTextModelWithProjection(text_config(tokenizer)),
        tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(text_config(tokenizer)),
        tokenizer_2=tokenizer,
        text_encoder_3=silent,
        tokenizer_3=letters,
    )


@torch.no_grad()
def silent_t5(width: int) -> tuple[T5EncoderModel, T5Tokenizer]:
    """The smallest T5 encoder, whose output is zero whatever it reads."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -1.0), ("▁", -2.0)]
    tokenizer = T5Tokenizer(vocab=[*pieces, *((letter, -3.0) for letter in string.ascii_lowercase)], extra_ids=0)
    sizes = {"d_model": width, "d_kv": 4, "d_ff": 4, "num_layers": 1, "num_heads": 1}
    encoder = T5EncoderModel(T5Config(vocab_size=len(tokenizer), **sizes))
    encoder.encoder.final_layer_norm.weight.zero_()
    return encoder, tokenizer


@torch.no_grad()
def initialise(transformer: SD3Transformer2DModel) -> None:
    """As diffusion transformers start: evenly spread weights; modulations and output at zero."""
    for module in transformer.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    nn.init.xavier_uniform_(transformer.pos_embed.proj.weight.view(HEADS * HEAD, -1))
    modulations = [transformer.norm_out.linear, transformer.proj_out]
    for block in transformer.transformer_blocks:
        modulations += [block.norm1.linear, block.norm1_context.linear]
    for module in modulations:
        module.weight.zero_()


class OneForMany(JointAttnProcessor2_0):
    """Joint attention in which the last text token stands for many equal ones."""

    def __init__(self) -> None:
        super().__init__()
        self._logarithm = torch.zeros(())

    def stand_for(self, count: int, device: torch.device | str) -> None:
        """Let the last token count so many times."""
        self._logarithm = torch.tensor(math.log(count), device=device)

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        image = self._heads(attn, hidden_states, (attn.to_q, attn.to_k, attn.to_v), (attn.norm_q, attn.norm_k))
        added = (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj), (attn.norm_added_q, attn.norm_added_k)
        text = self._heads(attn, encoder_hidden_states, *added)
        query, key, value = (torch.cat(both, dim=2) for both in zip(image, text, strict=True))
        weight = torch.zeros(1, 1, 1, key.shape[2], device=key.device, dtype=query.dtype)
        weight[..., -1] = self._logarithm
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=weight)
        mixed = mixed.transpose(1, 2).flatten(2)
        tokens = hidden_states.shape[1]
        seen, read = attn.to_out[0](mixed[:, :tokens]), mixed[:, tokens:]
        return seen, read if attn.context_pre_only else attn.to_add_out(read)

    @staticmethod
    def _heads(
        attn: Attention, states: Tensor, projections: tuple[nn.Module, ...], norms: tuple[nn.Module, ...]
    ) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = (projection(states).unflatten(-1, (attn.heads, -1)) for projection in projections)
        query, key, value = (states.transpose(1, 2) for states in (query, key, value))
        return norms[0](query), norms[1](key), value


class Loss(nn.Module):
    """The error of predicted flows, averaged over a batch."""

    def __init__(self, pipeline: StableDiffusion3Pipeline, compiled: bool) -> None:
        super().__init__()
        self.joint = OneForMany()
        self._plain, self._encoders = pipeline.transformer, [getattr(pipeline, name) for name in TEXT_MODELS]
        self._transformer = torch.compile(pipeline.transformer) if compiled else pipeline.transformer

    def forward(self, batch: Batch, noise: Tensor, sigmas: Tensor, zeros: int) -> Tensor:
        device = self._plain.device
        latents, noise, sigmas = batch.latents.to(device), noise.to(device), sigmas.to(device)
        embedded, pooled = self._embed(batch.tokens.to(device))
        level = sigmas[:, None, None, None]
        self.joint.stand_for(zeros, device)
        predicted = self._transformer((1 - level) * latents + level * noise, embedded, pooled, 1000 * sigmas).sample
        return functional.mse_loss(predicted.float(), noise - latents)

    def _embed(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """As the pipeline does it, but with one zero embedding for all."""
        outputs = [encoder(tokens, output_hidden_states=True) for encoder in self._encoders]
        embedded = torch.cat([output.hidden_states[-2] for output in outputs], -1)
        embedded = torch.cat([embedded, torch.zeros_like(embedded[:, :1])], 1)
        return embedded, torch.cat([output.text_embeds for output in outputs], -1)


def train(pipeline: StableDiffusion3Pipeline, trainer: Trainer, arguments: argparse.Namespace) -> None:
    scenes = training_scenes(arguments.work, arguments.scenes, arguments.seed)
    latents = Latents(arguments.work, scenes, pipeline.tokenizer, arguments.device)
    held_out = validation_latents(arguments.work, pipeline.tokenizer)
    loss = Loss(pipeline, compiled=arguments.device.startswith("cuda"))
    pipeline.transformer.set_attn_processor(loss.joint)

    def loss_of_step(step: int) -> Tensor:
        generator = generator_of(arguments.seed, step)
        batch = latents.batch(arguments.batch, generator)
        noise = torch.randn(batch.latents.shape, generator=generator)
        return loss(batch, noise, sigmas_of(arguments.batch, generator), ZEROS[step % len(ZEROS)])

    def validation() -> float:
        generator = generator_of(arguments.seed, 0)
        noise = torch.randn(held_out.latents.shape, generator=generator)
        return loss(held_out, noise, spread(len(noise), generator), DEFAULT_ZEROS).item()

    pipeline.transformer.train()
    trainer.run(loss_of_step, validation)


def sigmas_of(count: int, generator: torch.Generator) -> Tensor:
    """Noise levels in (0, 1): logit-normal, evenly spread over the batch."""
    return torch.special.ndtri(spread(count, generator).clamp(1e-4, 1 - 1e-4)).sigmoid()


def main() -> None:
    arguments = parse(options(__doc__, steps=40_000, batch=32, scenes=40_000))
    pipeline = build_pipeline(arguments.work, arguments.seed)
    modules = {name: getattr(pipeline, name) for name in ("transformer", *TEXT_MODELS)}
    schedule = Schedule(arguments.steps, peak=1.2e-3)
    trainer = Trainer("transformer", arguments.work, modules, schedule, arguments.batch, arguments.device)
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
