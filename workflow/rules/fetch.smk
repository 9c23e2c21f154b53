# Fetching: hub checkpoints into the hub's cache, benchmark data into that of datasets (both in HF_HOME).
#
# Inputs:  the lock, which says what to fetch at which commit; the network
# Outputs: results/fetched/<org>/<name>@<commit>.json, data-<hash of commits>.json: marks that all
#          files are there and have the locked digests
# Steps:   one for each checkpoint, one for all data; on the machine that runs snakemake
#
# Nothing else uses the network. A study of folders and local data has no such steps.

FETCHED = f"{RESULTS}/fetched"


localrules:
    fetch_checkpoint,
    fetch_data,


def fetched_checkpoints(wildcards):
    """Return the marks of a base's hub checkpoints."""
    checkpoints.lock.get()
    return fetch_marks(members(wildcards))


def all_fetched_checkpoints(wildcards):
    """Return the marks of all hub checkpoints of the study."""
    checkpoints.lock.get()
    return fetch_marks(checkpoints_of(STUDY))


def fetch_marks(names):
    """Return the marks of those of these checkpoints that are of the hub."""
    entries = study_lock().checkpoints
    needed = [entries[name] for name in names]
    return [
        f"{FETCHED}/{entry['identity']}.json" for entry in needed if "repo" in entry
    ]


@in_one_line
def data_mark():
    """Return the mark of the benchmarks' data at their commits, if they come from the hub."""
    data_sets = study_lock().data_sets
    return [f"{FETCHED}/data-{short_hash(data_sets)}.json"] if data_sets else []


def fetched_data(wildcards):
    checkpoints.lock.get()
    return data_mark()


def name_in_study(wildcards):
    entries = study_lock().checkpoints.items()
    wanted = wildcards.checkpoint
    return next(name for name, entry in entries if entry["identity"] == wanted)


rule fetch_checkpoint:
    input:
        ancient(LOCK),
    output:
        f"{FETCHED}/{{checkpoint}}.json",
    wildcard_constraints:
        checkpoint="[^/]+/[^/]+@[0-9a-f]{40}",
    params:
        study=STUDY_FILE,
        bases=ONLY,
        name=name_in_study,
    message:
        "Fetch {wildcards.checkpoint}"
    shell:
        "wildmerge fetch {params.study:q} {params.name:q} {params.bases:q} --done {output:q}"


rule fetch_data:
    input:
        ancient(LOCK),
    output:
        f"{FETCHED}/data-{{commits}}.json",
    wildcard_constraints:
        commits="[0-9a-f]{16}",
    params:
        study=STUDY_FILE,
        bases=ONLY,
    message:
        "Fetch the benchmarks' data"
    shell:
        "wildmerge fetch {params.study:q} data {params.bases:q} --done {output:q}"
