"""What is judged of a data set as a whole, by the facts of its samples: what is refused, and what the user is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float32

from diffsift.common.data_summary import percent
from diffsift.errors import DataError

from ._facts import SampleFacts, totals
from ._names import shown, some
from ._samples import IGNORE, Split

Facts = Mapping[Split, Sequence[SampleFacts]]

FEW_IMAGES = 10
"""A split of fewer independent images is mentioned: intervals and choices from so few say little."""

FEW_TEST_IMAGES = 3
"""A class in fewer test images is mentioned: resampling images cannot show how uncertain its score is."""

_PLATEAU = 0.01  # share of the known depths that makes the largest one suspicious
_GAP = 2.0  # how much larger than the next depth a largest one must be to look like a mark
_FARTHEST = 200.0  # metres: a median beyond it is rarely that of photographs
_SATURATED = (0.255, 65.535)  # metres: the largest level of 8 and 16 bits, in millimetres
_NEAR = 0.1  # of a thumbnail's contrast: the difference up to which two images are nearly equal
_LEAST_NEAR = 1.0  # the same for images without contrast, in grey levels
_MOST_PAIRS = 50_000_000  # beyond which only equal thumbnails are looked for: some seconds
_COMPARED: tuple[tuple[Split, Split], ...] = (("train", "test"), ("validation", "test"), ("train", "validation"))


def refuse_classes(facts: Facts, class_names: Mapping[int, str], ignore: int | None, *, allow_absent: bool) -> None:
    """Refuse labels from which nothing can be learnt, or of which something cannot be tested.

    Args:
        facts: of all samples, by split; with class ids in their labels.
        class_names: by class id, of the classes that count.
        ignore: the label value that does not count, as the user knows it; None: unknown.
        allow_absent: whether a class may be absent from the training or test split.

    Raises:
        DataError: fewer than two classes are in the training split, each mask holds one value, or a class is absent.
    """
    counts = {split: totals(entries) for split, entries in facts.items()}
    masks = [entry for entries in facts.values() for entry in entries if entry.values]
    if len(counts["train"]) < 2:
        thing, only = "pixels" if masks else "images", next(iter(counts["train"]), None)
        which = "none has any" if only is None else f"only {class_names[only]!r} (class {only}) has any"
        hint = _black_and_white(masks, ignore) if only == 0 else ""
        hint = hint or f"check data.classes against the label {'values' if masks else 'names'}."
        raise DataError(f"at least two classes must have {thing} in train, but of {len(class_names)} {which}: {hint}")
    if masks and len(masks) > 1 and all(entry.is_flat for entry in masks):
        raise DataError(
            f"masks must tell parts of an image from others, but each of {len(masks)} masks holds one value alone: for "
            "one class per image, use task.kind: classification."
        )
    if allow_absent:
        return
    absent = _absent({split: counts[split] for split in ("train", "test")}, class_names)
    if absent:
        missing = sum(len(names) for names in absent.values())
        none = " and ".join(f"none in {_joined(splits, 'or')} ({some(names)})" for splits, names in absent.items())
        raise DataError(
            f"every class must have {'a pixel' if masks else 'an image'} in train and in test, but {missing} of "
            f"{len(class_names)} {'has' if missing == 1 else 'have'} {none}: add such images, split otherwise, or set "
            "data.allow_absent_classes: true to leave them out of the score."
        )


def _absent(
    counts: Mapping[Split, Mapping[int, int]], class_names: Mapping[int, str]
) -> dict[tuple[Split, ...], list[str]]:
    """Names of classes without a pixel or image, by all the splits in which they have none."""
    found: dict[tuple[Split, ...], list[str]] = {}
    for number, name in class_names.items():
        lacking = tuple(split for split, count in counts.items() if number not in count)
        if lacking:
            found.setdefault(lacking, []).append(name)
    return found


def _black_and_white(masks: Sequence[SampleFacts], ignore: int | None) -> str:
    """What to do where masks hold class 0 and ignored pixels alone, which may be meant as class 1."""
    excluded = sum(entry.excluded for entry in masks) / max(1, sum(entry.values for entry in masks))
    if not excluded or ignore is None:
        return ""
    remedy = "Black and white masks must hold 0 and 1, or need data.palette: [[0, 0, 0], [255, 255, 255]]"
    return (
        f"{percent(excluded)} of the pixels hold {ignore}, which is ignored. Did you mean class 1?"
        f"{f' {remedy} (data.kind folder and list).' if ignore == IGNORE else ''}"
    )


def notes_on(facts: Facts, class_names: Mapping[int, str], depth_unit: float | None = None) -> Iterator[str]:
    """What the user should know though it is no mistake.

    Args:
        facts: of all samples, by split.
        class_names: by class id, of the classes that count; none for tasks without classes.
        depth_unit: metres that a whole number stands for, where depths are stored so.

    Yields:
        Sentences without a full stop.
    """
    yield from _few_images(facts)
    yield from _shared_images(facts)
    if class_names:
        yield from _lacking_classes(facts, class_names)
    yield from _suspicious_depth([entry for entries in facts.values() for entry in entries], depth_unit)


def _few_images(facts: Facts) -> Iterator[str]:
    few = []
    for split, entries in facts.items():
        groups = len({entry.group for entry in entries})
        if 0 < groups < FEW_IMAGES:
            held = f"{len(entries)} {split} image{'' if len(entries) == 1 else 's'}"
            in_groups = f" in {groups} group{'' if groups == 1 else 's'}" if groups < len(entries) else ""
            few.append(f"{held}{in_groups}")
    if few:
        yield (
            f"there are only {' and '.join(few)}: what is learnt and chosen from fewer than {FEW_IMAGES} independent "
            "images is unreliable, and intervals over them are too narrow"
        )


def _shared_images(facts: Facts) -> Iterator[str]:
    for first, second in _COMPARED:
        pairs = _nearly_equal(facts.get(first, ()), facts.get(second, ()))
        if pairs:
            alike = some([f"{shown(mine)} ~ {shown(other)}" for mine, other in pairs])
            yield (
                f"{len(pairs)} of {len(facts[second])} {second} images equal or nearly equal a {first} image "
                f"({alike}): scores on {second} look too good; keep such images in one split, by groups"
            )


def _lacking_classes(facts: Facts, class_names: Mapping[int, str]) -> Iterator[str]:
    counts = {split: totals(entries) for split, entries in facts.items()}
    sizes = {split: len(entries) for split, entries in facts.items()}
    filled = {split: found for split, found in counts.items() if sizes[split]}
    for splits, absent in _absent(filled, class_names).items():
        effects = ["nothing can be learnt of it"] * ("train" in splits)
        effects += ["scores leave it out"] * any(split != "train" for split in splits)
        yield f"{_named(absent)} absent from {_joined(splits, 'and')}: {', and '.join(effects)}"
    images = {
        number: sum(number in entry.counts for entry in facts.get("test", ())) for number in counts.get("test", {})
    }
    if not any(entry.values for entry in facts.get("test", ())):
        return  # whole images of a class: their number is in the summary
    rare = [class_names[number] for number, count in images.items() if count < FEW_TEST_IMAGES]
    if rare and len(facts["test"]) >= FEW_TEST_IMAGES:
        yield (
            f"{_named(rare)} in fewer than {FEW_TEST_IMAGES} test images: intervals cannot show how uncertain the "
            "score of such a class is"
        )


def _suspicious_depth(entries: Sequence[SampleFacts], unit: float | None) -> Iterator[str]:
    depths = [entry.depth for entry in entries if entry.depth is not None]
    if not depths:
        return
    highest = max(depth.high for depth in depths)
    at_highest = sum(depth.at_high for depth in depths if depth.high == highest)
    share = at_highest / max(1, sum(entry.values - entry.excluded for entry in entries))
    below = max(depth.below if depth.high == highest else depth.high for depth in depths)
    levels = [*_SATURATED, *(level * unit for level in (255, 65535) if unit is not None)]
    saturated = any(np.isclose(highest, level, rtol=1e-6) for level in levels)
    if share >= _PLATEAU and (saturated or (below and highest >= _GAP * below)):
        why = "the largest value that the files can hold" if saturated else f"far beyond the next, {below:.4g} m"
        yield (
            f"{percent(share)} of the known depths are {highest:.6g} m, {why}: if that stands for unknown, "
            "set data.depth_limit to the largest valid depth"
        )
    typical = float(np.median([depth.median for depth in depths]))
    if typical >= _FARTHEST:
        yield (
            f"the typical depth is {typical:.4g} m: if these are millimetres, divide by 1000 or set the "
            "unit (data.png_unit, depth_unit); if far values are not valid, set data.depth_limit"
        )


def _nearly_equal(first: Sequence[SampleFacts], second: Sequence[SampleFacts]) -> list[tuple[str, str]]:
    """(name of the second, name of the first) for each image of the second that has a near equal in the first."""
    if not first or not second:
        return []
    if len(first) * len(second) > _MOST_PAIRS:
        known = {entry.thumbnail: entry.name for entry in first}
        return [(entry.name, known[entry.thumbnail]) for entry in second if entry.thumbnail in known]
    mine, pairs = _thumbnails(first), []
    squares = np.square(mine).sum(1)
    rows = max(1, 16_000_000 // len(first))
    for start in range(0, len(second), rows):
        chunk = second[start : start + rows]
        other = _thumbnails(chunk)
        distance = squares + np.square(other).sum(1)[:, None] - 2 * other @ mine.T
        nearest = distance.argmin(1)
        differences = np.sqrt(distance.min(1).clip(0) / other.shape[1])
        limits = np.maximum(_NEAR * other.std(1), _LEAST_NEAR)
        close = np.flatnonzero(differences <= limits).tolist()
        pairs += [(chunk[row].name, first[int(nearest[row])].name) for row in close]
    return pairs


def _thumbnails(facts: Sequence[SampleFacts]) -> Float32[np.ndarray, "images values"]:
    """Around 0, so that float32 is exact enough for small differences."""
    pixels = np.frombuffer(b"".join(entry.thumbnail for entry in facts), np.uint8)
    return pixels.reshape(len(facts), -1).astype(np.float32) - 128


def _joined(splits: Sequence[str], word: str) -> str:
    """Names with a word before the last."""
    return f" {word} ".join(filter(None, [", ".join(splits[:-1]), splits[-1]]))


def _named(names: Sequence[str]) -> str:
    """Subject and verb of a sentence on classes."""
    return f"the class {names[0]!r} is" if len(names) == 1 else f"{len(names)} classes ({some(names)}) are"
