"""M3BSR: Cui, Lu, Tong, Li, Zhao, "Multi-Modal Multi-Behavior Sequential Recommendation with
Conditional Diffusion-Based Feature Denoising", SIGIR 2025, arXiv:2508.05352.

The package is cut along the paper: `inputs` (Eq. 3-5), `diffusion` (the forward and reverse process and the
CDMD block, Eq. 6-13), `experts` (Eq. 14-19), `disentangle` (Eq. 20), `fusion` (Eq. 21-22), `head` (Eq. 23),
`model` (the data flow and Eq. 24), `config` (every option with its symbol), `grouped` (layers of one shape
run as one batched call).
"""

from bench.interface import Card
from bench.models.m3bsr.model import M3BSR

__all__ = ["CARDS", "M3BSR"]

CARDS = (
    Card(
        name="m3bsr",
        label="M3BSR",
        model="M3BSR",
        family="proposed",
        paper=(
            "Cui, Lu, Tong, Li, Zhao: Multi-Modal Multi-Behavior Sequential Recommendation with Conditional "
            "Diffusion-Based Feature Denoising, SIGIR 2025, arXiv:2508.05352"
        ),
        year=2025,
        inputs="typed behaviors; item id and attributes, user id, image, text; "
        "view `next` (each favor with its prefix)",
        reconstruction=True,
        deviations=(
            "No official code was found; this is the repaired preset, built from the paper with its errors "
            "corrected.",
            "Eq. 1, 6: the mean is scaled by sqrt(1 - beta); the printed 1 - beta shrinks the signal and "
            "contradicts Eq. 7.",
            "Eq. 7, 8: marginal noise (abar) and the bar in the denominator of the reverse step, as Eq. 12 "
            "has it.",
            "The range [0.001, 0.1] is read as beta, not alpha: as alpha it leaves no signal after ten "
            "steps.",
            "T = 10 (the paper says 15 in 5.1.3 and 10 in 5.4).",
            "Eq. 9: the noise predictor keeps an own path and a time embedding beside the cross attention "
            "and has a FFN; the printed cross attention alone cannot express isotropic noise.",
            "Eq. 10, 13: noise-prediction error, averaged over valid positions and coordinates; printed, "
            "the loss is minimised by not denoising.",
            "Eq. 12: the condition of a modality is the same modality of the favor stream.",
            "Eq. 16: clicks query favors. Eq. 17-19: the last valid position is the sequence's vector.",
            "Eq. 20: the numerator is the vector itself; as printed, total collapse is a minimum.",
            "Eq. 21-22: the concatenation of the unique experts is projected to the width of the shared "
            "one.",
            "Eq. 23: scores come from an item encoder over id, image and text, since most rows of a free "
            "matrix are never a training target; full softmax up to 100,000 items, above it one sampled "
            "with 2,048 uniform negatives (whose log-Q correction cancels).",
            "Eq. 23: b starts at the log frequency of the training targets; at the learning rates of the "
            "paper it would take thousands of steps to get there.",
            "Eq. 24: every favor of the training part is a target with its own prefix, at most 10 drawn a "
            "user and epoch.",
            "Batch 64 and learning rate 2e-3, chosen on the validation items of MovieLens-100K, instead of "
            "1024 and 1e-3, which leave too few steps on small data.",
            "Output weights of the noise predictor start at a tenth of the usual size, so that the chain "
            "starts near the identity: an untrained chain of ten steps otherwise buries the history in "
            "noise.",
            "Diffusion runs on projected, normalised features: raw CLIP vectors have a variance of 1/512 "
            "and drown.",
        ),
    ),
)
