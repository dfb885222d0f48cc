"""Many processes that train as one: how they find each other, and how one leaves.

Each drives its own devices, and the mesh goes over all of them. Who is process 0 writes
what people read; checkpoints are written by all.
"""

import dataclasses
import os
import socket
import sys
import time
from collections.abc import Mapping

import jax

from w4d_jax.types import InputError

# In errors of work that processes do together; JAX has no type for them.
SIGNS = ("Gloo", "NCCL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "oordination", "ABORTED")


@dataclasses.dataclass(frozen=True)
class ClusterConfig:
    """coordinator: HOST:PORT, where process 0 can be reached by all; "auto" has JAX find
    out (TPU pods, SLURM, Open MPI, Kubernetes); "" goes by the environment, `told`.
    processes, process: how many, and which of them this is, from 0.
    start: seconds to wait until all are there.
    silence: seconds after which a process that says nothing counts as lost.
    """

    coordinator: str = ""
    processes: int = 0
    process: int = -1
    start: int = 300
    silence: int = 30


def join(cluster: ClusterConfig) -> None:
    """Connects this process with the others; nothing where it is alone.

    To be called before anything asks for devices. Raises InputError.
    """
    cluster = told(cluster, os.environ)
    if not cluster.coordinator:
        return
    asked: dict = {}
    if cluster.coordinator != "auto":
        check(cluster)
        asked = {
            "coordinator_address": cluster.coordinator,
            "num_processes": cluster.processes,
            "process_id": cluster.process,
            "cluster_detection_method": "deactivate",
        }
    try:
        if cluster.process > 0:
            await_listener(cluster.coordinator, cluster.start)
        jax.distributed.initialize(
            **asked,
            initialization_timeout=cluster.start,
            heartbeat_timeout_seconds=cluster.silence,
        )
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"cluster.coordinator={cluster.coordinator}: process {cluster.process} of "
            f"{cluster.processes} has not joined in {cluster.start} s ({reason}); does "
            "process 0 run there?"
        ) from error


def await_listener(address: str, seconds: float) -> None:
    """Returns when somebody listens there, or raises OSError: JAX itself, if nobody does,
    ends with a stack of C++."""
    host, _, port = address.rpartition(":")
    late = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError:
            if time.monotonic() > late:
                raise
        time.sleep(0.2)


def share(cluster: ClusterConfig) -> tuple[int, int]:
    """(which, of how many) parts of work that needs no word with the others: they are
    joined only where JAX alone knows their number."""
    cluster = told(cluster, os.environ)
    if cluster.coordinator == "auto":
        join(cluster)
        return jax.process_index(), jax.process_count()
    if not cluster.coordinator:
        return 0, 1
    check(cluster)
    return cluster.process, cluster.processes


def told(cluster: ClusterConfig, environ: Mapping[str, str]) -> ClusterConfig:
    """What a config leaves open, from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
    JAX_PROCESS_ID; without them "auto" where a launcher has started several processes."""
    if cluster.coordinator:
        return cluster
    if where := environ.get("JAX_COORDINATOR_ADDRESS"):
        try:
            count, this = (
                int(environ[name]) for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
            )
        except (KeyError, ValueError) as error:
            raise InputError(
                f"JAX_COORDINATOR_ADDRESS={where}: need JAX_NUM_PROCESSES and "
                f"JAX_PROCESS_ID as numbers beside it ({error!r})"
            ) from error
        return dataclasses.replace(
            cluster, coordinator=where, processes=count, process=this
        )
    counts = (environ.get(x, "") for x in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"))
    launched = any(count.isdecimal() and int(count) > 1 for count in counts)
    pod = "," in environ.get("TPU_WORKER_HOSTNAMES", "")
    return dataclasses.replace(cluster, coordinator="auto" if launched or pod else "")


def check(cluster: ClusterConfig) -> None:
    """InputError unless it says where, how many and which."""
    host, _, port = cluster.coordinator.rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(f"cluster.coordinator={cluster.coordinator}: need HOST:PORT")
    if not 0 <= cluster.process < cluster.processes:
        raise InputError(
            f"cluster.process={cluster.process} of cluster.processes={cluster.processes}: "
            "need 0 <= process < processes"
        )


def is_first() -> bool:
    """Whether this process writes what people read."""
    return jax.process_index() == 0


def about_others(error: BaseException | None) -> bool:
    """Whether an error says that another process does not answer."""
    return jax.process_count() > 1 and any(sign in str(error) for sign in SIGNS)


def lost(error: Exception) -> InputError:
    """What to say when work with the others has failed."""
    reason = " ".join(str(error).split())[:160]
    return InputError(
        f"process {jax.process_index()} of {jax.process_count()}: another process is lost "
        f"({reason}); start all again, and the run goes on from its last checkpoint"
    )


def leave(code: int) -> None:
    """Ends this process; where something failed, without waiting for readers that hang or
    for other processes, which would wait for this one."""
    sys.stdout.flush()
    sys.stderr.flush()
    if code:
        os._exit(code)
    sys.exit(0)
