"""What every labelled data set of images is to the rest of diffsift."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any, ClassVar

from diffsift.common.data_summary import DataSummary, SplitSummary
from diffsift.common.reporting import Reporter
from diffsift.errors import DataError

from ._checks import (
    BadSamples,
    check_sample,
    digest_of,
    joined_digest,
    read_all,
    refuse_torn_groups,
    refuse_twice,
    refuse_untaught,
)
from ._facts import SampleFacts, facts_of, summary_of
from ._judgement import notes_on, refuse_classes
from ._samples import IGNORE, SPLITS, Sample, Split, check_split_name


class Dataset(ABC):
    """Images with answers to one task, in up to three splits.

    The life of a data set in a search:

    1. It is made, by `open_dataset` from a specification or by the user. Nothing is read yet.
    2. The objective calls `check` once, before any long work. It reads all samples of all splits and refuses those that
       a search could not use. After that, no test image is read until the final test. `refuse_unusable` then judges the
       whole by what `check` counted.
    3. `summary`, `notes` and `identity` are read. The identity is computed once; it names the data in the study.
    4. The development set and the bank read `split("train")` and `split("validation")`, with `pairs` and
       `has_prompts`, several times and in order. A validation split that is not empty is what trials are scored on;
       without one, the search cross-validates by group over the training split.
    5. The final test reads `split("test")`, once.

    A subclass sets `task` and `class_names` and implements `split`. It overrides `pairs` for correspondence, `content`
    where the content can be named without reading all samples again, and `has_prompts` where that is known without
    reading one. Where `check` does more than the checks that all data sets share, it calls `super().check(reporter)`.
    Samples may come in any order, but each time they must be the same ones. `diffsift.testing.dataset.DatasetContract`
    tests all of this.

    Attributes:
        task: what the labels are: segmentation, depth, normals, classification or correspondence; see `Sample`.
        class_names: one per class id, counted from 0; at most `MAX_CLASSES`; none for the other tasks.
        credits: whom to name where images are shown; empty where nothing is known.
        allow_absent_classes: whether a class may be absent from the training or test split.
    """

    task: str
    class_names: tuple[str, ...]
    credits: tuple[str, ...] = ()
    allow_absent_classes: bool = False

    _threads: ClassVar[int] = 1
    """How many samples `check` reads at a time; above 1 where loading is thread-safe and worth it."""

    @abstractmethod
    def split(self, name: Split) -> Sequence[Sample]:
        """The samples of a split, loaded when they are indexed.

        Args:
            name: ``train``, ``validation`` or ``test``.

        Returns:
            The samples, such as a `Samples`; empty where the data set has no such split.

        Raises:
            ValueError: `name` is none of the three.
            DataError: the split cannot be listed; indexing raises it for a sample that cannot be read.
        """

    def pairs(self, name: Split) -> Sequence[tuple[int, int]]:
        """The pairs of images to match; correspondence alone has any.

        Args:
            name: ``train``, ``validation`` or ``test``.

        Returns:
            Positions (source, target) in the split.

        Raises:
            ValueError: `name` is none of the three.
        """
        check_split_name(name)
        return ()

    @property
    def has_prompts(self) -> bool:
        """Whether samples have prompts of their own: all have one, or none has. By default the first one is read."""
        samples = self.split("train") or self.split("validation")
        return len(samples) > 0 and samples[0].prompt is not None

    def check(self, reporter: Reporter | None = None) -> None:
        """Read every sample once and refuse what a search could not use.

        Args:
            reporter: told the progress; default: nobody.

        Raises:
            DataError: samples are missing, are not what `Sample` says or have nothing that counts; a name or a group is
                in two splits; or a class has no training image. The message names the files or samples.
        """
        bad, facts = BadSamples(), self._facts  # kept of what is good, also where the whole is refused
        for split in SPLITS:
            facts[split] = []
            self._check_split(split, reporter, bad)
        bad.refuse()
        refuse_twice(entry.name for entries in facts.values() for entry in entries)
        refuse_torn_groups({split: [(entry.group, entry.name) for entry in facts[split]] for split in SPLITS})
        if self.task == "classification" and not self.allow_absent_classes:
            refuse_untaught(
                {
                    split: [(self.class_names[number], entry.name) for entry in entries for number in entry.counts]
                    for split, entries in facts.items()
                }
            )
        self._digests.update({split: [entry.digest for entry in entries] for split, entries in facts.items()})

    def refuse_unusable(self) -> None:
        """Refuse data on which no search makes sense, by what `check` counted; without a check, nothing is known.

        Raises:
            DataError: fewer than two classes are there, each mask holds one value, or a class is absent from the
                training or test split and `allow_absent_classes` is false.
        """
        if self._facts and self.task in ("segmentation", "classification"):
            allowed = self.allow_absent_classes
            refuse_classes(self._facts, self._counted_classes, self._ignored_value, allow_absent=allowed)

    @property
    def was_read(self) -> bool:
        """Whether a `check` has read any sample, which `summary` counts though others may be refused."""
        return any(self._facts.values())

    def summary(self) -> DataSummary:
        """What the data hold; only numbers of images where no `check` has counted more."""
        splits = []
        for split in SPLITS:
            pairs, facts = len(self.pairs(split)), self._facts.get(split, ())
            if facts:
                splits.append(summary_of(split, facts, self.class_names, pairs))
            elif count := len(self.split(split)):
                splits.append(SplitSummary(split, count, pairs=pairs))
        return DataSummary(tuple(splits))

    def identity(self) -> dict[str, Any]:
        """What names the data in a study: computed once, so files that change during a run are not noticed.

        Returns:
            JSON that is equal exactly when names, groups, images and labels of all splits are.

        Raises:
            DataError: a sample cannot be read.
        """
        return dict(self._identity)

    def content(self) -> dict[str, Any]:
        """Compute the identity; `identity` calls it once.

        Returns:
            JSON; by default, the task, the classes and a digest of the samples and pairs of each split.

        Raises:
            DataError: a sample cannot be read.
        """
        return {
            "kind": type(self).__name__,
            "task": self.task,
            "classes": list(self.class_names),
            **{split: self._split_digest(split) for split in SPLITS},
        }

    def notes(self) -> tuple[str, ...]:
        """What a user should know of the data though it is no mistake; complete once `check` has run.

        Returns:
            Sentences without a full stop.
        """
        return tuple(notes_on(self._facts, self._counted_classes, self._depth_unit))

    @cached_property
    def _identity(self) -> dict[str, Any]:
        return self.content()

    @cached_property
    def _digests(self) -> dict[Split, list[str]]:
        """Of all samples of the splits that were checked or hashed, in order."""
        return {}

    @cached_property
    def _facts(self) -> dict[Split, list[SampleFacts]]:
        """Of all good samples of the splits that were checked, in order."""
        return {}

    _ignored_value: int | None = IGNORE
    """The label value that does not count, as the user knows it; None: unknown."""
    _depth_unit: float | None = None
    """Metres that a whole number stands for, where depths are stored so."""

    @property
    def _counted_classes(self) -> dict[int, str]:
        """Names of the classes that count by their ids."""
        return dict(enumerate(self.class_names))

    def _check_split(self, split: Split, reporter: Reporter | None, bad: BadSamples) -> None:
        """Check every sample of a split; only facts outlive the check, not images."""
        samples, facts = self.split(split), self._facts[split]
        names = getattr(samples, "names", None)

        def check(index: int) -> SampleFacts | DataError:
            try:
                sample = samples[index]
                self._check_sample(sample)
                return facts_of(sample, self.task, self._sample_digest(split, index, sample))
            except DataError as error:
                return error

        description = f"checking {split} images and labels"
        for index, found in enumerate(read_all(check, range(len(samples)), description, reporter, self._threads)):
            if isinstance(found, SampleFacts):
                facts.append(found)
                continue
            bad.add(names[index] if names else f"sample {index} of {split}", found)
            if bad.are_too_many:
                bad.refuse()

    def _check_sample(self, sample: Sample) -> None:
        """Refuse a sample that is not what `Sample` says."""
        check_sample(sample, self.task, len(self.class_names))

    def _sample_digest(self, split: Split, index: int, sample: Sample | None) -> str:
        """The digest of a sample's content; `sample` is the sample where it was loaded."""
        return digest_of(self.split(split)[index] if sample is None else sample)

    def _split_digest(self, split: Split) -> str:
        """The digest of a split's samples and pairs; samples are read only where `check` has not digested them."""
        if split not in self._digests:
            work = partial(self._sample_digest, split, sample=None)
            count = len(self.split(split))
            self._digests[split] = list(read_all(work, range(count), "hashing files", None, self._threads))
        return joined_digest([*self._digests[split], *map(str, self.pairs(split))])
