"""A study on a real SLURM: right resources, jobs that die in every way, and the tables of a local run.

Run by `make test-slurm` as root on Debian: starts a cluster of one node and takes it down again.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from cluster import HOST, cluster, run, until

from mini_study import make_study, make_task
from wildmerge.storage.files import sha256_of

pytestmark = pytest.mark.slurm
ROOT = Path(__file__).parent.parent.parent
SLOTS = 2
SITE = {
    "WILDMERGE_PARTITION": "gpu",
    "WILDMERGE_CPU_PARTITION": "main",
    "WILDMERGE_GPU_TYPE": "",
    "WILDMERGE_CPUS": "1",
}
BENCHMARKS = ["mini_one", "mini_two", "mini_three"]


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """The folder of the study as finished on this machine without SLURM."""
    folder = tmp_path_factory.mktemp("local")
    make(folder)
    subprocess.run(command(), cwd=folder, check=True)
    return folder


def make(folder):
    """Write a study of three jobs: base and experts, and two merges each of two methods."""
    methods = ["task_arithmetic", "ties"]
    make_study(folder, ["llama"], methods=methods, sizes=[2], benchmarks=BENCHMARKS)
    for task in BENCHMARKS:  # larger, so that one can be struck in the middle
        make_task(folder, task, items=100)


def command(*options):
    return [
        *(sys.executable, "-m", "snakemake", "tables", "--snakefile", str(ROOT / "Snakefile")),
        *(*options, "--config", "study=study.yaml"),
    ]


class Run:
    """A snakemake run that submits to SLURM, and what is seen of it while it goes on."""

    def __init__(self, folder, *options, scratch="results/scratch"):
        self.folder, self.scratch = folder, folder / scratch
        profile = ["--profile", str(ROOT / "profiles/slurm"), "--jobs", str(SLOTS)]
        self.log = open(folder / "snakemake.log", "a")
        self.process = subprocess.Popen(
            command(*profile, "--slurm-init-seconds-before-status-checks", "5", *options),
            cwd=folder,
            env=os.environ | SITE,
            stdout=self.log,
            stderr=self.log,
        )
        self.results, self.live, self.struck = {}, 0, {}
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def _watch(self):
        while self.process.poll() is None:
            self.live = max(self.live, len(list(self.scratch.glob("wildmerge-*"))))
            for path in self.folder.glob("results/evals/*/*.json"):
                self.results.setdefault(path, path.stat().st_mtime_ns)
            time.sleep(0.05)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.kill()
        self.log.close()

    def finish(self):
        code = self.process.wait(timeout=600)
        self._watcher.join()
        return code

    def stop_one(self):
        """Stop the process of a job in the middle of its work; return its SLURM job and its id."""
        while True:
            assert self.process.poll() is None, (self.folder / "snakemake.log").read_text()
            for path in self.folder.glob("results/mini/status/*.json"):
                with suppress(FileNotFoundError, ProcessLookupError):  # just gone: it is done
                    note = json.loads(path.read_text())
                    began = max(self.results.values(), default=0) > note["started"] * 1e9
                    before = self.struck.setdefault(path.name, [])
                    fresh = note["slurm_job"] not in before and not note["error"]
                    if began and fresh and len(before) < 2:  # the third attempt is the last
                        os.kill(note["pid"], signal.SIGSTOP)
                        if not path.exists():  # it was faster: nothing is left to interrupt
                            os.kill(note["pid"], signal.SIGCONT)
                            continue
                        before.append(note["slurm_job"])
                        return note["slurm_job"], note["pid"]
            time.sleep(0.05)


def queue():
    """Return what SLURM knows of each job, finished ones included."""
    lines = run("scontrol", "--oneliner", "show", "jobs").splitlines()
    jobs = [dict(re.findall(r"(\w+)=(\S*)", line)) for line in lines]
    return {job["JobId"]: job for job in jobs if "JobId" in job}


def states():
    return {job["JobState"] for job in queue().values()}


def digests(folder):
    return {p.name: sha256_of(p) for p in folder.glob("results/mini/tables/*")}


def test_jobs_that_die_in_every_way_end_in_the_tables_of_a_local_run(local, tmp_path):
    make(tmp_path)
    with cluster(), Run(tmp_path) as going:
        ends = {}

        job, _ = going.stop_one()
        run("scontrol", "update", f"jobid={job}", "timelimit=1")  # minutes; at the next check
        ends[job] = "TIMEOUT"

        job, pid = going.stop_one()
        os.kill(pid, signal.SIGKILL)
        ends[job] = "FAILED"

        job, _ = going.stop_one()
        run("scancel", job)
        ends[job] = "CANCELLED"
        run("scontrol", "update", f"nodename={HOST}", "state=drain", "reason=test")
        until(lambda: "drained" in run("sinfo", "-h", "-o", "%T"), seconds=300)
        until(lambda: "PENDING" in states(), seconds=120)
        assert "RUNNING" not in states()
        run("scontrol", "update", f"nodename={HOST}", "state=resume")

        job, pid = going.stop_one()
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGCONT)
        ends[job] = "FAILED"

        assert going.finish() == 0, (tmp_path / "snakemake.log").read_text()
        jobs = queue()

    assert {job: jobs[job]["JobState"] for job in ends} == ends
    models = [job for job in jobs.values() if job["Comment"].startswith("rule_models")]
    others = [job for job in jobs.values() if job not in models]
    assert len(models) == 3 + len(ends)
    asked = {(job.get("TresPerJob"), job["Partition"]) for job in models}
    assert asked == {("gres:gpu:1", "gpu")}
    assert {(job.get("TresPerJob"), job["Partition"]) for job in others} == {(None, "main")}
    attempts = {}
    for job in sorted(models, key=lambda job: int(job["JobId"])):
        attempts.setdefault(job["Comment"], []).append(job["MinMemoryNode"])
    for memory in attempts.values():
        assert memory == [f"{2500 * (n + 1)}M" for n in range(len(memory))]
    check(going, local)


def check(going, local):
    """The study is finished as the local one, nothing was computed twice, no weights are left."""
    folder = going.folder
    assert len(going.results) == len(list(folder.glob("results/evals/*/*.json"))) == 8 * 3
    assert {path: path.stat().st_mtime_ns for path in going.results} == going.results
    assert digests(folder) == digests(local)
    assert 1 <= going.live <= SLOTS
    assert not list(folder.glob("results/**/*.safetensors"))
    assert not list(going.scratch.iterdir())


def test_with_accounting_a_failed_study_says_why_and_a_rerun_finishes_it(
    local, tmp_path, monkeypatch
):
    make(tmp_path)
    monkeypatch.setenv("WILDMERGE_ACCOUNT", "lab")
    monkeypatch.setenv("WILDMERGE_SCRATCH", "$WILDMERGE_TEST_SCRATCH/of-the-node")
    monkeypatch.setenv("WILDMERGE_TEST_SCRATCH", str(tmp_path / "disk"))
    accounting = ["--slurm-status-command", "sacct", "--retries", "0"]
    with cluster(accounting=True):
        with Run(tmp_path, *accounting, scratch="disk/of-the-node") as first:
            job, pid = first.stop_one()  # scancel would not do: see profiles/slurm/config.yaml
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGCONT)
            assert first.finish() == 1
        said = run("wildmerge", "status", "study.yaml", cwd=tmp_path)
        assert f"(SLURM job {job}): stopped by a signal" in said
        with Run(tmp_path, *accounting, scratch="disk/of-the-node") as second:
            second.results |= first.results
            second.live = first.live  # what is left to do may be too quick to be seen
            assert second.finish() == 0
        listed = run(
            "sacct", "--allocations", "--noheader", "--parsable2", "--format=account,state"
        )
    assert listed.splitlines().count("lab|COMPLETED") >= 5
    assert "lab|FAILED" in listed
    check(second, local)
