"""One fine-tuning step and the ranking of the authors' own code; the recording lies outside the repository."""

import pytest
import torch

from tests.mumc_model.golden import Finetuning, facts, needs_goldens

pytestmark = needs_goldens


def test_golden_fine_tuning_step_agrees_in_every_quantity():
    found = Finetuning().deviations()
    assert len(found) == 8
    assert {name: value for name, value in found.items() if value > 2e-6} == {}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("keep", [1, 6, 12])
def test_golden_ranking_gives_the_reference_s_answers_and_probabilities(keep, dtype):
    expected = facts("vqa")[f"rank{'64' if dtype is torch.float64 else ''}_k{keep}"]
    ids, probabilities = Finetuning(dtype).ranked(keep)
    assert ids.tolist() == expected["topk_ids"]
    theirs = torch.tensor(expected["topk_probs"], dtype=dtype)
    torch.testing.assert_close(probabilities, theirs, atol=2e-6 if dtype is torch.float32 else 1e-12, rtol=0)
