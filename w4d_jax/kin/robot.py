"""A robot from a URDF or MJCF file: its links, joints, limits, geometry, kinematics."""
# pyright: reportAttributeAccessIssue=false
# (mujoco's names come from compiled modules, which pyright does not see into)

import dataclasses
import functools
import warnings
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jax
import mujoco
import numpy as np

from w4d_jax.kin import forward, mesh, urdf
from w4d_jax.types import InputError

# Plain numbers: mujoco's enumerations do not equal the integers of its arrays both ways.
HINGE, SLIDE, FREE = map(
    int,
    (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE, mujoco.mjtJoint.mjJNT_FREE),
)
JOINT, CONNECT, WELD = map(
    int, (mujoco.mjtEq.mjEQ_JOINT, mujoco.mjtEq.mjEQ_CONNECT, mujoco.mjtEq.mjEQ_WELD)
)


@dataclasses.dataclass(frozen=True, eq=False)
class Robot:
    """A kinematic tree with geometry. Hashed by identity: a static argument for jit.

    joint_names are the free joints; mimic joints follow them. link_names holds every link,
    also those on fixed joints, parents first. limits f64[J,2] is +-inf where a joint has
    none (continuous joints: any bound would refuse good recordings).
    """

    name: str
    path: Path
    joint_names: tuple[str, ...]
    link_names: tuple[str, ...]
    limits: np.ndarray
    triangles: mesh.Triangles
    tree: forward.Tree
    mj_model: Any  # the compiled MjModel; mjx.put_model takes it

    def link_poses(self, q):
        """q f32[...,J] -> base_from_link f32[...,L,4,4]; jit, vmap, grad."""
        if q.shape[-1:] != (len(self.joint_names),):
            raise InputError(
                f"q of shape {tuple(q.shape)}: last axis must be {len(self.joint_names)}, "
                f"the joints {', '.join(self.joint_names)}"
            )
        return self._link_poses(q)

    @functools.cached_property
    def _link_poses(self):
        return jax.jit(functools.partial(forward.link_poses, self.tree))

    def link_index(self, name: str) -> int:
        return _index(self.link_names, name, f"robot {self.name}: link")

    def joint_index(self, name: str) -> int:
        return _index(self.joint_names, name, f"robot {self.name}: joint")

    @functools.cached_property
    def span(self) -> np.ndarray:
        """f64[J,2]: the limits; one turn (2 pi metres) of each joint that has no end."""
        low, high = self.limits.T
        low = np.where(
            np.isfinite(low), low, np.where(np.isfinite(high), high - 2 * np.pi, -np.pi)
        )
        return np.stack([low, np.where(np.isfinite(high), high, low + 2 * np.pi)], 1)

    @functools.cached_property
    def neutral(self) -> np.ndarray:
        """f32[J]: the middle of the limits."""
        return self.span.mean(1).astype(np.float32)

    def sample(self, count: int, seed: int = 0) -> np.ndarray:
        """Joints f32[count,J], uniform within limits."""
        low, high = self.span.T
        q = np.random.default_rng(seed).uniform(low, high, (count, len(low)))
        return q.astype(np.float32)

    @functools.cached_property
    def reach(self) -> float:
        """Metres: the ball round the base origin that holds the robot in every pose.

        The farthest of 4,096 sampled poses, each link taken as a ball round its origin, and
        5 % for the poses between.
        """
        size = np.zeros(len(self.link_names))
        corners = np.linalg.norm(self.triangles.corners, axis=-1).max(-1, initial=0.0)
        np.maximum.at(size, self.triangles.link, corners)
        origins = np.asarray(self.link_poses(self.sample(4096)))[..., :3, 3]
        return 1.05 * float((np.linalg.norm(origins, axis=-1) + size).max())

    def check(self, q, names=None, slack: float = 1e-3) -> np.ndarray:
        """Joints q [T,J], columns in `names`' order -> f32[T,J] in this robot's order.

        Raises InputError naming joint, frame, value and limit; `slack` (radians, metres) is
        what a recording's rounding may overstep.
        """
        q = np.asarray(q)
        names = self.joint_names if names is None else tuple(map(str, names))
        joints = ", ".join(self.joint_names)
        if set(names) != set(self.joint_names) or len(names) != len(self.joint_names):
            unknown = [n for n in names if n not in self.joint_names]
            missing = [n for n in self.joint_names if n not in names]
            raise InputError(
                f"robot {self.name}: joints unknown {unknown}, missing {missing}; "
                f"need each once: {joints}"
            )
        if q.ndim != 2 or q.shape[1] != len(names) or not np.issubdtype(q.dtype, np.number):
            raise InputError(
                f"robot {self.name}: q is {q.dtype}{list(q.shape)}, "
                f"need [T, {len(names)}]: {joints}"
            )
        q = q[:, [names.index(n) for n in self.joint_names]].astype(np.float64)
        wrong = ~((q >= self.limits[:, 0] - slack) & (q <= self.limits[:, 1] + slack))
        wrong |= ~np.isfinite(q)
        if wrong.any():
            frame, j = np.argwhere(wrong)[0]
            low, high = self.limits[j]
            raise InputError(
                f"robot {self.name}: joint {self.joint_names[j]} is {q[frame, j]:g} "
                f"in frame {frame}, need {low:g} to {high:g}"
            )
        return q.astype(np.float32)


def load_robot(path) -> Robot:
    """Reads a URDF or MJCF file. Raises InputError, one line, for whatever is wrong in it.

    A URDF's base is its root link's frame, an MJCF's is the world body's; floating bases
    stand where the file puts them. What an MJCF fixes to the world body itself is scenery
    and no part of the robot. Of an MJCF body's geoms those that collide with nothing are
    its visuals; without such, all of them.
    """
    path = Path(path)
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except OSError as error:
        raise InputError(f"robot {path}: cannot read it ({error.strerror})") from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"robot {path}: not XML ({error})") from error
    readers = {"robot": _from_urdf, "mujoco": _from_mjcf}
    if root.tag not in readers:
        raise InputError(
            f"robot {path}: <{root.tag}>, need <robot> (URDF) or <mujoco> (MJCF)"
        )
    try:
        robot = readers[root.tag](path, root)
    except InputError as error:
        raise InputError(f"robot {path}: {error}") from error
    return robot


def _from_urdf(path: Path, root) -> Robot:
    read = urdf.read(root, path.resolve().parent)
    model = _checked(lambda: mujoco.MjSpec.from_string(read.xml).compile())
    bodies = [i for i in range(model.nbody) if i or read.root == "world"]
    robot = _robot(path, root.get("name") or path.stem, model, bodies, read.limits)
    surfaces = [(robot.link_names.index(link), s) for link, s in read.visuals]
    return dataclasses.replace(robot, triangles=mesh.join(surfaces))


def _from_mjcf(path: Path, root) -> Robot:
    spec = _checked(lambda: mujoco.MjSpec.from_file(str(path)))
    model = _checked(spec.compile)
    robot = _robot(path, root.get("model") or path.stem, model, range(1, model.nbody), {})
    surfaces = []
    for body in range(1, model.nbody):
        first = model.body_geomadr[body]
        geoms = range(first, first + model.body_geomnum[body])
        quiet = [
            g for g in geoms if not (model.geom_contype[g] or model.geom_conaffinity[g])
        ]
        surfaces += [(body - 1, _geom(model, spec, path, g)) for g in quiet or geoms]
    return dataclasses.replace(robot, triangles=mesh.join(surfaces))


def _checked(action):
    """What MuJoCo returns; its complaint, on one line, where it has one.

    Its warnings are about masses, which kinematics does not use.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return action()
    except (ValueError, RuntimeError, mujoco.FatalError) as error:
        raise InputError(f"MuJoCo: {' '.join(str(error).split())}") from error


def _geom(model, spec, path: Path, g: int) -> mesh.Surface:
    """A geom's triangles in its body's frame."""
    kind, size = mujoco.mjtGeom(model.geom_type[g]), model.geom_size[g]
    place, scale = _pose(model.geom_pos[g], model.geom_quat[g]), (1.0, 1.0, 1.0)
    if kind == mujoco.mjtGeom.mjGEOM_BOX:
        surface = mesh.box(2 * size)
    elif kind == mujoco.mjtGeom.mjGEOM_SPHERE:
        surface = mesh.sphere(size[0])
    elif kind == mujoco.mjtGeom.mjGEOM_ELLIPSOID:
        surface, scale = mesh.sphere(1.0), size
    elif kind == mujoco.mjtGeom.mjGEOM_CYLINDER:
        surface = mesh.cylinder(size[0], 2 * size[1])
    elif kind == mujoco.mjtGeom.mjGEOM_CAPSULE:
        surface = mesh.capsule(size[0], 2 * size[1])
    elif kind == mujoco.mjtGeom.mjGEOM_MESH:
        surface = _mesh(model, spec, path, model.geom_dataid[g])
    else:
        raise InputError(
            f"link {model.body(model.geom_bodyid[g]).name}: geom {kind.name}, need a mesh, "
            "box, sphere, ellipsoid, cylinder or capsule"
        )
    material = model.geom_matid[g]
    unset = (model.geom_rgba[g] == (0.5, 0.5, 0.5, 1.0)).all()
    rgba = model.mat_rgba[material] if material >= 0 and unset else model.geom_rgba[g]
    return surface.tinted(rgba[:3]).placed(place, scale)


def _mesh(model, spec, path: Path, m: int) -> mesh.Surface:
    """A compiled mesh; an .obj from its file, as the compiler keeps one of its groups."""
    asset = spec.mesh(model.mesh(m).name)
    if Path(asset.file).suffix.lower() != ".obj":
        vertices = model.mesh_vert[model.mesh_vertadr[m] :][: model.mesh_vertnum[m]]
        faces = model.mesh_face[model.mesh_faceadr[m] :][: model.mesh_facenum[m]]
        return mesh.Surface(vertices[faces].astype(np.float64), np.ones((len(faces), 3)))
    file = urdf.find(str(Path(spec.meshdir or "") / asset.file), path.resolve().parent)
    if file is None:
        raise InputError(f"mesh {asset.file} not found below {path.parent / spec.meshdir}")
    surface = mesh.read_mesh(file)
    # The compiler moves a mesh to `ref`, scales it, and centres it: mesh_pos, mesh_quat.
    surface = surface._replace(color=np.ones_like(surface.color))
    surface = surface.placed(np.linalg.inv(_pose(asset.refpos, asset.refquat)))
    return surface.placed(
        np.linalg.inv(_pose(model.mesh_pos[m], model.mesh_quat[m])), asset.scale
    )


def _robot(path: Path, name: str, model, bodies, limits: dict) -> Robot:
    """bodies: those of the model that are links, ascending, so that parents come first."""
    if model.njnt == 0 or not any(t in (HINGE, SLIDE) for t in model.jnt_type):
        raise InputError(f"{len(bodies)} links and no joint that moves, need at least one")
    gain, offset, free = _couplings(model)
    frames: list[tuple] = []  # parent, constant, first, second, hinge, joint
    frame_of = {}
    for body in range(model.nbody):
        parent = frame_of[model.body_parentid[body]] if body else -1
        here = _pose(model.body_pos[body], model.body_quat[body])
        first = model.body_jntadr[body]
        joints = range(first, first + model.body_jntnum[body])
        zero = np.zeros((4, 4))
        moving = [j for j in joints if model.jnt_type[j] != FREE]
        if not moving:
            frames.append((parent, here, zero, zero, False, -1))
            parent = len(frames) - 1
        for j in moving:
            if model.jnt_type[j] not in (HINGE, SLIDE):
                raise InputError(
                    f"joint {_joint_name(model, j)}: a ball, need hinge or slide"
                )
            frames.append((parent, *_moving(model, j, here), j))
            parent, here = len(frames) - 1, np.eye(4)
        frame_of[body] = parent
    rows = np.array([f[5] for f in frames])
    tree = forward.Tree(
        parent=tuple(f[0] for f in frames),
        constant=np.stack([f[1] for f in frames]),
        first=np.stack([f[2] for f in frames]),
        second=np.stack([f[3] for f in frames]),
        hinge=np.array([f[4] for f in frames]),
        gain=np.where(rows[:, None] >= 0, gain[rows], 0.0),
        offset=np.where(rows >= 0, offset[rows], 0.0),
        link=tuple(frame_of[b] for b in bodies),
    )
    if not all(np.isfinite(x).all() for x in (tree.constant, tree.first, tree.gain)):
        raise InputError("NaN or infinity in a link's place or a joint's axis")
    names = [_joint_name(model, j) for j in range(model.njnt)]
    ranges = np.where(model.jnt_limited[:, None], model.jnt_range, [-np.inf, np.inf])
    return Robot(
        name=name,
        path=path,
        joint_names=tuple(names[j] for j in free),
        link_names=tuple(model.body(b).name or f"body{b}" for b in bodies),
        limits=np.array([limits.get(names[j], ranges[j]) for j in free], np.float64),
        triangles=mesh.join([]),
        tree=tree,
        mj_model=model,
    )


def _couplings(model) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Every joint's position as gain [njnt,J] @ q + offset [njnt], and the J free joints.

    MuJoCo states mimic joints and MJCF's couplings as joint equalities
    x - x0 = c0 + c1 (y - y0) + higher powers, or x - x0 = c0 without a y.
    """
    master: dict[int, tuple[int, float, float]] = {}
    for e in range(model.neq):
        if model.eq_type[e] in (CONNECT, WELD) and model.eq_active0[e]:
            raise InputError(
                f"equality {model.equality(e).name or e} closes a kinematic loop, need a "
                "tree (couple the joints instead)"
            )
        if model.eq_type[e] != JOINT or not model.eq_active0[e]:
            continue
        x, y, c = int(model.eq_obj1id[e]), int(model.eq_obj2id[e]), model.eq_data[e, :5]
        if c[2:].any():
            raise InputError(
                f"joint {_joint_name(model, x)}: coupled by a polynomial of "
                "degree > 1, need a linear one"
            )
        x0, y0 = (model.qpos0[model.jnt_qposadr[j]] if j >= 0 else 0.0 for j in (x, y))
        slope = float(c[1]) if y >= 0 else 0.0
        master[x] = (y, slope, float(x0 + c[0] - slope * y0))
    free = [j for j in range(model.njnt) if j not in master and model.jnt_type[j] != FREE]
    if not free:
        raise InputError("every joint is tied to another or fixed, need a free one")
    gain, offset = np.zeros((model.njnt, len(free))), np.zeros(model.njnt)
    gain[free, range(len(free))] = 1.0
    for joint in master:
        scale, shift, lead, seen = 1.0, 0.0, joint, set()
        while lead in master:
            if lead in seen:
                raise InputError(
                    f"joint {_joint_name(model, joint)}: mimics itself in a circle"
                )
            seen.add(lead)
            lead, c1, c0 = master[lead]
            scale, shift = scale * c1, shift + scale * c0
        offset[joint] = shift
        if lead >= 0:
            gain[joint, free.index(lead)] = scale
    return gain, offset, free


def _moving(model, j: int, body: np.ndarray) -> tuple:
    """The frame's constant, first and second matrices (see forward.Tree), and hinge."""
    axis, anchor = model.jnt_axis[j], model.jnt_pos[j]
    start = float(model.qpos0[model.jnt_qposadr[j]])
    if model.jnt_type[j] == SLIDE:
        along = np.zeros((4, 4))
        along[:3, 3] = axis
        return body @ (np.eye(4) - start * along), body @ along, np.zeros((4, 4)), False
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    outer = np.outer(axis, axis)

    def about(R, t):
        matrix = np.zeros((4, 4))
        matrix[:3, :3], matrix[:3, 3] = R, t - R @ anchor
        return matrix

    still, cosine, sine = about(outer, anchor), about(np.eye(3) - outer, 0), about(cross, 0)
    still[3, 3] = 1.0
    # cos(a - start), sin(a - start) by the addition theorem
    c, s = np.cos(start), np.sin(start)
    return (
        body @ still,
        body @ (c * cosine - s * sine),
        body @ (s * cosine + c * sine),
        True,
    )


def _pose(position, quat) -> np.ndarray:
    pose, R = np.eye(4), np.zeros(9)
    mujoco.mju_quat2Mat(R, quat)
    pose[:3, :3], pose[:3, 3] = R.reshape(3, 3), position
    return pose


def _joint_name(model, j: int) -> str:
    return model.joint(j).name or f"joint{j}"


def _index(names: tuple[str, ...], name: str, kind: str) -> int:
    if name not in names:
        raise InputError(f"{kind} {name!r} unknown, need one of {', '.join(names)}")
    return names.index(name)
