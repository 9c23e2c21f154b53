# Spectra: the singular vectors of each expert's task vectors, for all TSV-M merges of it.
#
# Inputs:  the lock, the inspected checkpoints
# Outputs: results/<study>/spectra/<hash of base and expert>.safetensors, gone when the last merge has read it
# Steps:   one decomposition of every matrix of an expert
#
# Only for studies with `store_spectra: true`; merges without stored spectra compute their own and give the
# same bytes. They are a study's own: another that runs at the same time needs them at other times.


@cache
def study_spectra():
    """Return (base, expert) of every file of spectra that the study's merges can read."""
    lock = study_lock()
    return {
        str(file): (model.recipe.base, expert)
        for job in study_jobs().values()
        for model in job.models
        for expert, file in spectra_of(model, lock, Path(OUT)).items()
    }


def job_spectra(wildcards):
    """Return the files of spectra that a job's merges read."""
    if not STUDY.store_spectra:
        return []
    models = study_jobs()[wildcards.job].models
    return sorted(
        {
            str(f)
            for m in models
            for f in spectra_of(m, study_lock(), Path(OUT)).values()
        }
    )


def spectra_pair(wildcards):
    """Return the base and the expert that a file of spectra belongs to."""
    return study_spectra()[f"{OUT}/spectra/{wildcards.spectra}.safetensors"]


def spectra_bytes(wildcards):
    """Return the size of that base."""
    return checkpoint_bytes(spectra_pair(wildcards)[0])


rule spectra:
    input:
        ancient(expand(f"{OUT}/inspect/{{base}}.csv", base=STUDY.bases)),
    output:
        temp(f"{OUT}/spectra/{{spectra}}.safetensors"),
    log:
        f"{OUT}/logs/spectra-{{spectra}}.log",
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=lambda wildcards, attempt: memory_mb(spectra_bytes(wildcards), attempt),
        runtime=lambda wildcards, attempt: minutes(spectra_bytes(wildcards), attempt),
    params:
        pair=lambda wildcards: tuple(map(pinned, spectra_pair(wildcards))),
    message:
        "Decompose the task vectors of {params.pair[1]}"
    shell:
        "wildmerge spectra {params.pair:q} --out {output:q} --threads {threads} &> {log:q}"
