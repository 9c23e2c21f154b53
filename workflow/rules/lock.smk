# Pinning: what the study's checkpoints and local benchmark data are, byte for byte.
#
# Inputs:  the study's checkpoint folders and task data (made by the rules of examples, or the user's);
#          for hub checkpoints the network, once
# Outputs: the lock beside the study file
#          results/<study>/inspect/<base>.csv and <base>+cosines.csv: would every expert merge?
#          results/<study>/recipes.csv, benchmarks.csv and methods.csv: the ids of all models and
#          benchmarks, and what methods are called; checkpoints.csv and choices.csv: sources, revisions and
#          licences of the checkpoints, and the seed, for whoever reads the report
# Steps:   lock -> inspect, recipes
#
# All ids of the study follow from the lock, so the list of jobs is known once it stands; an edit of
# the study that changes no checkpoint and no data leaves it alone. What is new, or other than it was
# locked, is seen when snakemake starts, also where no file is younger than the lock, and the lock renewed.


CHANGES = f"{OUT}/changes.txt"


def write_changes():
    """Make the lock older than a file that says what of the study it does not know, or not as it is."""
    lines = changes_of(STUDY_FILE, CHOICE.bases, CHOICE.limit)
    for line in lines:
        print(f"{STUDY.name}: {line}: the lock is renewed", file=sys.stderr)
    if lines:
        write_atomically(CHANGES, "".join(f"{line}\n" for line in lines))


if workflow.is_main_process:
    try:
        write_changes()
    except (Refusal, OSError) as error:
        sys.exit(f"wildmerge: {error}")


def members(wildcards):
    base = opened().study.bases[wildcards.base]
    return [base.checkpoint, *base.experts.values()]


def identities(wildcards):
    locked = study_lock().identities
    return [locked[name] for name in members(wildcards)]


def base_bytes(wildcards):
    """Return the size of a base."""
    return checkpoint_bytes(members(wildcards)[0])


def pinned(name):
    """Return what a command finds a checkpoint by: its folder, or org/name@commit of the lock."""
    entry = study_lock().checkpoints[name]
    return entry["identity"] if "repo" in entry else name


def inspected(wildcards):
    """Return the tables of all inspections; what they are of is known when the lock stands."""
    checkpoints.lock.get()
    return expand(f"{OUT}/inspect/{{base}}.csv", base=STUDY.bases)


checkpoint lock:
    input:
        [name for name in checkpoints_of(STUDY) if not is_hub(name)],
        TASK_INPUTS,
        [CHANGES] if os.path.exists(CHANGES) else [],
    output:
        update(LOCK),
    params:
        study=STUDY_FILE,
        bases=ONLY,
        tasks=[benchmark.task for benchmark in STUDY.benchmarks],
        on_incompatible=STUDY.on_incompatible,
    message:
        "Lock the checkpoints and benchmark data of {params.study}"
    shell:
        "wildmerge lock {params.study:q} {params.bases:q}"


rule inspect:
    input:
        ancient(LOCK),
        ancient(fetched_checkpoints),
    output:
        f"{OUT}/inspect/{{base}}.csv",
        f"{OUT}/inspect/{{base}}+cosines.csv",
    log:
        f"{OUT}/logs/inspect-{{base}}.log",
    wildcard_constraints:
        base="|".join(map(re.escape, STUDY.bases)),
    resources:
        mem_mb=lambda wildcards, attempt: memory_mb(base_bytes(wildcards), attempt),
        runtime=lambda wildcards, attempt: minutes(
            sum(checkpoint_bytes(n) for n in members(wildcards)), attempt
        ),
    params:
        study=STUDY_FILE,
        untie=STUDY.untie,
        chat_template=STUDY.evaluation.chat_template,
        identities=identities,
    message:
        "Inspect the experts of {wildcards.base}: would they merge?"
    shell:
        "wildmerge inspect-study {params.study:q} {wildcards.base:q} --out {output[0]:q} &> {log:q}"


rule recipes:
    input:
        STUDY_FILE,
        LOCK,
        ancient(all_fetched_checkpoints),
    output:
        f"{OUT}/recipes.csv",
        f"{OUT}/benchmarks.csv",
        f"{OUT}/methods.csv",
        f"{OUT}/checkpoints.csv",
        f"{OUT}/choices.csv",
    params:
        study=STUDY_FILE,
        part=PART,
        results=RESULTS,
        methods=[[v.method.digest, *v.method.row().values()] for v in STUDY.variants],
    message:
        "List the recipes and benchmarks of {params.study}"
    shell:
        "wildmerge recipes {params.study:q} {params.part:q} --results {params.results:q}"
