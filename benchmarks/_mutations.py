"""Random damage, the same for the same seed: to nested values, texts, files and the tensors of a selection."""

from __future__ import annotations

import random
from collections.abc import Callable
from copy import deepcopy
from typing import Any

NASTY: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 3.5, -0.0, 10**30, -(10**30), 1e308, float("inf"), float("-inf"), float("nan")),
    *(
        "",
        " ",
        "no",
        "0",
        "1e9",
        "x" * 5000,
        "é\u202e\x00",
        "../../etc/passwd",
        "/dev/zero",
        "~",
        "http://a",
        "{}",
        "a/b",
    ),
    *([], [[]], [1, "a", None], [0] * 300, {}, {"kind": "folder"}, {"a": {"b": []}}, {"": None}),
)


def mutated_value(tree: Any, chance: random.Random) -> Any:
    """A tree in which one place is replaced, removed, doubled, renamed or wrapped; `tree` is changed."""
    places = list(_places(tree))
    if not places:
        return chance.choice(NASTY)
    holder, key = chance.choice(places)
    way = chance.randrange(6)
    if way < 3:
        holder[key] = deepcopy(chance.choice(NASTY))
    elif way == 3:
        del holder[key]
    elif way == 4:
        holder[key] = [holder[key]] if chance.random() < 0.5 else {"kind": holder[key]}
    elif isinstance(holder, dict):
        holder[f"{key}{chance.choice(('s', '', '.', 'é', 'x' * 3000))}"] = holder.pop(key)
    else:
        holder.append(deepcopy(holder[key]))
    return tree


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every list or mapping in a tree with each of its keys."""
    if not isinstance(tree, dict | list):
        return []
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    inside = [place for key in keys for place in _places(tree[key])]
    return [(tree, key) for key in keys] + inside


_PIECES = (
    "\n",
    "  ",
    "\t",
    ": ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    '"',
    "'",
    "&a ",
    "*a",
    "!!",
    "!!timestamp ",
    "<<: ",
    "|",
    "%",
    "\x00",
    "é",
)


def mutated_text(text: str, chance: random.Random) -> str:
    """A text with characters removed, doubled or put in, or cut short."""
    for _ in range(chance.choice((1, 2, 5, 20))):
        place = chance.randrange(len(text) + 1)
        way = chance.randrange(5)
        if way == 0:
            text = text[:place] + text[place + chance.randint(1, 20) :]
        elif way == 1:
            text = text[:place] + chance.choice(_PIECES) * chance.choice((1, 1, 3, 200)) + text[place:]
        elif way == 2:
            text = text[:place] + text[place : place + 40] * 2 + text[place + 40 :]
        elif way == 3:
            text = text[:place] + chr(chance.randrange(1, 0xD7FF)) + text[place + 1 :]
        elif chance.random() < 0.3:
            text = text[:place]
    return text


def mutated_bytes(content: bytes, chance: random.Random) -> bytes:
    """A file with flipped bits, foreign bytes, a zeroed stretch, or cut short."""
    changed = bytearray(content)
    way = chance.randrange(5)
    if way == 0:
        return bytes(changed[: chance.randrange(len(changed))])
    for _ in range(chance.choice((1, 3, 20))):
        place = chance.randrange(len(changed))
        if way == 1:
            changed[place] ^= 1 << chance.randrange(8)
        elif way == 2:
            changed[place : place + 4] = chance.randbytes(4)
        elif way == 3:
            changed[place : place + 200] = bytes(200)
        else:  # where formats keep sizes and types
            changed[chance.randrange(min(200, len(changed)))] = chance.choice((0, 1, 127, 255))
    return bytes(changed)


def mutated_statistics(blob: bytes, chance: random.Random) -> bytes:
    """Statistics whose bytes, shapes, types, names or numbers are others."""
    import torch
    from safetensors.torch import load, save

    if chance.random() < 0.4:
        return mutated_bytes(blob, chance)
    tensors = load(blob)
    name = chance.choice(sorted(tensors))
    tensor = tensors[name]
    makers: tuple[Callable[[], torch.Tensor], ...] = (
        lambda: tensor[:1],
        lambda: tensor[:-1],
        lambda: torch.cat([tensor, tensor]),
        lambda: tensor[None],
        tensor.flatten,
        lambda: torch.full_like(tensor, chance.choice((float("nan"), float("inf"), 0.0, -1.0, 1e38))),
        lambda: tensor.to(chance.choice((torch.float64, torch.float16, torch.int64))),
        lambda: torch.zeros(0),
        lambda: torch.tensor(1.0),
    )
    tensors[chance.choice((name, name, name, "9.mean"))] = chance.choice(makers)().contiguous().clone()
    if chance.random() < 0.2:
        del tensors[name]
    return save(tensors)
