"""Reading robots: geometry of every format, names and limits, and each way to be wrong."""

import copy
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import trimesh
from hypothesis import example, given, settings
from hypothesis import strategies as st

from w4d_jax.kin import InputError, Robot, load_robot

SHARED = Path(__file__).parents[2] / "shared" / "data" / "robots"

ARM = """<robot name="arm">
  <material name="red"><color rgba="1 0 0 1"/></material>
  <link name="base"><visual><geometry><box size="0.2 0.2 0.1"/></geometry>
    <material name="red"/></visual></link>
  <link name="boom"><visual><origin xyz="0 0 0.2"/><geometry>
    <mesh filename="package://any/meshes/part.stl" scale="0.1 0.1 0.1"/>
    </geometry></visual></link>
  <link name="left"/>
  <link name="right"/>
  <joint name="turn" type="revolute"><parent link="base"/><child link="boom"/>
    <axis xyz="0 0 1"/><limit lower="-1" upper="2"/></joint>
  <joint name="grip" type="prismatic"><parent link="boom"/><child link="left"/>
    <axis xyz="0 1 0"/><limit lower="0" upper="0.04"/></joint>
  <joint name="follow" type="prismatic"><parent link="boom"/><child link="right"/>
    <axis xyz="0 -1 0"/><mimic joint="grip"/></joint>
</robot>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with meshes/part.stl: a unit box 1 m up."""
    folder = tmp_path_factory.mktemp("robot")
    (folder / "meshes").mkdir()
    part().export(folder / "meshes" / "part.stl")
    return folder


def part() -> trimesh.Trimesh:
    return trimesh.creation.box(
        (1, 1, 1), trimesh.transformations.translation_matrix([0, 0, 1])
    )


def load(folder, text: str, name: str = "arm.urdf") -> Robot:
    (folder / name).write_text(text, encoding="utf-8")
    return load_robot(folder / name)


def of_link(robot, name):
    return robot.triangles.corners[robot.triangles.link == robot.link_index(name)].astype(
        float
    )


def volume(corners) -> float:
    """Positive where the corners run counter-clockwise seen from outside."""
    a, b, c = np.moveaxis(corners, 1, 0)
    return float(np.einsum("ni,ni->", a, np.cross(b, c)) / 6)


def test_names_limits_and_geometry(folder):
    robot = load(folder, ARM)
    assert robot.name == "arm"
    assert robot.joint_names == ("turn", "grip")
    assert robot.link_names == ("base", "boom", "left", "right")
    np.testing.assert_array_equal(robot.limits, [[-1, 2], [0, 0.04]])
    np.testing.assert_allclose(robot.neutral, [0.5, 0.02])
    base, boom = of_link(robot, "base"), of_link(robot, "boom")
    assert volume(base) == pytest.approx(0.004) and volume(boom) == pytest.approx(0.001)
    np.testing.assert_allclose(boom.reshape(-1, 3).mean(0), [0, 0, 0.3], atol=1e-6)
    red = robot.triangles.color[robot.triangles.link == robot.link_index("base")]
    np.testing.assert_array_equal(red, np.broadcast_to([1, 0, 0], red.shape))
    assert (np.diff(robot.triangles.link) >= 0).all()
    # The far corners of the boom's box, which turns about its own axis.
    assert np.hypot(0.05 * np.sqrt(2), 0.35) < robot.reach < 0.4
    assert {robot: 1}[robot] == 1


@pytest.mark.parametrize("suffix", ["stl", "obj", "dae", "glb"])
def test_mesh_formats_keep_shape_and_place(folder, suffix):
    part().export(folder / "meshes" / f"part.{suffix}")
    corners = of_link(load(folder, ARM.replace("part.stl", f"part.{suffix}")), "boom")
    assert volume(corners) == pytest.approx(0.001, rel=1e-5)
    np.testing.assert_allclose(
        corners.reshape(-1, 3).min(0), [-0.05, -0.05, 0.25], atol=1e-6
    )


TWO_GROUPS = ("box", (0, 0, 0), "green"), ("ball", (3, 0, 0), "blue")


def write_groups(path) -> float:
    """An .obj of a box and a ball with a material each; returns their volume."""
    lines, total, start = [f"mtllib {path.stem}.mtl"], 0.0, 1
    for name, place, material in TWO_GROUPS:
        shape = (
            trimesh.creation.box((1, 1, 1))
            if name == "box"
            else trimesh.creation.icosphere(subdivisions=1)
        )
        shape.apply_translation(place)
        lines += [f"o {name}", *(f"v {x} {y} {z}" for x, y, z in shape.vertices)]
        lines += [f"g {name}", f"usemtl {material}"]
        lines += ["f {} {} {}".format(*(face + start)) for face in shape.faces]
        total, start = total + shape.volume, start + len(shape.vertices)
    path.write_text("\n".join(lines))
    path.with_suffix(".mtl").write_text("newmtl green\nKd 0 1 0\nnewmtl blue\nKd 0 0 1\n")
    return total


def test_every_group_of_an_obj_is_kept_with_its_colour(folder):
    total = write_groups(folder / "meshes" / "two.obj")
    robot = load(folder, ARM.replace("part.stl", "two.obj"))
    assert volume(of_link(robot, "boom")) == pytest.approx(total / 1000, rel=1e-4)
    colors = robot.triangles.color[robot.triangles.link == robot.link_index("boom")]
    assert {tuple(c) for c in colors.tolist()} == {(0, 1, 0), (0, 0, 1)}


def test_a_mirrored_mesh_is_not_inside_out(folder):
    robot = load(folder, ARM.replace('scale="0.1 0.1 0.1"', 'scale="0.1 0.1 -0.2"'))
    corners = of_link(robot, "boom")
    assert volume(corners) == pytest.approx(0.002)
    np.testing.assert_allclose(corners.reshape(-1, 3).mean(0), [0, 0, 0], atol=1e-6)


def test_a_dae_in_centimetres_comes_in_metres(folder):
    path = folder / "meshes" / "small.dae"
    part().export(path)
    text = path.read_text()
    assert "<unit" not in text and "<asset>" in text
    unit = '<unit name="centimeter" meter="0.01"/>'
    path.write_text(text.replace("<created>", unit + "<created>"))
    corners = of_link(load(folder, ARM.replace("part.stl", "small.dae")), "boom")
    assert volume(corners) == pytest.approx(1e-9, rel=1e-4)


def test_glb_factors_are_linear_light(folder):
    shape = part()
    material = trimesh.visual.material.PBRMaterial(baseColorFactor=[128, 0, 255, 255])
    shape.visual = trimesh.visual.TextureVisuals(uv=np.zeros((8, 2)), material=material)
    shape.export(folder / "meshes" / "tinted.glb")
    robot = load(folder, ARM.replace("part.stl", "tinted.glb"))
    color = robot.triangles.color[-1]
    np.testing.assert_allclose(color, [0.7366, 0, 1], atol=2e-3)


@pytest.mark.parametrize(
    "name",
    [
        "meshes/part.stl",
        "package://meshes/part.stl",
        "package://some_robot/meshes/part.stl",
        "../../meshes/part.stl",
        "file://{folder}/meshes/part.stl",
    ],
)
def test_mesh_paths(folder, name):
    deep = folder / "description" / "urdf"
    deep.mkdir(parents=True, exist_ok=True)
    name = name.format(folder=folder)
    assert len(
        of_link(load(deep, ARM.replace("package://any/meshes/part.stl", name)), "boom")
    )


SHAPES = {
    '<box size="0.1 0.2 0.3"/>': 0.006,
    '<sphere radius="0.2"/>': 4 / 3 * np.pi * 0.008,
    '<cylinder radius="0.1" length="0.5"/>': np.pi * 0.005,
    '<capsule radius="0.1" length="0.3"/>': np.pi * (0.003 + 4 / 3 * 0.001),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_primitives_face_outwards(folder, shape):
    corners = of_link(load(folder, ARM.replace('<box size="0.2 0.2 0.1"/>', shape)), "base")
    assert volume(corners) == pytest.approx(SHAPES[shape], rel=0.02)
    np.testing.assert_allclose(
        (corners.max((0, 1)) + corners.min((0, 1))) / 2, 0, atol=1e-6
    )


def test_limits_of_joints_without_any(folder):
    free = ARM.replace('type="revolute"', 'type="continuous"')
    robot = load(folder, free)
    assert (robot.limits[0] == [-np.inf, np.inf]).all() and robot.neutral[0] == 0
    assert np.abs(robot.sample(100)[:, 0]).max() <= np.pi
    robot.check(np.array([[100.0, 0.0]]))
    half = load(folder, ARM.replace('upper="2"', 'upper="inf"'))
    np.testing.assert_allclose(half.span[0], [-1, 2 * np.pi - 1])
    locked = load(folder, ARM.replace('lower="-1" upper="2"', 'lower="0.5" upper="0.5"'))
    np.testing.assert_array_equal(locked.limits[0], [0.5, 0.5])


def test_a_root_link_named_world_is_a_link(folder):
    robot = load(folder, ARM.replace('"base"', '"world"'))
    assert robot.link_names[0] == "world" and len(of_link(robot, "world")) == 12


def test_a_floating_base_stands_where_the_file_puts_it(folder):
    floating = ARM.replace(
        "</robot>",
        '<link name="ship"/><joint name="sea" type="floating"><parent link="ship"/>'
        '<child link="base"/><origin xyz="0 0 3"/></joint></robot>',
    )
    robot = load(folder, floating)
    assert robot.joint_names == ("turn", "grip")
    pose = np.asarray(robot.link_poses(robot.neutral))[robot.link_index("base")]
    np.testing.assert_array_equal(pose[:3, 3], [0, 0, 3])


MJCF = """<mujoco model="stick"><asset>
    <mesh name="two" file="meshes/two.obj" scale="0.1 0.1 -0.1" refpos="0.1 0.2 0.3"/>
    <mesh name="part" file="meshes/part.stl"/>
    <material name="gold" rgba="1 0.8 0 1"/></asset>
  <worldbody><geom type="plane" size="1 1 1"/>
    <body name="stick" pos="0 0 1"><joint name="swing" axis="0 1 0" range="-90 90"/>
      <geom type="mesh" mesh="two" pos="0 0 0.5" euler="0 90 0" contype="0"
        conaffinity="0"/>
      <geom size="9"/>
      <body name="knob"><geom type="ellipsoid" size="0.1 0.2 0.3" material="gold"/>
        <geom type="mesh" mesh="part" rgba="0 0 1 1"/></body>
    </body></worldbody></mujoco>"""


def test_mjcf_geometry(folder):
    total = write_groups(folder / "meshes" / "two.obj")
    robot = load(folder, MJCF, "stick.xml")
    assert robot.joint_names == ("swing",) and robot.link_names == ("stick", "knob")
    np.testing.assert_allclose(robot.limits, [[-np.pi / 2, np.pi / 2]])
    # Only the visual geom counts, both groups of it. The ball's centre: (3, 0, 0) - refpos,
    # scaled, turned by 90 degrees about y, moved.
    stick, knob = of_link(robot, "stick"), of_link(robot, "knob")
    assert volume(stick) == pytest.approx(total / 1000, rel=1e-4)
    ball = stick[stick[..., 2].max(1) < 0.4].reshape(-1, 3)
    np.testing.assert_allclose(
        (ball.min(0) + ball.max(0)) / 2, [0.03, -0.02, 0.5 - 0.29], atol=1e-3
    )
    assert volume(knob) == pytest.approx(1 + 4 / 3 * np.pi * 0.006, rel=0.01)
    np.testing.assert_allclose(knob[-12:].reshape(-1, 3).mean(0), [0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(np.unique(robot.triangles.color, axis=0)[-1], [1, 0.8, 0])
    np.testing.assert_allclose(robot.triangles.color[-1], [0, 0, 1])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "part.stl",
            "gone.stl",
            r"link boom visual: mesh 'package://any/meshes/gone.stl' not",
        ),
        ("part.stl", "torn.obj", r"link boom visual: mesh .*torn.obj: .*"),
        ("part.stl", "empty.stl", r"link boom visual: mesh .*empty.stl: .*"),
        ("part.stl", "nan.obj", r"mesh .*nan.obj: NaN"),
        (
            'scale="0.1 0.1 0.1"',
            'scale="1 1 1e300"',
            r"link boom visual scale: '1 1 1e300'",
        ),
        ("<robot", "<robt", r"not XML"),
        (
            '<parent link="base"/>',
            '<parent link="bsae"/>',
            r"joint turn: parent link 'bsae'",
        ),
        ('<parent link="base"/>', "", r"joint turn: parent link None"),
        ('type="revolute"', 'type="hinge"', r"joint turn: type 'hinge', need revolute"),
        ('mimic joint="grip"', 'mimic joint="grab"', r"joint follow: mimics 'grab'"),
        (
            'upper="0.04"/>',
            'upper="1"/><mimic joint="follow"/>',
            r"mimics itself in a circle",
        ),
        (
            'mimic joint="grip"',
            'mimic joint="grip" offset="x"',
            r"follow mimic offset: 'x'",
        ),
        ('lower="-1"', 'lower="3"', r"joint turn: limits 3 to 2, need"),
        ('lower="-1"', 'lower="nan"', r"joint turn: limits nan to 2, need"),
        ('axis xyz="0 0 1"', 'axis xyz="0 0 nan"', r"joint turn: '0 0 nan', need 3 x a"),
        ('axis xyz="0 0 1"', 'axis xyz="0 0 0"', r"axis too small .*turn"),
        (
            '<origin xyz="0 0 0.2"/>',
            '<origin xyz="0 0"/>',
            r"link boom visual: '0 0', need 3",
        ),
        (
            '<box size="0.2 0.2 0.1"/>',
            '<box size="1 1 -1"/>',
            r"link base visual: box of size",
        ),
        (
            '<box size="0.2 0.2 0.1"/>',
            "<cone/>",
            r"link base visual: geometry cone, need mesh",
        ),
        (
            'link="boom"/><child link="left"/>',
            'link="boom"/><child link="boom"/>',
            "parents",
        ),
        ('<parent link="base"/>', '<parent link="left"/>', r"link boom: .*kinematic loop"),
        ('<link name="right"/>', '<link name="right"/><link name="x"/>', r"2 root links"),
        (
            '<link name="right"/>',
            '<link name="right"/><link name="left"/>',
            r"link 'left': .*",
        ),
        ('joint name="grip"', 'joint name="turn"', r"joint 'turn': need a name"),
        ('rgba="1 0 0 1"', 'rgba="red"', r"link base visual color: 'red', need 4"),
    ],
)
def test_each_mistake_has_its_line(folder, old, new, message):
    (folder / "meshes" / "torn.obj").write_text("v 0 0 0\nf 1 2 99\n")
    (folder / "meshes" / "empty.stl").write_bytes(b"")
    (folder / "meshes" / "nan.obj").write_text("v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    assert old in ARM
    with pytest.raises(InputError, match=message) as caught:
        load(folder, ARM.replace(old, new, 1))
    assert "\n" not in str(caught.value) and "arm.urdf" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"not XML"),
        ("<html/>", r"<html>, need <robot> .URDF. or <mujoco>"),
        ('<robot name="r"/>', r"0 links and 0 joints"),
        ('<robot name="r"><link name="a"/></robot>', r"1 links and no joint that moves"),
        (
            '<robot name="r" xmlns:xacro="http://www.ros.org/wiki/xacro">'
            '<link name="base"/><xacro:arm parent="base"/></robot>',
            r"xacro file must be expanded",
        ),
        ("<mujoco><worldbody><body><geom/></body></worldbody></mujoco>", r"MuJoCo: .*"),
        ("<mujoco/>", r"0 links and no joint"),
        (
            '<mujoco><worldbody><body name="a"><joint type="ball"/><geom size="1"/></body>'
            "</worldbody></mujoco>",
            r"no joint that moves",
        ),
        (
            '<mujoco><worldbody><body name="a"><joint/><geom size="1"/><body name="b">'
            '<joint/><geom size="1"/></body></body></worldbody><equality>'
            '<connect body1="b" anchor="0 0 1"/></equality></mujoco>',
            r"kinematic loop",
        ),
        (
            '<mujoco><worldbody><body name="a"><joint name="j"/><geom size="1"/>'
            '<body name="b"><joint name="k"/><geom size="1"/></body></body></worldbody>'
            '<equality><joint joint1="j" joint2="k" polycoef="0 1 1 0 0"/></equality>'
            "</mujoco>",
            r"joint j: coupled by a polynomial",
        ),
    ],
)
def test_what_is_no_robot_has_its_line(folder, text, message):
    with pytest.raises(InputError, match=message) as caught:
        load(folder, text, "other.xml")
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_have_their_line(folder):
    for path in (folder / "none.urdf", folder):
        with pytest.raises(InputError, match="cannot read"):
            load_robot(path)


def test_check_names_joint_frame_and_limit(folder):
    robot = load(folder, ARM)
    good = robot.sample(5)
    np.testing.assert_array_equal(robot.check(good[:, ::-1], ("grip", "turn")), good)
    for row, value, message in (
        (3, 2.5, r"joint turn is 2.5 in frame 3, need -1 to 2"),
        (1, np.nan, r"joint turn is nan in frame 1"),
    ):
        bad = good.copy()
        bad[row, 0] = value
        with pytest.raises(InputError, match=message):
            robot.check(bad)
    with pytest.raises(InputError, match=r"unknown \['wrist'\], missing \['grip'\]"):
        robot.check(good, ("turn", "wrist"))
    with pytest.raises(
        InputError, match=r"q is float32\[5, 1\], need \[T, 2\]: turn, grip"
    ):
        robot.check(good[:, :1])
    with pytest.raises(InputError, match=r"link 'hand' unknown, need one of base, boom"):
        robot.link_index("hand")
    with pytest.raises(InputError, match=r"joint 'knee' unknown, need one of turn, grip"):
        robot.joint_index("knee")


@pytest.mark.skipif(not SHARED.exists(), reason="needs shared robot data")
@pytest.mark.parametrize(
    ("path", "joints", "links", "triangles"),
    [
        ("panda_calvin/data/franka_panda/panda_longer_finger.urdf", 8, 17, 108_000),
        (
            "google_robot_rt1/google_robot_meta_sim_fix_wheel_fix_fingertip.urdf",
            11,
            37,
            13_000,
        ),
        ("widowx_bridge/wx250s.urdf", 7, 14, 11_000),
        ("panda_droid/franka_description/panda.urdf", 8, 26, 181_000),
    ],
)
def test_known_robots_are_whole(path, joints, links, triangles):
    robot = load_robot(SHARED / path)
    assert len(robot.joint_names) == joints and len(robot.link_names) == links
    assert len(robot.triangles.corners) >= triangles
    assert 0.5 < robot.reach < 2


def ends_well(path) -> None:
    try:
        robot = load_robot(path)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert np.isfinite(robot.tree.constant).all() and robot.joint_names


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.integers(0, len(ARM) - 1), st.integers(0, 40), st.text(max_size=4))
@example(0, len(ARM), "<robot")
@example(0, 0, "\ud800")
def test_damaged_text_is_a_robot_or_one_line(folder, start, length, new):
    text = ARM[:start] + new + ARM[start + length :]
    (folder / "damaged.urdf").write_bytes(text.encode("utf-8", "surrogatepass"))
    ends_well(folder / "damaged.urdf")


VALUES = [
    *set(re.findall(r'"(.*?)"', ARM)),
    "nan",
    "inf",
    "1e308",
    "0 0 0",
    "",
    "world",
    "é",
]


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 60), st.integers(0, 3), st.sampled_from(VALUES)),
        min_size=1,
        max_size=3,
    )
)
def test_a_damaged_urdf_is_a_robot_or_one_line(folder, edits):
    """Well-formed XML with wrong values, elements lost and elements twice."""
    root = ElementTree.fromstring(ARM)
    for place, key, value in edits:
        elements = list(root.iter())
        element = elements[place % len(elements)]
        if key < len(element.attrib):
            element.set(list(element.attrib)[key], value)
        elif len(element) and key < 3:
            element.remove(element[place % len(element)])
        else:
            element.append(copy.deepcopy(elements[(7 * place) % len(elements)]))
    ElementTree.ElementTree(root).write(folder / "damaged.urdf")
    ends_well(folder / "damaged.urdf")


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 2000), st.binary(min_size=1, max_size=8))
def test_a_damaged_mesh_is_a_robot_or_one_line(folder, start, new):
    whole = (folder / "meshes" / "part.stl").read_bytes()
    start %= len(whole)
    (folder / "meshes" / "damaged.stl").write_bytes(
        whole[:start] + new + whole[start + 30 :]
    )
    (folder / "damaged_mesh.urdf").write_text(ARM.replace("part.stl", "damaged.stl"))
    ends_well(folder / "damaged_mesh.urdf")
