"""What the training scripts learn from: rendered scenes on disk, their captions, their latents."""

# diffusers annotates some arguments more narrowly than it takes them, and outputs as unions.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPTextConfig, CLIPTokenizer

from diffsift.datasets.rendered import COLOURS, KINDS, Part, Renderer, caption, draw_scene

SIZE = 64
PROMPT_TOKENS = 16
TEXT_WIDTH = 64
WITHOUT_PROMPT = 0.3
WITHOUT_COLOURS = 0.2
VALIDATION_SCENES = 192
_SHARD = 1_000
_MOST_NAMED = 5
_MIXTURE = ("easy",) * 7 + ("medium",) * 9 + ("hard",) * 4


@dataclass(frozen=True)
class Scenes:
    """Rendered scenes: `images` uint8 (scenes, 64, 64, 3); `named` int8 (scenes, 5, 2), colour and kind of the visible
    solids from left to right, filled up with -1."""

    images: np.ndarray
    named: np.ndarray


def render_shard(part: Part, seed: int, start: int, count: int, difficulties: Sequence[str]) -> Scenes:
    """Scenes `start` to `start + count`; the difficulty of a scene follows from its number."""
    images, named = [], np.full((count, _MOST_NAMED, 2), -1, np.int8)
    for first in range(0, count, 16):
        numbers = range(start + first, start + min(first + 16, count))
        scenes = [draw_scene(part, seed, number, difficulties[number % len(difficulties)]) for number in numbers]
        drawn = Renderer(scenes).render(SIZE)
        images.append(drawn.image.numpy())
        for offset, scene in enumerate(scenes):
            solids = [scene.solids[position] for position in drawn.visible_solids(offset)]
            for rank, solid in enumerate(solids):
                named[first + offset, rank] = solid.colour, solid.kind
    return Scenes(np.concatenate(images), named)


def _store_shard(path: Path, part: Part, seed: int, start: int, count: int) -> None:
    shard = render_shard(part, seed, start, count, _MIXTURE)
    partial = path.with_suffix(f".{os.getpid()}.partial.npz")
    np.savez(partial, images=shard.images, named=shard.named)
    partial.replace(path)


def training_scenes(work: Path, count: int, seed: int, processes: int = 1) -> Scenes:
    """The first scenes of the pretraining part; those that are not in `work` yet are rendered and stored there."""
    folder = work / f"scenes-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    starts = [(start, folder / f"{start:07d}.npz") for start in range(0, count, _SHARD)]
    missing = [(path, "pretraining", seed, start, _SHARD) for start, path in starts if not path.exists()]
    if processes == 1:
        for shard in tqdm(missing, desc="rendering", unit="k scenes", disable=not missing):
            _store_shard(*shard)
    else:
        with ProcessPoolExecutor(processes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            jobs = [pool.submit(_store_shard, *shard) for shard in missing]
            for job in tqdm(jobs, desc="rendering", unit="k scenes"):
                job.result()
    stored = [np.load(path) for _, path in starts]
    images, named = (np.concatenate([shard[name] for shard in stored])[:count] for name in ("images", "named"))
    return Scenes(images, named)


def as_input(images: np.ndarray) -> Tensor:
    """(n, height, width, 3) uint8 to (n, 3, height, width) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def prompt_of(named: np.ndarray, colours: bool = True) -> str:
    """A row of `Scenes.named` in words."""
    return caption([(int(colour), int(kind)) for colour, kind in named if kind >= 0], colours)


def build_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer whose vocabulary is the words of captions and the letters they are made of."""
    words = (*COLOURS, *KINDS, "and")
    letters = sorted(set("".join(words)))
    vocabulary: list[str] = [*letters, *(letter + "</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    for word in words:  # what earlier words' merges leave in pieces is merged from the left
        pieces = _pieces(word, merges)
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces = ["".join(pieces[:2]), *pieces[2:]]
            vocabulary.append(pieces[0])
    ids = {token: number for number, token in enumerate(dict.fromkeys(vocabulary))}
    for special in ("<|startoftext|>", "<|endoftext|>"):
        ids[special] = len(ids)
    tokenizer = CLIPTokenizer(vocab=ids, merges=merges, model_max_length=PROMPT_TOKENS)
    for word in words:
        pieces = tokenizer.tokenize(word)
        if pieces != [word + "</w>"]:
            raise RuntimeError(f"the tokenizer must keep {word!r} whole, but splits it into {pieces}.")
    return tokenizer


def _pieces(word: str, merges: Sequence[tuple[str, str]]) -> list[str]:
    """A word in letters, of which neighbours are joined as byte-pair encoding does it: earlier merges first."""
    pieces = [*word[:-1], word[-1] + "</w>"]
    for merge in merges:
        for place in range(len(pieces) - 1, 0, -1):
            if (pieces[place - 1], pieces[place]) == merge:
                pieces[place - 1 : place + 1] = ["".join(merge)]
    return pieces


def text_config(tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=PROMPT_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


@dataclass(frozen=True)
class Batch:
    """What a denoiser learns from: latents (batch, 4, 16, 16) drawn from the posterior, token ids (batch, 16)."""

    latents: Tensor
    tokens: Tensor


class Latents:
    """The autoencoder's posteriors of all training scenes and of their mirror images, encoded once and kept on disk.

    Args:
        work: folder with the autoencoder; the latents are stored beside it.
        scenes: what to encode.
        tokenizer: turns captions into ids.
        device: where to encode.
    """

    def __init__(self, work: Path, scenes: Scenes, tokenizer: CLIPTokenizer, device: str) -> None:
        self._named, self._tokenizer = scenes.named, tokenizer
        self._scale = AutoencoderKL.load_config(work / "vae")["scaling_factor"]
        path = work / f"latents-{len(scenes.images)}.npy"
        if not path.exists():
            _encode(work, scenes.images, path, device)
        # (mirrored, scenes, mean and deviation, channels, height, width)
        self._stored = np.load(path, mmap_mode="r")
        self._tokens: dict[str, Tensor] = {}

    def batch(self, size: int, generator: torch.Generator) -> Batch:
        chosen = torch.randint(len(self._named), (size,), generator=generator).numpy()
        mirrored = torch.randint(2, (size,), generator=generator).numpy()
        posterior = torch.from_numpy(self._stored[mirrored, chosen].astype(np.float32))
        latents = posterior[:, 0] + posterior[:, 1] * torch.randn(posterior[:, 0].shape, generator=generator)
        style = torch.rand(size, generator=generator)
        prompts = []
        for scene, mirror, place in zip(chosen, mirrored, style, strict=True):
            named = self._named[scene][:: -1 if mirror else 1]
            colours = bool(place > WITHOUT_PROMPT + WITHOUT_COLOURS)
            prompts.append("" if place < WITHOUT_PROMPT else prompt_of(named, colours))
        return Batch(latents * self._scale, torch.stack([self._ids(prompt) for prompt in prompts]))

    def _ids(self, prompt: str) -> Tensor:
        if prompt not in self._tokens:
            ids = self._tokenizer(prompt, padding="max_length", max_length=PROMPT_TOKENS, return_tensors="pt")
            self._tokens[prompt] = ids.input_ids[0]
        return self._tokens[prompt]


def validation_latents(work: Path, tokenizer: CLIPTokenizer) -> Batch:
    """Scenes of the development part, with their captions."""
    scenes = render_shard("development", 1, 0, VALIDATION_SCENES, ("medium",))
    vae = AutoencoderKL.from_pretrained(work / "vae")
    with torch.no_grad():
        means = torch.cat([vae.encode(part).latent_dist.mean for part in as_input(scenes.images).split(32)])
    prompts = [prompt_of(named) for named in scenes.named]
    ids = tokenizer(prompts, padding="max_length", max_length=PROMPT_TOKENS, return_tensors="pt").input_ids
    return Batch(means * vae.config.scaling_factor, ids)


@torch.no_grad()
def _encode(work: Path, images: np.ndarray, path: Path, device: str) -> None:
    vae = AutoencoderKL.from_pretrained(work / "vae").to(device).eval()
    partial = path.with_suffix(".partial.npy")
    side = SIZE // 4
    shape = (2, len(images), 2, vae.config.latent_channels, side, side)
    stored = np.lib.format.open_memmap(partial, "w+", np.float16, shape)
    for start in tqdm(range(0, len(images), 64), desc="encoding"):
        part = slice(start, min(start + 64, len(images)))
        straight = as_input(images[part]).to(device)
        for mirrored, pictures in enumerate((straight, straight.flip(-1))):
            posterior = vae.encode(pictures).latent_dist
            stored[mirrored, part] = torch.stack([posterior.mean, posterior.std], 1).half().cpu().numpy()
    stored.flush()
    partial.replace(path)
