"""The type that each model of a study runs in, once it is known."""

from __future__ import annotations

from collections.abc import Mapping

from diffsift.backbones import BackboneName, ModelSpecification
from diffsift.specification import Specification
from diffsift.study_store import StudyStore


def with_stored_dtypes(specification: Specification, store: StudyStore) -> Specification:
    """A specification with ``dtype: auto`` as it was resolved when its study was made.

    So a study that is continued on another device keeps its precision.

    Args:
        specification: as it is asked for.
        store: that may hold a study of its name.

    Returns:
        The same where there is no such study.
    """
    if store.ledger.study(specification.study.name) is None:
        return specification
    stored = store.specification(specification.study.name).models
    return with_dtypes(specification, {name: model.dtype for name, model in stored.items()})


def with_dtypes(specification: Specification, dtypes: Mapping[str, str]) -> Specification:
    """A specification with ``dtype: auto`` replaced.

    Args:
        specification: any.
        dtypes: types by the names of models; those without one keep ``auto``.

    Returns:
        A copy.
    """

    def fixed(name: str, model: ModelSpecification) -> ModelSpecification:
        return model.model_copy(update={"dtype": dtypes.get(name, "auto")}) if model.dtype == "auto" else model

    further = {name: fixed(name, model) for name, model in specification.further_models.items()}
    main = fixed(BackboneName.MAIN, specification.model)
    return specification.model_copy(update={"model": main, "further_models": further})
