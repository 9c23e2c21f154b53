# Geometry: what the weights of a base's experts say, for the tables and the story.
#
# Inputs:  the inspected checkpoints (rule inspect: all of them can be read)
# Outputs: results/<study>/geometry/<base>.csv: norms, cosines and sign conflicts of task vectors from all
#          weights; ranks and shared subspaces from matrices (the column measured_on says from how many)
# Steps:   one pass over base and experts; a decomposition of every matrix that there is time for
#
# No merge waits for it. It takes one core for a second to two hours, and no GPU.


def measured(wildcards):
    """Return the geometry of all bases; the experts of each are known when the lock stands."""
    checkpoints.lock.get()
    return expand(f"{OUT}/geometry/{{base}}.csv", base=STUDY.bases)


rule geometry:
    input:
        ancient(f"{OUT}/inspect/{{base}}.csv"),
    output:
        f"{OUT}/geometry/{{base}}.csv",
    log:
        f"{OUT}/logs/geometry-{{base}}.log",
    wildcard_constraints:
        base="|".join(map(re.escape, STUDY.bases)),
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: memory_mb(base_bytes(wildcards), attempt),
        runtime=lambda wildcards, attempt: minutes(
            sum(checkpoint_bytes(n) for n in members(wildcards)), attempt, models=2
        ),
    params:
        study=STUDY_FILE,
        untie=STUDY.untie,
        identities=identities,
    message:
        "Measure the task vectors of {wildcards.base}"
    shell:
        "wildmerge geometry {params.study:q} {wildcards.base:q} --out {output:q} "
        "--threads {threads} &> {log:q}"
