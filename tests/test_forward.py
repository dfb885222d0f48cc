"""Forward kinematics against C MuJoCo: poses, Jacobians, batches, derivatives."""

from pathlib import Path
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from w4d_jax.kin import InputError, load_robot

SHARED = Path(__file__).parents[2] / "shared" / "data" / "robots"
URDFS = sorted(SHARED.rglob("*.urdf"))
POSES, POSITION, JACOBIAN = 1000, 1e-5, 1e-4  # count, metres, metres or radians a radian

ARM = """
<robot name="arm">
  <link name="base"/> <link name="turret"/> <link name="boom"/> <link name="rail"/>
  <link name="left"/> <link name="right"/> <link name="tip"/> <link name="mark"/>
  <joint name="follow" type="revolute">
    <parent link="rail"/> <child link="right"/>
    <origin xyz="0.1 -0.02 0" rpy="0.3 0 0"/> <axis xyz="0 0 -1"/>
    <limit lower="-3" upper="3"/> <mimic joint="grip" multiplier="-2" offset="0.25"/>
  </joint>
  <joint name="pan" type="continuous">
    <parent link="base"/> <child link="turret"/>
    <origin xyz="0 0 0.4" rpy="0.1 -0.2 0.3"/> <axis xyz="0 0 1"/>
  </joint>
  <joint name="lift" type="revolute">
    <parent link="turret"/> <child link="boom"/>
    <origin xyz="0.2 0 0.1" rpy="1.5707963 0 0"/> <axis xyz="1 2 -1"/>
    <limit lower="-1" upper="2"/>
  </joint>
  <joint name="slide" type="prismatic">
    <parent link="boom"/> <child link="rail"/>
    <origin xyz="0.5 0 0"/> <axis xyz="1 0 1"/> <limit lower="-0.2" upper="0.3"/>
  </joint>
  <joint name="grip" type="revolute">
    <parent link="rail"/> <child link="left"/>
    <origin xyz="0.1 0.02 0"/> <axis xyz="0 0 1"/> <limit lower="0" upper="0.8"/>
  </joint>
  <joint name="weld" type="fixed">
    <parent link="left"/> <child link="tip"/> <origin xyz="0.05 0 0" rpy="0 0.5 0"/>
  </joint>
  <joint name="paint" type="fixed">
    <parent link="base"/> <child link="mark"/> <origin xyz="0 1 0" rpy="0 0 1"/>
  </joint>
</robot>
"""

# Several joints to a body, anchors off the origin, references, a coupling, a fixed joint.
WALKER = """
<mujoco model="walker">
  <compiler angle="radian"/>
  <worldbody>
    <body name="trunk" pos="1 2 0.5" quat="0.9 0.1 0.2 0.3">
      <freejoint/>
      <geom size="0.1"/>
      <body name="thigh" pos="0 0 -0.2" euler="0.3 0.2 0.1">
        <joint name="roll" axis="1 0 0" pos="0 0.1 0.05" range="-1 1" ref="0.2"/>
        <joint name="pitch" axis="0 1 0.3" pos="0.02 0 0.1" range="-2 1"/>
        <geom size="0.05"/>
        <body name="shank" pos="0 0 -0.4">
          <joint name="knee" axis="0 1 0" pos="0 0 0.1" range="-2 2" ref="-0.3"/>
          <geom size="0.05"/>
          <body name="toe" pos="0.1 0 0">
            <joint name="ram" type="slide" axis="1 1 0" ref="0.05" range="-0.1 0.1"/>
            <joint name="stuck" axis="0 0 1"/>
            <geom size="0.02"/>
          </body>
        </body>
      </body>
    </body>
  </worldbody>
  <equality>
    <joint joint1="knee" joint2="pitch" polycoef="0.1 -1.5 0 0 0"/>
    <joint joint1="stuck" polycoef="0.4 0 0 0 0"/>
  </equality>
</mujoco>
"""


@pytest.fixture(scope="module")
def arm(tmp_path_factory):
    path = tmp_path_factory.mktemp("arm") / "arm.urdf"
    path.write_text(ARM)
    return load_robot(path)


@pytest.fixture(scope="module")
def walker(tmp_path_factory):
    path = tmp_path_factory.mktemp("walker") / "walker.xml"
    path.write_text(WALKER)
    return load_robot(path)


def mimics(path) -> dict[str, tuple[str, float, float]]:
    """What the URDF says, read here again: follower -> (leader, multiplier, offset)."""
    return {
        joint.get("name"): (
            entry.get("joint"),
            float(entry.get("multiplier", 1)),
            float(entry.get("offset", 0)),
        )
        for joint in ElementTree.parse(path).getroot().iter("joint")
        for entry in joint.iter("mimic")
        if joint.get("type") != "fixed"
    }


def compare(robot, followers, constants=()) -> None:
    """Poses and Jacobians of every link on POSES random joint vectors against mj_kinematics
    and mj_jac."""
    model, count = robot.mj_model, len(robot.joint_names)
    data = mujoco.MjData(model)
    rest = np.array(data.qpos)
    address = {model.joint(j).name: model.jnt_qposadr[j] for j in range(model.njnt)}
    column = {model.joint(j).name: model.jnt_dofadr[j] for j in range(model.njnt)}
    spread = np.zeros((model.nv, count))  # how fast each coordinate follows each free joint
    for j, name in enumerate(robot.joint_names):
        spread[column[name], j] = 1
    for name, (leader, slope, _) in followers.items():
        spread[column[name]] = slope * spread[column[leader]]
    bodies = [model.body(name).id for name in robot.link_names]

    def both(q):
        return robot.link_poses(q), jax.jacfwd(robot.link_poses)(q)

    q = robot.sample(POSES, seed=1)
    poses, slopes = map(np.asarray, jax.jit(jax.vmap(both))(q))
    assert poses.shape == (POSES, len(robot.link_names), 4, 4)
    np.testing.assert_array_equal(
        poses[..., 3, :], np.broadcast_to([0, 0, 0, 1], poses.shape[:-1])
    )
    # Turning: dR R' = [w]x
    turns = np.einsum("nlabj,nlcb->nlacj", slopes[:, :, :3, :3], poses[:, :, :3, :3])
    spins = np.stack([turns[:, :, 2, 1], turns[:, :, 0, 2], turns[:, :, 1, 0]], 2)
    moved, turned = np.zeros((3, model.nv)), np.zeros((3, model.nv))
    worst = np.zeros(4)
    for n in range(POSES):
        data.qpos[:] = rest
        for j, name in enumerate(robot.joint_names):
            data.qpos[address[name]] = q[n, j]
        for name, (leader, slope, shift) in followers.items():
            data.qpos[address[name]] = slope * data.qpos[address[leader]] + shift
        for name, value in constants:
            data.qpos[address[name]] = value
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        rotations = data.xmat[bodies].reshape(-1, 3, 3)
        gaps = [
            np.abs(data.xpos[bodies] - poses[n, :, :3, 3]).max(),
            np.abs(rotations - poses[n, :, :3, :3]).max(),
            0.0,
            0.0,
        ]
        for i, body in enumerate(bodies):
            mujoco.mj_jac(model, data, moved, turned, data.xpos[body], body)
            gaps[2] = max(gaps[2], np.abs(moved @ spread - slopes[n, i, :3, 3]).max())
            gaps[3] = max(gaps[3], np.abs(turned @ spread - spins[n, i]).max())
        worst = np.maximum(worst, gaps)
    assert (worst[:2] < POSITION).all() and (worst[2:] < JACOBIAN).all(), worst


def test_a_urdf_arm_moves_as_in_mujoco(arm):
    assert arm.joint_names == ("pan", "lift", "slide", "grip")
    compare(arm, mimics(arm.path))


def test_an_mjcf_tree_moves_as_in_mujoco(walker):
    assert walker.joint_names == ("roll", "pitch", "ram")
    # x - x0 = c0 + c1 (y - y0): knee + 0.3 = 0.1 - 1.5 pitch
    compare(walker, {"knee": ("pitch", -1.5, -0.2)}, [("stuck", 0.4)])


@pytest.mark.skipif(not SHARED.exists(), reason="needs shared robot data")
@pytest.mark.parametrize("path", URDFS, ids=lambda path: path.stem)
def test_known_robots_move_as_in_mujoco(path):
    compare(load_robot(path), mimics(path))


def test_the_arm_agrees_with_hand_calculation(arm):
    """Only `slide` moves from zero: rail runs along (1, 0, 1)/sqrt(2) of boom's frame."""
    boom, rail, mark = map(arm.link_index, ("boom", "rail", "mark"))
    poses = np.asarray(arm.link_poses(jnp.array([[0, 0, 0, 0.0], [0, 0, 0.2, 0]])))
    step = poses[1, rail, :3, 3] - poses[0, rail, :3, 3]
    along = poses[0, boom, :3, :3] @ np.array([1, 0, 1]) / np.sqrt(2)
    np.testing.assert_allclose(step, 0.2 * along, atol=1e-6)
    np.testing.assert_allclose(poses[0, mark, :3, 3], [0, 1, 0], atol=1e-7)


def test_every_way_to_batch_gives_the_same_poses(arm):
    q = arm.sample(6000)  # large enough to be worked off in blocks
    many = np.asarray(arm.link_poses(q))
    few = np.asarray(arm.link_poses(q[:6].reshape(2, 3, -1)))
    np.testing.assert_allclose(few.reshape(6, *many.shape[1:]), many[:6], atol=1e-6)
    last = np.asarray(jax.vmap(arm.link_poses)(q[-6:]))
    np.testing.assert_allclose(last, many[-6:], atol=1e-6)
    assert arm.link_poses(q[0]).shape == many.shape[1:]
    assert arm.link_poses(q[:0]).shape == (0, *many.shape[1:])


def test_gradients_agree_through_blocks_and_modes(arm):
    q = jnp.asarray(arm.sample(2050))
    tip = arm.link_index("tip")

    def height(q):
        return arm.link_poses(q)[..., tip, 2, 3].sum()

    blocks = np.asarray(jax.jit(jax.grad(height))(q))
    single = np.asarray(jax.jit(jax.vmap(jax.jacfwd(height)))(q[:50]))
    np.testing.assert_allclose(blocks[:50], single, atol=1e-5)
    assert np.isfinite(blocks).all()


def test_wrong_joint_count_names_the_joints(arm):
    with pytest.raises(InputError, match=r"\(2, 3\).*must be 4.*pan, lift, slide, grip"):
        arm.link_poses(jnp.zeros((2, 3)))
