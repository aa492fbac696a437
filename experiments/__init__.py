"""The experiments whose results the documentation reports; ``python -m experiments`` lists them.

Each is a module: its docstring is its help, ``add_arguments(parser)`` adds its options, ``run(args)`` is its body.
"""

EXPERIMENTS = {
    "blobs": "tunes and tests a blob detector, which shows what can be found without learning",
    "cohort": "draws contact sheets of a synthetic cohort and compares its CT numbers with published ones",
    "figures": "draws the papers' figures of examples: each expert's boxes, harvested lesions, their embedding",
    "fusion": "asks whether fusing experts brings more than the best one, and whether calibration would",
    "metrics": "finds the cheaper metrics that agree with 3D IoU (Lesion-Harvester, Section IV-B)",
    "mined": "checks mined annotations against the hidden truth of the synthetic cohort",
    "zoo": "trains the weights that come with the package",
    "peers": "trains LENS and other projects' detectors for the same time",
    "picture": "takes the picture of a report that the README shows",
    "reproduce": "makes the tables of both papers on the synthetic cohort, over seeds",
    "verdicts": "judges a ledger's proposals by the hidden truth, in different orders, in the radiologist's place",
}
