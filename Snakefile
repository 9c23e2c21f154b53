# A study from checkpoints to report. Choose it with `--config study=config/demo.yaml`.
#
#   checkpoints -> lock -> inspect -> merge and evaluate -> tables -> figures, notebook -> report
#
# Each rules file below is one stage and opens with its contract: inputs, outputs, steps.

import os
import sys
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError

from wildmerge.errors import Refusal
from wildmerge.lock import Lock, check_checkpoints, checkpoints_of, lock_path
from wildmerge.models import list_jobs, spectra_of
from wildmerge.scoring.task_sources import check_benchmarks, task_inputs
from wildmerge.study import load_study

# rules find the commands of the environment that snakemake itself runs in
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

RESULTS = "results"
STUDY_FILE = config.get("study", "config/demo.yaml")
try:
    STUDY = load_study(STUDY_FILE)
    check_benchmarks(STUDY, STUDY_FILE)
    check_checkpoints(STUDY, STUDY_FILE, made_below=RESULTS)
except Refusal as refusal:
    raise WorkflowError(str(refusal))
OUT = f"{RESULTS}/{STUDY.name}"


include: "workflow/rules/examples.smk"
include: "workflow/rules/smollm2.smk"
include: "workflow/rules/lock.smk"
include: "workflow/rules/spectra.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/aggregate.smk"
include: "workflow/rules/report.smk"


localrules:
    all,
    tables,


rule all:
    default_target: True
    input:
        rules.report.output,
        rules.notebook.output,


rule tables:
    input:
        rules.aggregate.output,
