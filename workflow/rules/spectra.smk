# Spectra: the singular vectors of each expert's task vectors, for all TSV-M merges of it.
#
# Inputs:  the lock, the inspected checkpoints
# Outputs: results/spectra/<hash of base and expert>.safetensors, gone when the last merge has read it
# Steps:   one decomposition of every matrix of an expert
#
# Only for studies with `store_spectra: true`; merges without stored spectra compute their own and give the
# same bytes.


@cache
def study_spectra():
    """Return (base, expert) of every file of spectra that the study's merges can read."""
    lock = Lock.read(LOCK)
    return {
        str(file): (model.recipe.base, expert)
        for job in study_jobs().values()
        for model in job.models
        for expert, file in spectra_of(model, lock, Path(RESULTS)).items()
    }


def job_spectra(wildcards):
    """Return the files of spectra that a job's merges read."""
    if not STUDY.store_spectra:
        return []
    lock = Lock.read(LOCK)
    models = study_jobs()[wildcards.job].models
    return sorted(
        {str(f) for m in models for f in spectra_of(m, lock, Path(RESULTS)).values()}
    )


rule spectra:
    input:
        ancient(expand(f"{OUT}/inspect/{{base}}.csv", base=STUDY.bases)),
    output:
        temp(f"{RESULTS}/spectra/{{spectra}}.safetensors"),
    log:
        f"{OUT}/logs/spectra-{{spectra}}.log",
    threads: 1
    params:
        pair=lambda wildcards, output: study_spectra()[output[0]],
    message:
        "Decompose the task vectors of {params.pair[1]}"
    shell:
        "wildmerge spectra {params.pair:q} --out {output:q} --threads {threads} &> {log:q}"
