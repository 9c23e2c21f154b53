# What jobs ask for: memory and time from the sizes of checkpoints, a GPU where there is one.
#
# Inputs:  the lock, which knows the sizes
# Steps:   rules take `memory_mb`, `minutes` and GPU from here; a profile's set-resources goes before them
#
# On one machine, jobs share what it has: no more of them run at once than it has GPUs and memory for. On a
# cluster, its scheduler sees to that.

from wildmerge.jobs import resources as ask
from wildmerge.jobs.resources import memory_mb, minutes

LOCAL = workflow.is_main_process and workflow.nodes is None
GPU = int(ask.machine()["gpu"] > 0)

if LOCAL:
    for name, amount in ask.machine().items():
        if name not in workflow.global_resources:
            workflow.register_resource(name, amount)
if workflow.is_main_process and "scratch" in config:
    # by the environment, so that variables in it are those of the node where a job runs
    os.environ["WILDMERGE_SCRATCH"] = config["scratch"]


@cache
def checkpoint_bytes(name):
    return ask.checkpoint_bytes(study_lock(), name)
