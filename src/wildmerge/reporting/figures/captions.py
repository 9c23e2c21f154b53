"""How to read each kind of figure, for whoever shows it: the report and the notebooks."""

HOW_TO_READ = {
    "accuracy": "Mean accuracy over all benchmarks against the number n of merged experts; n = 1 "
    "is the mean of the single experts. A line above the dashed one beats the base, above the "
    "dotted one the best single expert. Bands are 95 % intervals of the difference to the base, over "
    "items and subsets. Scales differ between bases.",
    "gains": "Gain of each method at each size over the base, in points, with its 95 % interval. Filled "
    "markers are gains or losses beyond noise, corrected for looking at many; hollow ones are "
    "undecided or practically equal.",
    "ranking": "Methods in the order of their means, by their difference to the leading one on the same "
    "items and subsets, with its 95 % interval. Filled markers cannot be distinguished from the leader "
    "after Holm's correction for all pairs of a size. At the right: the gain over the base.",
    "steps": "What each further expert adds to the mean between the two largest sizes, in points, with "
    "its 95 % interval. Filled markers are beyond noise.",
    "update-norm": "How far merging moves the weights: L2 norm of (merged - base) over all "
    "parameters, mean over subsets.",
    "distance": "Gain over the base in points against the distance to it, a point a merged model. "
    "Filled markers are gains or losses beyond noise.",
    "forgetting": "Items that a merged model answers right and the base wrong (won), and the reverse "
    "(lost), a bar a model. Two models of the same gain may differ in how much they forget.",
    "experts": "Each expert's gain over its base on each benchmark, in points. Blue is a gain, red "
    "a loss; bold numbers are beyond noise, grey ones within it.",
    "method-benchmarks": "Gain over the base of each method on each benchmark, mean over the subsets of "
    "the largest size, in points. Blue is a gain, red a loss; bold numbers are beyond noise, grey ones "
    "within it.",
    "cosines": "The cosine between the task vectors of every two experts, of all "
    "their weights: 1 is the same direction, 0 is none in common.",
    "benchmarks": "The curves for each benchmark. Dashed is the base, dotted a random choice. Scales "
    "differ between panels.",
    "published": "Mean difference to the reference in points, a point a cell of Tables 1 to 3: ours "
    "against the published one. On the dotted line both are equal; hollow points are other variants "
    "of a published method.",
    "grid": "Mean accuracy against one hyperparameter, a line for each number n of experts.",
}
