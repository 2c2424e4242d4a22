"""Data sets without images, without texts, or without both."""

import dataclasses

import numpy as np
import pytest
import torch
from m3bsr_cases import FORMS, N, causal, loss_of, scores, windows

from bench.errors import UserError
from bench.models.m3bsr.inputs import modalities

NO_IMAGE, NO_TEXT = {"image": False}, {"text": False}


@pytest.mark.parametrize("form", ["default", "tokens", "no_meie", "raw", "all_modalities", "networks"])
@pytest.mark.parametrize("lacking", [NO_IMAGE, NO_TEXT, NO_IMAGE | NO_TEXT], ids=lambda kept: "-".join(kept))
def test_a_modality_that_no_item_has_has_no_stream_and_the_rest_trains(form, lacking):
    model, data = causal(FORMS[form], **lacking), windows()
    assert model.inputs.modalities == ("id", *(name for name in ("image", "text") if name not in lacking))
    loss_of(model, data)["loss"].backward()
    idle = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert idle == set()
    assert torch.isfinite(scores(model, data)).all()
    with torch.no_grad():
        assert model.diagnostics(data)["norms"].values.isfinite().all()


def test_a_modality_whose_items_all_lack_it_counts_as_absent_and_one_item_keeps_it():
    info, kept = causal().info, {}
    for count in (0, 1):
        present = np.arange(N + 1) == (5 if count else -1)
        content = dataclasses.replace(info.content, present={**info.content.present, "image": present})
        kept[count] = modalities(content, "left_out")
        assert modalities(content, "constant") == ("id", "image", "text")
    assert kept == {0: ("id", "text"), 1: ("id", "image", "text")}


def test_the_image_as_the_condition_needs_images():
    with pytest.raises(UserError, match="cdmd_b.cond=image: no item of the data set has an image"):
        causal({"cdmd_b.cond": "image"}, image=False)
    assert causal({"cdmd_b.cond": "image", "absent": "constant"}, image=False).inputs.modalities[1] == "image"
