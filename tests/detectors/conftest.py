"""A small model with a profile, and exchanges of it as the logger would write them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import risk_model

from detectors.profile import Profile, build_profile
from detectors.profile_file import write_profile
from servelens.contract.events import Record
from servelens.contract.schema import ModelSchema, parse_model


@pytest.fixture(scope="session")
def model() -> ModelSchema:
    return parse_model(risk_model.MODEL)


@pytest.fixture(scope="session")
def profile(model: ModelSchema) -> Profile:
    return build_profile(risk_model.table_of(*risk_model.rows_of(np.random.default_rng(7), 8000)), model, {})


@pytest.fixture
def profiles(profile: Profile, tmp_path: Path) -> Path:
    folder = tmp_path / "profiles"
    folder.mkdir()
    write_profile(profile, folder / "risk.profile")
    return folder


Maker = Callable[..., Record]


@pytest.fixture
def exchange_record() -> Maker:
    return risk_model.make_record


@pytest.fixture(scope="session")
def make_record() -> Maker:
    """Make the record of one exchange: `make(rng, rows=4, at_us=…, seq=…, shift=…)`."""
    return risk_model.make_record
