"""What WristWorld's released training does wrong: switches by name, off by default."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Defects:
    # Targets (train/geometry_targets.py)
    nan_is_identity: bool = False  # a pose that was not recorded becomes the identity
    moved_twice: bool = False  # into the first view's frame: all anchors but the first
    metric_poses: bool = False  # whatever the unit of the points
    # Losses (train/geometry_losses.py)
    poses_by_place: bool = False  # parts are cut from all numbers of a batch in a row
    signed_quaternions: bool = False  # q and -q count as different
    pairs_beyond_image: bool = False  # pairs right of and below the anchor's image count
    one_mean: bool = False  # over the points in front and those behind together
    no_near_plane: bool = False  # pixel errors without bound
    weighed_twice: bool = False  # the projection of points in front
    points_follow: bool = False  # the projection teaches the points too
    stands_back: bool = False  # a camera gains by going back that errs in other ways


NO_DEFECTS = Defects()
RELEASED = Defects(*[True] * len(dataclasses.fields(Defects)))
