"""mitolib: the helper package behind the notebooks. A core, and wings beside it.

A chapter calls a wing or the core, a wing calls the core, the core calls third parties; nothing calls back. `images`
is the wing that all others, and of the core `cohort` and `own_data`, read pictures through.

The core, in the order of a run:

    settings   profiles and paths                  study     the paper's two experiments
    cohort     sections of a cohort                own_data  what a chapter needs of a data folder, and leaves out
    patches    the patch grid, pixels, augmentation
    splits     the published splits, and splits by person
    networks   frozen backbones, head, inflation   weights   where ImageNet weights come from
    backend    what TensorFlow and PyTorch do each    stacked  several heads trained as one
    bank       frozen features, kept on disk       heads     heads trained on them
    transfer   all of that in one call: table -> bank -> heads -> scores
    units      one fit each: kept, found again, shared out
    linear     scikit-learn's linear models, on one thread
    metrics    the paper's metrics, done right     paper     the published numbers as data
    records    results files and provenance        claims    sentences that follow from results
    files      files that are there whole or not at all
    downloads  public files that are not here      progress  a line about long steps

The wings, each with its names in its `__init__`:

    images      files and folders of a laboratory: formats, names, tables, greys
    intake      a folder of your own: check it, convert it (python -m mitolib)
    phantom     the embedded, synthetic cohort
    saliency    maps of what a network looks at, and whether to believe them
    whitening   concept whitening
    prototypes  networks that explain by examples
    people      the honest evaluation: people, twins, fibres
    figures     the figures and tables of the chapters, and pictures to play with

Arrays are named by axis order (`image_cyx`, `patches_nhwc`), lengths by unit (`size_px`).
Importing `mitolib` imports neither TensorFlow nor PyTorch.
"""

__version__ = "0.1.0"
