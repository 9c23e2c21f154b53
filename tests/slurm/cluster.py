"""A real SLURM of one node on this machine, from Debian's packages, as root and without systemd.

Controller, node daemon and munge run on the loopback interface with their state in one temporary folder;
two character devices stand for GPUs. With accounting, slurmdbd and a MariaDB of its own run as well.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

PACKAGES = ["slurm-wlm", "munge"]
ACCOUNTING_PACKAGES = ["slurmdbd", "mariadb-server"]
CONFIGURATION = Path("/etc/slurm")  # the only place where the SLURM executor's inner srun looks
HOST = socket.gethostname().split(".")[0]

SLURM_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
SlurmctldPidFile={state}/slurmctld.pid
SlurmdPidFile={state}/slurmd.pid
SlurmctldLogFile={state}/slurmctld.log
SlurmdLogFile={state}/slurmd.log
StateSaveLocation={state}/controller
SlurmdSpoolDir={state}/node
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/{gather}
AccountingStorageType=accounting_storage/{accounting}
AccountingStorageHost=127.0.0.1
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
MinJobAge=3600
KillWait=10
SchedulerParameters=sched_interval=2,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes={host} MaxTime=INFINITE State=UP
"""

SLURMDBD_CONF = """\
AuthType=auth/munge
DbdHost={host}
DbdAddr=127.0.0.1
SlurmUser=root
PidFile={state}/slurmdbd.pid
LogFile={state}/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=33306
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm_acct_db
"""


def install(packages):
    """Install what is missing of some Debian packages."""
    if not works("dpkg-query", "--show", *packages):
        options = ["-y", "-q", "--no-install-recommends"]
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        run("apt-get", "update", "-q", env=environment)
        run("apt-get", "install", *options, *packages, env=environment)


def works(*command):
    """Return whether a command succeeds."""
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def run(*command, **options):
    """Run a command and return what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}"
    return done.stdout


@contextmanager
def cluster(*, accounting=False):
    """Start SLURM, with slurmdbd where `accounting`, and take everything down afterwards."""
    install(PACKAGES + (ACCOUNTING_PACKAGES if accounting else []))
    state = Path(tempfile.mkdtemp(prefix="wildmerge-slurm-"))
    state.chmod(0o755)  # munge and MariaDB look into it as other users
    try:
        _configure(state, accounting)
        _start_munge(state)
        if accounting:
            _start_accounting(state)
        run("slurmctld", "-i")
        run("slurmd", "-N", HOST)
        until(lambda: "idle" in run("sinfo", "-h", "-o", "%T"))
        yield state
    finally:
        _stop(state)


def _configure(state, accounting):
    for folder in ("controller", "node"):
        (state / folder).mkdir()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20 - 1024
    (state / "slurm.conf").write_text(
        SLURM_CONF.format(
            host=HOST,
            state=state,
            cpus=os.cpu_count(),
            memory=memory,
            gather="linux" if accounting else "none",
            accounting="slurmdbd" if accounting else "none",
        )
    )
    gpus = [state / "gpu0", state / "gpu1"]
    for gpu in gpus:
        os.mknod(gpu, 0o666 | 0o020000, os.makedev(1, 3))  # as /dev/null; plain files are refused
    (state / "gres.conf").write_text("".join(f"Name=gpu File={gpu}\n" for gpu in gpus))
    (state / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
    for name in ("slurm.conf", "gres.conf", "cgroup.conf"):
        _link(state / name)


def _start_munge(state):
    if works("sh", "-c", "munge -n | unmunge"):
        return  # this machine's own is running
    Path("/run/munge").mkdir(exist_ok=True)
    Path("/run/munge").chmod(0o755)
    folder = state / "munge"
    folder.mkdir(mode=0o700)
    key = folder / "key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(1024))
    files = {"key": key, "pid": state / "munged.pid", "seed": folder / "seed"}
    options = [f"--{name}-file={file}" for name, file in files.items()]
    run("munged", "--force", *options, f"--log-file={folder}/log")
    until(lambda: works("sh", "-c", "munge -n | unmunge"))


def _start_accounting(state):
    folder = state / "mysql"
    folder.mkdir()
    shutil.chown(folder, "mysql", "mysql")
    own = ["--no-defaults", f"--datadir={folder}", "--user=mysql"]
    run("mariadb-install-db", *own, "--auth-root-authentication-method=socket", "--skip-test-db")
    with open(state / "mariadbd.log", "w") as log:
        network = [f"--socket={folder}/socket", "--bind-address=127.0.0.1", "--port=33306"]
        limits = ["--innodb-buffer-pool-size=128M", "--innodb-lock-wait-timeout=900"]
        subprocess.Popen(
            ["mariadbd", *own, *network, *limits, f"--pid-file={folder}/pid"],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    sql = ["mariadb", "--no-defaults", f"--socket={folder}/socket"]
    until(lambda: works(*sql, "-e", ""))
    password = os.urandom(8).hex()
    run(
        *sql,
        "-e",
        "create database slurm_acct_db; "
        f"create user slurm@'127.0.0.1' identified by '{password}'; "
        f"create user slurm@localhost identified by '{password}'; "
        "grant all on slurm_acct_db.* to slurm@'127.0.0.1'; "
        "grant all on slurm_acct_db.* to slurm@localhost;",
    )
    conf = state / "slurmdbd.conf"
    conf.touch(mode=0o600)
    conf.write_text(SLURMDBD_CONF.format(host=HOST, state=state, password=password))
    _link(conf)
    run("slurmdbd")
    until(lambda: works("sacctmgr", "-n", "list", "cluster"))
    run("sacctmgr", "-i", "add", "cluster", "test")
    run("sacctmgr", "-i", "add", "account", "lab")
    run("sacctmgr", "-i", "add", "user", "root", "account=lab")


def _link(file):
    CONFIGURATION.mkdir(exist_ok=True)
    place = CONFIGURATION / file.name
    assert place.is_symlink() or not place.exists(), f"{place}: this machine has a SLURM of its own"
    place.unlink(missing_ok=True)
    place.symlink_to(file)


def _stop(state):
    works("scancel", "--user=root")
    time.sleep(1)
    for pid in ["slurmd.pid", "slurmctld.pid", "slurmdbd.pid", "mysql/pid", "munged.pid"]:
        _terminate(state / pid)
    for place in CONFIGURATION.glob("*.conf"):
        if place.is_symlink() and place.readlink().parent == state:
            place.unlink()
    shutil.rmtree(state, ignore_errors=True)


def _terminate(pid_file):
    try:
        pid = int(pid_file.read_text())
        os.kill(pid, signal.SIGTERM)
        for _ in range(100):
            with suppress(ChildProcessError):  # not started here: it has no need of us
                os.waitpid(pid, os.WNOHANG)
            os.kill(pid, 0)
            time.sleep(0.1)
        os.kill(pid, signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError, ValueError):
        pass


def until(condition, seconds=60):
    """Wait until a condition holds; the time is for a machine with much else to do."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "waited too long"
        time.sleep(0.2)
