"""Forward kinematics side by side in one run: poses of all links a second, compile time.

    python bench/kinematics.py [--robot R.urdf] [--batches 1 1000 100000]

Best of the repeats of `--seconds` each. Peers come with the `bench` extra; what is missing
is said, and the rest runs. MJX compiles in a process of its own, which is ended after
`--mjx-limit` seconds.
"""

import argparse
import contextlib
import io
import multiprocessing
import os
import time
from pathlib import Path

import jax
import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

import w4d_jax
from w4d_jax.kin import load_robot

PANDA = Path(w4d_jax.__file__).parent / "data" / "assets" / "panda_w4d.xml"


def best(action, seconds: float) -> float:
    """Shortest wall time of action() after one call to warm up."""
    action()
    shortest, stop = np.inf, time.perf_counter() + seconds
    while time.perf_counter() < stop:
        start = time.perf_counter()
        action()
        shortest = min(shortest, time.perf_counter() - start)
    return shortest


def ours(robot, q, seconds):
    start = time.perf_counter()
    compiled = jax.jit(robot.link_poses).lower(q).compile()
    compile_time = time.perf_counter() - start
    q = jax.device_put(q)
    return best(lambda: compiled(q).block_until_ready(), seconds), compile_time


def mujoco_loop(robot, q, seconds):
    """mj_kinematics for each pose, positions and rotations copied out."""
    model = robot.mj_model
    data = mujoco.MjData(model)
    position = np.empty((len(q), model.nbody, 3))
    rotation = np.empty((len(q), model.nbody, 9))
    qpos = positions(robot, q)

    def run():
        for n in range(len(q)):
            data.qpos[:] = qpos[n]
            mujoco.mj_kinematics(model, data)
            position[n], rotation[n] = data.xpos, data.xmat

    return best(run, seconds), None


def mjx(robot, q, seconds, options=None):
    """jit(vmap(mjx.kinematics)) with the model closed over, which compiles soonest."""
    with contextlib.redirect_stdout(io.StringIO()):  # it complains of an absent warp
        from mujoco import mjx

    model = mjx.put_model(robot.mj_model)
    blank = mjx.make_data(model)

    @jax.jit
    @jax.vmap
    def poses(qpos):
        data = mjx.kinematics(model, blank.replace(qpos=qpos))
        return data.xpos, data.xmat

    qpos = np.float32(positions(robot, q))
    start = time.perf_counter()
    compiled = poses.lower(qpos).compile(options)
    compile_time = time.perf_counter() - start
    qpos = jax.device_put(qpos)
    return best(lambda: jax.block_until_ready(compiled(qpos)), seconds), compile_time


def mjx_unfused(robot, q, seconds):
    """XLA's CPU fusion emitters are what takes minutes over MJX; this call does without."""
    return mjx(robot, q, seconds, {"xla_cpu_use_fusion_emitters": False})


def pytorch_kinematics(robot, q, seconds):
    import pytorch_kinematics
    import torch

    chain = pytorch_kinematics.build_chain_from_urdf(urdf(robot).encode())
    # A random value for every joint it knows: it has its own idea of mimic joints.
    theta = torch.rand(len(q), len(chain.get_joint_parameter_names()))
    return best(lambda: chain.forward_kinematics(theta), seconds), None


def pinocchio(robot, q, seconds, copy: bool = False):
    """framesForwardKinematics for each pose; `copy` also reads each frame into an array."""
    import pinocchio

    model = pinocchio.buildModelFromXML(urdf(robot))
    data = model.createData()
    configurations = [pinocchio.neutral(model) + 0.01 * n for n in range(min(len(q), 1000))]
    out = np.empty((len(q), model.nframes, 4, 4))

    def run():
        for n in range(len(q)):
            pinocchio.framesForwardKinematics(model, data, configurations[n % 1000])
            if copy:
                for i, frame in enumerate(data.oMf):
                    out[n, i] = frame.homogeneous

    return best(run, seconds), None


def pinocchio_copy(robot, q, seconds):
    return pinocchio(robot, q, seconds, copy=True)


def urdf(robot) -> str:
    """The robot's bare tree as URDF, which every peer reads, whatever file it came from."""
    model, lines = robot.mj_model, ["<robot name='tree'><link name='world'/>"]
    if model.jnt_pos.any() or (model.body_jntnum > 1).any():
        raise ImportError("needs one joint a body, at its origin, to be written as URDF")
    kinds = {
        mujoco.mjtJoint.mjJNT_HINGE: "revolute",
        mujoco.mjtJoint.mjJNT_SLIDE: "prismatic",
    }
    for i in range(1, model.nbody):
        name, parent = model.body(i).name, model.body(model.body_parentid[i]).name
        joint = model.body_jntadr[i]
        kind = "fixed" if joint < 0 else kinds[mujoco.mjtJoint(model.jnt_type[joint])]
        xyz = " ".join(map(str, model.body_pos[i]))
        turn = Rotation.from_quat(model.body_quat[i], scalar_first=True)
        rpy = " ".join(map(str, turn.as_euler("xyz")))
        axis = " ".join(map(str, model.jnt_axis[joint]))
        lines.append(
            f"<link name='{name}'/><joint name='joint_{i}' type='{kind}'>"
            f"<parent link='{parent}'/><child link='{name}'/><axis xyz='{axis}'/>"
            f"<origin xyz='{xyz}' rpy='{rpy}'/>"
            "<limit lower='-3' upper='3' effort='1' velocity='1'/></joint>"
        )
    return "".join(lines) + "</robot>"


def positions(robot, q) -> np.ndarray:
    """All coordinates of the MuJoCo model, mimic joints at their leaders' command."""
    model, tree = robot.mj_model, robot.tree
    moving = [i for i in range(len(tree.parent)) if tree.first[i].any()]
    angles = q @ tree.gain[moving].T + tree.offset[moving]
    qpos = np.tile(model.qpos0, (len(q), 1))
    hinges = [j for j in range(model.njnt) if model.jnt_type[j] != 0]  # 0: a free base
    qpos[:, model.jnt_qposadr[hinges]] = angles
    return qpos


PEERS = {
    "w4d_jax": ours,
    "MuJoCo C, python loop": mujoco_loop,
    "MJX": mjx,
    "MJX, other emitters": mjx_unfused,
    "pytorch_kinematics": pytorch_kinematics,
    "pinocchio, no copy": pinocchio,
    "pinocchio + copy": pinocchio_copy,
}


def in_child(pipe, peer, path, batch, seconds):
    robot = load_robot(path)
    pipe.send(peer(robot, robot.sample(batch), seconds))


def limited(peer, robot, batch, seconds, limit):
    """peer(...) in a process of its own; None where it took longer than the limit."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=in_child, args=(there, peer, robot.path, batch, seconds))
    child.start()
    there.close()
    try:
        return here.recv() if here.poll(limit) else None
    except EOFError:
        return None
    finally:
        child.kill()
        child.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--robot", type=Path, default=PANDA, help="URDF or MJCF")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 1000, 100_000])
    parser.add_argument("--seconds", type=float, default=3.0, help="a peer and batch")
    parser.add_argument("--mjx-limit", type=float, default=60.0, help="seconds to wait")
    args = parser.parse_args()
    robot = load_robot(args.robot)
    print(
        f"{robot.path}: {len(robot.link_names)} links, {len(robot.joint_names)} joints; "
        f"{jax.default_backend()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    head = "".join(f"{f'batch {batch:,}':>16}" for batch in args.batches)
    print(f"{'poses/s':<24}{head}  compile s")
    for name, peer in PEERS.items():
        cells, compile_times = [], []
        for batch in args.batches:
            try:
                if peer in (mjx, mjx_unfused):
                    result = limited(peer, robot, batch, args.seconds, args.mjx_limit)
                else:
                    result = peer(robot, robot.sample(batch), args.seconds)
            except ImportError as error:
                cells, compile_times = [f"  skipped: {error}"], []
                break
            if result is None:
                cells.append(f"  no result in {args.mjx_limit:.0f} s")
                break
            cells.append(f"{batch / result[0]:>16,.0f}")
            compile_times.append(result[1])
        made = [t for t in compile_times if t is not None]
        print(
            f"{name:<24}{''.join(cells)}" + (f"{max(made):>11.2f}" if made else ""),
            flush=True,
        )


if __name__ == "__main__":
    main()
