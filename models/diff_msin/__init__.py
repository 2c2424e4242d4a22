"""Diff-MSIN: Cui et al., SIGIR 2025, pp. 581-591, arXiv:2508.21460: clicks from ids, images and texts.

Read for this: the abstract, the authors' released code (last changed 2025-04-28) and an independent
re-implementation. The equations and tables of the paper were not read. Where the two codes disagree there
is a switch; the default is the released code with its errors repaired, and `variant=released` has those of
its errors that can be mirrored in one network.

The package follows the modules: `inputs`, `experts` (MFE, multi-modal feature enhancement), `synergy` (SRC,
synergistic relationship capture), `fusion` (FDAF, feature dynamic adaptive fusion), `losses` (knowledge
decoupling, synergy), `model` (the data flow), `config` (every option).
"""

from bench.interface import Card
from bench.models.diff_msin.model import DiffMSIN

__all__ = ["CARDS", "DiffMSIN"]

CARDS = (
    Card(
        name="diff_msin",
        label="Diff-MSIN",
        model="DiffMSIN",
        family="proposed",
        paper="Cui et al.: Diff-MSIN, SIGIR 2025, pp. 581-591, arXiv:2508.21460",
        year=2025,
        inputs="typed behaviors; item id, image, text; view `impressions` (each target event with uniform "
        "negatives)",
        variants={
            "released": ("(released)", {"variant": "released"}),
            "gated_cross": ("(gated cross)", {"fdaf": "gated_cross"}),
            "no_din": ("w/o DIN", {"backbone": "none"}),
            "no_decouple": ("w/o L_dec", {"loss_weight_decouple": 0.0}),
            "no_synergy": ("w/o L_syn", {"loss_weight_synergy": 0.0}),
        },
        deviations=(
            "Built from the abstract, the authors' released code and an independent re-implementation; "
            "the paper's equations were not read.",
            "SRC: the reverse factor uses abar of its own step. The released code uses the one before: "
            "138.15 instead of 0.12 in the first of 12 rounds, which multiplies the features by -171.",
            "SRC: no noise outside training; the released code draws it at inference too, so that its "
            "scores change from run to run.",
            "SRC: six attention modules, one for each ordered pair of modalities; the released code "
            "builds six and uses one.",
            "SRC: the weights of the sources are a softmax; the released code's sigmoids sum to 1.245 at "
            "the start and take off more than there is. T = 10 instead of 12.",
            "SRC: eps holds no share of the modality's own stream (own_share=0) and the noise has a standard "
            "deviation of 0.1 (noise=0.1); neither code has these options. own_share=1 with noise=1 is the "
            "formula as it was found: at the start it leaves 0.8 % of a stream after ten rounds, in training "
            "under noise of 0.46, so that h_syn is Hbar and a constant; noise=1 alone adds noise of 2.4 to a "
            "stream of 1. Validation NDCG@10 on MovieLens-100K, one seed, after one epoch and after two "
            "minutes: 0.394 and 0.427 by default, 0.381 and 0.404 as it was found, 0.391 and 0.391 with "
            "noise=1 alone (499, 378 and 446 steps in the two minutes).",
            "SRC reads what the unique experts give, as both codes have it; the figures of the lines on own "
            "share, noise and batches were measured when it read the input streams (synergy_input=streams).",
            "FDAF: attention is a softmax of X . E over the events; in the released code the softmax runs"
            " over a vector that is constant along the history and is uniform.",
            "L_syn is a hinge on both labels, of the pooled h_syn of the history and the mean target vector "
            "(the re-implementation has the synergy vector of the target); the released code adds "
            "y max(0, cos), which pushes the positives away from their targets.",
            "variant=released brings back the reverse factor, the noise, the one module, the sigmoids, "
            "the own share, the uniform attention, the sign of L_syn and T = 12; also the unprojected, "
            "fine-tuned features scaled to length 1 (narrower tables filled with zeros, absent features "
            "zero) and an activation unit of 256 and 128. History, negatives and training settings stay as "
            "here, so that the two differ by the network alone.",
            "variant=released has this Dice (statistics over rows, one alpha per coordinate), no BatchNorm "
            "in the activation unit, projected ids in DIN, and q, k and v without biases: other forms of the "
            "same parts, not errors; it is to differ from the repaired model by the errors alone.",
            "No variant mirrors: experts that are not registered and hence never trained; id history kept"
            " out of the synergy and image targets looked up in the text table; no padding mask; a random"
            " split with the test set in early stopping; weights of the last instead of the best epoch.",
            "Features are projected to 64 and layer-normalised; frozen unless trainable_features.",
            "Activation unit of widths 80 and 40 (DIN's own) instead of 256 and 128, which belong to "
            "vectors of 512 (attention_hidden).",
            "Dice takes its statistics over real events, not over padding.",
            "The history holds all behaviors, with a behavior vector added to each stream; as published "
            "it is one behavior (history=click).",
            "Negatives are uniform untouched items, four to a positive in both tasks, drawn anew each epoch "
            "(negatives=1 for one to one), at most ten positives per user and epoch; the labels of the "
            "released files came ready-made.",
            "Early stopping on validation NDCG@10 with the best weights kept.",
            "Batches of 160 rows (32 positives) instead of 128, learning rate 2e-3 instead of 1e-3, chosen "
            "on validation NDCG@10 of MovieLens-100K, seed 0, two minutes of a busy core: 0.427 (499 steps); "
            "0.424 at 1e-3; 320 rows 0.409, at 1e-3 0.406; 640 rows 0.408, at 1e-3 0.392 (113 steps); T = 3 "
            "does not gain (0.426). No weight decay instead of 1e-3.",
            "gated_cross: gates per coordinate from the target's id, cross layers on the pooled streams, "
            "four heads over the enhanced id stream; sizes of the re-implementation were not taken.",
        ),
        notes=(
            "The ranking and the CTR table show variant=repaired with history=merged as `Diff-MSIN`, the "
            "released variant as `Diff-MSIN (released)`; options changed by hand stand in the notes below. "
            "AUC of `--task ctr` on MovieLens-100K, all to early stopping, one seed: SASRec 0.9264, "
            "Diff-MSIN 0.9174, GRU4Rec 0.9136, M3BSR 0.9123, DNN 0.8918, DIN 0.8892, popularity 0.8254; "
            "SASRec is ahead of every other (p < 0.05, paired bootstrap over users, Holm). "
            "Without images (or texts) there are two modalities, each the other's only source in SRC, and"
            " four streams. Without both, SRC has no source and runs no round: h_syn = MLP(H) + H, and "
            "the model is a DIN over ids with three views of one history. An item without a feature has a"
            " learned vector in its place. With one behavior history=click and history=favor read all "
            "events. A candidate costs one pass of FDAF and DIN: full ranking of large catalogs is out of"
            " reach."
        ),
        search={
            "learning_rate": (0.0003, 0.001, 0.002),
            "hidden_size": (64, 128),
            "diffusion_steps": (3, 5, 10, 12, 15),
            "loss_weight_decouple": (0.01, 0.05, 0.1, 0.2),
            "loss_weight_synergy": (0.01, 0.05, 0.1),
        },
    ),
)
