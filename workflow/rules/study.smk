# The study: which one, which part of it, and its lock, for all rules.
#
# Inputs:  the study file; --config study, bases, limit
# Outputs: results/<study>/running, locked while snakemake runs, and study.json, whose results they are;
#          STUDY, OUT (its folder of results), LOCK, opened(), study_lock()
# Steps:   load and check everything that can be known before a checkpoint is opened

import os
import re
import shutil
import sys
from functools import cache, wraps
from pathlib import Path

from snakemake.exceptions import WorkflowError

from wildmerge.hub.references import is_hub
from wildmerge.errors import Refusal
from wildmerge.planning.choice import choose_study
from wildmerge.planning.claims import claim_results
from wildmerge.tasks.digests import task_inputs
from wildmerge.planning.lock import checkpoints_of, lock_path
from wildmerge.planning.models import list_jobs, spectra_of
from wildmerge.planning.opening import changes_of, open_study, read_study
from wildmerge.storage.files import write_atomically
from wildmerge.storage.locks import lock_for_life
from wildmerge.study.recipe import short_hash

# rules find the commands of the environment that snakemake itself runs in
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
# and the makers of the examples' checkpoints, which stand beside the workflow
sys.path.insert(0, str(workflow.basedir))
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(workflow.basedir), os.environ.get("PYTHONPATH")])
)

RESULTS = "results"


def in_one_line(function):
    """Let a refusal inside a function appear as snakemake shows its own errors, without a traceback."""

    @wraps(function)
    def refusing(*arguments):
        try:
            return function(*arguments)
        except (Refusal, OSError) as error:
            raise WorkflowError(str(error)) from None

    return refusing


def read_choice():
    """Return which study is run, and the study itself, checked as far as it can be without its lock."""
    choice = choose_study(config, workflow.configfiles)
    study = read_study(choice.file, choice.bases, choice.limit)
    claim_results(study.name, choice.file, Path(RESULTS), write=False)
    return choice, study


try:
    CHOICE, STUDY = read_choice()
    TASK_INPUTS = task_inputs(STUDY)
except (Refusal, OSError) as error:
    sys.exit(f"wildmerge: {error}")
STUDY_FILE = CHOICE.file
ONLY = ["--bases", ",".join(CHOICE.bases)] if CHOICE.bases else []
PART = ONLY + (["--limit", str(CHOICE.limit)] if CHOICE.limit else [])
OUT = f"{RESULTS}/{STUDY.name}"
LOCK = str(lock_path(STUDY_FILE))


@in_one_line
def begin():
    """Take the study's results for this run alone, until its process ends, however it ends."""
    if owner := lock_for_life(Path(OUT, "running")):
        raise WorkflowError(
            f"{STUDY.name} is being run already ({owner}); wait until it ends"
        )
    claim_results(STUDY.name, STUDY_FILE, Path(RESULTS))


@cache
@in_one_line
def opened_as_of(mtime_ns):
    return open_study(STUDY_FILE, CHOICE.bases, CHOICE.limit)


def opened():
    """Return the study as its lock stands now, without the experts that it skips.

    The lock of a large study takes a while to read, so that is done once.
    """
    return opened_as_of(os.stat(LOCK).st_mtime_ns if os.path.exists(LOCK) else 0)


def study_lock():
    return opened().lock
