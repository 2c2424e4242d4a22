"""M3BSR: Cui, Lu, Tong, Li, Zhao, "Multi-Modal Multi-Behavior Sequential Recommendation with
Conditional Diffusion-Based Feature Denoising", SIGIR 2025, arXiv:2508.05352.

The package is cut along the paper: `inputs` (4.1, Eq. 3-5); `schedule` (Eq. 1, 6, 7 and the coefficients of
Eq. 8), `predictor` (Eq. 9), `denoise` (the reverse process, Eq. 8 and 12, and the loss, Eq. 10 and 13), which
`modality` (CDMD-M, 4.2.1) and `behavior` (CDMD-B, 4.2.2) share; `experts` (Eq. 14-19), `disentangle`
(Eq. 20), `fusion` (Eq. 21-22), `head` (Eq. 23), `objective` (Eq. 24), `model` (the data flow). Beside them
`config` (every option with its symbol), `replace` (what stands in for a stage in an ablation), `noise` (the
noise of inference), `layout` (streams of single behaviors), `grouped` (layers of one shape run as one batched
call), `diagnostics`.

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
        inputs="typed behaviors; item id and attributes, user id, image, text; "
        "view `next` (each favor with its prefix)",
        reconstruction=True,
        deviations=(
            "No official code was found; this is the repaired preset, built from the paper with its errors "
            "corrected. Each repair is an option, and `m3bsr-printed` has the printed reading with what it "
            "does.",
            "Eq. 1, 6: the mean is scaled by sqrt(1 - beta); the printed 1 - beta shrinks the signal and "
            "contradicts Eq. 7.",
            "Eq. 7, 8: marginal noise (abar) and the bar in the denominator of the reverse step, as Eq. 12 "
            "has it.",
            "The range [0.001, 0.1] is read as beta, not alpha: as alpha it leaves no signal after ten "
            "steps.",
            "T = 10 (the paper says 15 in 5.1.3 and 10 in 5.4).",
            "Eq. 9: the noise predictor keeps an own path and a time embedding beside the cross attention "
            "and has a FFN; the printed cross attention alone cannot express isotropic noise.",
            "Eq. 10, 13: noise-prediction error, averaged over valid positions and steps; printed, the loss "
            "is minimised by not denoising. |.|^2 is the squared length, as printed. As a mean over "
            "coordinates (norm=mean) the weight 0.02 trains no noise predictor: L_main has 59 to 117 times "
            "the gradient of L_m and L_b in their predictors, and after five epochs on planted noise, T = "
            "5, the error at step T is 1.00 to 1.15 (no skill is 1), as a length 0.30 to 0.62.",
            "Eq. 10, 13: their gradient reaches the predictor alone. Let into the streams "
            "(detach_streams=false) it makes them easy to predict: in the same world the error of the ids "
            "at step T falls from 0.30 to 0.04, the probe of the denoised image from R2 0.255 to 0.233, and "
            "validation NDCG@10 from 0.443 to 0.416 (one seed).",
            "Eq. 12: the condition of a modality is the same modality of the favor stream.",
            "Eq. 16: clicks query favors. Eq. 17-19: the last valid position is the sequence's vector.",
            "Eq. 20: the numerator is the vector itself; as printed, total collapse is a minimum.",
            "Eq. 21-22: the concatenation of the unique experts is projected to the width of the shared one.",
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
            "Eq. 3: no biases at the start; behind tables as small as these they made up 99.8 % of the id "
            "stream's variance.",
            "Diffusion runs on projected, normalised features: raw CLIP vectors have a variance of 1/512 "
            "and drown.",
        ),
        notes=(
            "What it reduces to. More than two behaviors: every shallower one is denoised under the "
            "deepest, and the shared expert reads the shallower ones as one sequence. One behavior: CDMD-B "
            "is left out, and the shared expert's attention is self-attention over that behavior. No favor "
            "in a history: CDMD-B and the shared expert see a learned null token alone, and the favor "
            "experts give a learned constant. No image or no text, of an item or of all: a learned vector "
            "stands in, so a modality that the data set lacks is a constant stream, and without both CDMD-M "
            "has nothing to denoise and the model reads ids alone.\n"
            "What denoising does, measured by tests/benchmarks/planted_noise.py (a small model, generated "
            "data, three seeds, NDCG@10 with Holm's p of the paired test to the full model). Image and text "
            "buried in noise: 0.4176, without CDMD-M 0.4006 (p 0.0004); but a network of equal size in its "
            "place 0.4126, the chain without its loss L_m 0.4127, without noise in training 0.4121 (p 0.32 "
            "each); six seeds, without L_m: 0.4166 and 0.4129 (p 0.06). So most of the gain is that of a "
            "deep conditioned stage, and that of denoising is not shown. The same with brands that tell of "
            "the factors: 0.4658, without CDMD-M 0.4580 and with the network 0.4579 (p 0.03 both, Holm over "
            "these two), in a later run without L_m 0.4660 and with 25 steps 0.4672 (p 1). Six of ten "
            "clicks accidental beside favors of a lasting taste: 0.2590, without CDMD-B 0.2506 (p 0.010); "
            "the same world without accidental clicks 0.2976 and 0.2950 (p 0.46). Accidental clicks beside "
            "few favors of other interests: 0.3941 and 0.3917 (p 0.46). Nothing planted: 0.4709, without "
            "CDMD-M 0.4769 (p 0.09), without CDMD-B 0.4750 (p 0.18). With preferences planted, the gates of "
            "clicks lean to the image and those of favors to the text.\n"
            "The claim of Fig. 5 does not hold there: R2 of a linear probe of the true factors goes through "
            "CDMD-M from 0.258 to 0.256 (image) and from 0.246 to 0.248 (text), through the network from "
            "0.258 to 0.274 and from 0.243 to 0.258. With brands it rises, 0.235 to 0.240 and 0.235 to "
            "0.247, but no more than through the network (0.236 to 0.247, 0.251 to 0.261) or through the "
            "chain without L_m (0.245 to 0.260, 0.244 to 0.253), and 25 steps do not change that (0.223 to "
            "0.229, 0.228 to 0.244). The cause lies in the condition: the block alone, on a stream of R2 "
            "0.390 (tests/benchmarks/denoising_block.py), brings 0.391 under a condition of R2 0, 0.426 "
            "under one of 0.403 and 0.502 under one of 0.874, whereas the ids reach 0.03, and with brands "
            "0.158 and 0.144."
        ),
        variants={
            "no_cdmd_m": ("w/o CDMD-M", {"cdmd_m.replace": "identity"}),
            "no_cdmd_b": ("w/o CDMD-B", {"cdmd_b.replace": "identity"}),
            "no_meie": ("w/o MEIE", {"meie.enabled": False}),
            "no_shared": ("w/o shared expert", {"meie.shared": False}),
            "no_disent": ("w/o disentanglement", {"disent.weight": 0.0}),
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
        inputs="typed behaviors; item id and attributes, user id, image, text; "
        "view `next` (the last favor of a user with its prefix)",
        reconstruction=True,
        options={
            "cdmd_m.loss": "printed",
            "cdmd_m.predictor": "printed",
            "cdmd_b.loss": "printed",
            "cdmd_b.predictor": "printed",
            "cdmd_b.cond": "image",
            "disent.loss": "printed",
            "fusion": "tile",
            "head": "linear",
            "popularity_bias": False,
            "softmax.kind": "full",
            "targets": "last_only",
        },
        deviations=(
            "No official code was found. Every equation is taken as printed where it can be run at all; what "
            "cannot be run is as in `m3bsr`: sqrt(1 - beta) in Eq. 1 and 6, beta for the range [0.001, 0.1], "
            "the state h_t in Eq. 12, {image, text} in Eq. 10 and {id, image, text} in Eq. 13 for the set "
            "that holds a vector of Eq. 12.",
            "Where the paper prints nothing (concatenation axis, pooling, layers, heads, start of the chain, "
            "training settings) it is as in `m3bsr`, so that the two differ by equations alone; T = 10, the "
            "value of 5.4 and of its Table 2, not the 15 of 5.1.3.",
            "A learned null token stands in the condition beside the favors: a user without favors has no "
            "softmax otherwise. Sums of losses over users, events, streams and steps are means, so that "
            "weights mean the same at every size.",
        ),
        notes=(
            "What the printed equations do, measured by tests/benchmarks/printed_equations.py. Eq. 1, 6, "
            "mean (1 - beta) h: unit variance falls to 0.691 in ten steps and the signal to 0.594; with the "
            "root they stay at 1.002 and 0.771 (not run here). The range [0.001, 0.1] as alpha: abar_10 is "
            "1.1e-15, and the reverse chain multiplies by 3.0e+07 (not run here). Eq. 6 on raw CLIP "
            "vectors: a signal to noise ratio of 0.0028 after ten steps; at unit variance 1.4528 (not run "
            "here). Eq. 8 without the bar: right for the noise of one step, which is what runs here; with "
            "the marginal noise of Eq. 7 the step from T subtracts 2.02 times the noise, and under the best "
            "possible predictor the squared error of x_0 is 0.487, its variance 0.242; with the bar 0.410 "
            "and 0.590. Eq. 9: the printed predictor leaves 0.929 of the noise unexplained on correlated "
            "features, with a residual 0.456, with own path, time and network 0.132. Eq. 10, 13: a block "
            "trained by the printed loss shrinks its input and denoises nothing: the squared distance to "
            "the planted signal goes from 0.502 to 0.324, which is what scaling by sqrt(abar_10) does; with "
            "the loss of the noise it goes to 0.094, with aligned steps to 0.081. Eq. 12, image as the "
            "condition of every modality: 0.200 of the noise is left unexplained where the image shares "
            "half of the factors, 0.132 under the modality itself. Eq. 20: 75.254 for orthogonal and for "
            "collapsed vectors alike, its lower bound, with gradient 0; from near collapse descent ends "
            "with all cosines 0.944, from two clusters with all 0.867; with the vector itself in the "
            "numerator all end at -0.167 from every start. Eq. 22: the terms have widths d and 6 d and "
            "cannot be added; h_common is repeated six times. Eq. 23: at least 0.57 of the rows of W_y are "
            "never a target on Rec-Tmall, 0.24 on Kuaishou. Eq. 24, one target a user: 0.026 of the "
            "training favors on Kuaishou."
        ),
    ),
)
