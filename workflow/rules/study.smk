# The study: which one, which part of it, and its lock, for all rules.
#
# Inputs:  the study file; --config study, bases, limit
# Outputs: none; STUDY, OUT (its folder of results), LOCK, opened(), study_lock()
# Steps:   load and check everything that can be known before a checkpoint is opened

import os
import re
import sys
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError

from wildmerge.hub.references import is_hub
from wildmerge.errors import Refusal
from wildmerge.tasks.sources import hub_tasks, task_inputs
from wildmerge.planning.lock import checkpoints_of, lock_path
from wildmerge.planning.models import list_jobs, spectra_of
from wildmerge.planning.opening import open_study, read_study
from wildmerge.study.recipe import short_hash

# rules find the commands of the environment that snakemake itself runs in
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
# and the makers of the examples' checkpoints, which stand beside the workflow
sys.path.insert(0, str(workflow.basedir))
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(workflow.basedir), os.environ.get("PYTHONPATH")])
)

RESULTS = "results"
# --configfile makes the study itself the workflow's configuration; --config study=FILE names it
GIVEN = [os.path.relpath(file) for file in workflow.configfiles]
STUDY_FILE = config.get("study", GIVEN[0] if GIVEN else "config/demo.yaml")
BASES, LIMIT = config.get("bases"), config.get("limit")
if isinstance(BASES, dict):  # the study's own, none of them chosen
    BASES = None
elif isinstance(BASES, str):
    BASES = BASES.split(",")
ONLY = ["--bases", ",".join(BASES)] if BASES else []
PART = ONLY + (["--limit", str(LIMIT)] if LIMIT else [])
try:
    STUDY = read_study(STUDY_FILE, BASES, LIMIT)
except Refusal as refusal:
    raise WorkflowError(str(refusal))
OUT = f"{RESULTS}/{STUDY.name}"
LOCK = str(lock_path(STUDY_FILE))


@cache
def opened_as_of(mtime_ns):
    return open_study(STUDY_FILE, BASES, LIMIT)


def opened():
    """Return the study as its lock stands now, without the experts that it skips.

    The lock of a large study takes a while to read, so that is done once.
    """
    return opened_as_of(os.stat(LOCK).st_mtime_ns if os.path.exists(LOCK) else 0)


def study_lock():
    return opened().lock
