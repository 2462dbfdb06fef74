"""What every logger must do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from diffsift.spaces import Candidate, Selection
from diffsift.tracking import FinalRow, Logger, Outcome, TrialRecord, Verdict


class LoggerContract:
    """Tests of a `Logger`. Subclass it in a test module, under a name that pytest collects, and say two things.

    ::

        class TestCsvLogger(LoggerContract):
            def make(self, folder, study):
                return CsvLogger(study, Workspace(folder))

            def scores(self, folder, study):
                return {...}

    A logger is a projection of the study's database: after `repair` it holds exactly the trials that it was given,
    however often that is done and whatever an earlier process left.
    """

    STUDY = "contract"

    def make(self, folder: Path, study: str) -> Logger:
        """A new logger of a study, as another process would make it.

        Args:
            folder: where the logger writes; the same one for all loggers of a test.
            study: name.

        Returns:
            The logger, not started.
        """
        raise NotImplementedError

    def scores(self, folder: Path, study: str) -> dict[str, float]:
        """The score of each trial that is wholly stored, by the trial's uid.

        Args:
            folder: as for `make`.
            study: name.

        Returns:
            Scores by uid; empty where nothing is stored.
        """
        raise NotImplementedError

    def test_what_was_added_is_stored_after_a_flush(self, tmp_path: Path) -> None:
        logger = self._started(tmp_path, [])
        self._add(logger, trials(3))
        logger.flush()
        assert self.scores(tmp_path, self.STUDY) == _scores(trials(3))

    def test_a_trial_that_is_added_again_is_stored_once(self, tmp_path: Path) -> None:
        logger = self._started(tmp_path, [])
        for _ in range(2):
            self._add(logger, trials(2))
            logger.flush()
        assert self.scores(tmp_path, self.STUDY) == _scores(trials(2))

    def test_repair_adds_what_is_missing_and_drops_what_the_study_lost(self, tmp_path: Path) -> None:
        logger = self._started(tmp_path, [])
        self._add(logger, trials(4))
        logger.flush()
        present = trials(7)[2:]
        for _ in range(2):
            self._started(tmp_path, present)
            assert self.scores(tmp_path, self.STUDY) == _scores(present)

    def test_a_study_that_was_interrupted_goes_on(self, tmp_path: Path) -> None:
        logger = self._started(tmp_path, [])
        self._add(logger, trials(2))
        logger.interrupt()
        logger = self._started(tmp_path, trials(2))
        self._add(logger, trials(4)[2:])
        logger.flush()
        assert self.scores(tmp_path, self.STUDY) == _scores(trials(4))

    def test_a_finished_study_is_whole(self, tmp_path: Path) -> None:
        report = tmp_path / "report.html"
        report.write_text("<p>report</p>", encoding="utf-8")
        for _ in range(2):
            logger = self._started(tmp_path, trials(3))
            logger.finish(outcome(trials(3)), [report])
            assert self.scores(tmp_path, self.STUDY) == _scores(trials(3))

    def test_studies_are_kept_apart(self, tmp_path: Path) -> None:
        other = [replace(record, uid=f"other-{record.number}", score=0.9) for record in trials(2)]
        self._started(tmp_path, trials(3))
        logger = self.make(tmp_path, "other")
        logger.start({}, None)
        logger.repair(other)
        assert self.scores(tmp_path, "other") == _scores(other)
        assert self.scores(tmp_path, self.STUDY) == _scores(trials(3))

    def _started(self, folder: Path, records: list[TrialRecord]) -> Logger:
        """A new logger, as far as a run takes it before its first trial."""
        logger = self.make(folder, self.STUDY)
        dataset = {"name": "scenes", "source": "built-in", "digest": "0f", "context": "development", "images": 12}
        logger.start({"model": {"id": "demo"}, "timesteps": [50, 100], "study": {"trials": 10}}, dataset)
        logger.repair(records)
        return logger

    @staticmethod
    def _add(logger: Logger, records: list[TrialRecord]) -> None:
        for record in records:
            logger.add(record)


def trials(count: int) -> list[TrialRecord]:
    """Finished trials, numbered from 0; the same for the same count.

    Args:
        count: how many.

    Returns:
        Trials with different selections and scores in [0.1, 0.73].
    """
    fixed = Candidate("main", "mid-vit-out", 50)
    return [
        TrialRecord(
            uid=f"contract-{number}",
            number=number,
            selection=Selection.of({fixed: 1.0, Candidate("main", "up-vit-out", number + 1): 0.5}),
            score=0.1 + 0.07 * (number * 7 % 10),
            fold_scores=(0.1, 0.2),
            channels=192,
            seconds=0.01,
            proposed_by="random",
        )
        for number in range(count)
    ]


def outcome(records: list[TrialRecord]) -> Outcome:
    """The outcome of a search with these trials.

    Args:
        records: at least one.

    Returns:
        An outcome whose selection is that of the best trial.
    """
    best = max(records, key=lambda record: record.score)
    return Outcome(
        study=LoggerContract.STUDY,
        task="segmentation",
        metric="mean IoU",
        protocol="hold-out",
        model="demo",
        data="scenes",
        decisions=(),
        pool_size=len(records) + 1,
        trials=tuple(records),
        table=(FinalRow("found", best.selection, 0.25, 0.2, 0.3, 192, 2),),
        found=best.selection,
        verdict=Verdict("Scores 0.25.", "Use the selection."),
        front=(best,),
    )


def _scores(records: list[TrialRecord]) -> dict[str, float]:
    return {record.uid: record.score for record in records}
