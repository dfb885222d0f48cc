"""Triangles fixed to links: what the renderer draws, and the files they come from.

trimesh takes a second to import, and many robots need nothing of it: it is imported where
it is used.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from w4d_jax.types import InputError


class Triangles(NamedTuple):
    """A set of triangles, each rigid in one link's frame, sorted by link.

    corners f32[N,3,3]: metres, in the link's frame, counter-clockwise seen from outside.
    link i32[N]: row of the pose array that moves the triangle; non-decreasing.
    color f32[N,3]: sRGB in [0, 1].
    """

    corners: np.ndarray
    link: np.ndarray
    color: np.ndarray


class Surface(NamedTuple):
    """Triangles in one frame. corners f64[N,3,3]; color f64[N,3] sRGB in [0, 1]."""

    corners: np.ndarray
    color: np.ndarray

    def placed(self, pose, scale=(1.0, 1.0, 1.0)) -> "Surface":
        """The surface scaled along its own axes, then moved by pose f[4,4].

        A mirror turns triangles inside out, so their corners are read backwards then.
        """
        matrix = pose[:3, :3] * np.asarray(scale)
        corners = self.corners @ matrix.T + pose[:3, 3]
        return Surface(
            corners[:, ::-1] if np.linalg.det(matrix) < 0 else corners, self.color
        )

    def tinted(self, color) -> "Surface":
        """Multiplied by color f[3], as the file's material and the robot's both count."""
        return Surface(self.corners, self.color * np.asarray(color))


def join(surfaces: list[tuple[int, Surface]]) -> Triangles:
    """(link, surface in the link's frame) pairs -> one sorted set."""
    parts = sorted(surfaces, key=lambda part: part[0])
    none = Surface(np.zeros((0, 3, 3)), np.zeros((0, 3)))
    corners, color = zip(none, *(surface for _, surface in parts), strict=True)
    link = [np.full(len(surface.color), link) for link, surface in parts]
    return Triangles(
        np.concatenate(corners, dtype=np.float32),
        np.concatenate([np.zeros(0), *link]).astype(np.int32),
        np.concatenate(color, dtype=np.float32),
    )


def box(size) -> Surface:
    """size f[3]: full edge lengths, centred."""
    from trimesh.creation import box

    return _surface(box(extents=size))


def sphere(radius: float) -> Surface:
    from trimesh.creation import icosphere

    return _surface(icosphere(subdivisions=3, radius=radius))


def cylinder(radius: float, length: float) -> Surface:
    """Along z, centred."""
    from trimesh.creation import cylinder

    return _surface(cylinder(radius=radius, height=length, sections=48))


def capsule(radius: float, length: float) -> Surface:
    """Along z, centred; length is that of the cylindrical part."""
    from trimesh.creation import capsule

    mesh = capsule(height=length, radius=radius, count=[32, 32])
    mesh.vertices -= mesh.bounds.mean(0)
    return _surface(mesh)


def read_mesh(path: Path) -> Surface:
    """All triangles of a mesh file (.stl .obj .dae .glb ...) with the colours it gives.

    Every group and every node of the file, each at its place: nothing is dropped. A .dae
    comes in metres whatever its unit. Where the file says nothing about colour, white.
    """
    import trimesh

    try:
        scene = trimesh.load_scene(path, process=False)
        parts = [
            _surface(part, linear=path.suffix.lower() in (".glb", ".gltf")).placed(
                np.asarray(pose), [_metres(part)] * 3
            )
            for node in scene.graph.nodes_geometry
            for pose, name in [scene.graph[node]]
            if isinstance(part := scene.geometry[name], trimesh.Trimesh)
        ]
    except Exception as error:  # a foreign parser may end in any way on a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"mesh {path}: cannot read it ({reason[:200]})") from error
    if not sum(len(part.color) for part in parts):
        raise InputError(f"mesh {path}: no triangles in it")
    surface = Surface(*(np.concatenate(field) for field in zip(*parts, strict=True)))
    if not (np.abs(surface.corners) < 1e9).all():
        raise InputError(f"mesh {path}: NaN or a vertex beyond 1e9")
    return surface


def _metres(part) -> float:
    """The unit of a .dae, which trimesh states as "0.01 * meters" and leaves to us."""
    number, product, _ = str(part.metadata.get("units", "")).partition(" * meters")
    return float(number) if product else 1.0


def _surface(part, linear: bool = False) -> Surface:
    corners = np.asarray(part.triangles, np.float64)
    return Surface(corners, np.broadcast_to(_face_colors(part, linear), (len(corners), 3)))


def _face_colors(part, linear: bool) -> np.ndarray:
    """sRGB f64[N,3] or f64[3]: texture at the triangles' centres, material, or colours.

    linear: the file's colours outside textures are linear light, as in glTF.
    """
    from trimesh.visual.color import uv_to_color
    from trimesh.visual.material import PBRMaterial

    visual, encode = part.visual, _srgb if linear else np.asarray
    if not visual.defined:
        return np.ones(3)
    if visual.kind != "texture":
        return encode(visual.face_colors[:, :3] / 255.0)
    material = visual.material
    if isinstance(material, PBRMaterial):
        factor, image = material.baseColorFactor, material.baseColorTexture
    else:
        factor, image = material.diffuse, material.image
    tint = np.ones(3) if factor is None else encode(np.asarray(factor)[:3] / 255.0)
    if image is None or visual.uv is None:
        return tint
    texel = uv_to_color(visual.uv[part.faces].mean(1), image)[:, :3] / 255.0
    # A texture times black is the texture: exporters leave Kd 0 beside map_Kd.
    return texel * (tint if tint.any() else 1.0)


def _srgb(linear):
    return np.where(linear < 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
