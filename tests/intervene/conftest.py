"""Tiny decoders, one of every family."""

import pytest
from transformers import PreTrainedModel

from tests.forward.tiny import FAMILIES, tiny_model
from ulcmod_dist.forward.architectures import is_decoder


@pytest.fixture(scope="module", params=[family for family in FAMILIES if is_decoder(family)])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    model: PreTrainedModel = tiny_model(request.param, head=True)
    return model
