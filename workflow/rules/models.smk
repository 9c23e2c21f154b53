# Models: merge, evaluate, delete the weights; a job does so for a few models of one method.
#
# Inputs:  the lock, the inspected checkpoints (rule inspect: nothing is merged that would not fit)
# Outputs: results/<study>/jobs/<job>.json when all of a job's models are done; on the way, durable
#          as soon as each is known, results/merges/<recipe>.json (recipe and merge report) and
#          results/evals/<recipe>/<task>-<evaluation>.json (one result a benchmark)
# Steps:   for each model: merge into scratch space, evaluate what has no result yet, delete the weights
#
# A job's id is a hash of its models' recipes and of the benchmarks, so a job reruns exactly when one of
# these changes, and then computes only what is missing. At most one merged checkpoint of a job exists
# at a time: the number of running jobs bounds the disk that weights take.

JOBS = f"{OUT}/jobs"


@cache
def study_jobs():
    """Return all jobs of the study by id; known when the lock stands."""
    return {job.id: job for job in list_jobs(STUDY, Lock.read(LOCK))}


def study_results(wildcards):
    checkpoints.lock.get()
    return [f"{JOBS}/{job}.json" for job in study_jobs()]


rule models:
    input:
        ancient(expand(f"{OUT}/inspect/{{base}}.csv", base=STUDY.bases)),
        ancient(job_spectra),
    output:
        f"{JOBS}/{{job}}.json",
    log:
        f"{OUT}/logs/{{job}}.log",
    wildcard_constraints:
        job="[0-9a-f]{16}",
    threads: 1
    params:
        study=STUDY_FILE,
        results=RESULTS,
        label=lambda wildcards: study_jobs()[wildcards.job].label,
        scratch=f"--scratch {config['scratch']}" if "scratch" in config else "",
    message:
        "Merge and evaluate {params.label}"
    shell:
        "wildmerge run {params.study:q} --job {wildcards.job} --results {params.results:q} "
        "{params.scratch} --threads {threads} --done {output:q} &> {log:q}"
