# Models: merge, evaluate, delete the weights; a job does so for a few models of one method.
#
# Inputs:  the lock, the inspected checkpoints (rule inspect: nothing is merged that would not fit)
# Outputs: results/<study>/jobs/<job>.json when all of a job's models are done; on the way, durable
#          as soon as each is known, results/merges/<recipe>.json (recipe and merge report) and
#          results/evals/<recipe>/<task>-<evaluation>.json (one result a benchmark; its items beside it as
#          .parquet) and results/items/<evaluation>.parquet (what all models share of the items)
# Steps:   for each model: merge into scratch space, evaluate what has no result yet, delete the weights
#
# A job's id is a hash of its models' recipes and of the benchmarks, so a job reruns exactly when one of
# these changes, and then computes only what is missing. At most one merged checkpoint of a job exists
# at a time: the number of running jobs bounds the disk that weights take.

JOBS = f"{OUT}/jobs"


@cache
@in_one_line
def study_jobs():
    """Return all jobs of the study by id; known when the lock stands."""
    jobs = {job.id: job for job in list_jobs(opened().study, study_lock())}
    if workflow.is_main_process:
        models = sum(len(job.models) for job in jobs.values())
        print(f"{STUDY.name}: {models:,} models in {len(jobs):,} jobs", file=sys.stderr)
    return jobs


def study_results(wildcards):
    checkpoints.lock.get()
    return [f"{JOBS}/{job}.json" for job in study_jobs()]


def job_bytes(wildcards):
    """Return the size of one model of a job."""
    return checkpoint_bytes(study_jobs()[wildcards.job].models[0].recipe.base)


rule models:
    input:
        ancient(expand(f"{OUT}/inspect/{{base}}.csv", base=STUDY.bases)),
        ancient(job_spectra),
        ancient(fetched_data),
    output:
        f"{JOBS}/{{job}}.json",
    log:
        f"{OUT}/logs/models-{{job}}.log",
    wildcard_constraints:
        job="[0-9a-f]{16}",
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=lambda wildcards, attempt: memory_mb(job_bytes(wildcards), attempt),
        runtime=lambda wildcards, attempt: minutes(
            job_bytes(wildcards),
            attempt,
            models=len(study_jobs()[wildcards.job].models),
        ),
    params:
        study=STUDY_FILE,
        part=PART,
        results=RESULTS,
        label=lambda wildcards: study_jobs()[wildcards.job].label,
    message:
        "Merge and evaluate {params.label}"
    shell:
        "wildmerge run {params.study:q} {params.part:q} --job {wildcards.job} "
        "--results {params.results:q} --threads {threads} --done {output:q} &> {log:q}"
