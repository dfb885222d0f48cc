"""What is compared, and the baseline that every model must beat: nothing ever moves.

A video is a `data.result.Result`, generated or true. Frame 0 is the model's input and is
never scored.
"""

import numpy as np
from scipy.ndimage import distance_transform_edt

from w4d_jax.data.result import Result, view_result
from w4d_jax.kin.camera import to_camera
from w4d_jax.types import InputError, View

NEAREST = 1e-3  # metres; unknown points sit in the camera's centre, give or take rounding


def depth(video: Result) -> np.ndarray:
    """f32[T,H,W] metres along the optical axis; 0 where unknown or behind the camera."""
    z = np.asarray(to_camera(video.pointmap, video.camera.cam_from_world))[..., 2]
    return np.where(z > NEAREST, z, np.float32(0))


def robot_surface(view: View) -> np.ndarray:
    """The robot's points f32[T,H,W,3] from kinematics, world; read them where it is."""
    return view_result(view._replace(depth=view.robot_depth)).pointmap


def check_pair(prediction: Result, truth: Result, name: str) -> None:
    """InputError unless the two can be compared."""
    got, want = ("x".join(map(str, video.rgb.shape[:3])) for video in (prediction, truth))
    if got != want:
        raise InputError(f"{name}: prediction is {got}, truth {want} (TxHxW); resample one")
    bad = ~np.isfinite(prediction.pointmap).all((1, 2, 3))
    if bad.any():
        raise InputError(f"{name}: prediction pointmap holds NaN in frame {bad.argmax()}")


def repeat_first_frame(truth: Result, name: str) -> Result:
    """The baseline. Pixels without a point in the first frame take the nearest pixel's."""
    if len(truth.rgb) < 2:
        raise InputError(f"{name}: 1 frame, need 2 or more (frame 0 is input, not scored)")
    unknown = depth(truth)[0] == 0
    if unknown.all():
        raise InputError(f"{name}: truth pointmap has no known point in frame 0")
    nearest = distance_transform_edt(unknown, return_distances=False, return_indices=True)
    row, column = np.asarray(nearest)
    points = truth.pointmap[0, row, column]
    return truth._replace(
        rgb=np.broadcast_to(truth.rgb[0], truth.rgb.shape),
        pointmap=np.broadcast_to(points, truth.pointmap.shape),
    )
