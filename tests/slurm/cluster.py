# SPDX-License-Identifier: Apache-2.0
"""A real Slurm on this machine with two emulated nodes, n1 and n2, in a scratch folder of its own.

    with Cluster(folder) as slurm: slurm.run("sbatch", ...)

Debian's slurmd may run several times on a host, each with a node's name and port. The daemons, their munge with a key of
its own and everything that they started are ended again on leaving, also after a failure. Needs root, since slurmd does.
"""
import glob, os, shutil, signal, socket, subprocess, time

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "scontrol", "squeue", "sinfo")
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
NODES = ("n1", "n2")


def missing():
    """Why no such cluster can be had here; empty where it can."""
    absent = [p for p in PROGRAMS if not shutil.which(p, path=PATH)]
    if absent:
        return f"{', '.join(absent)} missing: apt-get install slurmctld slurmd slurm-client munge"
    return "" if os.geteuid() == 0 else "slurmd needs root"


def free_ports(n):
    sockets = [socket.socket() for _ in range(n)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def processes():
    """(pid, environment) of every process; a process that can't be looked at is left out."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                yield int(pid), file.read().split(b"\0")
        except OSError:
            pass


def children(parent):
    """Processes below this one."""
    parents = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as file:
                parents[int(pid)] = int(file.read().rpartition(")")[2].split()[1])
        except OSError:
            pass
    found = [parent]
    for at in found:
        found += [pid for pid, above in parents.items() if above == at]
    return found[1:]


class Cluster:
    def __init__(self, folder):
        self.folder = folder
        self.daemons = {}
        self.environment = dict(os.environ, PATH=PATH, SLURM_CONF=f"{folder}/slurm.conf")

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *unused):
        self.stop()

    def start(self):
        d, host = self.folder, socket.gethostname().split(".")[0]
        for name in ("state", "log", "run", *(f"spool/{n}" for n in NODES)):
            os.makedirs(f"{d}/{name}")
        with open(f"{d}/key", "wb") as file:
            os.fchmod(file.fileno(), 0o400)
            file.write(os.urandom(1024))
        ctld, *ports = free_ports(1 + len(NODES))
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
        lines = [
            "ClusterName=sago", f"SlurmctldHost={host}(127.0.0.1)", "SlurmUser=root", "AuthType=auth/munge",
            # How long a requeued job waits is how long a credential lives; 5 s is the least.
            f"AuthInfo=socket={d}/munge,cred_expire=5", f"StateSaveLocation={d}/state", f"SlurmdSpoolDir={d}/spool/%n",
            f"SlurmctldPidFile={d}/run/ctld.pid", f"SlurmdPidFile={d}/run/%n.pid", f"SlurmctldLogFile={d}/log/ctld.log",
            f"SlurmdLogFile={d}/log/%n.log", "ProctrackType=proctrack/linuxproc", "TaskPlugin=task/none",
            "SelectType=select/linear", "ReturnToService=2", "MpiDefault=none", f"SlurmctldPort={ctld}",
            "SlurmdTimeout=5", "KillWait=2", "SchedulerParameters=sched_interval=2,batch_sched_delay=1",
            *(f"NodeName={n} NodeHostname={host} NodeAddr=127.0.0.1 Port={p} CPUs=2 RealMemory={memory // 2}"
              for n, p in zip(NODES, ports)),
            "PartitionName=p Nodes=ALL Default=YES State=UP",
        ]
        with open(f"{d}/slurm.conf", "w") as file:
            file.write("\n".join(lines) + "\n")
        self.daemon("munge", "munged", "--foreground", "--force", f"--key-file={d}/key", f"--socket={d}/munge",
                    f"--pid-file={d}/run/munge.pid", f"--log-file={d}/log/munge.log", f"--seed-file={d}/run/munge.seed")
        self.until(lambda: os.path.exists(f"{d}/munge"), 15, "munged opens its socket")
        self.daemon("ctld", "slurmctld", "-D", "-f", f"{d}/slurm.conf")
        for n in NODES:
            self.daemon(n, "slurmd", "-D", "-N", n, "-f", f"{d}/slurm.conf")
        self.until(lambda: self.states() == {n: "idle" for n in NODES}, 60, "both nodes are idle")

    def daemon(self, name, *command):
        with open(f"{self.folder}/log/{name}.out", "w") as out:
            self.daemons[name] = subprocess.Popen(command, env=self.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def run(self, *command, check=True, **more):
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60, **more)
        assert done.returncode == 0 or not check, (command, done.returncode, done.stdout, done.stderr)
        return done.stdout.strip()

    def states(self):
        return dict(line.split() for line in self.run("sinfo", "-h", "-N", "-o", "%N %T", check=False).splitlines())

    def job(self, number):
        """What scontrol says of a job: {"JobState": "RUNNING", ...}."""
        return dict(w.split("=", 1) for w in self.run("scontrol", "-o", "show", "job", str(number)).split() if "=" in w)

    def until(self, condition, seconds, what):
        end = time.monotonic() + seconds
        while not condition():
            for name, process in self.daemons.items():
                assert process.poll() is None, f"{name} has ended: " + self.logs()
            assert time.monotonic() < end, f"not within {seconds} s: {what}: {self.logs()}"
            time.sleep(0.1)

    def logs(self):
        text = ""
        for path in sorted(glob.glob(f"{self.folder}/log/*.log")):
            with open(path, errors="replace") as file:
                text += f"\n== {path}\n" + "".join(file.readlines()[-40:])
        return text

    def kill_node(self, name):
        """Power off: the node's daemon and all that runs on the node are gone at once."""
        daemon = self.daemons.pop(name)
        marks = {f"SLURMD_NODENAME={name}".encode(), self.mark()}
        below = children(daemon.pid)
        daemon.kill()
        daemon.wait()
        for pid in below + [pid for pid, environment in processes() if marks <= set(environment)]:
            kill(pid)

    def mark(self):
        """What the environment of all that was started here holds, and of nothing else."""
        return f"SLURM_CONF={self.folder}/slurm.conf".encode()

    def stop(self):
        if "ctld" in self.daemons:
            self.run("scancel", "--user=root", "--signal=KILL", check=False)
            time.sleep(0.5)
        for process in reversed(self.daemons.values()):
            process.terminate()
        end = time.monotonic() + 10
        for process in self.daemons.values():
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.daemons.clear()
        for _ in range(50):
            left = [pid for pid, environment in processes() if self.mark() in environment]
            if not left:
                return
            for pid in left:
                kill(pid)
            time.sleep(0.1)
        raise AssertionError(f"processes are left: {left}")


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
