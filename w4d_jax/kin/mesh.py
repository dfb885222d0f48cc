"""Triangles fixed to links: what the renderer draws, and the files they come from."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import trimesh

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
    empty = np.zeros((0, 3))
    return Triangles(
        np.concatenate(
            [empty[:, None].repeat(3, 1), *(s.corners for _, s in parts)]
        ).astype(np.float32),
        np.repeat([link for link, _ in parts], [len(s.color) for _, s in parts]).astype(
            np.int32
        ),
        np.concatenate([empty, *(s.color for _, s in parts)]).astype(np.float32),
    )


def box(size) -> Surface:
    """size f[3]: full edge lengths, centred."""
    return _surface(trimesh.creation.box(extents=size))


def sphere(radius: float) -> Surface:
    return _surface(trimesh.creation.icosphere(subdivisions=3, radius=radius))


def cylinder(radius: float, length: float) -> Surface:
    """Along z, centred."""
    return _surface(trimesh.creation.cylinder(radius=radius, height=length, sections=48))


def capsule(radius: float, length: float) -> Surface:
    """Along z, centred; length is that of the cylindrical part."""
    mesh = trimesh.creation.capsule(height=length, radius=radius, count=[32, 32])
    mesh.vertices -= mesh.bounds.mean(0)
    return _surface(mesh)


def read_mesh(path: Path) -> Surface:
    """All triangles of a mesh file (.stl .obj .dae .glb ...) with the colours it gives.

    Every group and every node of the file, each at its place: nothing is dropped. Where the
    file says nothing about colour, white.
    """
    try:
        scene = trimesh.load_scene(path, process=False)
        parts = []
        for node in scene.graph.nodes_geometry:
            pose, name = scene.graph[node]
            if isinstance(scene.geometry[name], trimesh.Trimesh):
                parts.append(_surface(scene.geometry[name]).placed(np.asarray(pose)))
    except Exception as error:  # a foreign parser may end in any way on a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"mesh {path}: cannot read it ({reason[:200]})") from error
    if not sum(len(part.color) for part in parts):
        raise InputError(f"mesh {path}: no triangles in it")
    surface = Surface(*(np.concatenate(field) for field in zip(*parts, strict=True)))
    if not np.isfinite(surface.corners).all():
        raise InputError(f"mesh {path}: NaN or infinite vertex")
    return surface


def _surface(mesh) -> Surface:
    return Surface(np.asarray(mesh.triangles, np.float64), _face_colors(mesh))


def _face_colors(mesh) -> np.ndarray:
    """sRGB f64[N,3]: the texture at each triangle's centre, its material, or its colour."""
    faces, visual = np.asarray(mesh.faces), mesh.visual
    if not visual.defined:
        return np.ones((len(faces), 3))
    if visual.kind != "texture":
        return visual.face_colors[:, :3] / 255.0
    material = visual.material
    if isinstance(material, trimesh.visual.material.PBRMaterial):
        factor, image = material.baseColorFactor, material.baseColorTexture
    else:
        factor, image = material.diffuse, material.image
    tint = np.ones(3) if factor is None else np.asarray(factor, float)[:3] / 255.0
    if image is None or visual.uv is None:
        return np.tile(tint, (len(faces), 1))
    # A texture times black is the texture: exporters leave Kd 0 beside map_Kd.
    texel = trimesh.visual.color.uv_to_color(visual.uv[faces].mean(1), image)[:, :3] / 255.0
    return texel * (tint if tint.any() else 1.0)
