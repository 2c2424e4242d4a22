"""M3BSR: Cui, Lu, Tong, Li, Zhao, "Multi-Modal Multi-Behavior Sequential Recommendation with
Conditional Diffusion-Based Feature Denoising", SIGIR 2025, arXiv:2508.05352.

The package is cut along the paper: `inputs` (4.1, Eq. 3-5); `schedule` (Eq. 1, 6, 7 and the coefficients of
Eq. 8), `predictor` (Eq. 9), `denoise` (the reverse process, Eq. 8 and 12, and the loss, Eq. 10 and 13), which
`modality` (CDMD-M, 4.2.1) and `behavior` (CDMD-B, 4.2.2) share; `experts` (Eq. 14-19), `disentangle`
(Eq. 20), `fusion` (Eq. 21-22), `head` (Eq. 23), `objective` (Eq. 24), `model` (the data flow and Eq. 25).
Beside them `config` (every option with its symbol), `replace` (what stands in for a stage in an ablation),
`noise` (the noise of inference), `layout` (streams of single behaviors), `cells` (work on real events alone),
`grouped` (layers of one shape run as one batched call), `diagnostics`. `NOTES.md` tells what was measured.

Two readings of the sequence. The paper draws no mask and never says for how many targets a history is read.
`causal`: each event is denoised and read under what came before it, so that one pass over a window trains at
every position, as the baselines do; what it costs is that later favors do not clean earlier clicks. `prefix`:
one pass for each target, in which every event of the prefix sees every other.

Two cards: `m3bsr` is the repaired model, `m3bsr-printed` takes every equation as printed where that runs.
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
        inputs="typed behaviors; item id, brand and seller, user id, image, text; view `causal`",
        reconstruction=True,
        deviations=(
            "No official code was found: built from the paper with its errors corrected, by options.",
            "Causal reading: an event sees what came before it; the paper draws no mask (`m3bsr:prefix`).",
            "CDMD-M sees the ids of its behavior up to an event, CDMD-B the favors before a click.",
            "Positions are those of the merged window, those of clicks and favors together, as in SASRec.",
            "A behavior's vector at a position is that of its last event up to there, else a learned one.",
            "Targets are all events of the training part, clicks too; the paper sums over favors (Eq. 24).",
            "Eq. 1, 6: the mean is scaled by sqrt(1 - beta); the printed 1 - beta contradicts Eq. 7.",
            "Eq. 7, 8: marginal noise (abar) and the bar in the root of the reverse step, as in Eq. 12.",
            "The range [0.001, 0.1] is read as beta: as alpha it leaves no signal after ten steps.",
            "T = 10 (15 in 5.1.3, 10 in 5.4), taken back in one leap (reverse_steps=1) for its cost.",
            "The chain starts from noise in training, from its mean in inference; train_start=mean: alike.",
            "Eq. 9: the predictor has an own path, a time embedding and a FFN beside the cross attention.",
            "Eq. 9, 12: a learned null token stands beside the condition, for users without favors.",
            "Eq. 10, 13: error of the predicted noise, a mean over valid positions and steps.",
            "Eq. 10, 13: their gradient reaches the predictor alone (detach_streams).",
            "Eq. 12: the condition of a modality is the same modality of the favor stream.",
            "Eq. 14-15: one linear map, 3 d to d, joins the modalities of an event, for all behaviors.",
            "Eq. 16: every event asks the favors before it and keeps a residual; printed: two arguments.",
            "Eq. 17-19: one pre-norm layer a Transformer, read at the last event.",
            "Eq. 20: the numerator is the vector itself; as printed, total collapse is a minimum.",
            "Eq. 22: the joined unique vectors are projected to the width of the shared one.",
            "The weights kept are an average over some hundred steps (weight_average); not in the paper.",
            "Eq. 23: scores come from an item encoder over id, image and text, not from a free matrix.",
            "Eq. 23: b starts at the log frequency of the training targets.",
            "Eq. 24: full softmax up to 100,000 items, above it one with 2,048 uniform negatives.",
            "Eq. 3: fields user, brand, seller where they exist; id_fields=all takes every attribute.",
            "Eq. 3: no biases at the start; behind small tables they were nearly all of the id stream.",
            "The noise predictor's output weights start at a tenth of the usual size, near the identity.",
            "Diffusion runs on projected, normalised features: raw CLIP vectors drown in the noise.",
            "Batch 32 windows, learning rate 5e-3 after 50 steps, chosen on ml-100k (paper: 1024, 1e-3).",
        ),
        notes=(
            "What it reduces to. More than two behaviors: every shallower one is denoised under the deepest. "
            "One behavior: CDMD-B is left out, and the shared expert is self-attention. No favor yet: CDMD-B "
            "and the shared expert see a learned null token. No image or no text of an item: a learned "
            "vector stands in; of all items: the modality has no stream (absent=constant keeps one).\n"
            "What was measured stands in models/m3bsr/NOTES.md."
        ),
        variants={
            "no_cdmd_m": ("w/o CDMD-M", {"cdmd_m.replace": "identity"}),
            "mlp": ("MLP for CDMD-M", {"cdmd_m.replace": "mlp"}),
            "no_cdmd_b": ("w/o CDMD-B", {"cdmd_b.replace": "identity"}),
            "no_meie": ("w/o MEIE", {"meie.enabled": False}),
            "no_shared": ("w/o shared expert", {"meie.shared": False}),
            "no_disent": ("w/o disentanglement", {"disent.loss_weight": 0.0}),
            "prefix": (
                "(prefixes)",
                {
                    "reading": "prefix",
                    "packed": False,
                    "absent": "constant",
                    "meie.share": "click_to_favor",
                    "cdmd_m.reverse_steps": None,
                    "cdmd_b.reverse_steps": None,
                    "learning_rate": 0.002,
                    "batch_size": 64,
                    "micro_batch": 64,
                    "warmup_steps": 0,
                    "weight_average": 0.0,
                },
            ),
        },
        panels={
            "behavior": {
                "cdmd_b.diffusion_steps": (5, 10, 15, 20, 25),
                "cdmd_b.loss_weight": (0.01, 0.02, 0.05, 0.1, 0.15),
            },
            "modality": {
                "cdmd_m.diffusion_steps": (5, 10, 15, 20, 25),
                "cdmd_m.loss_weight": (0.01, 0.02, 0.05, 0.1, 0.15),
            },
            "contrast": {
                "disent.temperature": (0.01, 0.1, 0.3, 0.5),
                "disent.loss_weight": (0.01, 0.02, 0.05, 0.1, 0.15),
            },
        },
        search={
            "learning_rate": (0.0001, 0.001, 0.002, 0.005),
            "weight_average": (0.0, 0.99, 0.999),
            "meie.dropout": (0.1, 0.3, 0.5),
            "hidden_size": (64, 128, 256, 512),
            "id_size": (16, 64),
            "dropout": (0.0, 0.2, 0.3),
            "cdmd_m.loss_weight": (0.01, 0.02, 0.05, 0.1, 0.15),
            "cdmd_b.loss_weight": (0.01, 0.02, 0.05, 0.1, 0.15),
            "disent.loss_weight": (0.01, 0.02, 0.05, 0.1, 0.15),
            "cdmd_m.diffusion_steps": (5, 10, 15, 20, 25),
            "cdmd_b.diffusion_steps": (5, 10, 15, 20, 25),
        },
    ),
    Card(
        name="m3bsr-printed",
        label="M3BSR (printed)",
        model="M3BSR",
        family="proposed",
        tasks=(),
        paper=(
            "Cui, Lu, Tong, Li, Zhao: Multi-Modal Multi-Behavior Sequential Recommendation with Conditional "
            "Diffusion-Based Feature Denoising, SIGIR 2025, arXiv:2508.05352"
        ),
        year=2025,
        inputs="typed behaviors; item id, brand and seller, user id, image, text; "
        "view `next` (the last favor of a user with its prefix)",
        reconstruction=True,
        options={
            "reading": "prefix",
            "packed": False,
            "absent": "constant",
            "cdmd_m.loss": "printed",
            "cdmd_m.predictor": "printed",
            "cdmd_m.reverse_steps": None,
            "cdmd_b.loss": "printed",
            "cdmd_b.predictor": "printed",
            "cdmd_b.cond": "image",
            "cdmd_b.reverse_steps": None,
            "meie.share": "click_to_favor",
            "disent.loss": "printed",
            "fusion": "tile",
            "head": "linear",
            "popularity_bias": False,
            "softmax.kind": "full",
            "targets": "last_only",
            "learning_rate": 0.002,
            "batch_size": 64,
            "micro_batch": 64,
            "warmup_steps": 0,
            "weight_average": 0.0,
        },
        deviations=(
            "No official code was found. Every equation is taken as printed where it can run at all.",
            "As in `m3bsr`, since they cannot run: sqrt(1 - beta) in Eq. 1 and 6, beta for [0.001, 0.1].",
            "As in `m3bsr`: state h_t in Eq. 12; {image, text} in Eq. 10, {id, image, text} in Eq. 13.",
            "Eq. 8 has no bar and Eq. 12 has one; both predict the noise of one step, as Eq. 7 prints it.",
            "Eq. 10 has two terms and Eq. 13 one; their sums over users, events, streams, steps are means.",
            "Eq. 22: h_common is repeated six times; printed, the terms have widths d and 6 d.",
            "Joins, pooling, layers, heads, null token, residual, start of the chain: as in `m3bsr:prefix`.",
            "T = 10, the value of 5.4 and of Table 2, not the 15 of 5.1.3; settings as in `m3bsr:prefix`.",
        ),
        notes="What each printed equation does, in numbers, stands in models/m3bsr/NOTES.md.",
        panels={
            "behavior": {
                "cdmd_b.diffusion_steps": (5, 10, 15, 20, 25),
                "cdmd_b.loss_weight": (0.01, 0.02, 0.05, 0.1, 0.15),
            },
            "modality": {
                "cdmd_m.diffusion_steps": (5, 10, 15, 20, 25),
                "cdmd_m.loss_weight": (0.01, 0.02, 0.05, 0.1, 0.15),
            },
            "contrast": {
                "disent.temperature": (0.01, 0.1, 0.3, 0.5),
                "disent.loss_weight": (0.01, 0.02, 0.05, 0.1, 0.15),
            },
        },
        search={
            "learning_rate": (1e-05, 0.0001, 0.001),
            "hidden_size": (64, 128, 256, 512),
            "cdmd_m.loss_weight": (0.01, 0.02, 0.05, 0.1, 0.15),
            "cdmd_b.loss_weight": (0.01, 0.02, 0.05, 0.1, 0.15),
            "disent.loss_weight": (0.01, 0.02, 0.05, 0.1, 0.15),
            "cdmd_m.diffusion_steps": (5, 10, 15, 20, 25),
            "cdmd_b.diffusion_steps": (5, 10, 15, 20, 25),
        },
    ),
)
