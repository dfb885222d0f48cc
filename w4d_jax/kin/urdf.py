"""URDF text -> the bare tree for MuJoCo's compiler, and the visual geometry it would lose.

MuJoCo's compiler drops visual meshes and fixed links of a URDF by default, does not resolve
`package://`, reads neither .dae nor .glb, and keeps one group of an .obj with several. So
it gets the kinematic tree alone, and the geometry is read here.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from w4d_jax.kin import mesh
from w4d_jax.types import InputError

MOVING = ("revolute", "continuous", "prismatic")
GREY = (0.7, 0.7, 0.7)
LARGE = 1e6  # no robot has such a length or angle; a damaged file may


class Urdf(NamedTuple):
    """What the file says, apart from the tree that `xml` carries to MuJoCo."""

    xml: str  # links and joints alone, each link with a unit inertia
    root: str
    limits: dict[str, tuple[float, float]]  # by joint name; +-inf where none is given
    visuals: list[tuple[str, mesh.Surface]]  # (link name, triangles in its frame)


def read(robot: Element, folder: Path) -> Urdf:
    """Raises InputError naming the link, joint or path that is wrong."""
    links, joints = list(_named(robot, "link")), _named(robot, "joint")
    if any("xacro" in str(e.tag) for e in robot.iter()) or not links:
        raise InputError(
            f"{len(links)} links and {len(joints)} joints, need at least one of each; "
            "a xacro file must be expanded first (xacro FILE.xacro > FILE.urdf)"
        )
    bare = Element("robot", name=robot.get("name") or "robot")
    flags = SubElement(bare, "mujoco")
    SubElement(flags, "compiler", discardvisual="false", fusestatic="false")
    for link in links:
        inertial = SubElement(SubElement(bare, "link", name=link), "inertial")
        SubElement(inertial, "mass", value="1")
        SubElement(
            inertial, "inertia", ixx="1", iyy="1", izz="1", ixy="0", ixz="0", iyz="0"
        )
    limits = {name: _limits(name, joint) for name, joint in joints.items()}
    for name, joint in joints.items():
        bare.append(_bare_joint(name, joint, limits[name], links, joints))
    return Urdf(
        ElementTree.tostring(bare, encoding="unicode"),
        _root(links, bare),
        limits,
        _visuals(robot, folder),
    )


def find(name: str, folder: Path) -> Path | None:
    """The file a mesh name means: below the URDF's folder or any folder above it.

    `package://X/rest` is tried as X/rest, then as rest.
    """
    scheme, _, rest = name.rpartition("://")
    names = [rest] if scheme in ("", "file") else [rest, rest.partition("/")[2]]
    for candidate in filter(None, names):
        for base in (folder, *folder.parents):
            try:
                if (base / candidate).is_file():
                    return base / candidate
            except OSError:  # a name no file system takes
                return None
    return None


def _bare_joint(name: str, joint: Element, limits, links: list[str], joints) -> Element:
    kind = joint.get("type")
    if kind not in (*MOVING, "fixed", "floating"):
        raise InputError(
            f"joint {name}: type {kind!r}, need {', '.join(MOVING)}, fixed or floating"
        )
    # A floating base stands where the file puts it.
    bare = Element("joint", name=name, type="fixed" if kind == "floating" else kind)
    for end in ("parent", "child"):
        link = _attribute(joint, end, "link")
        if link not in links:
            raise InputError(f"joint {name}: {end} link {link!r} is not in the file")
        SubElement(bare, end, link=link)
    for tag, attribute, default in (
        ("origin", "xyz", (0, 0, 0)),
        ("origin", "rpy", (0, 0, 0)),
        ("axis", "xyz", (1, 0, 0)),
    ):
        numbers = _numbers(_attribute(joint, tag, attribute), 3, f"joint {name}", default)
        element = bare.find(tag)
        element = SubElement(bare, tag) if element is None else element
        element.set(attribute, " ".join(map(repr, numbers)))
    if limits[0] < limits[1] and math.isfinite(limits[1] - limits[0]):
        SubElement(bare, "limit", lower=repr(limits[0]), upper=repr(limits[1]))
    mimic = joint.find("mimic")
    if mimic is not None and kind in MOVING:
        master = mimic.get("joint", "")
        if master not in joints or joints[master].get("type") not in MOVING:
            raise InputError(
                f"joint {name}: mimics {master!r}, which is no moving joint here"
            )
        follower = SubElement(bare, "mimic", {"joint": master})
        for key, default in (("multiplier", 1.0), ("offset", 0.0)):
            where = f"joint {name} mimic {key}"
            follower.set(key, repr(_numbers(mimic.get(key), 1, where, (default,))[0]))
    return bare


def _limits(name: str, joint: Element) -> tuple[float, float]:
    """A joint whose limits are equal is locked (MuJoCo would set it free)."""
    limit = joint.find("limit")
    if joint.get("type") == "continuous" or limit is None:
        return -math.inf, math.inf
    if limit.get("lower") is None and limit.get("upper") is None:
        return -math.inf, math.inf
    try:
        lower, upper = (float(limit.get(side, "0")) for side in ("lower", "upper"))
    except ValueError:
        lower = upper = math.nan
    if not lower <= upper:
        raise InputError(
            f"joint {name}: limits {limit.get('lower')} to {limit.get('upper')}, need two "
            "numbers, the lower first"
        )
    return lower, upper


def _root(links: list[str], bare: Element) -> str:
    """The one link that is nobody's child; refuses forests and loops."""
    parent: dict[str, str] = {}
    for joint in bare.iterfind("joint"):
        child = _attribute(joint, "child", "link")
        if child in parent:
            raise InputError(
                f"link {child}: two parents, {parent[child]} and "
                f"{_attribute(joint, 'parent', 'link')}; need a tree"
            )
        parent[child] = _attribute(joint, "parent", "link")
    roots = [link for link in links if link not in parent]
    if len(roots) != 1:
        raise InputError(
            f"{len(roots)} root links {roots[:4]}, need one (a tree without loops)"
        )
    reached, grown = {roots[0]}, True
    while grown:
        new = {c for c, p in parent.items() if p in reached} - reached
        reached, grown = reached | new, bool(new)
    if len(reached) < len(links):
        lost = next(link for link in links if link not in reached)
        raise InputError(f"link {lost}: in a kinematic loop, never reached from {roots[0]}")
    return roots[0]


def _visuals(robot: Element, folder: Path) -> list[tuple[str, mesh.Surface]]:
    palette = {
        m.get("name"): m for m in robot.iter("material") if m.find("color") is not None
    }
    files: dict[Path, mesh.Surface] = {}
    found = []
    for name, link in _named(robot, "link").items():
        for visual in link.iterfind("visual"):
            where = f"link {name} visual"
            xyz = _numbers(_attribute(visual, "origin", "xyz"), 3, where, (0, 0, 0))
            rpy = _numbers(_attribute(visual, "origin", "rpy"), 3, where, (0, 0, 0))
            surface, scale = _shape(visual, where, folder, files)
            color = _color(visual, where, palette, surface)
            found.append((name, surface.tinted(color).placed(_pose(xyz, rpy), scale)))
    return found


def _shape(visual: Element, where: str, folder: Path, files) -> tuple[mesh.Surface, tuple]:
    """The surface and its scale."""
    geometry = visual.find("geometry")
    shape = next(iter(geometry), None) if geometry is not None else None
    kind = None if shape is None else shape.tag
    if shape is None or kind not in ("mesh", "box", "sphere", "cylinder", "capsule"):
        raise InputError(
            f"{where}: geometry {kind}, need mesh, box, sphere, cylinder or capsule"
        )
    if kind == "mesh":
        name = shape.get("filename") or ""
        path = find(name, folder)
        if path is None:
            raise InputError(
                f"{where}: mesh {name!r} not found in {folder} or any folder above it"
            )
        scale = _numbers(shape.get("scale"), 3, f"{where} scale", (1.0, 1.0, 1.0))
        if path not in files:
            try:
                files[path] = mesh.read_mesh(path)
            except InputError as error:
                raise InputError(f"{where}: {error}") from error
        return files[path], scale
    sizes = {"box": ("size",), "sphere": ("radius",)}.get(kind, ("radius", "length"))
    values = [
        _numbers(shape.get(size), 3 if kind == "box" else 1, f"{where} {kind} {size}")
        for size in sizes
    ]
    if min(min(v) for v in values) <= 0:
        raise InputError(f"{where}: {kind} of size {values}, need sizes > 0")
    if kind == "box":
        return mesh.box(values[0]), (1.0, 1.0, 1.0)
    return getattr(mesh, kind)(*(v[0] for v in values)), (1.0, 1.0, 1.0)


def _color(visual: Element, where: str, palette, surface: mesh.Surface) -> tuple:
    """The material's colour; grey where neither it nor the mesh file gives one."""
    material = visual.find("material")
    if material is not None and material.find("color") is None:
        material = palette.get(material.get("name"))
    if material is None:
        return GREY if (surface.color == 1.0).all() else (1.0, 1.0, 1.0)
    rgba = _numbers(_attribute(material, "color", "rgba"), 4, f"{where} color", GREY)
    return tuple(np.clip(rgba[:3], 0.0, 1.0))


def _pose(xyz, rpy) -> np.ndarray:
    """Fixed axes: roll about x, then pitch about y, then yaw about z."""
    (cr, cp, cy), (sr, sp, sy) = np.cos(rpy), np.sin(rpy)
    pose = np.eye(4)
    pose[:3, :3] = [
        [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
        [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
        [-sp, cp * sr, cp * cr],
    ]
    pose[:3, 3] = xyz
    return pose


def _named(robot: Element, kind: str) -> dict[str, Element]:
    found: dict[str, Element] = {}
    for element in robot.iterfind(kind):
        name = element.get("name")
        if not name or name in found:
            raise InputError(f"{kind} {name!r}: need a name, and each only once")
        found[name] = element
    return found


def _attribute(element: Element, tag: str, attribute: str) -> Any:
    child = element.find(tag)
    return None if child is None else child.get(attribute)


def _numbers(text: str | None, count: int, where: str, default=None) -> tuple[float, ...]:
    if text is None and default is not None:
        return tuple(map(float, default))
    try:
        numbers = tuple(float(word) for word in (text or "").split())
    except ValueError:
        numbers = ()
    if len(numbers) != count or not all(abs(number) < LARGE for number in numbers):
        raise InputError(f"{where}: {text!r}, need {count} x a number below {LARGE:g}")
    return numbers
