"""Frames a second of one robot's depth, side by side in one run: the product's raster,
MuJoCo's OpenGL renderer, MuJoCo's rays and embree (which also rebuilds its tree per pose).

    python bench/render.py --robot panda.urdf

MuJoCo's renderer runs in a process of its own under MUJOCO_GL (default egl); where there is
no OpenGL, or no embreex (`pip install embreex`), its line says so. Passes over all of them
alternate and the best is kept, so that a busy machine slows all alike. The Panda of the
`example-robot-data` package has 135k triangles.
"""

import argparse
import json
import os
import subprocess
import sys
import time

import jax
import mujoco
import numpy as np

from w4d_jax.kin import Camera, load_robot, render_robot


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--robot", required=True, metavar="URDF")
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=720)
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--opengl", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()

    robot = load_robot(args.robot)
    camera = overview(robot, args.height, args.width)
    q = motion(robot, 8)
    if args.opengl:
        print(json.dumps(best(opengl(robot, q, camera), args.passes)))
        return

    view = render_robot(robot, q, camera)
    print(
        f"{robot.name}: {len(robot.triangles.corners)} triangles, "
        f"{args.width}x{args.height}, {view.mask.mean():.1%} of it robot; "
        f"{os.cpu_count()} cores, "
        f"{jax.devices()[0].device_kind}; load {os.getloadavg()[0]:.1f}"
    )
    peers = {
        "w4d_jax render_robot (pointmap, mask, depth, link)": ours(robot, q, camera),
        "MuJoCo mj_multiRay, one thread (depth)": rays(robot, q, camera),
    } | embree(robot, q, camera)
    passes = [
        {name: best(run, 1) for name, run in peers.items()} for _ in range(args.passes)
    ]
    found = {name: min(found[name] for found in passes) for name in peers}
    gl = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], "--opengl"],
        env=os.environ | {"MUJOCO_GL": os.environ.get("MUJOCO_GL", "egl")},
        capture_output=True,
        text=True,
        check=False,
    )
    if gl.returncode == 0:
        found["MuJoCo Renderer, OpenGL (depth)"] = json.loads(gl.stdout.splitlines()[-1])
    else:
        print("MuJoCo Renderer: no OpenGL:", (gl.stderr.strip().splitlines() or ["?"])[-1])
    for name, seconds in sorted(found.items(), key=lambda pair: pair[1]):
        print(f"{name:52s} {1e3 * seconds:8.1f} ms/frame {1 / seconds:8.1f} frames/s")
    for frames in (1, 8, 49):
        run = ours(robot, motion(robot, frames), camera)
        print(
            f"{frames:3d} frames in one call {1e3 * best(run, args.passes):34.1f} ms/frame"
        )


def overview(robot, height: int, width: int) -> Camera:
    """A camera from which the whole robot, at rest, fills most of the image's height."""
    poses = np.asarray(robot.link_poses(robot.neutral))[robot.triangles.link]
    corners = np.einsum("nij,ncj->nci", poses[:, :3, :3], robot.triangles.corners)
    points = (corners + poses[:, None, :3, 3]).reshape(-1, 3)
    center = (points.min(0) + points.max(0)) / 2
    radius = np.linalg.norm(points - center, axis=1).max()
    z = -np.array([1.4, 0.9, 0.45]) / np.linalg.norm([1.4, 0.9, 0.45])
    x = np.cross(z, [0.0, 0.0, 1.0]) / np.linalg.norm(np.cross(z, [0.0, 0.0, 1.0]))
    pose = np.eye(4)
    pose[:3, :3] = np.stack([x, np.cross(z, x), z])
    pose[:3, 3] = -pose[:3, :3] @ (center - 1.8 * radius * z)
    focal = 1.4 * height
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    return Camera(width, height, K, pose)


def motion(robot, frames: int) -> np.ndarray:
    """Joints f32[T,J] that wander about the middle of the limits."""
    low, high = robot.span.T
    phase = np.linspace(0, 2, frames)[:, None] + np.arange(len(low))
    return (robot.neutral + 0.15 * (high - low) * np.sin(phase)).astype(np.float32)


def best(run, passes: int) -> float:
    """Seconds per frame of the fastest pass; run() draws all frames and says how many."""
    run()
    seconds = []
    for _ in range(passes):
        start = time.perf_counter()
        frames = run()
        seconds.append((time.perf_counter() - start) / frames)
    return min(seconds)


def ours(robot, q, camera):
    def run():
        jax.block_until_ready(render_robot(robot, q, camera))
        return len(q)

    return run


def mujoco_model(robot):
    """The same triangles for MuJoCo: a mesh on a mocap body for each link."""
    spec = mujoco.MjSpec()
    spec.visual.quality.shadowsize, spec.visual.quality.offsamples = 0, 0
    for link, name in enumerate(robot.link_names):
        corners = robot.triangles.corners[robot.triangles.link == link].reshape(-1, 3)
        body = spec.worldbody.add_body(name=name, mocap=True)
        if len(corners):
            vertices, faces = np.unique(corners, axis=0, return_inverse=True)
            mesh = spec.add_mesh(
                name=name, inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL
            )
            mesh.uservert, mesh.userface = vertices.ravel(), faces.ravel()
            body.add_geom(type=mujoco.mjtGeom.mjGEOM_MESH, meshname=name)
    return spec.compile()


def pose_model(robot, model, data, q) -> None:
    poses = np.asarray(robot.link_poses(q), float)
    data.mocap_pos[:] = poses[:, :3, 3]
    for quaternion, pose in zip(data.mocap_quat, poses, strict=True):
        mujoco.mju_mat2Quat(quaternion, pose[:3, :3].ravel())
    mujoco.mj_kinematics(model, data)


def rays(robot, q, camera):
    model = mujoco_model(robot)
    data = mujoco.MjData(model)
    eye, directions = _rays(camera)
    count = directions.size // 3
    geom, distance = np.zeros(count, np.int32), np.zeros(count)

    def run():
        pose_model(robot, model, data, q[0])
        mujoco.mj_multiRay(
            model, data, eye, directions.reshape(-1), None, 1, -1, geom, distance, None,
            count, mujoco.mjMAXVAL,
        )  # fmt: skip
        return 1

    return run


def embree(robot, q, camera) -> dict:
    try:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene
    except ImportError as error:
        print(f"embree: {error}")
        return {}
    eye, directions = _rays(camera)
    directions = directions.reshape(-1, 3).astype(np.float32)
    origins = np.broadcast_to(eye.astype(np.float32), directions.shape).copy()

    def build():
        poses = np.asarray(robot.link_poses(q[0]))[robot.triangles.link]
        corners = np.einsum("nij,ncj->nci", poses[:, :3, :3], robot.triangles.corners)
        scene = EmbreeScene()
        TriangleMesh(scene, (corners + poses[:, None, :3, 3]).astype(np.float32))
        return scene

    built = build()

    def cast(scene=built):
        scene.run(origins, directions, query="DISTANCE")
        return 1

    return {
        "embree, cast alone (depth)": cast,
        "embree, tree rebuilt for the pose, then cast": lambda: cast(build()),
    }


def opengl(robot, q, camera):
    """MuJoCo's renderer, with shadows and multisampling off."""
    model = mujoco_model(robot)
    model.vis.global_.offwidth = max(model.vis.global_.offwidth, camera.width)
    model.vis.global_.offheight = max(model.vis.global_.offheight, camera.height)
    model.vis.global_.fovy = np.degrees(2 * np.arctan2(camera.height / 2, camera.K[1, 1]))
    data = mujoco.MjData(model)
    renderer = mujoco.Renderer(model, camera.height, camera.width)
    renderer.enable_depth_rendering()
    eye, _ = _rays(camera)
    forward = camera.cam_from_world[2, :3]
    free = mujoco.MjvCamera()
    free.lookat, free.distance = eye + 3.0 * forward, 3.0
    free.elevation = np.degrees(np.arcsin(forward[2]))
    free.azimuth = np.degrees(np.arctan2(forward[1], forward[0]))

    def run():
        for joints in q:
            pose_model(robot, model, data, joints)
            renderer.update_scene(data, free)
            renderer.render()
        return len(q)

    return run


def _rays(camera):
    """Camera centre f64[3] and rays with z = 1 f64[H,W,3], in the world."""
    K, pose = np.asarray(camera.K, float), np.asarray(camera.cam_from_world, float)
    u, v = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(K).T
    return -pose[:3, :3].T @ pose[:3, 3], rays @ pose[:3, :3]


if __name__ == "__main__":
    main()
