"""A tiny, randomly initialised network of every image denoiser that diffusers exports, and what its call takes.

`DENOISERS` has one entry per class; `NOT_IMAGES` names all other denoisers with the reason, so that a class that a new
diffusers brings shows up as missing in `test_contract`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import diffusers
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional

WORDS = 5
"""Text tokens, a number that no grid of the tests has."""

Others = Callable[[int, int, int], dict[str, Any]]
"""Everything but the image that a call takes, for a batch, rows and columns of the input's grid."""


@dataclass(frozen=True)
class Denoiser:
    """How to call a network; its configuration is in denoisers.yaml.

    Attributes:
        channels: of the image as the network takes it.
        others: what it takes beside the image.
        image: the argument that the image goes to.
        form: ``map`` (batch, channels, rows, columns); ``tokens`` (batch, rows x columns, channels); ``behind-text``:
            tokens behind room for the text's; ``patches``: (batch, rows x columns, channels, 1, 2, 2); ``frame``: a map
            with one frame before rows and columns; ``frame-last``: (batch, 1, rows, columns, channels); ``list``: one
            frame per image, in a list; ``ids``: one token id per place.
        rows: of the input's grid; it is as wide in one test, half as wide again in the other.
        batch: images in a call.
    """

    channels: int
    others: Others
    image: str = "hidden_states"
    form: Literal["map", "tokens", "behind-text", "patches", "frame", "frame-last", "list", "ids"] = "map"
    rows: int = 8
    batch: int = 2

    def arguments(self, image: Tensor) -> dict[str, Any]:
        """The call's arguments for an image as a map."""
        batch, _, rows, columns = image.shape
        shaped: Any = {
            "map": lambda: image,
            "tokens": lambda: image.flatten(2).transpose(1, 2),
            "frame": lambda: image.unsqueeze(2),
            "frame-last": lambda: image.permute(0, 2, 3, 1).unsqueeze(1),
            "list": lambda: list(image.unsqueeze(2)),
            "behind-text": lambda: functional.pad(image.flatten(2).transpose(1, 2), (0, 0, WORDS, 0)),
            "patches": lambda: image.flatten(2).transpose(1, 2)[..., None, None, None].expand(-1, -1, -1, 1, 2, 2),
            "ids": lambda: (image[:, 0].abs() * 1000).long() % 50,
        }[self.form]()
        return {self.image: shaped, **self.others(batch, rows, columns)}


def noise(*shape: int, seed: int = 7) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def words(batch: int, width: int) -> Tensor:
    return noise(batch, WORDS, width)


def grid_ids(rows: int, columns: int, axes: int = 3) -> Tensor:
    """Position ids (rows x columns, axes): 0, row, column, 0 ..."""
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    ids = torch.zeros(rows * columns, axes)
    ids[:, 1], ids[:, 2] = y.flatten(), x.flatten()
    return ids


def flux_like(width: int, *, axes: int = 3, guidance: bool = False, batched_ids: bool = False) -> Others:
    """Packed tokens with position ids for image and text."""

    def others(batch: int, rows: int, columns: int) -> dict[str, Any]:
        image_ids, text_ids = grid_ids(rows, columns, axes), torch.zeros(WORDS, axes)
        if batched_ids:
            image_ids, text_ids = (ids.expand(batch, -1, -1) for ids in (image_ids, text_ids))
        given: dict[str, Any] = {
            "encoder_hidden_states": words(batch, width),
            "img_ids": image_ids,
            "txt_ids": text_ids,
            "timestep": torch.full((batch,), 0.5),
        }
        return given | ({"guidance": torch.full((batch,), 3.5)} if guidance else {})

    return others


def text_and_time(width: int, *, time: float = 0.5, **more: Callable[[int, int, int], Any]) -> Others:
    """Text, a timestep, and what else is computed from batch, rows and columns."""

    def others(batch: int, rows: int, columns: int) -> dict[str, Any]:
        given: dict[str, Any] = {"encoder_hidden_states": words(batch, width), "timestep": torch.full((batch,), time)}
        return given | {name: make(batch, rows, columns) for name, make in more.items()}

    return others


def sizes(batch: int, rows: int, columns: int) -> Tensor:
    return torch.tensor([[rows * 8.0, columns * 8.0]]).repeat(batch, 1)


def corner(batch: int, rows: int, columns: int) -> Tensor:
    return torch.zeros(batch, 2)


def mask(batch: int, rows: int, columns: int) -> Tensor:
    return torch.ones(batch, WORDS, dtype=torch.bool)


def _hunyuan_dit(batch: int, rows: int, columns: int) -> dict[str, Any]:
    places = (rows // 2) * (columns // 2)
    return {
        "encoder_hidden_states": words(batch, 8),
        "text_embedding_mask": torch.ones(batch, WORDS),
        "encoder_hidden_states_t5": words(batch, 8),
        "text_embedding_mask_t5": torch.ones(batch, WORDS),
        "timestep": torch.full((batch,), 50.0),
        "image_meta_size": torch.zeros(batch, 6),
        "style": torch.zeros(batch, dtype=torch.long),
        "image_rotary_emb": (torch.ones(places, 8), torch.zeros(places, 8)),
    }


def _ideogram(batch: int, rows: int, columns: int) -> dict[str, Any]:
    """Text and image share one sequence: the caller lays both out."""
    from diffusers.models.transformers import transformer_ideogram4 as module

    places = rows * columns
    positions = torch.zeros(batch, WORDS + places, 3, dtype=torch.long)
    positions[:, :WORDS] = torch.arange(WORDS)[None, :, None]
    positions[:, WORDS:] = grid_ids(rows, columns).long() + module.IMAGE_POSITION_OFFSET
    indicator = torch.full((batch, WORDS + places), module.OUTPUT_IMAGE_INDICATOR)
    indicator[:, :WORDS] = module.LLM_TOKEN_INDICATOR
    return {
        "encoder_hidden_states": torch.cat([words(batch, 12), torch.zeros(batch, places, 12)], dim=1),
        "timestep": torch.full((batch,), 0.5),
        "position_ids": positions,
        "segment_ids": torch.ones(batch, WORDS + places, dtype=torch.long),
        "indicator": indicator,
    }


def _krea(batch: int, rows: int, columns: int) -> dict[str, Any]:
    return {
        "encoder_hidden_states": noise(batch, WORDS, 2, 8),
        "timestep": torch.full((batch,), 0.5),
        "position_ids": torch.cat([torch.zeros(WORDS, 3), grid_ids(rows, columns)]),
        "encoder_attention_mask": mask(batch, rows, columns),
    }


def _bria_fibo(batch: int, rows: int, columns: int) -> dict[str, Any]:
    text = noise(batch, WORDS, 32)
    return flux_like(32)(batch, rows, columns) | {
        "encoder_hidden_states": text,
        "text_encoder_layers": [text[..., :16]] * 4,
    }


def _unet_text(batch: int, rows: int, columns: int) -> dict[str, Any]:
    return {
        "encoder_hidden_states": words(batch, 8),
        "timestep": 50,
        "added_cond_kwargs": {"text_embeds": noise(batch, 6), "time_ids": torch.zeros(batch, 6)},
    }


def _lumina_next(batch: int, rows: int, columns: int) -> dict[str, Any]:
    return {
        "encoder_hidden_states": words(batch, 32),
        "timestep": torch.full((batch,), 0.5),
        "encoder_mask": torch.ones(batch, WORDS),
        "image_rotary_emb": torch.polar(torch.ones(384, 384, 4), noise(384, 384, 4)),
        "cross_attention_kwargs": {},
    }


def _omnigen(batch: int, rows: int, columns: int) -> dict[str, Any]:
    length = WORDS + 1 + (rows // 2) * (columns // 2)
    return {
        "timestep": torch.full((batch,), 0.5),
        "input_ids": torch.arange(WORDS).repeat(batch, 1),
        "input_img_latents": [],
        "input_image_sizes": {},
        "attention_mask": torch.ones(batch, length, length),
        "position_ids": torch.arange(length).repeat(batch, 1),
    }


def _qwen21(batch: int, rows: int, columns: int) -> dict[str, Any]:
    slots = rows * columns // 4
    image = torch.zeros(batch, WORDS + slots, dtype=torch.bool)
    image[:, WORDS:] = True
    return {
        "encoder_hidden_states": words(batch, 16),
        "timestep": torch.full((batch,), 0.5)[:1] if batch == 1 else torch.full((batch,), 0.5),
        "img_shapes": [[(1, rows, columns)]] * batch,
        "img_mask": image,
    }


def _kandinsky5(batch: int, rows: int, columns: int) -> dict[str, Any]:
    return {
        "encoder_hidden_states": words(batch, 12),
        "pooled_projections": noise(batch, 6),
        "timestep": torch.full((batch,), 50.0),
        "visual_rope_pos": (torch.arange(1), torch.arange(rows // 2), torch.arange(columns // 2)),
        "text_rope_pos": torch.arange(WORDS),
    }


def _kandinsky6(batch: int, rows: int, columns: int) -> dict[str, Any]:
    return {
        "encoder_hidden_states": words(batch, 12),
        "pooled_projections": noise(batch, 6),
        "timestep": torch.full((batch,), 50.0),
        "visual_rope_pos": (torch.arange(1), torch.arange(rows // 2), torch.arange(columns // 2)),
    }


CONFIGURATIONS: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())

DENOISERS: dict[str, Denoiser] = {
    "AuraFlowTransformer2DModel": Denoiser(4, text_and_time(24)),
    "BriaFibo2Transformer2DModel": Denoiser(
        4,
        lambda batch, rows, columns: {
            "encoder_hidden_states": noise(batch, 2, WORDS, 12),
            "timestep": torch.full((batch,), 0.5),
        },
    ),
    "BriaFiboTransformer2DModel": Denoiser(4, _bria_fibo, form="tokens"),
    "BriaTransformer2DModel": Denoiser(4, flux_like(24), form="tokens"),
    "ChromaTransformer2DModel": Denoiser(4, flux_like(24), form="tokens"),
    "CogView3PlusTransformer2DModel": Denoiser(
        4, text_and_time(8, original_size=sizes, target_size=sizes, crop_coords=corner)
    ),
    "CogView4Transformer2DModel": Denoiser(
        4, text_and_time(8, original_size=sizes, target_size=sizes, crop_coords=corner)
    ),
    "DiTTransformer2DModel": Denoiser(
        4,
        lambda batch, rows, columns: {
            "timestep": torch.full((batch,), 50),
            "class_labels": torch.ones(batch, dtype=torch.long),
        },
    ),
    "DreamLiteTransformer2DModel": Denoiser(
        16, lambda batch, rows, columns: {"encoder_hidden_states": words(batch, 8)}
    ),
    "DreamLiteUNetModel": Denoiser(4, _unet_text, image="sample"),
    "ErnieImageTransformer2DModel": Denoiser(
        4,
        lambda batch, rows, columns: {
            "timestep": torch.full((batch,), 1.0),
            "text_bth": words(batch, 12),
            "text_lens": torch.full((batch,), WORDS),
        },
    ),
    "Flux2Transformer2DModel": Denoiser(4, flux_like(24, axes=4, guidance=True, batched_ids=True), form="tokens"),
    "Flux3Transformer2DModel": Denoiser(4, flux_like(24, axes=4), form="tokens"),
    "FluxTransformer2DModel": Denoiser(
        4,
        lambda batch, rows, columns: {**flux_like(24)(batch, rows, columns), "pooled_projections": noise(batch, 6)},
        form="tokens",
    ),
    "GlmImageTransformer2DModel": Denoiser(
        4,
        text_and_time(
            8,
            time=50,
            target_size=sizes,
            crop_coords=corner,
            prior_token_id=lambda batch, rows, columns: torch.zeros(batch, rows * columns // 4, dtype=torch.long),
            prior_token_drop=lambda batch, rows, columns: torch.zeros(batch, rows * columns // 4, dtype=torch.bool),
        ),
    ),
    "HiDreamImageTransformer2DModel": Denoiser(
        4,
        lambda batch, rows, columns: {
            "encoder_hidden_states_t5": words(batch, 8),
            "encoder_hidden_states_llama3": noise(2, batch, WORDS, 4),
            "pooled_embeds": noise(batch, 8),
            "timesteps": torch.full((batch,), 50),
        },
    ),
    "HunyuanDiT2DModel": Denoiser(4, _hunyuan_dit),
    "HunyuanImageTransformer2DModel": Denoiser(4, text_and_time(12, time=50.0, encoder_attention_mask=mask)),
    "Ideogram4Transformer2DModel": Denoiser(4, _ideogram, form="behind-text"),
    "JoyImageEditPlusTransformer3DModel": Denoiser(
        4,
        lambda batch, rows, columns: {
            **text_and_time(16)(batch, rows, columns),
            "shape_list": [[(1, rows, columns)]] * batch,
        },
        form="patches",
    ),
    "JoyImageEditTransformer3DModel": Denoiser(4, text_and_time(16), form="frame"),
    "Kandinsky3UNet": Denoiser(
        4,
        lambda batch, rows, columns: {
            "encoder_hidden_states": words(batch, 12),
            "encoder_attention_mask": torch.ones(batch, WORDS),
            "timestep": torch.full((batch,), 50),
        },
        image="sample",
        rows=16,
    ),
    "Kandinsky5Transformer3DModel": Denoiser(4, _kandinsky5, form="frame-last", batch=1),
    "Kandinsky6Transformer3DModel": Denoiser(4, _kandinsky6, form="frame-last", batch=1),
    "Krea2Transformer2DModel": Denoiser(4, _krea, form="tokens"),
    "LongCatImageTransformer2DModel": Denoiser(4, flux_like(24, guidance=True), form="tokens"),
    "Lumina2Transformer2DModel": Denoiser(4, text_and_time(32, encoder_attention_mask=mask)),
    "LuminaNextDiT2DModel": Denoiser(4, _lumina_next),
    "NucleusMoEImageTransformer2DModel": Denoiser(
        16,
        text_and_time(
            12, encoder_hidden_states_mask=mask, img_shapes=lambda batch, rows, columns: [(1, rows, columns)] * batch
        ),
        form="tokens",
    ),
    "OmniGenTransformer2DModel": Denoiser(4, _omnigen),
    "OvisImageTransformer2DModel": Denoiser(4, flux_like(24), form="tokens"),
    "PRXTransformer2DModel": Denoiser(4, text_and_time(12)),
    "PixArtTransformer2DModel": Denoiser(
        4, text_and_time(12, added_cond_kwargs=lambda *_: {"resolution": None, "aspect_ratio": None})
    ),
    "QwenImage21Transformer2DModel": Denoiser(4, _qwen21, form="tokens", batch=1),
    "QwenImageTransformer2DModel": Denoiser(
        16,
        text_and_time(
            12, encoder_hidden_states_mask=mask, img_shapes=lambda batch, rows, columns: [(1, rows, columns)] * batch
        ),
        form="tokens",
    ),
    "SD3Transformer2DModel": Denoiser(
        4, text_and_time(12, time=50, pooled_projections=lambda batch, rows, columns: noise(batch, 6))
    ),
    "SanaTransformer2DModel": Denoiser(4, text_and_time(8, time=50)),
    "StableCascadeUNet": Denoiser(
        4,
        lambda batch, rows, columns: {
            "timestep_ratio": torch.full((batch,), 0.5),
            "clip_text_pooled": noise(batch, 1, 6),
            "clip_text": words(batch, 12),
            "clip_img": noise(batch, 1, 6),
        },
        image="sample",
    ),
    "Transformer2DModel": Denoiser(16, lambda batch, rows, columns: {"encoder_hidden_states": words(batch, 8)}),
    "UNet2DConditionModel": Denoiser(4, _unet_text, image="sample"),
    "UNet2DModel": Denoiser(4, lambda batch, rows, columns: {"timestep": 50}, image="sample"),
    "UVit2DModel": Denoiser(
        1,
        lambda batch, rows, columns: {
            "encoder_hidden_states": words(batch, 12),
            "pooled_text_emb": noise(batch, 8),
            "micro_conds": torch.zeros(batch, 5),
        },
        image="input_ids",
        form="ids",
    ),
    "ZImageTransformer2DModel": Denoiser(
        4,
        lambda batch, rows, columns: {"cap_feats": list(words(batch, 12)), "t": torch.zeros(batch)},
        image="x",
        form="list",
    ),
}


def build(name: str) -> nn.Module:
    """The tiny network of a class; parameters that start at zero are drawn too, so that all of it shows."""
    torch.manual_seed(0)
    network: nn.Module = getattr(diffusers, name)(**CONFIGURATIONS[name])
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return network.eval().requires_grad_(False)
