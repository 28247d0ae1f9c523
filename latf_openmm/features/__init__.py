"""Features: torch modules from positions (and box) to descriptors; one file for each kind.

The same object featurises trajectories and sits inside the bias, so the two cannot drift apart.
"""

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from latf_openmm.features.base import Features, FeatureSettings
from latf_openmm.features.joined import (
    JoinedFeatures,
    build_features,
    keep_columns,
    resolve_features,
)
from latf_openmm.settings import family

FEATURE_KINDS = family(FeatureSettings, __name__)  # type: ignore[type-abstract]

if TYPE_CHECKING:
    AnyFeature = FeatureSettings
else:
    AnyFeature = Annotated[Union[tuple(FEATURE_KINDS.values())], Field(discriminator="kind")]  # noqa: UP007

__all__ = [
    "FEATURE_KINDS",
    "AnyFeature",
    "FeatureSettings",
    "Features",
    "JoinedFeatures",
    "build_features",
    "keep_columns",
    "resolve_features",
]
