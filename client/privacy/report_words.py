"""What every privacy report says whatever the numbers: who sees what, what epsilon covers, and what it does not."""

TRUST = (
    ("this site", "its own images, texts, answers, losses and logs; it is trusted with them as it always was"),
    (
        "the server, and whoever runs it",
        "after each round this site's noised update, the approved number of patients in the place of a count, and the "
        "life-time epsilon; with every message how many lines this site's log and ledger have, and the hash of the "
        "last; nothing else that was not charged. It is not trusted: the noise is added at the site",
    ),
    ("the other sites", "the merged weights, made of noised updates"),
    ("whoever receives the trained encoders", "the merged weights"),
    ("whoever reads this report", "public numbers; it repeats nothing about any patient and no exact number of them"),
)
"""Who sees what."""

ADVERSARY = (
    "Anyone who sees every update that this site ever sent and every merged model, knows the program, the settings and "
    "all other patients' records, and wants to know whether one more patient is in the data"
)

MODEL_OF_TRUST = (
    "Noise at the site, over all patients of the site together (distributed among sites, central within one). No "
    "secure aggregation is relied on"
)

MECHANISM = (
    "In each step every unit is drawn apart from all others with a fixed public probability (Poisson sampling), one of "
    "its records is taken, its gradient is cut to the clipping norm, and Gaussian noise is added to the sum. A release "
    "of metrics takes every unit (q is 1), and adds such noise once to the sums of right answers and of units"
)

AUDITED = {
    "pretrain": "the steps of private pre-training",
    "finetune": "the steps of private fine-tuning",
    "metrics": "the release of an accuracy with noise",
}
"""What of the program an audit may have been of, and nothing else was measured in it."""

EXPLAINED = (
    "Delta is the chance with which the promise may fail altogether. It must be far below one patient's share of the "
    "data, or it would allow whole patients to be given away; this program refuses more than a tenth of that share"
)

ACCOUNTANTS = (
    "The cap, and what is spent, reserved and left, count by RDP (Rényi differential privacy) with a filter: that "
    "holds too where later rounds are chosen after looking at earlier results. PLD (privacy loss distributions) is the "
    "closer bound, but holds only for work that was fixed beforehand and run to its end; it stands beside, and "
    "never decides. Strictly, what is promised whatever was looked at is the cap; what is spent says how much of it is "
    "used up"
)

COVERED = (
    "Everything in the table of charges: each update that left the site for the server, in whatever run, each accuracy "
    "with noise, each answer decoder that was trained to leave, and what is computed from them later",
)

NOT_COVERED = (
    (
        "Runs without differential privacy",
        "that this site took part in while no policy was in force: their updates carried no noise, and no epsilon "
        "counts them. Those that the site remembers are named under what vouches for the numbers",
    ),
    (
        "Fine-tuned answering models",
        "are trained on this site's patients without noise, but for those that the table of charges names. They, their "
        "answers and their accuracies stay at the site under a policy; whoever is given them sees what this report "
        "does not cover",
    ),
    (
        "Patients at several sites",
        "are protected by the sum of the sites' epsilons. Among sites that share no patient the largest one counts",
    ),
    (
        "Withdrawn patients",
        "take part in no later round, but what earlier rounds learned of them cannot be taken back; their protection "
        "is the epsilon spent until then. The server is told the hash of the ledger's last row and not how many rows "
        "there are, so that how many were withdrawn does not show",
    ),
    ("How long a round took", "depends on how many patients were drawn, and a server can measure it"),
    (
        "Refusals",
        "carry a code and no text of this site's (but for the limits that it set for runs), but that a site refuses "
        "(no budget left, no record that is not in the public bank, a fault) can depend on its data and is not noised",
    ),
    (
        "Numbers of a computer",
        "are not real numbers. Noise is drawn in single precision from AES-256 in counter mode, keyed by the operating "
        "system, and every noised sum is rounded to a grid that does not depend on the data (2^-16 of the noise's "
        "deviation), so its last digits tell nothing; norms are rounded up. That is a safeguard, no proof: the noise "
        "is not an exactly sampled discrete Gaussian",
    ),
    (
        "Public constants",
        "are taken as public: the approved number of patients, batch sizes, steps, learning rates, the bank of public "
        "pairs, the vocabulary, and the weights to start from. Whoever chose one of them by looking at private data "
        "has leaked by that",
    ),
    (
        "Choices made after looking at private results",
        "(which run to publish, how long to train) are covered where those results were charged, and not otherwise",
    ),
    (
        "Secrets that several patients share",
        "(a doctor's style, a device, a family) are no single patient's, and are not hidden",
    ),
    (
        "The site's own machine",
        "is trusted. Whoever reads its disk sees the data, and whoever holds the ledger's key and the registry could "
        "forge a history; a head of the ledger that is kept elsewhere finds that",
    ),
)
"""Title and text of each deviation."""
