"""mitolib: the helper package behind the notebooks.

A notebook calls `mitolib.x`; `mitolib.x` calls third parties; modules do not call each other
(`settings`, `progress`, `registry`, `linear` and the types of `cohort` excepted). They meet in the notebook as
DataFrames, arrays and models.

    settings   profiles and paths                  progress  a line about long steps
    registry   public files that are not here: address, digest, licence
    images     files and folders of a laboratory: formats, names, tables, greys
    cohort     sections of a cohort                study     the paper's two experiments
    own_data   what a chapter needs of a data folder, and what it leaves out
    pictures   pictures read whole: what a network could learn of them beside the disease
    intake     a folder of your own: check it, convert it (python -m mitolib, __main__)
    phantom    the embedded, synthetic cohort: drawn from fibres (geometry) and staining (pixels)
    realism    how far the phantom is from a real section
    patches    the patch grid, pixels, augmentation
    splits     the published splits, and splits by person
    weights    where ImageNet weights come from
    models     frozen backbone, head, inflation    features  frozen features of patches
    training   fit a head
    metrics    the paper's metrics, done right, and what can be said of few people
    evaluation any model under any split, and on twins
    linear     scikit-learn's linear models, on one thread
    morphometry  fibres one by one, and which are deficient
    plots      (data, *, ax) -> ax                 paper     the published numbers as data
    explain    saliency maps                       faithfulness  whether to believe them
    heads      where the scores of a network are
    resnet     ResNet-18 in PyTorch                whitening  concept whitening: the layer
    surgery    that layer in a model: swap, calibration, alignment, fold
    passes     forward passes that leave a model as it was, and what a batch is
    arms       trained with it and without         annotations  which patches show a concept, and who can tell
    viewers    pictures a reader can play with, as HTML
    diagrams   drawings of study and methods       toy       the made-up examples in them
    ledger     every published number, ours, and the verdict
    results    result files and provenance         execute   notebooks -> chapters -> book

Arrays are named by axis order (`image_cyx`, `patches_nhwc`), lengths by unit (`size_px`).
Importing `mitolib` imports neither TensorFlow nor PyTorch.
"""

__version__ = "0.1.0"
