# A study from checkpoints to report. Choose it with `--config study=config/demo.yaml`, and a part of it with
# `bases=[llama]` or `limit=20` after that.
#
#   checkpoints -> lock -> fetch -> inspect -> merge and evaluate -> tables -> figures, notebooks -> report
#                                          -> geometry           ->
#
# Each rules file below is one stage and opens with its contract: inputs, outputs, steps.


include: "workflow/rules/study.smk"
include: "workflow/rules/resources.smk"
include: "workflow/rules/examples.smk"
include: "workflow/rules/smollm2.smk"
include: "workflow/rules/fetch.smk"
include: "workflow/rules/lock.smk"
include: "workflow/rules/geometry.smk"
include: "workflow/rules/spectra.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/aggregate.smk"
include: "workflow/rules/report.smk"


# all that a cluster's login node computes itself: pinning needs no GPU and little else
localrules:
    all,
    tables,
    lock,


rule all:
    default_target: True
    input:
        rules.report.output,
        expand(rules.notebook.output[0], name=NOTEBOOKS),


rule tables:
    input:
        rules.aggregate.output,


onstart:
    begin()


onsuccess:
    clean_up()


onerror:
    show_gaps()
