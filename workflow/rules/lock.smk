# Pinning: what the study's checkpoints and local benchmark data are, byte for byte.
#
# Inputs:  the study's checkpoint folders and task data (made by the rules of examples, or the user's)
# Outputs: the lock beside the study file; results/<study>/inspect/<base>.csv: would every expert merge?
#          results/<study>/recipes.csv and benchmarks.csv: the ids of all models and benchmarks
# Steps:   lock -> inspect, recipes
#
# All ids of the study follow from the lock, so the list of jobs is known once it stands; an edit of
# the study that changes no checkpoint and no data leaves it alone.

LOCK = str(lock_path(STUDY_FILE))


def identities(wildcards):
    base = STUDY.bases[wildcards.base]
    locked = Lock.read(LOCK).identities
    return [locked[name] for name in (base.checkpoint, *base.experts.values())]


checkpoint lock:
    input:
        checkpoints_of(STUDY),
        task_inputs(STUDY),
    output:
        update(LOCK),
    params:
        study=STUDY_FILE,
        tasks=[benchmark.task for benchmark in STUDY.benchmarks],
    message:
        "Lock the checkpoints and benchmark data of {params.study}"
    shell:
        "wildmerge lock {params.study:q}"


rule inspect:
    input:
        ancient(LOCK),
    output:
        f"{OUT}/inspect/{{base}}.csv",
    log:
        f"{OUT}/logs/inspect-{{base}}.log",
    params:
        base=lambda wildcards: STUDY.bases[wildcards.base].checkpoint,
        experts=lambda wildcards: list(STUDY.bases[wildcards.base].experts.values()),
        identities=identities,
    message:
        "Inspect the experts of {wildcards.base}: would they merge?"
    shell:
        "wildmerge inspect {params.base:q} {params.experts:q} --out {output:q} &> {log:q}"


rule recipes:
    input:
        STUDY_FILE,
        LOCK,
    output:
        f"{OUT}/recipes.csv",
        f"{OUT}/benchmarks.csv",
    params:
        study=STUDY_FILE,
        results=RESULTS,
    message:
        "List the recipes and benchmarks of {params.study}"
    shell:
        "wildmerge recipes {params.study:q} --results {params.results:q}"
